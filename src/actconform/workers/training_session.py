"""A training in a worker: by a framework's own means, or step by step by a graph that a runtime loads; faults become Failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.errors import Unsupported
from actconform.plugin.training_loop import Trainer, train
from actconform.types.model import LOSS, OUTPUT
from actconform.types.training_run import NEXT, RATE, STEP, TrainingRecord
from actconform.workers.protocol import TrainingResult
from actconform.workers.session import StoppedError, checked_arrays, stage, type_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from actconform.plugin.interfaces import Backend, Program
    from actconform.types import Artifact, Bundle
    from actconform.types.training_run import TrainingTask
    from actconform.workers.protocol import TrainingJob
    from actconform.workers.session import Session


def do_training(session: Session, job: TrainingJob) -> TrainingResult:
    """Train; faults of the backend are not raised."""
    started = time.perf_counter()
    result = TrainingResult()
    try:
        backend = session.taking(job.case)
        with stage("run" if job.step is None else "load"):
            record = backend.train(job.task) if job.step is None else _by_graph(backend, job)
            result.record = checked_record(record)
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
    return msgspec.structs.replace(record, **bundles, **checked_arrays(losses, "train"))


def _by_graph(backend: Backend, job: TrainingJob) -> TrainingRecord:
    if job.step is None or job.inference is None:
        raise Unsupported(f"{backend.name} trains graphs: of a step, and of the model in inference")
    step, inference = (LoadedGraph(backend.load(each, job.case.dtype), each) for each in (job.step, job.inference))
    try:
        return train(GraphTrainer(step, inference, job.task), job.task)
    finally:
        step.program.close()
        inference.program.close()


class LoadedGraph:
    """A loaded graph, called with those of the tensors that it reads."""

    def __init__(self, program: Program, artifact: Artifact) -> None:
        from actconform.onnx.gates import io_names  # onnx, which takes long to import

        self.program, self._names = program, set(io_names(artifact.model)[0])

    def __call__(self, tensors: Bundle) -> dict[str, NDArray[Any]]:
        outputs = self.program.forward({name: array for name, array in tensors.items() if name in self._names})
        return checked_arrays(outputs, "forward")


class GraphTrainer(Trainer):
    """The graph of a step and the graph of the model in inference, as a runtime computes them; the state goes in and out of each call."""

    def __init__(self, step: LoadedGraph, inference: LoadedGraph, task: TrainingTask) -> None:
        self._step, self._inference = step, inference
        self._experiment = task.experiment
        self._state: dict[str, NDArray[Any]] = {name: np.array(array, np.float32) for name, array in task.state.items()}
        for name in self._experiment.differentiable:
            for slot in self._experiment.optimizer.slots:
                self._state[f"{name}/{slot}"] = np.zeros_like(self._state[name])
        self._gradients: dict[str, NDArray[Any]] = {}
        self._parameters = [parameter.name for parameter in self._experiment.model.parameters]
        self.implementation = step.program.implementation

    def step(self, batch: Bundle, number: int) -> float:
        counted = {STEP: np.asarray(number + 1, np.int64)}
        rate = {RATE: np.asarray(self._experiment.optimizer.rate(number + 1), np.float32)}
        outputs = self._step({**batch, **self._state, **counted, **rate})
        self._state |= {name.removeprefix(NEXT): array for name, array in outputs.items() if name.startswith(NEXT)}
        self._gradients = {name: array for name, array in outputs.items() if name.startswith("d_")}
        return float(outputs[LOSS])

    def gradients(self) -> Bundle:
        return self._gradients

    def state(self) -> Bundle:
        return {name: np.array(array) for name, array in self._state.items()}

    def restore(self, state: Bundle) -> None:
        self._state |= self._of(state, self._parameters)

    def evaluate(self, inputs: Bundle) -> tuple[float, NDArray[Any]]:
        outputs = self._inference({**inputs, **self._of(self._state, self._parameters)})
        return float(outputs[LOSS]), np.array(outputs[OUTPUT])

    @staticmethod
    def _of(state: Bundle, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        return {name: np.array(state[name]) for name in names}
