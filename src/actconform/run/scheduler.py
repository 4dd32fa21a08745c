"""A run, as one straight line: select -> draw inputs -> build | export + load -> run -> measure -> judge -> record."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import msgspec

from actconform.errors import WorkerError
from actconform.run.case import VERDICT_OF, CaseContext, VectorCache, begin_export, ended, run_case
from actconform.run.export_cache import Exports, cache_folder
from actconform.testdata.golden.store import collected, golden_dir
from actconform.types import Case, Result, Verdict
from actconform.verdict.causes.register import with_files
from actconform.workers.from_settings import configured_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.testdata.golden.store import Manifest
    from actconform.types.cause import Register
    from actconform.workers.client import Worker
    from actconform.workers.protocol import Handshake

JOIN_SECONDS = 5.0  # for a thread that compares or explains when the run is interrupted
EXPORTED_AHEAD = 4  # cases whose graphs are made while others are compared
WAKE_SECONDS = 0.5  # a Ctrl-C that comes just before a wait without end would not end it
PROCESS_FACTS = ("python", "platform", "machine", "cpu_features")  # what every worker reports of its own process


class ResumeStore(Protocol):
    """What a run that was cut short left behind, and what this one leaves: each result is taken only under its facts."""

    def validate_facts(self, line: str, facts: Mapping[str, Mapping[str, str]], cases: Sequence[Case]) -> None:
        """Drop the results of the line's cases where its processes' facts are not those of the earlier run, or not had."""

    def get(self, case: str) -> Result | None:
        """Return the result of a case that need not run again."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run needs to know: the selected cases, what is installed, the settings, the goldens, the register.

    `earlier` gets each line's facts before its first case, and is looked up for each case's result before it is run.
    """

    cases: Sequence[Case]
    catalog: Catalog
    config: Config
    folder: Path
    manifest: Manifest
    register: Register
    plugins: Sequence[str] = ()
    earlier: ResumeStore | None = None


def plan_of(catalog: Catalog, config: Config, cases: Sequence[Case] = ()) -> Plan:
    """Return the plan of a run of `cases` with all goldens, and the causes that plugins and settings know.

    Raises GoldenError as `collected` does, UsageError and RegisterError where a register of the settings is none.
    """
    folder = golden_dir()
    return Plan(
        cases=cases,
        catalog=catalog,
        config=config,
        folder=folder,
        manifest=collected(folder, catalog.goldens),
        register=with_files(catalog.register, config.deviations),
    )


def run(
    plan: Plan,
    on_start: Callable[[str, Handshake | str, float], None],
    on_result: Callable[[Result], None],
) -> None:
    """Run the plan and hand every result to `on_result` as it comes.

    One thread and one worker process for each backend, and for each framework whose exports it runs; results arrive in
    the caller's thread. Every selected case ends with exactly one result, unless the caller is interrupted: then the workers
    are ended, and KeyboardInterrupt passes on. `on_start` gets each backend's Hello, or why it did not start, and the seconds
    that took, imports included, and those of the framework that exports for it where it was started too, from that backend's
    thread. A GoldenError in any thread is raised here.
    """
    inbox: queue.Queue[Result | BaseException | None] = queue.Queue()
    vector_cache = VectorCache(plan.folder, plan.manifest)
    stop = threading.Event()
    lines = [OpenLine(plan, line, vector_cache) for line in lines_of(plan)]

    def line_results(line: OpenLine) -> None:
        try:
            for result in _line_results(plan, line, on_start):
                inbox.put(result)
                if stop.is_set():
                    break
            inbox.put(None)
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            inbox.put(error)

    threads = [threading.Thread(target=line_results, args=(line,), daemon=True) for line in lines]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            while (item := _next_item(inbox)) is not None:
                if isinstance(item, BaseException):
                    raise item
                on_result(item)
    finally:
        stop.set()
        _end(lines, threads)


def _next_item(inbox: queue.Queue[Result | BaseException | None]) -> Result | BaseException | None:
    while True:
        try:
            return inbox.get(timeout=WAKE_SECONDS)
        except queue.Empty:
            continue


def close_lines(lines: Sequence[OpenLine]) -> None:
    """End the processes of all lines, all at once: a framework may take a second."""
    with ThreadPoolExecutor(max(len(lines), 1), "closing") as threads:
        list(threads.map(OpenLine.close, lines))


def _end(lines: Sequence[OpenLine], threads: Iterable[threading.Thread]) -> None:
    close_lines(lines)
    for thread in threads:
        if thread.is_alive():  # one that was never started cannot be joined
            thread.join(JOIN_SECONDS)


def facts_of(hello: Handshake) -> dict[str, str]:
    """Return the facts that causes are held against: the backend's own, and those of its process."""
    return {**hello.facts, **{fact: getattr(hello, fact) for fact in PROCESS_FACTS}}


class Line(msgspec.Struct, frozen=True):
    """The cases of one backend whose graphs come from one framework; natively, and with our own graphs, from none."""

    backend: str
    source: str
    cases: list[Case]

    @property
    def name(self) -> str:
        return f"{self.source}+{self.backend}" if self.source else self.backend


