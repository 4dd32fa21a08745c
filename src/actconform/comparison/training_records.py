"""What is wrong with the record of a training before any number is compared: what is missing, of another shape or dtype, or no number."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.comparison.comparator import structural
from actconform.testdata.training_vectors import GRADIENT, INFERENCE, LOSS_PART, OPTIMIZER, VALIDATION_LOSS
from actconform.text import number_of
from actconform.types import FindingClass
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.types import Bundle, Finding
    from actconform.types.training import Experiment
    from actconform.types.training_run import TrainingRecord, TrainingTask

FINAL = "final"
NOT_LEARNED = "not finite"  # the regime of what came to no numbers


class FirstNonFinite(NamedTuple):
    """The first number of a training that is NaN or infinite, in the order of the computation."""

    step: int
    """From 1 on; 0 for what no step shows."""
    part: str
    tensor: str
    place: tuple[int, ...]
    value: float

    def __str__(self) -> str:
        at = f" {list(self.place)}" if self.place else ""
        when = f"at step {self.step}, {self.part}" if self.step else f"in the {self.part}"
        return f"the first {'NaN' if np.isnan(self.value) else 'infinity'} is {when}: {self.tensor}{at}"


def record_findings(task: TrainingTask, record: TrainingRecord) -> list[Finding]:
    """Return what is missing of a record, is not asked for, or has another shape or dtype than the experiment's tensors.

    Parameters, slots, gradients and predictions are float32; losses of any floating-point dtype.
    """
    experiment = task.experiment
    shapes = {parameter.name: tuple(parameter.shape) for parameter in experiment.model.parameters}
    slots = {
        f"{name}/{slot}": shapes[name] for name in experiment.differentiable for slot in experiment.optimizer.slots
    }
    findings = [*_of_bundle(FINAL, record.final, shapes), *_of_predictions(task, record), *_of_losses(task, record)]
    if task.keep:
        kept = kept_steps(task, record)
        states = {name: (kept + 1, *shape) for name, shape in {**shapes, **slots}.items()}
        findings += _of_bundle(OPTIMIZER, record.states, states)
        if record.gradients:
            pulled = {f"d_{name}": (kept, *shapes[name]) for name in experiment.differentiable}
            findings += _of_bundle(GRADIENT, record.gradients, pulled)
    return findings


def kept_steps(task: TrainingTask, record: TrainingRecord) -> int:
    """Return how many steps leave their state: fewer than are asked for where training ended before."""
    return min(task.keep, len(record.losses) if record.losses.ndim == 1 else 0)


def _of_bundle(regime: str, bundle: Bundle, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    for name, shape in shapes.items():
        if name in bundle:
            yield from _of_array(regime, name, bundle[name], shape)
        else:
            evidence = f"{name!r} is missing; got {', '.join(sorted(bundle)) or 'nothing'}"
            yield structural(FindingClass.NAMES, regime, name, evidence)
    for name in sorted(bundle.keys() - shapes.keys()):
        yield structural(FindingClass.NAMES, regime, name, f"{name!r} was not asked for; expected {', '.join(shapes)}")


def _of_array(regime: str, name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> Iterator[Finding]:
    if array.shape != shape:
        evidence = f"shape {list(array.shape)}, expected {list(shape)}"
        yield structural(FindingClass.SHAPE, regime, name, evidence)
    if array.dtype != np.float32:
        yield structural(FindingClass.DTYPE, regime, name, f"dtype {array.dtype}, expected float32")


def _of_predictions(task: TrainingTask, record: TrainingRecord) -> Iterator[Finding]:
    model = task.experiment.evaluation
    target = next(model_input.shape for model_input in model.inputs if model_input.name == model.layers[-1].inputs[1])
    counts = {"examples": task.experiment.examples, "validation": task.experiment.validation}
    shapes = {name: (count, *target) for name, count in counts.items()}
    yield from _of_bundle(INFERENCE, record.predictions, shapes)


def _of_losses(task: TrainingTask, record: TrainingRecord) -> Iterator[Finding]:
    experiment = task.experiment
    for regime, name, losses in (
        (LOSS_PART, LOSS, record.losses),
        (INFERENCE, VALIDATION_LOSS, record.validation_losses),
    ):
        if losses.dtype.kind != "f":
            evidence = f"dtype {losses.dtype}, expected a floating-point dtype"
            yield structural(FindingClass.DTYPE, regime, name, evidence)
    epochs = len(record.validation_losses) if record.validation_losses.ndim == 1 else 0
    if not epochs or epochs > experiment.epochs or (experiment.stopping is None and epochs < experiment.epochs):
        most = "at most " if experiment.stopping else ""
        evidence = (
            f"shape {list(record.validation_losses.shape)}, expected a loss after each epoch, {most}{experiment.epochs}"
        )
        yield structural(FindingClass.SHAPE, INFERENCE, VALIDATION_LOSS, evidence)
        return
    if record.losses.shape != (epochs * experiment.steps,):
        evidence = (
            f"shape {list(record.losses.shape)}, expected a loss of each step, {experiment.steps} in {_epochs(epochs)}"
        )
        yield structural(FindingClass.SHAPE, LOSS_PART, LOSS, evidence)


def _epochs(count: int) -> str:
    return "one epoch" if count == 1 else f"each of {number_of(count, 'epoch')}"


def first_non_finite(task: TrainingTask, record: TrainingRecord) -> FirstNonFinite | None:
    """Return the first number of a sound record that is NaN or infinite: of each step the loss, the gradients, then what it left."""
    kept = kept_steps(task, record)
    for number, loss in enumerate(record.losses):
        step: list[tuple[str, str, NDArray[np.generic]]] = [(LOSS_PART, LOSS, np.asarray(loss))]
        if number < kept:
            step += [(GRADIENT, name, array[number]) for name, array in record.gradients.items()]
            step += [(OPTIMIZER, name, array[number + 1]) for name, array in record.states.items()]
        first = _first(number + 1, step)
        if first:
            return first
    last = [(INFERENCE, VALIDATION_LOSS, record.validation_losses)]
    last += [(FINAL, name, array) for name, array in record.final.items()]
    return _first(0, [*last, *((INFERENCE, f"{name} y", array) for name, array in record.predictions.items())])


def _first(step: int, tensors: list[tuple[str, str, NDArray[np.generic]]]) -> FirstNonFinite | None:
    for part, name, array in tensors:
        off = ~np.isfinite(np.asarray(array, np.float64))
        if off.any():
            place = tuple(int(index) for index in np.argwhere(off)[0])
            return FirstNonFinite(step, part, name, place, float(array[place]))
    return None


def not_learned(experiment: Experiment, record: TrainingRecord, first: FirstNonFinite) -> Finding:
    """Return the finding, of class `property`, that a training came to no numbers, and where: nothing is said of its claims."""
    bad = np.flatnonzero(~np.isfinite(np.asarray(record.losses, np.float64)))
    when = f"the loss is no number from step {bad[0] + 1} on; " if bad.size else ""
    claims = f", none of its {number_of(len(experiment.claims), 'claim')} judged" if experiment.claims else ""
    evidence = f"{when}{first}; nothing is called learned{claims}"
    return structural(FindingClass.PROPERTY, NOT_LEARNED, first.tensor, evidence)
