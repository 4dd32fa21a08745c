"""The memory of the machine, as its operating system reports it."""

from __future__ import annotations

from contextlib import suppress

import psutil


def available_bytes() -> int:
    """Return the bytes available without swapping, or 0 where the machine does not report it."""
    with suppress(OSError, psutil.Error):
        return int(psutil.virtual_memory().available)
    return 0
