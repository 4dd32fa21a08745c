"""A user's model trained in the worker of a runtime: the graph of a step stays loaded, its state goes in and out of every call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray  # noqa: TC002  msgspec reads the annotations when it decodes

from actconform.types import Artifact, Case  # noqa: TC001  as above
from actconform.types.model import LOSS
from actconform.types.training_run import NEXT
from actconform.workers.loaded_step import LoadedStep
from actconform.workers.protocol import Bundle, Failure  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.workers.session import StoppedError, stage

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

    After a step that gives a number which is not finite no further one is made; its update is not taken up. `output` is what the
    model gives for the first evaluated batch, where the job brings graphs. Seconds are of the steps alone, and of the evaluations alone.
    """

    losses: NDArray[Any] | None = None
    evaluations: NDArray[Any] | None = None
    output: NDArray[Any] | None = None
    state: Bundle = {}
    broken: NotFinite | None = None
    implementation: str = ""
    failure: Failure | None = None
    seconds: float = 0.0
    evaluation_seconds: float = 0.0


class StepSession:
    """The training by graphs that is loaded in this worker: another one takes its place when a job brings it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loaded: LoadedStep | None = None

    def run(self, job: StepJob) -> StepResult:
        """Do a job; faults of the runtime are not raised."""
        result = StepResult()
        try:
            if job.step is not None and job.inference is not None:
                self._load(job, job.step, job.inference)
            with stage("run"):
                graphs = self._graphs()
                graphs.take_up(job.state)
                result.implementation = graphs.implementation
                _make_steps(graphs, job, result)
                if result.broken is None:
                    _evaluate(graphs, job, result)
            if job.give_state:
                result.state = graphs.state
        except StoppedError as stopped:
            result.failure = stopped.failure
        return result

    def _load(self, job: StepJob, step: Artifact, inference: Artifact) -> None:
        backend = self._session.taking(job.case)
        before, self._loaded = self._loaded, None
        with stage("load"):
            if before is not None:
                before.close()
            self._loaded = LoadedStep(backend, job.case.dtype, step, inference)

    def _graphs(self) -> LoadedStep:
        if self._loaded is None:
            raise LookupError("no graph of a step is loaded: the worker may be a new one")
        return self._loaded


def _make_steps(graphs: LoadedStep, job: StepJob, result: StepResult) -> None:
    losses = []
    for number, (batch, rate) in enumerate(zip(job.batches, job.rates, strict=True), job.first):
        before, started = graphs.state, time.perf_counter()
        outputs = graphs.step(batch, number, rate)
        result.seconds += time.perf_counter() - started
        losses.append(np.float32(outputs[LOSS]))
        result.broken = _first_broken(outputs, number)
        if result.broken is not None:
            graphs.state = before
            break
    result.losses = np.asarray(losses, np.float32)


def _evaluate(graphs: LoadedStep, job: StepJob, result: StepResult) -> None:
    losses, started = [], time.perf_counter()
    for batch in job.evaluated:
        outputs = graphs.evaluate(batch)
        losses.append(np.float32(outputs[LOSS]))
        if job.inference is not None and result.output is None:
            result.output = outputs[job.output]
    result.evaluations = np.asarray(losses, np.float32)
    result.evaluation_seconds = time.perf_counter() - started


def _first_broken(outputs: Bundle, step: int) -> NotFinite | None:
    """Return the first number that is not finite of the loss, then of the state that a step gives; None where all are."""
    named = {LOSS: outputs[LOSS]} | {name: array for name, array in outputs.items() if name.startswith(NEXT)}
    for name, array in named.items():
        finite = np.isfinite(array)
        if not finite.all():
            index = tuple(int(place) for place in np.unravel_index(int(np.argmin(finite)), array.shape))
            return NotFinite(step=step, tensor=name.removeprefix(NEXT), index=index, value=float(array[index]))
    return None
