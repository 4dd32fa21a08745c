"""One case down the whole line: draw inputs -> export -> build | load and run -> measure -> blame -> explain by known causes -> judge."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actconform.comparison.comparator import comparison, structural
from actconform.comparison.memory import with_layouts_named
from actconform.comparison.metamorphic import RelationChecks
from actconform.comparison.side_effects import behaviour, refused_layouts
from actconform.comparison.varying import varying_answers
from actconform.errors import ExportError, GoldenError, NoGoldens, Unavailable, Unsupported, WorkerError
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import facts
from actconform.run.other_ranks import OtherRanks, asking, at_other_ranks, refused_shapes, without_refused
from actconform.run.subject import LayerRun, subject_of
from actconform.run.training_case import run_training
from actconform.testdata.golden.store import Golden, load
from actconform.testdata.golden.training_goldens import check_initial_state
from actconform.testdata.repetition import calls_of, repeated_calls
from actconform.testdata.training_tasks import training_task
from actconform.testdata.training_vectors import bounded_step, free_running
from actconform.types import DRIVER_EXPORTER, TRAINING, Blame, Case, FindingClass, Kernel, Result, Route, Verdict
from actconform.types.dtypes import DTYPES, TRAINED_DTYPE
from actconform.types.model import LOSS, Model
from actconform.verdict.blame import blame, breach, by_drawing, by_optimizer
from actconform.verdict.causes.explain import Explanation, Situation, plainly
from actconform.verdict.judge import judge
from actconform.verdict.reevaluate import Reevaluation
from actconform.verdict.severity import graded
from actconform.workers.protocol import Call, Job
from actconform.workers.session import fault_message

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from pathlib import Path

    from actconform.comparison.comparator import Comparison
    from actconform.comparison.varying import VaryingAnswers
    from actconform.plugin.interfaces import Backend
    from actconform.plugin.loader import Catalog
    from actconform.run.export_cache import Exports
    from actconform.run.subject import Subject
    from actconform.testdata.golden.store import Manifest
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.testdata.training_vectors import BoundedStep
    from actconform.types import Artifact, Bundle, Finding, Measurement
    from actconform.types.cause import Register
    from actconform.types.training import Experiment, Forms
    from actconform.types.training_run import TrainingTask
    from actconform.workers.client import Worker
    from actconform.workers.protocol import Failure, JobResult

CACHE_BYTES = 5 << 27  # bytes: those of the built-in subjects are 580 MB, and routes that start late generate none anew
THOROUGH_DTYPE = "f32"  # in which side effects are asked for, and calls of models are repeated most
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
        self._drawing: dict[Hashable, threading.Lock] = {}
        self._kept: OrderedDict[tuple[str, str, str, bool], TestVectors] = OrderedDict()
        self._nbytes = 0
        self._goldens: dict[str, Golden] = {}
        self._tasks: dict[str, TrainingTask] = {}
        self._free: dict[tuple[str, Forms], TestVectors] = {}
        self._first_steps: dict[str, BoundedStep] = {}

    def generate(self, subject: Kernel | Model, case: Case) -> TestVectors:
        """Return the test vectors of a case. Raises GoldenError where its goldens are damaged."""
        key = (case.subject, case.aspect, case.dtype, case.constants)
        with self._of(key):
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            drawn = self._drawn(subject, case)
            with self._lock:
                self._kept[key] = drawn
                self._nbytes += drawn.nbytes
                while self._nbytes > CACHE_BYTES and len(self._kept) > 1:
                    self._nbytes -= self._kept.popitem(last=False)[1].nbytes
            return drawn

    def _of(self, key: Hashable) -> threading.Lock:
        """Return the lock of one subject: others have what was drawn before meanwhile."""
        with self._lock:
            return self._drawing.setdefault(key, threading.Lock())

    def task(self, experiment: Experiment) -> TrainingTask:
        """Return the numbers of an experiment. Raises GoldenError where its goldens are damaged, or begin with another state."""
        with self._of(experiment.name):
            if experiment.name not in self._tasks:
                task = training_task(experiment)
                check_initial_state(task, load(self._folder, self._manifest, experiment.name))
                self._tasks[experiment.name] = task
            return self._tasks[experiment.name]

    def free_running(self, task: TrainingTask, forms: Forms) -> TestVectors:
        """Return the losses that the first steps come to by themselves, with an optimizer of these forms."""
        key = (task.experiment.name, forms)
        with self._of(key):
            if key not in self._free:
                self._free[key] = free_running(task, forms, DTYPES[TRAINED_DTYPE])
            return self._free[key]

    def first_step(self, task: TrainingTask) -> BoundedStep:
        """Return what the first step of an experiment computes from its initial state, which is the same on all routes."""
        name = task.experiment.name
        with self._of((name, "first step")):
            if name not in self._first_steps:
                truth, bounds = bounded_step(task.experiment, {**task.batch(0), **task.state}, DTYPES[TRAINED_DTYPE])
                self._first_steps[name] = truth._replace(layers={LOSS: truth.loss}), bounds  # layers may be large
            return self._first_steps[name]

    def _drawn(self, subject: Kernel | Model, case: Case) -> TestVectors:
        golden = self._goldens.get(subject.name)
        if golden is None:  # two threads may both read the file, which does no harm
            golden = self._goldens[subject.name] = load(self._folder, self._manifest, subject.name)
        return subject_of(subject).vectors(case, golden)


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
        line = _training if case.aspect == TRAINING else _down_the_line
        result = line(case, context, clock)
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
        result = _ended_by_worker(case, error, "export" if clock.stage == "export" else "run", context)
    except Exception as error:  # noqa: BLE001  a fault of actconform costs one case too, and is named
        result = ended(case, Verdict.ERROR, clock.stage, f"a fault in actconform: {fault_message(error)}")
    return msgspec.structs.replace(graded(result), seconds=time.perf_counter() - started)


def _training(case: Case, context: CaseContext, clock: _Clock) -> Result:
    outcome = run_training(case, context, clock)
    if outcome.failure is not None:
        return _failed(case, outcome.failure, outcome.implementation)
    situation = _situation(case, context, None)
    explained = Explanation(plainly(outcome.findings, situation.case, situation.active), [])
    result = _judged(case, outcome.findings, explained, situation, outcome.implementation, {})
    return msgspec.structs.replace(
        result,
        export=outcome.export,
        measurements=tuple(outcome.measurements),
        curve=outcome.curve,
        timings=dict(clock.seconds),
    )


def _down_the_line(case: Case, context: CaseContext, clock: _Clock) -> Result:
    subject = context.catalog.subject(case.subject)
    line = subject_of(subject)
    backend = context.catalog.backends[context.catalog.worker(case)]
    with clock("draw"):
        drawn = context.vector_cache.generate(subject, case)
        test_vectors = _for_route(drawn, case, backend)
    with clock("export"):
        graph = artifact_for(subject, case, context)
        breaches = line.gates(graph, case) if graph and context.exports else []
        of_graph = line.graph_findings(graph, case) if graph and context.exports and not breaches else []
    described = facts(graph) if graph and context.exports else {}
    if graph and breaches:
        result = _refused(case, context, graph, [breach(*broken) for broken in breaches])
        return msgspec.structs.replace(result, export=described, timings=dict(clock.seconds))
    relation_checks = RelationChecks(case.subject, case.aspect, test_vectors)
    with clock("export"):
        job = job_for(subject, case, test_vectors, relation_checks, graph)
    with clock("worker"):
        outcome = context.worker.run(job, context.timeout)
        if outcome.altered:
            context.worker.renew()  # the next case is to find the process as this one did
    if outcome.failure is None:
        question = _Question(subject, drawn, test_vectors, relation_checks, graph, of_graph, job)
        result = _of_answers(case, context, clock, question, outcome)
    else:
        of_graph += _fails_itself(job, outcome.failure)
        if not (of_graph and graph):
            return _failed(case, outcome.failure, outcome.implementation)
        result = _refused(case, context, graph, of_graph)
    timings = _timings(clock.seconds, outcome.timings) if outcome.failure is None else dict(clock.seconds)
    return msgspec.structs.replace(result, export=described, timings=timings)


class _Question(NamedTuple):
    """What a case asked: its subject, all test vectors and those of its route, the graph and what is wrong with it, the worker's job."""

    subject: Kernel | Model
    drawn: TestVectors
    test_vectors: TestVectors
    relation_checks: RelationChecks
    graph: Artifact | None
    of_graph: list[Finding]
    job: Job


