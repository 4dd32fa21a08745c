"""What a runtime answers on a user's model: its outputs, tensors within the graph, and which of those its optimization leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from actconform.errors import WorkerError
from actconform.types import DRIVER_EXPORTER, Artifact, Case
from actconform.types.cause import Register
from actconform.workers.graph_session import GraphJob
from actconform.workers.protocol import Call, Job, JobResult
from actconform.workers.session import same_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from actconform.checking.model_file import ModelFile
    from actconform.plugin.interfaces import Backend
    from actconform.types import Kernel
    from actconform.workers.client import Worker
    from actconform.workers.graph_session import GraphCalls, GraphResult
    from actconform.workers.protocol import Failure
    from actconform.workers.step_session import StepJob, StepResult

    Arrays = Mapping[str, NDArray[Any]]

NOTHING_KNOWN = Register()
MODEL = "model"  # in place of a case's subject, and of the path to an exported graph
MOST_FAILURES = 16  # of runs with marks, until the marks that cannot be made are no longer looked for


class RunFailure(msgspec.Struct, frozen=True):
    """Why a runtime gave no answer, in its words where it has any.

    It refused the graph; it is unavailable here; it died; it gave no answer in time; memory was not enough; it raised an error; or the user's own
    model is at fault.
    """

    kind: Literal["refused", "unavailable", "crash", "timeout", "memory", "error", "source"]
    message: str


class RuntimeOutputs(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a runtime for one sample: the final outputs by name, empty where there is a failure.

    `unsteady` are the outputs whose bits differed in a second call, NaN payloads aside, which gave `second`; `mutated` the inputs that were changed in
    place. `placement` has for each execution provider the operators that it was given, where the runtime says so. Seconds are
    those of loading the graph, and of one call.
    """

    outputs: Arrays = {}
    unsteady: tuple[str, ...] = ()
    second: Arrays = {}
    mutated: tuple[str, ...] = ()
    placement: Mapping[str, tuple[str, ...]] = {}
    load_seconds: float = 0.0
    run_seconds: float = 0.0
    failure: RunFailure | None = None


class Marks(NamedTuple):
    """Tensors to be marked as outputs, in this order, with their element types (a type may be missing) and sizes in bytes."""

    names: Sequence[str]
    types: Mapping[str, int]
    nbytes: Mapping[str, int]


class MarkedTensors(msgspec.Struct, frozen=True, kw_only=True):
    """The values of the tensors `names`, from one run in which they were marked as outputs; none where there is a failure.

    `moved` are final outputs that are not what they are without marks, bit for bit but for NaN payloads: where there are any, the
    marks have changed how the runtime computes, and the values are not those of the unmarked run. `unsteady` are the tensors and
    outputs that differed in a second call.
    """

    names: tuple[str, ...]
    values: Arrays = {}
    moved: tuple[str, ...] = ()
    unsteady: tuple[str, ...] = ()
    failure: RunFailure | None = None

    @property
    def final_unchanged(self) -> bool:
        """Whether there are values, and the marks changed no final output."""
        return self.failure is None and not self.moved


