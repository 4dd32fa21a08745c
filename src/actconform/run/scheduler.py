"""A run, as one straight line: select -> draw inputs -> build | export + load -> run -> measure -> judge -> record."""

from __future__ import annotations

import queue
import threading
import time
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
    lines = _lines(plan)
    inbox: queue.Queue[Result | BaseException | None] = queue.Queue()
    vector_cache = VectorCache(plan.folder, plan.manifest)
    stop = threading.Event()
    workers = [
        (worker_for(plan, line.backend), worker_for(plan, line.source) if line.source else None) for line in lines
    ]

    def line_results(number: int) -> None:
        worker, exporting = workers[number]
        exports = Exports(exporting, cache_folder()) if exporting else None
        try:
            context = CaseContext(plan.catalog, plan.register, plan.config.timeout, vector_cache, worker, exports, {})
            for result in _line_results(plan, lines[number], context, exporting, on_start):
                inbox.put(result)
                if stop.is_set():
                    break
            inbox.put(None)
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            inbox.put(error)
        finally:
            if exports:
                exports.close()

    threads = [threading.Thread(target=line_results, args=(number,), daemon=True) for number in range(len(lines))]
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
        _end([worker for pair in workers for worker in pair if worker], threads)


def _next_item(inbox: queue.Queue[Result | BaseException | None]) -> Result | BaseException | None:
    while True:
        try:
            return inbox.get(timeout=WAKE_SECONDS)
        except queue.Empty:
            continue


def _end(workers: Iterable[Worker], threads: Iterable[threading.Thread]) -> None:
    for worker in workers:
        worker.close()
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


def _lines(plan: Plan) -> list[Line]:
    lines: dict[tuple[str, str], Line] = {}
    for case in plan.cases:
        exporter = plan.catalog.exporter(case)
        key = (plan.catalog.worker(case), exporter.source if exporter else "")
        lines.setdefault(key, Line(*key, [])).cases.append(case)
    return list(lines.values())


def worker_for(plan: Plan, backend: str) -> Worker:
    """Return the worker of a backend under the plan's settings, not yet started."""
    return configured_worker(backend, plan.config, plan.plugins)


def _line_results(
    plan: Plan,
    line: Line,
    context: CaseContext,
    exporting: Worker | None,
    on_start: Callable[[str, Handshake | str, float], None],
) -> Iterator[Result]:
    started = time.perf_counter()
    hello, verdict, reason = _start(plan, context.worker, line.backend)
    earlier = plan.earlier
    facts = _facts(hello if verdict is None else None, exporting) if earlier else {}
    on_start(line.backend, hello or reason, time.perf_counter() - started)
    if hello is not None:
        context = msgspec.structs.replace(context, facts=facts_of(hello))
    if earlier:
        earlier.validate_facts(line.name, facts, line.cases)
    if verdict:
        yield from (_earlier(plan, case) or ended(case, verdict, "load", reason) for case in line.cases)
        return
    upcoming = (case for case in line.cases if not _earlier(plan, case))
    for case in islice(upcoming, EXPORTED_AHEAD - 1):
        begin_export(case, context)
    for case in line.cases:
        for following in islice(upcoming, 1):
            begin_export(following, context)
        yield _earlier(plan, case) or run_case(case, context)


def _earlier(plan: Plan, case: Case) -> Result | None:
    return plan.earlier.get(case.id) if plan.earlier else None


def _facts(hello: Handshake | None, exporting: Worker | None) -> dict[str, dict[str, str]]:
    """Return what the line's results depend on beside the plan, by backend; nothing where a process did not start.

    Raises WorkerError where the run is over: nothing is known then of what the earlier one found.
    """
    if hello is None:
        return {}
    try:
        greetings = [hello, *([exporting.start()] if exporting else [])]
    except WorkerError as error:
        if error.kind == "closed":
            raise
        return {}  # each case says it
    return {process.backend: {**facts_of(process), "cpu": process.cpu} for process in greetings}


def _start(plan: Plan, worker: Worker, name: str) -> tuple[Handshake | None, Verdict | None, str]:
    """Return the backend's Hello, or the verdict on all its cases and why. Raises WorkerError where the run is over."""
    for broken in plan.catalog.broken:
        if broken.name == name and name not in plan.catalog.backends:
            return None, Verdict.ERROR, broken.message
    try:
        hello = worker.start()
    except WorkerError as error:
        if error.kind == "closed":
            raise
        return None, VERDICT_OF[error.kind], str(error)
    if hello.unavailable:
        return hello, Verdict.UNAVAILABLE, hello.unavailable
    return hello, None, ""