def _of_answers(case: Case, context: CaseContext, clock: _Clock, question: _Question, outcome: JobResult) -> Result:
    """Return the result of a case whose program answered: compared, blamed, explained by causes, judged."""
    subject, drawn, test_vectors, relation_checks, graph, of_graph, job = question
    line, backend = subject_of(subject), context.catalog.backends[context.catalog.worker(case)]
    answers = varying_answers(test_vectors, outcome)
    of_job, answered_job, answers = without_refused(test_vectors, job, outcome, answers)
    with clock("ranks"):
        ranks = _at_other_ranks(subject, case, graph, drawn, context)
    answered = msgspec.structs.replace(of_job, vectors=[*of_job.vectors, *ranks.vectors])
    with clock("compare"):
        compared = comparison(answered, [*answers.nearest[: len(of_job.vectors)], *ranks.outputs])
        compared = compared._replace(findings=with_layouts_named(answered, compared))
        broken, unlimited = _broken_relations(of_job, relation_checks, answers, compared)
    measurements, findings = compared.measurements, compared.findings + broken
    findings += behaviour(test_vectors, outcome, backend.provider, context.facts, unlimited=unlimited)
    with clock("blame"):
        reevaluation = _reevaluation(answered_job, answered, relation_checks, ranks, compared)
        findings = _blamed(findings, subject, answered_job, of_job, reevaluation, context)
        findings = of_graph + [by_drawing(finding, of_graph) for finding in findings]
    shown = (outcome.intermediates, outcome.statistics)
    layers = LayerRun(graph, answered_job, of_job.vectors[0].inputs, *shown, _run_job(context))
    of_layers, wrong_layers, silent = _of_layers(line, layers, clock)
    measurements, findings = measurements + of_layers, wrong_layers + findings
    situation = _situation(case, context, job.artifact)
    with clock("causes"):
        explained = _explained(line, answered, compared, findings, situation)
    findings += explained.outside
    result = _judged(case, findings, explained, situation, outcome.implementation, outcome.placement)
    reasons = [
        result.reason,
        line.first_error(answered, answers.nearest[0], findings),
        silent,
        refused_layouts(outcome, [call.layout for call in job.calls]),
        refused_shapes(job, outcome, ranks),
    ]
    return msgspec.structs.replace(
        result,
        reason="; ".join(filter(None, reasons)),
        findings=tuple(
            finding
            if finding.deviation
            else msgspec.structs.replace(finding, candidates=line.candidates(answered, compared, finding, situation))
            for finding in result.findings
        ),
        measurements=tuple(measurements),
    )


