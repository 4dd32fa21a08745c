"""Whether a process grows from call to call: measured only where one has grown by much."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SUSPECT = 32 << 20  # bytes beyond the answers over all calls of a job; caches and thread pools stay below
CALLS = 6  # in each of two rounds: what fills once does so in the first
LEAK = 256 << 10  # bytes a call


def resident() -> int:
    """Return the bytes of memory that this process occupies; 0 where the system does not tell (/proc is Linux's)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def growth(call: Callable[[], object]) -> int:
    """Return by how many bytes the process grows at each call, where it does so steadily; else 0."""
    readings = [resident()]
    for _ in range(2):
        for _ in range(CALLS):
            call()
        readings.append(resident())
    steady = min(after - before for before, after in pairwise(readings)) // CALLS
    return steady if steady >= LEAK else 0