def lines_of(plan: Plan) -> list[Line]:
    """Return the lines of a plan, in the order of their first cases."""
    lines: dict[tuple[str, str], Line] = {}
    for case in plan.cases:
        exporter = plan.catalog.exporter(case)
        key = (plan.catalog.worker(case), exporter.source if exporter else "")
        lines.setdefault(key, Line(*key, [])).cases.append(case)
    return list(lines.values())


def worker_for(plan: Plan, backend: str) -> Worker:
    """Return the worker of a backend under the plan's settings, not yet started."""
    return configured_worker(backend, plan.config, plan.plugins)


class LineStart(msgspec.Struct, frozen=True):
    """How a line started: with its backend's handshake, if there is one, or the verdict on all its cases and the reason."""

    hello: Handshake | None
    verdict: Verdict | None
    reason: str


class OpenLine:
    """A line with its processes: that of its backend and, where its graphs are exported, that of the framework. For one thread at a time.

    `close` may be called from any thread.
    """

    def __init__(self, plan: Plan, line: Line, vector_cache: VectorCache) -> None:
        self.line = line
        self._broken = {broken.name: broken.message for broken in plan.catalog.broken if broken.name == line.backend}
        self._exporting = worker_for(plan, line.source) if line.source else None
        exports = Exports(self._exporting, cache_folder()) if self._exporting else None
        worker = worker_for(plan, line.backend)
        self._context = CaseContext(
            plan.catalog, plan.register, plan.config.timeout, vector_cache, worker, exports, facts={}
        )
        self._start: LineStart | None = None

    @property
    def worker(self) -> Worker:
        """The process of the backend."""
        return self._context.worker

    @property
    def catalog(self) -> Catalog:
        """What is installed here."""
        return self._context.catalog

    def start(self) -> LineStart:
        """Start the backend, unless it was before. Raises WorkerError where the run is over."""
        if self._start is None:
            hello, verdict, reason = self._started()
            if hello is not None:
                self._context = msgspec.structs.replace(self._context, facts=facts_of(hello))
            self._start = LineStart(hello, verdict, reason)
        return self._start

    def _started(self) -> tuple[Handshake | None, Verdict | None, str]:
        name, catalog = self.line.backend, self._context.catalog
        if name in self._broken and name not in catalog.backends:
            return None, Verdict.ERROR, self._broken[name]
        try:
            hello = self._context.worker.start()
        except WorkerError as error:
            if error.kind == "closed":
                raise
            return None, VERDICT_OF[error.kind], str(error)
        if hello.unavailable:
            return hello, Verdict.UNAVAILABLE, hello.unavailable
        return hello, None, ""

    def facts(self) -> dict[str, dict[str, str]]:
        """Return what the line's results depend on beside the plan, by backend; nothing where a process did not start.

        Raises WorkerError where the run is over: nothing is known then of what the earlier one found.
        """
        start = self.start()
        if start.hello is None or start.verdict is not None:
            return {}
        try:
            greetings = [start.hello, *([self._exporting.start()] if self._exporting else [])]
        except WorkerError as error:
            if error.kind == "closed":
                raise
            return {}  # each case says it
        return {process.backend: {**facts_of(process), "cpu": process.cpu} for process in greetings}

    def results(self, cases: Iterable[Case]) -> Iterator[Result]:
        """Run these cases of the line, or end them where the backend did not start; graphs are exported ahead."""
        start = self.start()
        if start.verdict:
            yield from (ended(case, start.verdict, "load", start.reason) for case in cases)
            return
        cases = iter(cases)
        ahead: deque[Case] = deque()
        while True:
            for case in islice(cases, EXPORTED_AHEAD - len(ahead)):
                begin_export(case, self._context)
                ahead.append(case)
            if not ahead:
                return
            yield run_case(ahead.popleft(), self._context)

    def close(self) -> None:
        """End the processes, at once where a job runs."""
        if self._context.exports:
            self._context.exports.close()
        for worker in filter(None, (self._context.worker, self._exporting)):
            worker.close()


def _line_results(
    plan: Plan, line: OpenLine, on_start: Callable[[str, Handshake | str, float], None]
) -> Iterator[Result]:
    started = time.perf_counter()
    start = line.start()
    facts = line.facts() if plan.earlier else {}
    on_start(line.line.backend, start.hello or start.reason, time.perf_counter() - started)
    yield from earlier_results(plan, line.line, facts)
    yield from line.results(remaining(plan, line.line.cases))


def earlier_results(plan: Plan, line: Line, facts: Mapping[str, Mapping[str, str]]) -> Iterator[Result]:
    """Yield the results of an earlier run that hold under the line's facts."""
    if plan.earlier:
        plan.earlier.validate_facts(line.name, facts, line.cases)
        yield from filter(None, (plan.earlier.get(case.id) for case in line.cases))


def remaining(plan: Plan, cases: Iterable[Case]) -> list[Case]:
    """Return the cases that the earlier run has no result of, once it knows the facts of their line."""
    return [case for case in cases if not (plan.earlier and plan.earlier.get(case.id))]
