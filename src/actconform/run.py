"""A run, as one straight line: select -> draw inputs -> build | export + load -> run -> measure -> judge -> record."""

from __future__ import annotations

import platform
import queue
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.blame import blame
from actconform.compare.answers import behaviour, compare
from actconform.draw import Exam, draw
from actconform.golden.store import Golden, GoldenError, Manifest, load
from actconform.interfaces import Unsupported
from actconform.judge import judge
from actconform.onnx.author import author
from actconform.types import Case, Result, Verdict
from actconform.workers.pool import Worker, WorkerError
from actconform.workers.protocol import Call, Hello, Job
from actconform.workers.session import fault_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from actconform.config import Config
    from actconform.plugins import Catalog
    from actconform.types import Artifact, Deviation, Kernel
    from actconform.workers.protocol import Failure, Outcome

START_TIMEOUT = 120.0  # a cold import of TensorFlow from a slow disk
EXAMS_KEPT = 24
VERDICT_OF = {
    "unsupported": Verdict.UNSUPPORTED,
    "unavailable": Verdict.UNAVAILABLE,
    "error": Verdict.ERROR,
    "memory": Verdict.CRASH,
    "crash": Verdict.CRASH,
    "timeout": Verdict.TIMEOUT,
    "handshake": Verdict.ERROR,
    "closed": Verdict.ERROR,
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run needs to know: the selected cases, what is installed, the settings, the goldens, the register."""

    cases: Sequence[Case]
    catalog: Catalog
    config: Config
    folder: Path
    manifest: Manifest
    register: Sequence[Deviation]
    plugins: Sequence[str] = ()


class Exams:
    """Draws the questions of kernel, aspect and dtype once for all routes; keeps the last few. Safe between threads."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], Exam] = OrderedDict()
        self._goldens: dict[str, Golden] = {}

    def draw(self, kernel: Kernel, case: Case) -> Exam:
        """Return the questions of a case. Raises GoldenError where its goldens are damaged."""
        key = (case.subject, case.aspect, case.dtype)
        with self._lock:
            if key not in self._kept:
                if kernel.name not in self._goldens:
                    self._goldens[kernel.name] = load(self._plan.folder, self._plan.manifest, kernel.name)
                self._kept[key] = draw(kernel, case.aspect, case.dtype, self._goldens[kernel.name])
                while len(self._kept) > EXAMS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def run(
    plan: Plan,
    on_start: Callable[[str, Hello | str, float], None],
    on_result: Callable[[Result], None],
) -> None:
    """Run the plan and hand every result to `on_result` as it comes.

    One thread and one worker process a backend; results arrive in the caller's thread. Every selected case ends with exactly
    one result, unless the caller is interrupted: then the workers are ended and KeyboardInterrupt passes on. `on_start` gets
    each backend's Hello, or why it did not start, and the seconds that took, imports included, from that backend's thread.
    A GoldenError in any thread is raised here.
    """
    by_backend = {name: [case for case in plan.cases if case.backend == name] for name in _backends(plan)}
    inbox: queue.Queue[Result | BaseException | None] = queue.Queue()
    exams = Exams(plan)
    stop = threading.Event()
    workers = {name: _worker(plan, name) for name in by_backend}

    def line(name: str) -> None:
        try:
            for result in _backend_results(plan, exams, workers[name], by_backend[name], on_start):
                inbox.put(result)
                if stop.is_set():
                    break
            inbox.put(None)
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            inbox.put(error)

    threads = [threading.Thread(target=line, args=(name,), name=name, daemon=True) for name in by_backend]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            while (item := inbox.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                on_result(item)
    finally:
        stop.set()
        for worker in workers.values():
            worker.close()


def facts_of(hello: Hello) -> dict[str, str]:
    """Return the facts that deviations are held against: the backend's own, and those of its process."""
    return {**hello.facts, "python": hello.python, "platform": hello.platform, "machine": platform.machine()}


def _backends(plan: Plan) -> list[str]:
    return list(dict.fromkeys(case.backend for case in plan.cases))


def _worker(plan: Plan, backend: str) -> Worker:
    settings = plan.config.backends.get(backend)
    return Worker(
        backend,
        python=settings.python if settings else None,
        env=settings.env if settings else None,
        threads=plan.config.threads,
        plugins=plan.plugins,
    )


def _backend_results(
    plan: Plan,
    exams: Exams,
    worker: Worker,
    cases: list[Case],
    on_start: Callable[[str, Hello | str, float], None],
) -> Iterator[Result]:
    name = cases[0].backend
    started = time.perf_counter()
    hello, verdict, why = _start(plan, worker, name)
    on_start(name, hello or why, time.perf_counter() - started)
    facts = facts_of(hello) if hello is not None else {}
    for case in cases:
        yield _ended(case, verdict, "load", why) if verdict else run_case(case, plan, exams, worker, facts)


def _start(plan: Plan, worker: Worker, name: str) -> tuple[Hello | None, Verdict | None, str]:
    """Return the backend's Hello, or the verdict on all its cases and why."""
    for broken in plan.catalog.broken:
        if broken.name == name and name not in plan.catalog.backends:
            return None, Verdict.ERROR, f"plugin {broken.name} ({broken.distribution}) is broken: {broken.reason}"
    try:
        hello = worker.start(START_TIMEOUT)
    except WorkerError as error:
        return None, VERDICT_OF[error.kind], str(error)
    if hello.unavailable:
        return hello, Verdict.UNAVAILABLE, hello.unavailable
    return hello, None, ""


def run_case(case: Case, plan: Plan, exams: Exams, worker: Worker, facts: dict[str, str]) -> Result:
    """Take one case down the whole line. Only GoldenError and KeyboardInterrupt are raised; all else is a result."""
    started = time.perf_counter()
    kernel = plan.catalog.kernels[case.subject]
    clock = _Clock()
    try:
        result = _down_the_line(case, kernel, plan, exams, worker, facts, clock)
    except GoldenError:
        raise
    except Unsupported as error:
        result = _ended(case, Verdict.UNSUPPORTED, clock.stage, str(error))
    except WorkerError as error:
        result = _ended(case, VERDICT_OF[error.kind], "run", str(error))
    except Exception as error:  # noqa: BLE001  a fault of ours costs one case too, and is named
        result = _ended(case, Verdict.ERROR, clock.stage, f"a fault in actconform: {fault_message(error)}")
    return msgspec.structs.replace(result, seconds=time.perf_counter() - started)


def _down_the_line(
    case: Case, kernel: Kernel, plan: Plan, exams: Exams, worker: Worker, facts: dict[str, str], clock: _Clock
) -> Result:
    exam = clock.time("draw", lambda: exams.draw(kernel, case))
    artifact = clock.time("export", lambda: _artifact(kernel, case))
    calls = [Call(question.regime, question.inputs, question.cotangents) for question in exam.questions]
    outcome = clock.time("worker", lambda: worker.run(Job(case, artifact, calls), plan.config.timeout))
    if outcome.failure is not None:
        return _failed(case, outcome.failure, outcome)
    measurements, findings = clock.time("compare", lambda: compare(exam, outcome.outputs))
    findings += behaviour(exam, outcome.mutated, outcome.unsteady)
    judgement = judge(case, [blame(finding, kernel, case) for finding in findings], plan.register, facts)
    new = [finding for finding in judgement.findings if finding.deviation is None]
    return Result(
        case=case.id,
        subject=case.subject,
        aspect=case.aspect,
        dtype=case.dtype,
        route=case.route,
        verdict=judgement.verdict,
        reason=judgement.reason,
        blame=next((finding.blame for finding in (*new, *judgement.findings)), ""),
        implementation=outcome.implementation,
        findings=judgement.findings,
        measurements=tuple(measurements),
        timings=_timings(clock.seconds, outcome.timings),
    )


def _timings(driver: dict[str, float], worker: dict[str, float]) -> dict[str, float]:
    """Return seconds by stage.

    What the worker did beside the program's own calls is `checks` (were inputs changed, is the answer the same again);
    what the driver waited beyond the worker's work is `messages`.
    """
    build = worker.get("build", 0.0) + worker.get("load", 0.0)
    run_ = worker.get("run", 0.0)
    stages = {stage: seconds for stage, seconds in driver.items() if stage != "worker"}
    inside = worker.get("worker", build + run_)
    checks, messages = inside - build - run_, driver["worker"] - inside
    return {**stages, "build": build, "run": run_, "checks": checks, "messages": messages}


class _Clock:
    """Seconds by stage, and the stage that the case is at."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stage = "draw"

    def time(self, stage: str, step: Callable[[], Any]) -> Any:
        self.stage = stage
        started = time.perf_counter()
        try:
            return step()
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def _artifact(kernel: Kernel, case: Case) -> Artifact | None:
    return author(kernel, case.dtype) if case.exporter else None


def _failed(case: Case, failure: Failure, outcome: Outcome) -> Result:
    reason = f"out of memory: {failure.message}" if failure.kind == "memory" else failure.message
    return _ended(case, VERDICT_OF[failure.kind], failure.stage, reason, outcome.implementation)


def _ended(case: Case, verdict: Verdict, stage: str, reason: str, implementation: str = "") -> Result:
    return Result(
        case=case.id,
        subject=case.subject,
        aspect=case.aspect,
        dtype=case.dtype,
        route=case.route,
        verdict=verdict,
        stage=stage,
        reason=reason,
        implementation=implementation,
    )
