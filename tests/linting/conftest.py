"""Tests of lint make small models as those of checking do."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "checking"):
    sys.path.append(str(folder))
