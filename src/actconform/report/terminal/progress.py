"""Progress of a run: bars on a terminal (backend, kernel, rate, time left), a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from actconform.report.reasons import abbreviate
from actconform.report.terminal.live_bar import PLAIN_SECONDS
from actconform.text import visible
from actconform.types import BAD, Route

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from rich.console import Console
    from rich.progress import Task

    from actconform.types import Case, Result
    from actconform.workers.protocol import Handshake


class RunProgress(Protocol):
    """What a run reports: a backend that started, or the reason why not, and each result."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def started(self, backend: str, hello: Handshake | str) -> None: ...

    def advance(self, result: Result) -> None: ...


def progress_for(cases: Sequence[Case], console: Console) -> RunProgress:
    """Return bars for a terminal, plain lines for a log."""
    totals = Counter(case.backend for case in cases)
    bars = console.is_terminal and not console.is_dumb_terminal
    return _Bars(totals, console) if bars else _Lines(totals, console)


def _not_started_reason(hello: Handshake | str) -> str:
    return abbreviate(hello if isinstance(hello, str) else hello.unavailable)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> str:
        return f"{task.speed:.0f}/s" if task.speed and task.fields["runs"] else ""


class _Bars:
    def __init__(self, totals: Counter[str], console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[doing]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
        )
        self._tasks = {
            backend: self._progress.add_task(backend, total=total, doing="starting", runs=True, start=False)
            for backend, total in totals.items()
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, backend: str, hello: Handshake | str) -> None:
        reason = _not_started_reason(hello)
        self._progress.update(self._tasks[backend], doing="not started" if reason else "", runs=not reason)
        self._progress.start_task(self._tasks[backend])

    def advance(self, result: Result) -> None:
        task = self._tasks[Route.of(result.route).backend]
        if self._progress.tasks[task].fields["runs"]:
            self._progress.update(task, doing=result.subject)
        self._progress.advance(task)


class _Lines:
    def __init__(self, totals: Counter[str], console: Console) -> None:
        self._totals = totals
        self._console = console
        self._done: Counter[str] = Counter()
        self._started: set[str] = set()
        self._bad = 0
        self._next = time.monotonic() + PLAIN_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def started(self, backend: str, hello: Handshake | str) -> None:
        if backend in self._started:
            return  # once for each framework whose exports it runs
        self._started.add(backend)
        reason = _not_started_reason(hello)
        self._print(f"{backend}: not started: {reason}" if reason else f"{backend}: started")

    def advance(self, result: Result) -> None:
        self._done[Route.of(result.route).backend] += 1
        self._bad += result.verdict in BAD
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PLAIN_SECONDS
            done = ", ".join(f"{backend} {self._done[backend]}/{total}" for backend, total in self._totals.items())
            self._print(f"{done}; {self._bad} not conforming so far")

    def _print(self, line: str) -> None:
        self._console.print(visible(line), markup=False, soft_wrap=True)
