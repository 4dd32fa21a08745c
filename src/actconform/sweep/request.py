"""What a user asks of a sweep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from actconform.errors import UsageError

if TYPE_CHECKING:
    from actconform.exhaustive.patterns import Extent
    from actconform.types import Aspect

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class SweepRequest(NamedTuple):
    """The options of `actconform sweep`: kernels by glob, routes, aspects, which inputs, how many workers, for how long.

    `budget` is a time, "90s", "10m" or "2h", after which no chunk is begun; "" for none.
    """

    patterns: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    aspects: tuple[Aspect, ...] = ("value",)
    extent: Extent = "quick"
    workers: int = 1
    budget: str = ""
    out: Path = Path("sweep-out")
    resume: bool = False

    @property
    def seconds(self) -> float:
        """The budget in seconds, infinite where there is none. Raises UsageError for what is no time."""
        if not self.budget:
            return float("inf")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", self.budget)
        if match is None or not float(match[1]):
            raise UsageError(f"--budget {self.budget}: expected a time such as 90s, 10m or 2h")
        return float(match[1]) * SECONDS[match[2]]
