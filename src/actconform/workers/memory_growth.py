"""Measures whether a process grows from call to call, only where it has grown by much already."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SUSPECT = 32 << 20  # bytes beyond the outputs over all calls of a job; caches and thread pools stay below
CALLS = 6  # of the first round; each round has twice as many as the one before
ROUNDS = 5  # after the first: 378 calls in all
LEAK = 256 << 10  # bytes a call
MOST = 512 << 20  # bytes, which no cache of one program's small outputs needs


def resident() -> int:
    """Return the bytes of memory that this process occupies; 0 where the system does not report it (/proc is Linux's)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _give_back() -> None:
    """Have glibc return what is free to the system, out of which a process could grow unseen."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def growth(call: Callable[[], object]) -> int:
    """Return by how many bytes the process grows at each call, where it never stops growing; else 0.

    A cache with a limit fills and then stays: a round of calls without growth ends the measurement with 0. The process counts
    as growing where no such round comes within 378 calls, or before 512 MiB are taken.
    """
    _give_back()
    started = before = resident()
    rates = []
    for number in range(ROUNDS + 1):
        calls = 0
        while calls < CALLS << number and not (number and resident() - started > MOST):
            call()
            calls += 1
        after = resident()
        if calls:
            rates.append((after - before) // calls)
        if rates[-1] < LEAK:
            return 0
        before = after
    return min(rates)
