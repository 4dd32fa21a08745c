"""When a process must have answered, whatever else the machine does at the same time."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Self

import psutil

LONGEST = 5
"""How many times the limit a process may take that other processes leave too little of a processor."""
_PAUSE = 0.25
"""The part of the limit after which such a process is looked at again."""
_SERVED = 0.5
"""Of a processor: what got as much, or waited for something else, was not short of it."""
_AT_REST = 0.05
"""Likewise: what takes less waits for something, perhaps for ever."""
_BRIEF_SECONDS = 0.1
"""Nothing is measured of what ends sooner: it costs milliseconds."""


class Deadline:
    """A limit in seconds for a process of `pid`, longer while it computes and gets less than half of a processor.

    A process that waits or computes at full speed has `seconds`; one that is starved has up to `LONGEST` times as many, so that the
    same case is a timeout on a busy machine and on a quiet one, or on neither. `pid` of None is a process of which nothing is measured.
    """

    def __init__(self, pid: int | None, seconds: float) -> None:
        self.seconds = seconds
        self._pid = pid
        self._began = self._looked = time.monotonic()
        self._end = self._began + seconds
        self._used: float | None = None
        self._looked_used = 0.0

    @classmethod
    def never(cls) -> Self:
        """Return one that does not come."""
        return cls(None, float("inf"))

    def left(self) -> float:
        """Return the seconds until it, or until the process is looked at again; 0 or less where it is past."""
        now = time.monotonic()
        if self._used is None and self._pid is not None and now - self._began > _BRIEF_SECONDS:
            self._look(now)
        elif now >= self._end and self._is_starved(now):
            self._end = min(now + _PAUSE * self.seconds, self._began + LONGEST * self.seconds)
        return self._end - now

    @property
    def words(self) -> str:
        """How long it was, as "120 s", or "300 s, where its limit is 120 s and other processes took the processor"."""
        waited = self._end - self._began
        if waited <= self.seconds:
            return f"{self.seconds:g} s"
        return f"{waited:.0f} s, where its limit is {self.seconds:g} s and other processes took the processor"

    def _is_starved(self, now: float) -> bool:
        if self._used is None:
            return False
        before, since = self._looked_used, self._looked
        self._look(now)
        lately = (self._looked_used - before) / max(now - since, 1e-9)
        return lately > _AT_REST and self._looked_used - self._used < _SERVED * self.seconds

    def _look(self, now: float) -> None:
        seconds = _processor_seconds(self._pid)
        if seconds is not None:
            self._used = seconds if self._used is None else self._used
            self._looked, self._looked_used = now, seconds


def _processor_seconds(pid: int | None) -> float | None:
    """Return how long a process, its children and theirs have had a processor; None where that is unknown."""
    with suppress(OSError, psutil.Error):
        process = psutil.Process(pid)
        times = [process.cpu_times(), *(child.cpu_times() for child in process.children(recursive=True))]
        return float(sum(time.user + time.system + time.children_user + time.children_system for time in times))
    return None
