"""A user's model trained in the worker of a runtime: the graph of a step stays loaded, its state goes in and out of every call."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray  # noqa: TC002  msgspec reads the annotations when it decodes

from actconform.types import Artifact, Case  # noqa: TC001  as above
from actconform.types.model import LOSS
from actconform.types.training_run import NEXT, RATE, STEP
from actconform.workers.protocol import Bundle, Failure, aligned_copy
from actconform.workers.session import StoppedError, stage
from actconform.workers.training_session import LoadedGraph

if TYPE_CHECKING:
    from actconform.workers.session import Session


class StepJob(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What to do with a training by graphs, in this order: load them, take up a state, make steps, evaluate batches, give the state.

    `step` and `inference` are loaded where they are given, and stay. The steps are numbered from `first` on, each with its batch and its
    rate. `evaluated` are batches for the graph of inference, whose outputs are "loss" and the one that the loss is of, `output`.
    """

    case: Case
    step: Artifact | None = None
    inference: Artifact | None = None
    output: str = ""
    state: Bundle = {}
    first: int = 1
    batches: list[Bundle] = []
    rates: list[float] = []
    evaluated: list[Bundle] = []
    give_state: bool = False


class NotFinite(msgspec.Struct, frozen=True, kw_only=True):
    """The first number of a step that is NaN or infinite: the step, the tensor ("loss", a weight, a slot), its index, and the number."""

    step: int
    tensor: str
    index: tuple[int, ...]
    value: float


class StepResult(msgspec.Struct, kw_only=True, tag=True):
    """The result of a StepJob: the loss of each step before its update, and of each evaluated batch, float32.

    After a step that gives a number which is not finite no further one is made; its update is not taken up. `shapes` are those of
    the output in each evaluated batch. Seconds are of the steps alone.
    """

    losses: NDArray[Any] | None = None
    evaluations: NDArray[Any] | None = None
    shapes: list[tuple[int, ...]] = []
    state: Bundle = {}
    broken: NotFinite | None = None
    implementation: str = ""
    failure: Failure | None = None
    seconds: float = 0.0


class StepSession:
    """The training by graphs that is loaded in this worker: another one takes its place when a job brings it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loaded: tuple[LoadedGraph, LoadedGraph] | None = None
        self._state: dict[str, NDArray[Any]] = {}

    def run(self, job: StepJob) -> StepResult:
        """Do a job; faults of the runtime are not raised."""
        result = StepResult()
        try:
            if job.step is not None and job.inference is not None:
                self._load(job, job.step, job.inference)
            if job.state:
                # where arrays lie must not tell a training that goes on from one that was never interrupted
                self._state = {name: aligned_copy(array) for name, array in job.state.items()}
            with stage("run"):
                step, inference = self._graphs()
                result.implementation = step.program.implementation
                self._make_steps(step, job, result)
                if result.broken is None:
                    self._evaluate(inference, job, result)
            if job.give_state:
                result.state = self._state
        except StoppedError as stopped:
            result.failure = stopped.failure
        return result

    def _load(self, job: StepJob, step: Artifact, inference: Artifact) -> None:
        backend = self._session.taking(job.case)
        with stage("load"), ExitStack() as opened:
            if self._loaded is not None:
                for graph in self._loaded:
                    graph.program.close()
            self._loaded = None
            graphs = []
            for artifact in (step, inference):
                graphs.append(LoadedGraph(backend.load(artifact, job.case.dtype), artifact))
                opened.callback(graphs[-1].program.close)
            opened.pop_all()
            self._loaded = (graphs[0], graphs[1])

    def _graphs(self) -> tuple[LoadedGraph, LoadedGraph]:
        if self._loaded is None:
            raise LookupError("no graph of a step is loaded: the worker may be a new one")
        return self._loaded

    def _make_steps(self, step: LoadedGraph, job: StepJob, result: StepResult) -> None:
        losses = []
        for number, (batch, rate) in enumerate(zip(job.batches, job.rates, strict=True), job.first):
            feed = {name: aligned_copy(array) for name, array in batch.items()}
            feed |= {STEP: np.asarray(number, np.int64), RATE: np.asarray(rate, np.float32)}
            started = time.perf_counter()
            outputs = step({**feed, **self._state})
            result.seconds += time.perf_counter() - started
            losses.append(np.float32(outputs[LOSS]))
            result.broken = _first_broken(outputs, number)
            if result.broken is not None:
                break
            self._state = {name: aligned_copy(outputs[NEXT + name]) for name in self._state}
        result.losses = np.asarray(losses, np.float32)

    def _evaluate(self, inference: LoadedGraph, job: StepJob, result: StepResult) -> None:
        losses = []
        for batch in job.evaluated:
            outputs = inference({**{name: aligned_copy(array) for name, array in batch.items()}, **self._state})
            losses.append(np.float32(outputs[LOSS]))
            result.shapes.append(outputs[job.output].shape)
        result.evaluations = np.asarray(losses, np.float32)


def _first_broken(outputs: Bundle, step: int) -> NotFinite | None:
    """Return the first number that is not finite of the loss, then of the state that a step gives; None where all are."""
    named = {LOSS: outputs[LOSS]} | {name: array for name, array in outputs.items() if name.startswith(NEXT)}
    for name, array in named.items():
        finite = np.isfinite(array)
        if not finite.all():
            index = tuple(int(place) for place in np.unravel_index(int(np.argmin(finite)), array.shape))
            return NotFinite(step=step, tensor=name.removeprefix(NEXT), index=index, value=float(array[index]))
    return None
