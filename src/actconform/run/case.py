"""One case down the whole line: draw inputs -> export -> build | load and run -> measure -> blame -> explain by known causes -> judge."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from actconform.comparison.comparator import comparison
from actconform.comparison.metamorphic import RelationChecks
from actconform.comparison.side_effects import behaviour
from actconform.errors import ExportError, GoldenError, NoGoldens, Unavailable, Unsupported, WorkerError
from actconform.onnx.gates import facts
from actconform.run.subject import LayerRun, subject_of
from actconform.testdata.golden.store import Golden, load
from actconform.types import DRIVER_EXPORTER, Blame, Case, Kernel, Result, Verdict
from actconform.verdict.blame import blame, breach, by_optimizer
from actconform.verdict.causes.explain import Explanation, Situation, plainly
from actconform.verdict.judge import judge
from actconform.verdict.reevaluate import Reevaluation
from actconform.verdict.severity import graded
from actconform.workers.protocol import Call, Job
from actconform.workers.session import fault_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from actconform.comparison.comparator import Comparison
    from actconform.onnx.gates import Breach
    from actconform.plugin.loader import Catalog
    from actconform.run.export_cache import Exports
    from actconform.run.subject import Subject
    from actconform.testdata.golden.store import Manifest
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Artifact, Bundle, Finding
    from actconform.types.cause import Register
    from actconform.types.model import Model
    from actconform.workers.client import Worker
    from actconform.workers.protocol import Failure, JobResult

CACHE_BYTES = 1 << 29  # bytes: those of the built-in subjects are 331 MB, and routes that start late generate none anew
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


class VectorCache:
    """Generates the test vectors of a subject, aspect and dtype once for all routes, and keeps the last ones. Safe between threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str, bool], TestVectors] = OrderedDict()
        self._nbytes = 0
        self._goldens: dict[str, Golden] = {}

    def generate(self, subject: Kernel | Model, case: Case) -> TestVectors:
        """Return the test vectors of a case. Raises GoldenError where its goldens are damaged."""
        key = (case.subject, case.aspect, case.dtype, case.constants)
        with self._lock:
            if key not in self._kept:
                test_vectors = self._kept[key] = self._drawn(subject, case)
                self._nbytes += test_vectors.nbytes
                while self._nbytes > CACHE_BYTES and len(self._kept) > 1:
                    self._nbytes -= self._kept.popitem(last=False)[1].nbytes
            self._kept.move_to_end(key)
            return self._kept[key]

    def _drawn(self, subject: Kernel | Model, case: Case) -> TestVectors:
        if subject.name not in self._goldens:
            self._goldens[subject.name] = load(self._folder, self._manifest, subject.name)
        return subject_of(subject).vectors(case, self._goldens[subject.name])


class CaseContext(msgspec.Struct, frozen=True):
    """What all cases of a line share: plugins, causes, worker, exports, facts."""

    catalog: Catalog
    register: Register
    timeout: float
    vector_cache: VectorCache
    worker: Worker
    exports: Exports | None
    facts: dict[str, str]


def run_case(case: Case, context: CaseContext) -> Result:
    """Take one case down the whole line. Only GoldenError and KeyboardInterrupt are raised; all else is a result."""
    started = time.perf_counter()
    clock = _Clock()
    try:
        result = _down_the_line(case, context, clock)
    except NoGoldens as error:
        result = ended(case, Verdict.ERROR, "draw", str(error))
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
    except Exception as error:  # noqa: BLE001  a fault of actconform costs one case too, and is named
        result = ended(case, Verdict.ERROR, clock.stage, f"a fault in actconform: {fault_message(error)}")
    return msgspec.structs.replace(graded(result), seconds=time.perf_counter() - started)


def _down_the_line(case: Case, context: CaseContext, clock: _Clock) -> Result:
    subject = context.catalog.subject(case.subject)
    line = subject_of(subject)
    with clock("draw"):
        test_vectors = context.vector_cache.generate(subject, case)
    with clock("export"):
        graph = artifact_for(subject, case, context)
        breaches = line.gates(graph, case) if graph and context.exports else []
    described = facts(graph) if graph and context.exports else {}
    if graph and breaches:
        result = _refused(case, context, graph, breaches)
        return msgspec.structs.replace(result, export=described, timings=dict(clock.seconds))
    relation_checks = RelationChecks(case.subject, case.aspect, test_vectors)
    with clock("export"):
        job = job_for(subject, case, test_vectors, relation_checks, graph)
    with clock("worker"):
        outcome = context.worker.run(job, context.timeout)
        if outcome.altered:
            context.worker.renew()  # the next case is to find the process as this one did
    if outcome.failure is not None:
        return _failed(case, outcome.failure, outcome)
    with clock("compare"):
        compared = comparison(test_vectors, outcome.outputs[: len(test_vectors.vectors)])
    measurements, findings = compared.measurements, compared.findings
    findings += relation_checks.violations(outcome.outputs[len(test_vectors.vectors) :])
    provider = context.catalog.backends[context.catalog.worker(case)].provider
    findings += behaviour(test_vectors, outcome, provider, context.facts)
    with clock("blame"):
        findings = _blamed(findings, subject, job, test_vectors, relation_checks, context)
    if line.layered and case.aspect == "value" and not case.constants:
        with clock("layers"):
            layers = LayerRun(graph, job, test_vectors.vectors[0].inputs, outcome.intermediates, _run_job(context))
            of_layers, wrong_layers = line.layer_findings(layers)
        measurements, findings = measurements + of_layers, wrong_layers + findings
    situation = _situation(case, context, job.artifact)
    with clock("causes"):
        explained = _explained(line, test_vectors, compared, findings, situation)
    findings += explained.outside
    result = _judged(case, findings, explained, situation, outcome.implementation, outcome.placement)
    first = line.first_error(test_vectors, outcome.outputs[0], findings)
    result = msgspec.structs.replace(
        result,
        reason="; ".join(filter(None, (result.reason, first))),
        findings=tuple(
            finding
            if finding.deviation
            else msgspec.structs.replace(
                finding, candidates=line.candidates(test_vectors, compared, finding, situation)
            )
            for finding in result.findings
        ),
    )
    timings = _timings(clock.seconds, outcome.timings)
    return msgspec.structs.replace(result, export=described, measurements=tuple(measurements), timings=timings)


