"""The gradient rules of the standard's operators, a file a family; importing this imports every file and so registers them."""

from __future__ import annotations

import importlib
import pkgutil

for _family in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_family.name)
