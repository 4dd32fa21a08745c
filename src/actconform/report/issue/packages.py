"""The packages with which a finding was seen, as pip calls them, from the facts about them."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = re.compile(r"\d+\.\d.*")


def packages_among(facts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the facts that are versions of packages installed here; of CUDA and drivers there are versions too."""
    names = [name for name, value in facts.items() if VERSION.fullmatch(value) and name != "actconform"]
    return tuple(name for name in names if _is_package(name))


def _is_package(name: str) -> bool:
    try:
        metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return True
