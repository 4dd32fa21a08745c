"""The memory of the machine, as its operating system reports it."""

from __future__ import annotations

import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int:
    """Return the bytes available without swapping, or 0 where the machine does not report it."""
    try:
        match = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMINFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0
