"""Whether a process grows from call to call: measured only where one has grown by much."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SUSPECT = 32 << 20  # bytes beyond the answers over all calls of a job; caches and thread pools stay below
CALLS = 6  # of the first round; each round has twice as many as the one before
ROUNDS = 5  # after the first: 378 calls in all
LEAK = 256 << 10  # bytes a call
MOST = 512 << 20  # bytes, which no cache of one program's small answers needs


def resident() -> int:
    """Return the bytes of memory that this process occupies; 0 where the system does not tell (/proc is Linux's)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _give_back() -> None:
    """Have glibc return what is free to the system, out of which a process could grow unseen."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def growth(call: Callable[[], object]) -> int:
    """Return by how many bytes the process grows at each call, where it does so without coming to rest; else 0.

    A cache with a limit fills, and rests: a round of calls in which the process does not grow ends the question. It grows without
    rest where that round does not come within 378 calls, or before 512 MiB are taken.
    """
    _give_back()
    started = before = resident()
    rates = []
    for number in range(ROUNDS + 1):
        made = 0
        while made < CALLS << number and not (number and resident() - started > MOST):
            call()
            made += 1
        after = resident()
        if made:
            rates.append((after - before) // made)
        if rates[-1] < LEAK:
            return 0
        before = after
    return min(rates)