def _for_route(drawn: TestVectors, case: Case, backend: type[Backend]) -> TestVectors:
    """Return what the route of a case is asked: how a runtime takes sizes and layouts, our own graphs show; an exporter may fix a size."""
    exported = Route.of(case.route).exported
    few = backend.compiles_per_shape or exported
    return drawn.asked(few=few, graph=case.exporter is not None, layouts=not exported)


def _ended_by_worker(case: Case, error: WorkerError, stage: str, context: CaseContext) -> Result:
    """Return the result of a case whose worker gave no answer: XFAIL where a registered cause covers that its process dies."""
    if error.kind == "crash" and stage != "export":
        situation = _situation(case, context, None)
        finding = structural(FindingClass.CRASH, "", "", str(error).splitlines()[0].partition(";")[0])
        covers = plainly([finding], situation.case, situation.active)
        if covers:
            return _judged(case, [finding], Explanation(covers, []), situation, "", {})
    return ended(case, VERDICT_OF[error.kind], stage, str(error))


def _at_other_ranks(
    subject: Kernel | Model,
    case: Case,
    graph: Artifact | None,
    test_vectors: TestVectors,
    context: CaseContext,
) -> OtherRanks:
    """Ask the graph that we write of a kernel again for each of these ranks; those of exporters take the ranks that they declare."""
    if graph is None or case.exporter != DRIVER_EXPORTER or isinstance(subject, Model):
        return OtherRanks([], [], {}, [])
    backend = context.catalog.backends[context.catalog.worker(case)]
    by_rank = test_vectors.of_other_ranks(compiles_per_shape=backend.compiles_per_shape)
    return at_other_ranks(subject, case, graph, by_rank, _run_job(context))


def _of_layers(line: Subject, run: LayerRun, clock: _Clock) -> tuple[list[Measurement], list[Finding], str]:
    """Return the measurements and findings of a model's layers, and in words what its program does not give."""
    case = run.job.case
    if not line.layered or case.aspect != "value" or case.constants:
        return [], [], ""
    with clock("layers"):
        return *line.layer_findings(run), line.not_given(run)


def _reevaluation(
    job: Job, test_vectors: TestVectors, relation_checks: RelationChecks, ranks: OtherRanks, compared: Comparison
) -> Reevaluation | None:
    if job.artifact is None:
        return None
    return Reevaluation(job.artifact, test_vectors, relation_checks, ranks.artifacts, compared)


def _broken_relations(
    test_vectors: TestVectors, relation_checks: RelationChecks, answers: VaryingAnswers, compared: Comparison
) -> tuple[list[Finding], bool]:
    """Return the findings of metamorphic relations that every answer breaks, and whether answers differ by more than limits allow."""
    asked = len(test_vectors.vectors)
    broken = relation_checks.violations(answers.nearest[asked:])
    if not answers.vary:
        return broken, False
    always = {finding.relation for finding in relation_checks.violations(answers.farthest[asked:])}
    unlimited = answers.breaks_limits(test_vectors, compared) or {finding.relation for finding in broken} != always
    return [finding for finding in broken if finding.relation in always], unlimited


