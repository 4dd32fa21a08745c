"""Which worker gets which cases: a line stays where its processes are, and gets another worker where its rest pays for a second start."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from actconform.run.scheduler import Line
    from actconform.types import Case

LATEST = 0.5  # the share of the latest task in what a case is expected to take: subjects come by kind, and kinds differ
START: tuple[Case, ...] = ()  # the first task of a line: without cases


class PlacedLine:
    """A line with the tasks that wait, the workers that have its processes, and what its start and its cases take in seconds."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.waiting: deque[Sequence[Case]] = deque([START])
        self.homes: set[str] = set()
        self._start_seconds = 0.0
        self._case_seconds: float | None = None

    def started(self, seconds: float, tasks: Iterable[Sequence[Case]]) -> None:
        """Take what the start took, and the tasks that come of it."""
        self._start_seconds = seconds
        self.waiting.extend(tasks)

    def ran(self, cases: int, seconds: float) -> None:
        """Take what a task of so many cases took."""
        latest = seconds / cases
        before = latest if self._case_seconds is None else self._case_seconds
        self._case_seconds = LATEST * latest + (1.0 - LATEST) * before

    @property
    def seconds_left(self) -> float:
        """What the waiting tasks are expected to take; 0 before the first has ended."""
        return (self._case_seconds or 0.0) * sum(map(len, self.waiting))

    def pays_elsewhere(self, workers: Collection[str]) -> bool:
        """Return whether it ends earlier with one worker more, which starts its processes too; a line without a worker needs one."""
        homes = len(self.homes.intersection(workers))
        return not homes or self.seconds_left > homes * self._start_seconds


class LinePlacement:
    """The lines of a run and the tasks that each worker has: at most as many as its threads, and of each line at most one."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = [PlacedLine(line) for line in sorted(lines, key=lambda line: -len(line.cases))]
        self._busy: dict[str, list[PlacedLine]] = {}

    @property
    def waits(self) -> bool:
        """Whether any task has not been given to a worker."""
        return any(line.waiting for line in self._lines)

    def tasks(self, threads: Mapping[str, int]) -> Iterator[tuple[str, PlacedLine, Sequence[Case]]]:
        """Yield worker, line and cases of what threads that have nothing are to run. `threads` has all workers that there are."""
        for worker, count in threads.items():
            busy = self._busy.setdefault(worker, [])
            while len(busy) < count and (line := self._next_line(worker, busy, threads)):
                busy.append(line)
                line.homes.add(worker)
                yield worker, line, line.waiting.popleft()

    def ended(self, worker: str, line: PlacedLine) -> None:
        """Take back the thread that ran a task of the line."""
        self._busy[worker].remove(line)

    def _next_line(self, worker: str, busy: Sequence[PlacedLine], workers: Collection[str]) -> PlacedLine | None:
        """Return a line whose processes the worker has, the shortest, so that long ones are left to share; else the longest that pays."""
        lines = [line for line in self._lines if line.waiting and line not in busy]
        starts = [line for line in lines if not line.waiting[0]]
        if starts:
            return starts[0]
        at_home = [line for line in lines if worker in line.homes]
        if at_home:
            return min(at_home, key=lambda line: line.seconds_left)
        paying = [line for line in lines if line.pays_elsewhere(workers)]
        return max(paying, key=lambda line: line.seconds_left, default=None)
