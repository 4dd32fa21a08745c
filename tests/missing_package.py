"""A package that is not installed: neither its module nor its distributions are there, in this process or in that of a program."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

WITHOUT = """
import pytest
from missing_package import take_away
take_away(pytest.MonkeyPatch(), {package!r})
"""


def take_away(patch: pytest.MonkeyPatch, package: str) -> None:
    """Take away the package of a module's name from this process, while `patch` lasts."""
    distributions, version = metadata.packages_distributions()[package], metadata.version

    def version_of_others(name: str) -> str:
        if name in distributions:
            raise metadata.PackageNotFoundError(name)
        return version(name)

    patch.setattr(metadata, "version", version_of_others)
    patch.setitem(sys.modules, package, None)


def without(package: str) -> str:
    """Return the first lines of a program from which the package of a module's name is taken away."""
    return f"import sys; sys.path.append({__file__.rpartition('/')[0]!r})" + WITHOUT.format(package=package)
