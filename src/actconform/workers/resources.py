"""What a process takes and does not give back: memory, open files, threads, child processes, temporary files."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MEMORY, PAGES = "memory", "pages"
LEAST = {MEMORY: 2 << 10, PAGES: 32 << 10}
"""Bytes at each call: of what malloc and Python's objects take, which is counted to the byte, and of all pages."""
LEAST_OF_PROGRAMS, LEAST_OF_MODELS = {MEMORY: 32 << 10}, {MEMORY: 1 << 20}
"""Bytes for each program, of a kernel and of a model; pages come and go by more than any leak."""
SHARE = 0.25  # of the times must take one of whatever is counted
PROBED, PROBED_OF_MODELS = 4, 3  # times that tell whether there is anything to measure
FIRST = 6  # times in the first round; each round has twice as many as the one before
COUNTED_ROUNDS, ROUNDS = 3, 7  # 42 and 762 times: memory may fill a cache with a limit first
MOST = 512 << 20  # bytes, which no cache of one program's small outputs needs
SECONDS = 1.5  # after which slow calls have shown enough
OBJECT = 32  # bytes, at least, of an object of Python
FEWEST_ROUNDS = 3


def resident() -> int:
    """Return the bytes of memory that this process occupies; 0 where the system does not report it."""
    with suppress(OSError, psutil.Error):
        return int(psutil.Process().memory_info().rss)
    return 0


def resources() -> dict[str, int]:
    """Return how much of each resource this process has, by name, as far as the system tells.

    Bytes of "memory" are there under glibc alone.
    """
    counted = {
        "open files": _open_files(),
        "threads": _entries("/proc/self/task") or threading.active_count(),
        "temporary files": _entries(tempfile.gettempdir()),
        "child processes": _children(),
        MEMORY: _in_use(),
        PAGES: resident() or None,
    }
    return {name: number for name, number in counted.items() if number is not None}


def leak(do: Callable[[], object], least: Mapping[str, int] = LEAST, probed: int = PROBED) -> str:
    """Return in words what `do` takes each time and never gives back: "1 more open files"; empty where it gives all back.

    A few times tell whether there is anything to measure. Then it is done in rounds, each of twice as many times. What comes to
    rest in a round is a cache with a limit, or garbage that Python collects. Of what is counted three rounds tell, of memory seven,
    or as many as it takes to 512 MiB. What other processes do to temporary files meanwhile is too little for that.
    """
    with little_garbage():
        started, first = time.perf_counter(), resident()
        rates: dict[str, float] = {}
        before = resources()
        for number in range(-1, ROUNDS):
            times = FIRST << number if number >= 0 else probed
            for _ in range(times):
                do()
            now = growing(before, least, times)
            rates = {name: rate for name, rate in now.items() if number < 0 or name in rates}
            if not rates:
                return ""
            counted = [name for name in rates if name not in LEAST]
            if counted and number + 1 >= COUNTED_ROUNDS:
                return ", ".join(f"{rates[name]:.2g} more {name}" for name in counted)
            late = number + 1 >= FEWEST_ROUNDS and time.perf_counter() - started > SECONDS
            if late or resident() - first > MOST:
                break
            before = resources()
    return f"{max(rates.values()) / 1024:,.0f} KiB more memory"


def growing(before: Mapping[str, int], least: Mapping[str, int] = LEAST, times: int = 1) -> dict[str, float]:
    """Return by name what has grown since `before`, garbage aside, and how much at each of the times, where it is much enough."""
    rates = _rates(before, least, times)
    if rates:
        gc.collect()
        rates = _rates(before, least, times)
    return rates


def _rates(before: Mapping[str, int], least: Mapping[str, int], times: int) -> dict[str, float]:
    after = resources()
    rates = {name: (after[name] - before[name]) / times for name in before if name in after}
    counted = {name: SHARE for name in rates if name not in LEAST}
    needed = {**dict.fromkeys(LEAST, math.inf), **counted, **least}
    return {name: rate for name, rate in rates.items() if rate >= needed[name]}


@contextmanager
def little_garbage() -> Iterator[None]:
    """Leave what there is out of the search for garbage, so that a search costs nothing."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _entries(folder: str) -> int | None:
    with suppress(OSError):
        return len(os.listdir(folder))  # noqa: PTH208  their number alone is wanted, often
    return None


def _open_files() -> int | None:
    with suppress(OSError, psutil.Error):
        process = psutil.Process()
        return int(process.num_handles() if os.name == "nt" else process.num_fds())
    return None


def _children() -> int | None:
    """Return the number of child processes, those among them that have ended and that nobody has waited for."""
    # Linux tells of one process alone; elsewhere psutil looks through all that run, for milliseconds.
    with suppress(OSError):
        files = [f"/proc/self/task/{thread}/children" for thread in os.listdir("/proc/self/task")]  # noqa: PTH208
        return sum(len(Path(file).read_text(encoding="ascii").split()) for file in files if Path(file).exists())
    with suppress(OSError, psutil.Error):
        return len(psutil.Process().children())
    return None


class _Mallinfo(ctypes.Structure):
    """What glibc's malloc tells of itself."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


@cache
def _mallinfo() -> Any:
    with suppress(OSError, AttributeError):
        function = ctypes.CDLL(None).mallinfo2
        function.restype = _Mallinfo
        return function
    return None


def _in_use() -> int | None:
    """Return the bytes that malloc has given out and not got back, and about those of Python's small objects."""
    function = _mallinfo()
    if function is None:
        return None
    info = function()
    return int(info.uordblks + info.hblkhd) + OBJECT * sys.getallocatedblocks()
