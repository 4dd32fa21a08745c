"""Runs a backend's cases for its contract: every case in one process, watched, and one of them in another process."""

from __future__ import annotations

import time
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from onnx import TensorProto, helper

from actconform.comparison.comparator import structure
from actconform.comparison.layerwise import layerwise
from actconform.comparison.metamorphic import RelationChecks
from actconform.comparison.side_effects import behaviour
from actconform.contract.recording_backend import BACKEND, INSIST, NOTES, PLUGIN, PLUGINS, UNKNOWN, WATCHED, Notes
from actconform.contract.survival import Survival, check_survival
from actconform.errors import NoGoldens, Unsupported, UsageError, WorkerCrash, WorkerTimeout
from actconform.run.case import CaseContext, VectorCache, artifact_for, job_for
from actconform.run.scheduler import facts_of
from actconform.run.select import all_cases
from actconform.testdata.golden.store import collected, golden_dir
from actconform.types import DRIVER_EXPORTER, TRAINING, Artifact, Case, Finding, FindingClass, Route
from actconform.types.model import Model
from actconform.verdict.causes.explain import plainly
from actconform.workers.client import Worker
from actconform.workers.protocol import Call, Job, JobResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.plugin.interfaces import Backend
    from actconform.plugin.loader import Catalog
    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.types import Bundle, Kernel
    from actconform.workers.protocol import Failure, Handshake

SHAPES = 6  # of a case's test vectors: the first, which is the largest, and some of other shapes
DEATHS = 3  # of the process, after which no further case is run
STRUCTURE = (FindingClass.NAMES, FindingClass.SHAPE, FindingClass.DTYPE)


class Setting(NamedTuple):
    """What is checked: subjects as globs; the worker's interpreter, environment and threads; seconds a case; further plugins."""

    subjects: Sequence[str] = ("*",)
    python: str | None = None
    env: Mapping[str, str] = {}
    threads: int = 1
    timeout: float = 60.0
    plugins: Sequence[str] = ()


class CaseRecord(msgspec.Struct, kw_only=True):
    """One case that the backend was given: how it ended, its findings that are not registered, the watch's notes.

    `outcome` is None where the process died, of which `died` tells. With `insisted`, supports had said no.
    """

    case: Case
    outcome: JobResult | None = None
    died: str = ""
    findings: list[Finding] = []
    notes: list[Notes] = []
    insisted: bool = False

    @property
    def answered(self) -> bool:
        """Whether there are outputs of all calls, however the program closed."""
        return self.outcome is not None and (self.outcome.failure is None or not_closed(self.outcome.failure))

    @property
    def refused(self) -> str | None:
        """Why the backend does not do this, in its words; None where it does, or fails."""
        failure = self.outcome.failure if self.outcome else None
        return failure.message if failure and failure.kind in ("unsupported", "unavailable") else None


def not_closed(failure: Failure) -> bool:
    """Whether all went well up to the closing of the program."""
    return failure.stage == "run" and failure.call is None


class Evidence(msgspec.Struct, kw_only=True):
    """All that is known of a backend; no case was run where `hello.unavailable` says why it cannot run here.

    `facts_again` are those of another process; `differs` names a case that has other outputs there.
    """

    name: str
    backend: type[Backend]
    hello: Handshake
    records: list[CaseRecord] = []
    unknown: CaseRecord | None = None
    facts_again: dict[str, str] = {}
    differs: str = ""
    gave_up: bool = False
    survival: Survival = Survival()
    seconds: float = 0.0

    @property
    def all_records(self) -> list[CaseRecord]:
        """All cases that were run, the one that no backend can do among them."""
        return [*([self.unknown] if self.unknown else []), *self.records]

    @property
    def answered(self) -> list[CaseRecord]:
        """The cases that the backend takes and has outputs for."""
        return [record for record in self.records if record.answered and not record.insisted]

    def reasons(self) -> list[tuple[str, int]]:
        """Return why cases were refused, in the backend's words, the most frequent first, their subject as NAME."""
        refusals = [(record.case, record.refused) for record in self.records if record.refused is not None]
        return Counter(reason.replace(case.subject, "NAME") for case, reason in refusals).most_common()


