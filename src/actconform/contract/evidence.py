"""What a backend does when it is asked: every case in its own process, watched, and one of them in another process."""

from __future__ import annotations

import time
from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from onnx import TensorProto, helper

from actconform.compare.comparator import structure
from actconform.compare.layerwise import layerwise
from actconform.compare.metamorphic import RelationChecks
from actconform.compare.side_effects import behaviour
from actconform.contract.recording_backend import BACKEND, INSIST, NOTES, PLUGIN, PLUGINS, UNKNOWN, WATCHED, Notes
from actconform.errors import NoGoldens, Unsupported, UsageError, WorkerCrash, WorkerTimeout
from actconform.run.case import CaseContext, VectorCache, artifact_for, job_for
from actconform.run.scheduler import facts_of
from actconform.run.select import all_cases
from actconform.testdata.golden.store import collected, golden_dir
from actconform.types import DRIVER_EXPORTER, Artifact, Case, Finding, FindingClass, Route
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

SHAPES = 6  # of a case's questions: the first, which is the largest, and others of other shapes
DEATHS = 3  # of the process, after which nothing more is asked
STRUCTURE = (FindingClass.NAMES, FindingClass.SHAPE, FindingClass.DTYPE)


class Setting(NamedTuple):
    """What is asked: subjects as globs; the worker's interpreter, environment and threads; seconds a case; further plugins."""

    subjects: Sequence[str] = ("*",)
    python: str | None = None
    env: Mapping[str, str] = {}
    threads: int = 1
    timeout: float = 60.0
    plugins: Sequence[str] = ()


class Asked(msgspec.Struct, kw_only=True):
    """One case that was put to the backend: how it ended, what was found that is not registered, what was noted.

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
        """Whether there are answers to all calls, however the program closed."""
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
    """All that was seen of a backend; nothing was asked where `hello.unavailable` says why it cannot run here.

    `facts_again` are those of another process; `differs` names a case that was answered otherwise there.
    """

    name: str
    backend: type[Backend]
    hello: Handshake
    asked: list[Asked] = []
    unknown: Asked | None = None
    facts_again: dict[str, str] = {}
    differs: str = ""
    gave_up: bool = False
    seconds: float = 0.0

    @property
    def every(self) -> list[Asked]:
        """All cases that were put, the one that no backend can do among them."""
        return [*([self.unknown] if self.unknown else []), *self.asked]

    @property
    def answers(self) -> list[Asked]:
        """The cases that the backend takes and answered."""
        return [one for one in self.asked if one.answered and not one.insisted]

    def reasons(self) -> list[tuple[str, int]]:
        """Return why cases were refused, in the backend's words, the most frequent first, their subject as NAME."""
        said = [(one.case, one.refused) for one in self.asked if one.refused is not None]
        return Counter(reason.replace(case.subject, "NAME") for case, reason in said).most_common()


def gather_evidence(
    name: str, catalog: Catalog, setting: Setting, on_case: Callable[[Case], None] = lambda _: None
) -> Evidence:
    """Return what backend `name` of the catalog does when it is asked; `on_case` hears of each case beforehand.

    Raises WorkerError where the backend's process cannot start, and UsageError where there is nothing to ask.
    """
    started = time.perf_counter()
    cases = _cases(name, catalog, setting.subjects)
    with _worker(name, setting) as plain:
        evidence = Evidence(name=name, backend=catalog.backends[name], hello=plain.start())
        if evidence.hello.unavailable:
            return evidence
        with _worker(WATCHED, setting, watched=name) as watched:
            evidence.facts_again = watched.start().facts
            _Questioning(watched, catalog, setting, evidence).ask_all(cases, on_case)
        evidence.differs = _Questioning(plain, catalog, setting, evidence).differing()
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
        for case in all_cases(catalog, asked={name})
        if case.route == route and any(fnmatchcase(case.subject, subject) for subject in subjects)
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