class RuntimeRuns:
    """A runtime in a process of its own, which is replaced after a crash, a timeout or Ctrl-C; `open_runtime` makes it.

    No method raises for a fault of the runtime: it is a RunFailure. `level` is one of `levels`, or empty for what users get.
    """

    def __init__(
        self,
        name: str,
        backend: type[Backend],
        worker: Worker,
        timeout: float,
        *,
        register: Register = NOTHING_KNOWN,
        kernels: Mapping[str, Kernel] | None = None,
    ) -> None:
        self.name = name
        self.levels = backend.levels
        self.optimizers = backend.optimizers
        self.packages = backend.packages
        self.reproduction = backend.reproduction()
        """See `Backend.reproduction`."""
        self.register = register
        """Known causes, of this runtime under the name `registered_as` among others; `kernels` are those that they speak of."""
        self.registered_as = backend.stands_for or backend.name
        self.kernels = kernels or {}
        self._backend = backend
        self._worker = worker
        self._timeout = timeout
        self.case = Case(MODEL, "value", "f32", f"{DRIVER_EXPORTER}+{name}")

    def start(self) -> Mapping[str, str] | RunFailure:
        """Start the process, unless it runs, and return its facts: versions, threads, device."""
        try:
            hello = self._worker.start()
        except WorkerError as error:
            return failure_of_worker(error)
        return RunFailure("unavailable", hello.unavailable) if hello.unavailable else hello.facts

    def outputs(self, model: ModelFile, sample: Arrays, level: str = "") -> RuntimeOutputs:
        """Return the final outputs for one sample, computed twice; arrays of the sample that are no inputs are left out."""
        return self.outputs_of_all(model, [sample], level)[0]

    def outputs_of_all(
        self, model: ModelFile, samples: Sequence[Arrays], level: str = "", *, twice: bool = True
    ) -> list[RuntimeOutputs]:
        """Return the answers for several samples, for which the graph is loaded once; again for each where one fails.

        Without `twice` the first sample alone is computed a second time.
        """
        if not samples:
            return []
        calls = [_call(model, sample) for sample in samples]
        result = self._result(model, model.path, calls, level, twice=twice)
        if not isinstance(result, RunFailure):
            runs = 2 * len(samples) if twice else len(samples) + 1
            return [_runtime_outputs(result, index, runs) for index in range(len(samples))]
        if len(samples) == 1 or result.kind in ("refused", "unavailable"):
            return [RuntimeOutputs(failure=result)] * len(samples)
        return [self.outputs_of_all(model, [sample], level, twice=twice)[0] for sample in samples]

    def marked(
        self,
        model: ModelFile,
        sample: Arrays,
        marks: Marks,
        *,
        budget_bytes: int,
        level: str = "",
        final: Arrays | None = None,
    ) -> Iterator[MarkedTensors]:
        """Yield the values of the marked tensors in their order, in as few runs as have at most `budget_bytes` of them each.

        A tensor of more than that has a run of its own; the runtime's process needs about three times as much. `final` are the
        outputs without marks, computed here where they are not given. A run that fails is made again with each half of its marks, so
        that a tensor which cannot be marked, or memory that does not suffice, costs the fewest others. What was yielded is not kept
        here.
        """
        if final is None:
            answer = self.outputs(model, sample, level)
            if answer.failure:
                yield MarkedTensors(names=tuple(marks.names), failure=answer.failure)
                return
            final = answer.outputs
        waiting = _pieces(marks, budget_bytes)[::-1]
        failures = 0
        while waiting:
            piece = waiting.pop()
            tensors = self._marked(model, sample, marks._replace(names=piece), level, final)
            if tensors.failure and len(piece) > 1 and failures < MOST_FAILURES:
                failures += 1
                middle = len(piece) // 2
                waiting += [piece[middle:], piece[:middle]]
                continue
            yield tensors
            del tensors  # before the next run makes as many

    def surviving(self, model: ModelFile, level: str = "") -> tuple[str, ...] | RunFailure:
        """Return the tensors that the runtime still computes under their names after its optimization: see `Backend`."""
        result = self._result(model, model.path, [], level, surviving=True)
        return result if isinstance(result, RunFailure) else result.surviving or ()

    def make_steps(self, job: StepJob) -> StepResult | RunFailure:
        """Return what the runtime makes of steps of a training by graphs, which stays loaded until the process ends."""
        try:
            result = self._worker.make_steps(job, self._timeout * max(len(job.batches) + len(job.evaluated), 1))
        except WorkerError as error:
            return failure_of_worker(error)
        return run_failure(result.failure) if result.failure else result

    def run_graphs(self, graphs: Sequence[GraphCalls], name: str) -> GraphResult | RunFailure:
        """Return the answers to several small graphs, made in one exchange that has the time of one call; `name` is what messages call them."""
        try:
            return self._worker.run_graphs(GraphJob(self.case, list(graphs), name), self._timeout)
        except WorkerError as error:
            return failure_of_worker(error)

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _marked(
        self,
        model: ModelFile,
        sample: Arrays,
        marks: Marks,
        level: str,
        final: Arrays,
    ) -> MarkedTensors:
        names = tuple(marks.names)
        with model.marked(names, marks.types) as (path, called):
            result = self._result(model, path, [_call(model, sample)], level)
        if isinstance(result, RunFailure):
            return MarkedTensors(names=names, failure=result)
        outputs = result.outputs[0]
        if missing := [name for name in names if called[name] not in outputs]:
            text = f"{self.name} gave no value of {', '.join(missing)}, which were outputs of the graph"
            return MarkedTensors(names=names, failure=RunFailure("error", text))
        tensor_of = {output: name for name, output in called.items()}
        return MarkedTensors(
            names=names,
            values={name: outputs[called[name]] for name in names},
            moved=tuple(name for name in model.outputs if not same_numbers(final.get(name), outputs.get(name))),
            unsteady=tuple(tensor_of.get(name, name) for _, name in result.unsteady),
        )

    def _result(
        self,
        model: ModelFile,
        path: Path,
        calls: list[Call],
        level: str,
        *,
        surviving: bool = False,
        twice: bool = True,
    ) -> JobResult | RunFailure:
        if not (model.single or self._backend.loads_files):
            return RunFailure("refused", f"{self.name} takes graphs of at most 2 GiB, and this one has more")
        artifact = Artifact(b"", 0, MODEL, file=str(path))
        repeated = tuple(range(len(calls) if twice else 1))
        job = Job(self.case, artifact, calls, level, repeated=repeated, surviving=surviving, name="the model")
        try:
            result = self._worker.run(job, self._timeout * max(len(calls), 1))
        except WorkerError as error:
            return failure_of_worker(error)
        return run_failure(result.failure) if result.failure else result


def _call(model: ModelFile, sample: Arrays) -> Call:
    return Call("", {name: sample[name] for name in model.inputs if name in sample})


def _runtime_outputs(result: JobResult, index: int, runs: int) -> RuntimeOutputs:
    return RuntimeOutputs(
        outputs=result.outputs[index],
        unsteady=tuple(name for call, name in result.unsteady if call == index),
        second=result.second.get(index, {}),
        mutated=tuple(name for call, name in result.mutated if call == index),
        placement=result.placement,
        load_seconds=result.timings.get("load", 0.0),
        run_seconds=result.timings["run"] / runs,
    )


def _pieces(marks: Marks, budget_bytes: int) -> list[tuple[str, ...]]:
    """Return the names in runs of at most `budget_bytes`, a tensor of more than that by itself."""
    pieces: list[list[str]] = []
    size = 0
    for name in marks.names:
        size += marks.nbytes[name]
        if not pieces or size > budget_bytes:
            pieces.append([])
            size = marks.nbytes[name]
        pieces[-1].append(name)
    return [tuple(piece) for piece in pieces]


def failure_of_worker(error: WorkerError) -> RunFailure:
    """Return why a worker gave no answer."""
    kind: Literal["crash", "timeout", "unavailable"] = (
        "crash" if error.kind == "crash" else "timeout" if error.kind == "timeout" else "unavailable"
    )
    return RunFailure(kind, str(error))


def run_failure(failure: Failure) -> RunFailure:
    """Return the failure of a job in a worker."""
    return RunFailure("refused" if failure.kind == "unsupported" else failure.kind, failure.message)