def gather_evidence(
    name: str, catalog: Catalog, setting: Setting, on_case: Callable[[Case], None] = lambda _: None
) -> Evidence:
    """Return what backend `name` of the catalog does with its cases; `on_case` is called with each case beforehand.

    Raises WorkerError where the backend's process cannot start, and UsageError where there is no case.
    """
    started = time.perf_counter()
    cases = _cases(name, catalog, setting.subjects)
    with _worker(name, setting) as plain:
        evidence = Evidence(name=name, backend=catalog.backends[name], hello=plain.start())
        if evidence.hello.unavailable:
            return evidence
        with _worker(WATCHED, setting, watched=name) as watched:
            evidence.facts_again = watched.start().facts
            runner = _CaseRunner(watched, catalog, setting, evidence)
            runner.run_all(cases, on_case)
            evidence.survival = runner.survival()
        evidence.differs = _CaseRunner(plain, catalog, setting, evidence).differing()
    evidence.seconds = time.perf_counter() - started
    return evidence


def _cases(name: str, catalog: Catalog, subjects: Sequence[str]) -> list[Case]:
    """Return the cases on the backend's own route, or through the authored graphs."""
    backend = catalog.backends[name]
    if backend.variants:
        raise UsageError(
            f"{name} runs as one of its variants alone ({', '.join(backend.variants)}): they are no backends"
        )
    route = name if backend.kind == "framework" else f"{DRIVER_EXPORTER}+{name}"
    cases = [
        case
        for case in all_cases(catalog, selected={name})
        if case.route == route
        and case.aspect != TRAINING
        and any(fnmatchcase(case.subject, subject) for subject in subjects)
    ]
    if not cases:
        raise UsageError(f"no kernel or model is called {' or '.join(subjects)}; see `actconform list kernels`")
    return cases


def _worker(name: str, setting: Setting, watched: str = "") -> Worker:
    env, plugins = dict(setting.env), list(setting.plugins)
    if watched:
        env |= {BACKEND: watched, PLUGINS: " ".join(setting.plugins)}
        plugins.append(PLUGIN)
    return Worker(name, python=setting.python, threads=setting.threads, env=env, plugins=plugins)


class _CaseRunner:
    """A worker, and what it needs to run cases."""

    def __init__(self, worker: Worker, catalog: Catalog, setting: Setting, evidence: Evidence) -> None:
        folder = golden_dir()
        self._worker, self._evidence = worker, evidence
        vector_cache = VectorCache(folder, collected(folder, catalog.goldens))
        self._context = CaseContext(
            catalog, catalog.register, setting.timeout, vector_cache, worker, None, facts_of(evidence.hello)
        )

    def run_all(self, cases: Iterable[Case], on_case: Callable[[Case], None]) -> None:
        """Run every case, and one that no backend can do, on the watched backend; give up where its process dies again and again."""
        unknown = _unknown(self._evidence)
        self._evidence.unknown = self._run_job(CaseRecord(case=unknown.case), unknown)
        deaths = 0
        for case in cases:
            on_case(case)
            try:
                record = self._run_case(case)
            except (NoGoldens, Unsupported):
                continue  # there is no truth, or no graph, of it
            if record.outcome and self._evidence.answered:
                record.outcome.outputs = []  # only those of the first answered case are compared later
            self._evidence.records.append(record)
            deaths += bool(record.died)
            if deaths == DEATHS:
                self._evidence.gave_up = True
                return

    def survival(self) -> Survival:
        """Return what is wrong with the tensors that survive optimization, or why there are none to check."""
        backend = self._evidence.backend
        if backend.kind == "framework":
            return Survival(not_applicable="loads no graphs")
        if self._evidence.gave_up:
            return Survival(not_applicable="its process died too often")
        return check_survival(
            lambda job: self._run_job(CaseRecord(case=job.case), job), self._evidence.name, backend.levels
        )

    def differing(self) -> str:
        """Return the first answered case where the outputs of this process differ; empty where they are the same."""
        first = next(iter(self._evidence.answered), None)
        if first is None or first.outcome is None:
            return ""
        again = self._run_job(CaseRecord(case=first.case), self._job(first.case)[0])
        outputs = again.outcome.outputs if again.outcome else []
        same = len(outputs) == len(first.outcome.outputs) and all(map(_same, first.outcome.outputs, outputs))
        return "" if same else first.case.id

    def _run_case(self, case: Case) -> CaseRecord:
        """Build the case first, then call it, so that what is refused costs little; insist where supports says no."""
        record = CaseRecord(case=case)
        subject = self._context.catalog.subject(case.subject)
        self._run_job(record, Job(case, artifact_for(subject, case, self._context), []))
        failure = record.outcome.failure if record.outcome else None
        if failure and failure.stage == "supports" and failure.kind == "unsupported":
            again = self._run_case(msgspec.structs.replace(case, route=f"{case.route}@{INSIST}"))
            if again.answered and not again.findings:
                again.case, again.insisted = case, True
                return again
        if not record.answered:
            return record
        job, test_vectors = self._job(case)
        self._run_job(record, job)
        if record.answered and record.outcome:
            record.findings = self._findings(test_vectors, record.outcome, case, subject)
        return record

    def _job(self, case: Case) -> tuple[Job, TestVectors]:
        subject = self._context.catalog.subject(case.subject)
        test_vectors = self._context.vector_cache.generate(subject, case)
        test_vectors = msgspec.structs.replace(test_vectors, vectors=_few(test_vectors.vectors))
        artifact = artifact_for(subject, case, self._context)
        return job_for(
            subject, case, test_vectors, RelationChecks(case.subject, case.aspect, test_vectors), artifact
        ), test_vectors

    def _findings(
        self, test_vectors: TestVectors, outcome: JobResult, case: Case, subject: Kernel | Model
    ) -> list[Finding]:
        """Return what is wrong beside the numbers, but for what is registered."""
        findings = structure(test_vectors, outcome.outputs[: len(test_vectors.vectors)])
        outcome.changed = []  # the watch has noted it, step by step
        findings += behaviour(test_vectors, outcome, self._evidence.backend.provider, self._evidence.hello.facts)
        if isinstance(subject, Model) and outcome.intermediates is not None:
            inside = layerwise(
                subject, test_vectors.vectors[0].inputs, outcome.intermediates, test_vectors.tolerance.fmt, fused=False
            )[1]
            findings += [finding for finding in inside if finding.class_ in STRUCTURE]
        registered = self._context.catalog.registered(case)
        active = self._context.register.active(registered, self._context.facts)
        return [finding for finding in findings if finding.place not in plainly(findings, registered, active)]

    def _run_job(self, record: CaseRecord, job: Job) -> CaseRecord:
        """Run the job, and record how it ended; of the watched backend the notes too."""
        record.outcome, record.died = None, ""
        watched = self._worker.backend == WATCHED
        if watched:
            job = msgspec.structs.replace(job, case=_under(WATCHED, job.case, self._evidence.name))
        try:
            record.outcome = self._worker.run(job, self._context.timeout)
            if watched:
                notes = self._worker.run(_notes_job(job.case), self._context.timeout)
                record.notes.append(msgspec.json.decode(notes.outputs[0]["notes"].tobytes(), type=Notes))
        except (WorkerCrash, WorkerTimeout) as error:
            record.died = str(error)
        return record


