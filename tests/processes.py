"""The processes that tests start, as the system has them; what they share is imported by name."""

from __future__ import annotations

import signal
from pathlib import Path


def children(pid: int) -> set[int]:
    """Return the processes that one has started and that still run, as Linux tells them in /proc."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.add(int(stat.parent.name))
    return found


def heed_ctrl_c() -> None:
    """Have a child that is about to start end by SIGINT: a background job ignores it, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