class _Questioning:
    """A worker, and what to ask it."""

    def __init__(self, worker: Worker, catalog: Catalog, setting: Setting, evidence: Evidence) -> None:
        folder = golden_dir()
        self._worker, self._evidence = worker, evidence
        vector_cache = VectorCache(folder, collected(folder, catalog.goldens))
        self._desk = CaseContext(
            catalog, catalog.register, setting.timeout, vector_cache, worker, None, facts_of(evidence.hello)
        )

    def ask_all(self, cases: Iterable[Case], on_case: Callable[[Case], None]) -> None:
        """Put every case, and one that no backend can do, to the watched backend; give up where its process dies again and again."""
        unknown = _unknown(self._evidence)
        self._evidence.unknown = self._put(Asked(case=unknown.case), unknown)
        deaths = 0
        for case in cases:
            on_case(case)
            try:
                asked = self._ask(case)
            except (NoGoldens, Unsupported):
                continue  # there is no truth, or no graph, of it
            if asked.outcome and self._evidence.answers:
                asked.outcome.outputs = []  # those of the first answer are compared later, no others
            self._evidence.asked.append(asked)
            deaths += bool(asked.died)
            if deaths == DEATHS:
                self._evidence.gave_up = True
                return

    def differing(self) -> str:
        """Return the first answered case where the answers of this process are other ones; empty where they are the same."""
        first = next(iter(self._evidence.answers), None)
        if first is None or first.outcome is None:
            return ""
        again = self._put(Asked(case=first.case), self._job(first.case)[0])
        outputs = again.outcome.outputs if again.outcome else []
        same = len(outputs) == len(first.outcome.outputs) and all(map(_same, first.outcome.outputs, outputs))
        return "" if same else first.case.id

    def _ask(self, case: Case) -> Asked:
        """Have the case built first, then called, so that what is refused costs little; insist where supports says no."""
        asked = Asked(case=case)
        subject = self._desk.catalog.subject(case.subject)
        self._put(asked, Job(case, artifact_for(subject, case, self._desk), []))
        failure = asked.outcome.failure if asked.outcome else None
        if failure and failure.stage == "supports" and failure.kind == "unsupported":
            again = self._ask(msgspec.structs.replace(case, route=f"{case.route}@{INSIST}"))
            if again.answered and not again.findings:
                again.case, again.insisted = case, True
                return again
        if not asked.answered:
            return asked
        job, test_vectors = self._job(case)
        self._put(asked, job)
        if asked.answered and asked.outcome:
            asked.findings = self._found(test_vectors, asked.outcome, case, subject)
        return asked

    def _job(self, case: Case) -> tuple[Job, TestVectors]:
        subject = self._desk.catalog.subject(case.subject)
        test_vectors = self._desk.vector_cache.generate(subject, case)
        test_vectors = msgspec.structs.replace(test_vectors, vectors=_few(test_vectors.vectors))
        whole = artifact_for(subject, case, self._desk)
        return job_for(
            subject, case, test_vectors, RelationChecks(case.subject, case.aspect, test_vectors), whole
        ), test_vectors

    def _found(
        self, test_vectors: TestVectors, outcome: JobResult, case: Case, subject: Kernel | Model
    ) -> list[Finding]:
        """Return what is wrong beside the numbers, but for what is registered."""
        found = structure(test_vectors, outcome.outputs[: len(test_vectors.vectors)])
        found += behaviour(test_vectors, outcome, self._evidence.backend.provider)
        if isinstance(subject, Model) and outcome.intermediates is not None:
            inside = layerwise(
                subject, test_vectors.vectors[0].inputs, outcome.intermediates, test_vectors.tolerance.fmt, fused=False
            )[1]
            found += [finding for finding in inside if finding.class_ in STRUCTURE]
        registered = self._desk.catalog.registered(case)
        active = self._desk.register.active(registered, self._desk.facts)
        return [finding for finding in found if finding.place not in plainly(found, registered, active)]

    def _put(self, asked: Asked, job: Job) -> Asked:
        """Run the job, and write down how it ended; of the watched backend the notes too."""
        asked.outcome, asked.died = None, ""
        watched = self._worker.backend == WATCHED
        if watched:
            job = msgspec.structs.replace(job, case=_under(WATCHED, job.case, self._evidence.name))
        try:
            asked.outcome = self._worker.run(job, self._desk.timeout)
            if watched:
                told = self._worker.run(_telling(job.case), self._desk.timeout)
                asked.notes.append(msgspec.json.decode(told.outputs[0]["notes"].tobytes(), type=Notes))
        except (WorkerCrash, WorkerTimeout) as error:
            asked.died = str(error)
        return asked


def _under(other: str, case: Case, name: str) -> Case:
    """Return the case on the route of another backend in the place of `name`."""
    route = Route.of(case.route)
    return msgspec.structs.replace(case, route=str(route._replace(backend=other + route.backend.removeprefix(name))))


def _telling(case: Case) -> Job:
    """Return the job that the watched backend answers with its notes: built, or loaded, under a name of its own."""
    route = case.route.removesuffix(f"@{INSIST}")
    return Job(Case(NOTES.name, "value", "f32", route), Artifact(b"", 0, NOTES.name), [Call("", {})])


def _unknown(evidence: Evidence) -> Job:
    """Return what no backend can do: for a framework a kernel, for a runtime a graph, of which it never heard."""
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
    """Return the first question, and the first of each other shape, up to SHAPES."""
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