def _under(backend: str, case: Case, name: str) -> Case:
    """Return the case on the route of another backend in the place of `name`."""
    route = Route.of(case.route)
    return msgspec.structs.replace(case, route=str(route._replace(backend=backend + route.backend.removeprefix(name))))


def _notes_job(case: Case) -> Job:
    """Return the job for which the watched backend returns its notes: built, or loaded, under a name of its own."""
    route = case.route.removesuffix(f"@{INSIST}")
    return Job(Case(NOTES.name, "value", "f32", route), Artifact(b"", 0, NOTES.name), [Call("", {})])


def _unknown(evidence: Evidence) -> Job:
    """Return what no backend can do: for a framework a kernel, for a runtime a graph, whose name it cannot know."""
    case = Case(UNKNOWN.name, "value", "f32", evidence.name)
    call = Call("", {"x": np.ones(3, np.float32)})
    if evidence.backend.kind == "framework":
        return Job(case, None, [call])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    node = helper.make_node("Unknown", ["x"], ["y"], domain="nowhere.invalid")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(node.domain, 1)]
    graph = helper.make_graph([node], "unknown", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    case = msgspec.structs.replace(case, route=f"{DRIVER_EXPORTER}+{evidence.name}")
    return Job(case, Artifact(model.SerializeToString(), 18, UNKNOWN.name), [call])


def _few(vectors: Sequence[TestVector]) -> list[TestVector]:
    """Return the first test vector, and the first of each other shape, up to SHAPES."""
    of_shape: dict[tuple[tuple[int, ...], ...], TestVector] = {}
    for vector in vectors:
        of_shape.setdefault(tuple(array.shape for array in vector.inputs.values()), vector)
    return list(of_shape.values())[:SHAPES]


def _same(first: Bundle, second: Bundle) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(_wide(array), _wide(second[name]), equal_nan=True) for name, array in first.items()
    )


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype.kind in "fV" else array
