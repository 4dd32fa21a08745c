"""The lowest versions that projects say they take, as constraints of pip: `python -m actconform.lowest PYPROJECT...`."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def lowest(files: Iterable[Path]) -> dict[str, str]:
    """Return the lower bound of each package that is required, by name; of several the highest, for all must hold.

    Extras are included but for "dev" and "test", which are for work on the project. Raises ValueError for a requirement
    without a lower bound.
    """
    bounds: dict[str, Version] = {}
    for file in files:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        texts = [
            *project["dependencies"],
            *(text for name in extras if name not in ("dev", "test") for text in extras[name]),
        ]
        for requirement in map(Requirement, texts):
            if requirement.name.startswith("actconform"):
                continue
            lower = [Version(part.version) for part in requirement.specifier if part.operator in (">=", "==")]
            if not lower:
                raise ValueError(f"{file}: {requirement} has no lower bound: write {requirement.name}>=VERSION")
            bounds[requirement.name] = max(*lower, bounds.get(requirement.name, Version("0")))
    return {name: str(bounds[name]) for name in sorted(bounds)}


def main(arguments: Sequence[str]) -> int:
    """Print one constraint a line."""
    for name, version in lowest(map(Path, arguments)).items():
        print(f"{name}=={version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