def job_for(
    subject: Kernel | Model,
    case: Case,
    test_vectors: TestVectors,
    relation_checks: RelationChecks,
    graph: Artifact | None,
) -> Job:
    """Return the worker's job: a call for each test vector, in order, then the calls that the metamorphic relations need."""
    line = subject_of(subject)
    calls = [Call(vector.regime, vector.inputs, vector.cotangents) for vector in test_vectors.vectors]
    calls += [Call(*call) for call in relation_checks.calls()]
    if graph is None:
        return Job(case, None, calls, intermediates=line.layered and case.aspect == "value", side_effects=True)
    part = line.graph_for(graph, case.aspect, list(test_vectors.vectors[0].truth))
    # Of graphs our own are enough: what a runtime does beside its answers is the same for all.
    return Job(case, part, [line.call_for(call, part) for call in calls], side_effects=case.exporter == DRIVER_EXPORTER)


def _refused(case: Case, context: CaseContext, graph: Artifact, breaches: Sequence[Breach]) -> Result:
    """Return the result of a case whose graph breaks a gate: no runtime sees it."""
    findings = [breach(*broken) for broken in breaches]
    situation = _situation(case, context, None)
    explained = Explanation(plainly(findings, situation.case, situation.active), [])
    return _judged(case, findings, explained, situation, graph.path, {})


def _run_job(context: CaseContext) -> Callable[[Job], JobResult]:
    return lambda job: context.worker.run(job, context.timeout)


def _blamed(
    findings: list[Finding],
    subject: Kernel | Model,
    job: Job,
    test_vectors: TestVectors,
    relation_checks: RelationChecks,
    context: CaseContext,
) -> list[Finding]:
    reevaluation = Reevaluation(job.artifact, test_vectors, relation_checks) if job.artifact else None
    blamed = [blame(finding, subject, job.case, reevaluation) for finding in findings]
    if job.artifact and any(finding.blame == Blame.RUNTIME and finding.worst for finding in blamed):
        backend = context.catalog.backends[context.catalog.worker(job.case)]
        again = lambda level: _answers(job, level, test_vectors, context)  # noqa: E731  one line, used once
        return by_optimizer(blamed, test_vectors, backend.levels, backend.optimizers, again)
    return blamed


def _answers(job: Job, level: str, test_vectors: TestVectors, context: CaseContext) -> list[Bundle] | None:
    """Return the answers at another optimization level, or None where the runtime does not answer there."""
    try:
        outcome = context.worker.run(msgspec.structs.replace(job, level=level, side_effects=False), context.timeout)
    except WorkerError:
        return None
    return outcome.outputs[: len(test_vectors.vectors)] if outcome.failure is None else None


def _situation(case: Case, context: CaseContext, graph: Artifact | None) -> Situation:
    registered = context.catalog.registered(case)
    active = context.register.active(registered, context.facts)
    model = graph.model if graph else None
    return Situation(registered, context.register, active, context.facts, context.catalog.kernels, model)


def _explained(
    subject: Subject,
    test_vectors: TestVectors,
    compared: Comparison,
    findings: Sequence[Finding],
    situation: Situation,
) -> Explanation:
    """Return which findings of a case have a known cause; what lies outside a formula is blamed on what computes."""
    explained = subject.explain(test_vectors, compared, findings, situation)
    computes = Blame.RUNTIME if situation.graph else Blame.FRAMEWORK
    outside = [msgspec.structs.replace(finding, blame=computes) for finding in explained.outside]
    return explained._replace(outside=outside)


def _judged(
    case: Case,
    findings: Sequence[Finding],
    explained: Explanation,
    situation: Situation,
    implementation: str,
    placement: dict[str, tuple[str, ...]],
) -> Result:
    judgement = judge(findings, explained.covers, [cause.id for cause in situation.active])
    return Result(
        case=case.id,
        subject=case.subject,
        aspect=case.aspect,
        dtype=case.dtype,
        route=case.route,
        verdict=judgement.verdict,
        reason=judgement.reason,
        implementation=implementation,
        placement=placement,
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

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the seconds of what is done inside to the stage."""
        self.stage = stage
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def artifact_for(subject: Kernel | Model, case: Case, context: CaseContext) -> Artifact | None:
    """Return the graph of a case, authored or exported, as it is before anything asks a part of it; None on a native route."""
    if case.exporter is None:
        return None
    line = subject_of(subject)
    if context.exports is None:
        return line.author(case.dtype)
    return context.exports.artifact(subject, case.dtype, case.exporter, context.timeout, line.constants(case))


def _failed(case: Case, failure: Failure, outcome: JobResult) -> Result:
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
