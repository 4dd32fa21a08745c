"""Ball arithmetic: python-flint, imported where exact truth is computed and nowhere else."""

from __future__ import annotations

import sys
from typing import Any

from actconform.errors import Unavailable
from actconform.plugin.import_failure import imported


def python_flint() -> Any:
    """Return the module `flint`; raise ImportError, with the cause and what to do, where it cannot be imported."""
    if module := sys.modules.get("flint"):  # called for each number
        return module
    try:
        return imported("flint", 'pip install "actconform[golden]"', plugin="actconform", packages=("python-flint",))
    except Unavailable as error:
        raise ImportError(f"exact truth needs python-flint: {error}") from error
