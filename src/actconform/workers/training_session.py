"""A training in a worker: by a framework's own means, or step by step by a graph that a runtime loads; faults become Failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.errors import Unsupported
from actconform.plugin.training_loop import Trainer, train
from actconform.types.model import LOSS, OUTPUT
from actconform.types.training import Forms
from actconform.types.training_run import TrainingRecord
from actconform.workers.loaded_step import LoadedStep
from actconform.workers.protocol import TrainingResult
from actconform.workers.session import StoppedError, checked_arrays, stage, type_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.plugin.interfaces import Backend
    from actconform.types import Bundle
    from actconform.types.training_run import TrainingTask
    from actconform.workers.protocol import TrainingJob
    from actconform.workers.session import Session

_SPELLED = {"implementation": "text", "seconds": "number"}


def do_training(session: Session, job: TrainingJob) -> TrainingResult:
    """Train; faults of the backend are not raised."""
    started = time.perf_counter()
    result = TrainingResult()
    try:
        backend = session.taking(job.case)
        if job.step is None:
            with stage("run"):
                result.record = checked_record(backend.train(job.task))
        else:
            result.record = _by_graph(backend, job)
    except StoppedError as stopped:
        result.failure = stopped.failure
    result.seconds = time.perf_counter() - started
    return result


def checked_record(record: object) -> TrainingRecord:
    """Return a record with copies of its arrays; raise TypeError, naming the field, where it or anything in it is of another type."""
    if not isinstance(record, TrainingRecord):
        raise TypeError(f"train returned {type_name(record)}: wanted an actconform TrainingRecord")
    bundles = {
        field: checked_arrays(getattr(record, field), f"train, in {field} of its record,")
        for field in ("states", "gradients", "final", "predictions")
    }
    losses = {field: getattr(record, field) for field in ("losses", "validation_losses")}
    for field, wanted in (("implementation", str), ("seconds", int | float | np.number)):
        if not isinstance(getattr(record, field), wanted):
            kind = type_name(getattr(record, field))
            raise TypeError(f"train, in its record, has {kind} as {field!r}: wanted a {_SPELLED[field]}")
    try:
        forms = msgspec.convert(msgspec.structs.asdict(record.forms), Forms)
    except (TypeError, msgspec.ValidationError) as error:
        raise TypeError(f"train, in forms of its record: wanted an actconform Forms: {error}") from error
    numbers: dict[str, Any] = {"seconds": float(record.seconds), "forms": forms}
    return msgspec.structs.replace(record, **bundles, **checked_arrays(losses, "train"), **numbers)


def _by_graph(backend: Backend, job: TrainingJob) -> TrainingRecord:
    with stage("load"):
        if job.step is None or job.inference is None:
            raise Unsupported(f"{backend.name} trains graphs: of a step, and of the model in inference")
        graphs = LoadedStep(backend, job.case.dtype, job.step, job.inference)
    with stage("run"), graphs:
        return checked_record(train(GraphTrainer(graphs, job.task), job.task))


class GraphTrainer(Trainer):
    """The trainer of an experiment whose steps and evaluations are graphs, as a runtime computes them."""

    def __init__(self, graphs: LoadedStep, task: TrainingTask) -> None:
        self._graphs = graphs
        self._optimizer = task.experiment.optimizer
        self._gradients: dict[str, NDArray[Any]] = {}
        self._parameters = [parameter.name for parameter in task.experiment.model.parameters]
        self.implementation = graphs.implementation
        graphs.take_up({name: np.asarray(array, np.float32) for name, array in task.state.items()})
        for name in task.experiment.differentiable:
            zeros = np.zeros_like(graphs.state[name])
            graphs.take_up({f"{name}/{slot}": zeros for slot in self._optimizer.slots})

    def step(self, batch: Bundle, number: int) -> float:
        outputs = self._graphs.step(batch, number + 1, self._optimizer.rate(number + 1))
        self._gradients = {name: array for name, array in outputs.items() if name.startswith("d_")}
        return float(outputs[LOSS])

    def gradients(self) -> Bundle:
        return self._gradients

    def state(self) -> Bundle:
        return {name: np.array(array) for name, array in self._graphs.state.items()}

    def restore(self, state: Bundle) -> None:
        self._graphs.take_up({name: state[name] for name in self._parameters})

    def evaluate(self, inputs: Bundle) -> tuple[float, NDArray[Any]]:
        outputs = self._graphs.evaluate(inputs)
        return float(outputs[LOSS]), outputs[OUTPUT]
