"""One case down the whole line: draw inputs -> export -> build | load and run -> measure -> blame -> judge."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.blame import blame, breach, by_optimizer
from actconform.compare.answers import behaviour, compare
from actconform.draw import Exam, draw
from actconform.exports import ExportError
from actconform.golden.store import Golden, GoldenError, load
from actconform.interfaces import Unavailable, Unsupported
from actconform.judge import judge
from actconform.onnx.artifact import facts, inspect
from actconform.onnx.author import author
from actconform.types import Case, Result, Verdict
from actconform.witness import Witnesses
from actconform.workers.pool import WorkerError
from actconform.workers.protocol import Call, Job
from actconform.workers.session import fault_message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from actconform.exports import Exports
    from actconform.golden.store import Manifest
    from actconform.plugins import Catalog
    from actconform.types import Artifact, Bundle, Deviation, Finding, Kernel
    from actconform.workers.pool import Worker
    from actconform.workers.protocol import Failure, Outcome

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


class Exams:
    """Draws the questions of kernel, aspect and dtype once for all routes; keeps the last few. Safe between threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], Exam] = OrderedDict()
        self._goldens: dict[str, Golden] = {}

    def draw(self, kernel: Kernel, case: Case) -> Exam:
        """Return the questions of a case. Raises GoldenError where its goldens are damaged."""
        key = (case.subject, case.aspect, case.dtype)
        with self._lock:
            if key not in self._kept:
                if kernel.name not in self._goldens:
                    self._goldens[kernel.name] = load(self._folder, self._manifest, kernel.name)
                self._kept[key] = draw(kernel, case.aspect, case.dtype, self._goldens[kernel.name])
                while len(self._kept) > EXAMS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


class Desk(msgspec.Struct, frozen=True):
    """What a line works with."""

    catalog: Catalog
    register: Sequence[Deviation]
    timeout: float
    exams: Exams
    worker: Worker
    exports: Exports | None
    facts: dict[str, str]


def run_case(case: Case, desk: Desk) -> Result:
    """Take one case down the whole line. Only GoldenError and KeyboardInterrupt are raised; all else is a result."""
    started = time.perf_counter()
    clock = _Clock()
    try:
        result = _down_the_line(case, desk, clock)
    except GoldenError:
        raise
    except Unsupported as error:
        result = ended(case, Verdict.UNSUPPORTED, clock.stage, str(error))
    except Unavailable as error:
        result = ended(case, Verdict.UNAVAILABLE, clock.stage, str(error))
    except ExportError as error:
        result = ended(case, Verdict.ERROR, "export", str(error))
    except WorkerError as error:
        result = ended(case, VERDICT_OF[error.kind], "export" if clock.stage == "export" else "run", str(error))
    except Exception as error:  # noqa: BLE001  a fault of ours costs one case too, and is named
        result = ended(case, Verdict.ERROR, clock.stage, f"a fault in actconform: {fault_message(error)}")
    return msgspec.structs.replace(result, seconds=time.perf_counter() - started)


def _down_the_line(case: Case, desk: Desk, clock: _Clock) -> Result:
    kernel = desk.catalog.kernels[case.subject]
    exam = clock.time("draw", lambda: desk.exams.draw(kernel, case))
    artifact = clock.time("export", lambda: _artifact(kernel, case, desk))
    breaches = inspect(artifact, kernel, case.dtype) if artifact and desk.exports else []
    described = facts(artifact) if artifact and desk.exports else {}
    if artifact and breaches:
        result = _judged(case, desk, [breach(*found) for found in breaches], implementation=artifact.path)
        return msgspec.structs.replace(result, export=described, timings=dict(clock.seconds))
    calls = [Call(question.regime, question.inputs, question.cotangents) for question in exam.questions]
    job = Job(case, artifact, calls)
    outcome = clock.time("worker", lambda: desk.worker.run(job, desk.timeout))
    if outcome.failure is not None:
        return _failed(case, outcome.failure, outcome)
    measurements, findings = clock.time("compare", lambda: compare(exam, outcome.outputs))
    findings += behaviour(exam, outcome.mutated, outcome.unsteady)
    findings = clock.time("blame", lambda: _blamed(findings, kernel, job, exam, desk))
    result = _judged(case, desk, findings, implementation=outcome.implementation)
    timings = _timings(clock.seconds, outcome.timings)
    return msgspec.structs.replace(result, export=described, measurements=tuple(measurements), timings=timings)


def _blamed(findings: list[Finding], kernel: Kernel, job: Job, exam: Exam, desk: Desk) -> list[Finding]:
    witnesses = Witnesses(job.artifact, exam) if job.artifact else None
    blamed = [blame(finding, kernel, job.case, witnesses) for finding in findings]
    if job.artifact and any(finding.blame == "runtime" and finding.worst for finding in blamed):
        backend = desk.catalog.backends[job.case.backend]
        again = lambda level: _answers(job, level, desk)  # noqa: E731  reads as the question it is
        return by_optimizer(blamed, exam, backend.levels, backend.optimizers, again)
    return blamed


def _answers(job: Job, level: str, desk: Desk) -> list[Bundle] | None:
    """Return the answers at another optimization level, or None where the runtime does not answer there."""
    try:
        outcome = desk.worker.run(msgspec.structs.replace(job, level=level), desk.timeout)
    except WorkerError:
        return None
    return outcome.outputs if outcome.failure is None else None


def _judged(case: Case, desk: Desk, findings: list[Finding], implementation: str) -> Result:
    judgement = judge(case, findings, desk.register, desk.facts)
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
        implementation=implementation,
        findings=judgement.findings,
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


def _artifact(kernel: Kernel, case: Case, desk: Desk) -> Artifact | None:
    if case.exporter is None:
        return None
    if desk.exports is None:
        return author(kernel, case.dtype)
    return desk.exports.artifact(kernel, case.dtype, case.exporter, desk.timeout)


def _failed(case: Case, failure: Failure, outcome: Outcome) -> Result:
    reason = f"out of memory: {failure.message}" if failure.kind == "memory" else failure.message
    return ended(case, VERDICT_OF[failure.kind], failure.stage, reason, outcome.implementation)


def ended(case: Case, verdict: Verdict, stage: str, reason: str, implementation: str = "") -> Result:
    """Return the result of a case that came to no judgement."""
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
