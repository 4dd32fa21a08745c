"""A program's first lines after which a package is not installed: neither its module nor its distributions are there."""

from __future__ import annotations

TAKEN_AWAY = """
import sys
from importlib import metadata
sys.modules[{package!r}] = None
gone, version = metadata.packages_distributions()[{package!r}], metadata.version
def version_of_the_others(name):
    if name in gone:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = version_of_the_others
"""


def without(package: str) -> str:
    """Return the lines that take away the package of a module's name."""
    return TAKEN_AWAY.format(package=package)