def job_for(
    subject: Kernel | Model,
    case: Case,
    test_vectors: TestVectors,
    relation_checks: RelationChecks,
    graph: Artifact | None,
) -> Job:
    """Return the worker's job: a call for each test vector, in order, then those of the metamorphic relations, then all again."""
    line = subject_of(subject)
    calls = [asking(vector) for vector in test_vectors.vectors]
    calls += [Call(*call) for call in relation_checks.calls()]
    sizes = [sum(array.size for array in (*call.inputs.values(), *(call.cotangents or {}).values())) for call in calls]
    # What a runtime does beside its answers is the same for every graph, so our own are enough; side effects are, in every dtype.
    ours = case.exporter in (None, DRIVER_EXPORTER)
    thorough = ours and case.dtype == THOROUGH_DTYPE
    again = repeated_calls(sizes, calls_of(subject, thorough=thorough) if ours else 0)
    if graph is None:
        shown = line.layered and case.aspect == "value"
        statistics = shown and line.trained
        return Job(case, None, calls, "", shown, statistics, repeated=again, side_effects=thorough)
    part = line.graph_for(graph, case.aspect, list(test_vectors.vectors[0].truth))
    return Job(case, part, [line.call_for(call, part) for call in calls], repeated=again, side_effects=thorough)


def _refused(case: Case, context: CaseContext, graph: Artifact, findings: Sequence[Finding]) -> Result:
    """Return the result of a case whose graph breaks a gate, so that no runtime sees it, or fails in the runtime by itself."""
    situation = _situation(case, context, None)
    explained = Explanation(plainly(findings, situation.case, situation.active), [])
    return _judged(case, findings, explained, situation, graph.path, {})


def _fails_itself(job: Job, failure: Failure) -> list[Finding]:
    """Return a finding `shape` where the graph, evaluated by us, fails at the call at which the runtime failed."""
    if job.artifact is None or failure.call is None or failure.kind != "error":
        return []
    call = job.calls[failure.call]
    try:
        CorrectlyRoundedEvaluator(job.artifact.model).forward(call.inputs)
    except Unsupported:
        return []
    except ValueError as error:
        sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in list(call.inputs.items())[:2])
        finding = breach(FindingClass.SHAPE, f"the graph itself fails with {sizes}: {error}")
        authored = job.case.exporter == DRIVER_EXPORTER
        return [msgspec.structs.replace(finding, blame=Blame.AUTHORED_GRAPH)] if authored else [finding]
    return []


def _run_job(context: CaseContext) -> Callable[[Job], JobResult]:
    return lambda job: context.worker.run(job, context.timeout)


def _blamed(
    findings: list[Finding],
    subject: Kernel | Model,
    job: Job,
    test_vectors: TestVectors,
    reevaluation: Reevaluation | None,
    context: CaseContext,
) -> list[Finding]:
    blamed = [blame(finding, subject, job.case, reevaluation) for finding in findings]
    if job.artifact and any(finding.blame == Blame.RUNTIME and finding.worst for finding in blamed):
        backend = context.catalog.backends[context.catalog.worker(job.case)]
        again = lambda level: _answers(job, level, test_vectors, context)  # noqa: E731  one line, used once
        return by_optimizer(blamed, test_vectors, backend.levels, backend.optimizers, again)
    return blamed


def _answers(job: Job, level: str, test_vectors: TestVectors, context: CaseContext) -> list[Bundle] | None:
    """Return the answers at another optimization level, or None where the runtime does not answer there."""
    try:
        again = msgspec.structs.replace(job, level=level, repeated=(), side_effects=False)
        outcome = context.worker.run(again, context.timeout)
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


def begin_export(case: Case, context: CaseContext) -> None:
    """Begin the export of a case that comes soon, where its route has one."""
    if case.exporter is not None and context.exports is not None and case.aspect != TRAINING:
        with contextlib.suppress(Exception):  # what fails here fails in the case itself, which says it
            subject = context.catalog.subject(case.subject)
            constants = subject_of(subject).constants(case)
            context.exports.begin(subject, case.dtype, case.exporter, context.timeout, constants)


def _failed(case: Case, failure: Failure, implementation: str) -> Result:
    reason = f"out of memory: {failure.message}" if failure.kind == "memory" else failure.message
    return ended(case, VERDICT_OF[failure.kind], failure.stage, reason, implementation)


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
