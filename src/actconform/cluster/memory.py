"""Freed memory on a Dask worker: kept for the next arrays, as in a local run."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM = "MALLOC_TRIM_THRESHOLD_"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_KEPT = 32 << 20  # what glibc comes to by itself where nothing is set


def keep_freed_memory() -> None:
    """Undo for this process, and for those that it starts, that Dask's nanny has glibc return freed memory to the system at once.

    With that each array of 128 KiB and more costs a page fault for each of its pages, five times as many as in a local run.
    """
    if os.environ.pop(TRIM, None) is None or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_KEPT)
