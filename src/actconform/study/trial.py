"""What is kept of one training of a study, and the numbers of its network at the start and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.catalog.models.layer_kinds import kernel_of
from actconform.comparison.training_measures import (
    DECIDING,
    centred_rank,
    class_accuracy,
    measured_rows,
    rounding_noise,
)
from actconform.oracle.layers.model import gradients, values
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.study.variants import Role, hidden_activations
from actconform.testdata.regimes import uniform

if TYPE_CHECKING:
    from actconform.oracle.layers.registry import F64
    from actconform.types import Bundle
    from actconform.types.model import Layer, Model
    from actconform.types.training_run import TrainingRecord, TrainingTask

NAN = float("nan")
SATURATED = 1e-3  # of its largest: a unit whose derivative is below this share at every row
NEAR_ZERO = 2.0  # the largest derivative is the one of inputs from -2 to 2
PROBES = 1024  # rows that it is sought in
ROWS = 2048  # of a layer with pixels: as many are looked at
NO_BETTER, WORSE = 0.98, 1.1  # of the best constant's loss


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One training: an experiment with a kernel in a role, from one seed. Numbers that there are none of are NaN.

    losses: the mean of each epoch's steps; validation: after each epoch. constant: the training loss of the best constant answer.
    metric: of the validation examples at the end; its name is `metric_name`. reached: the step, from 1 on, at which the mean loss of an epoch's worth of steps
    first was at most `reach` times `constant`; diverged: the first step whose loss is not finite; 0 where there is none.
    gradients_before and gradients_after: by weights of a layer the norm of the loss's gradient at up to 256 examples, fewer of a large model, by the float64 truth. dead, saturated:
    shares of the units in the role. rank, width, dimension: of the last hidden activation. seconds: of the steps alone.
    failure: why there is nothing else.
    """

    experiment: str
    variant: str
    """The digest of the experiment that was trained."""
    role: Role
    kernel: str
    seed: int
    failure: str = ""
    losses: tuple[float, ...] = ()
    validation: tuple[float, ...] = ()
    constant: float = NAN
    metric_name: str = ""
    metric: float = NAN
    reached: int = 0
    diverged: int = 0
    gradients_before: dict[str, float] = {}
    gradients_after: dict[str, float] = {}
    dead: float = NAN
    saturated: float = NAN
    rank: float = NAN
    width: int = 0
    dimension: float = NAN
    parameters: int = 0
    steps: int = 0
    seconds: float = NAN

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What sets it apart in a study."""
        return self.experiment, self.role, self.kernel, self.seed

    @property
    def loss(self) -> float:
        """The mean loss of the last epoch; NaN after a step whose loss is not finite."""
        return NAN if self.diverged or not self.losses else self.losses[-1]

    @property
    def validation_loss(self) -> float:
        """The validation loss after the last epoch."""
        return NAN if self.diverged or not self.validation else self.validation[-1]

    @property
    def no_better(self) -> bool:
        """Whether the last epoch has at least 98 % of the best constant answer's loss; not where the loss is not finite."""
        return self.loss >= NO_BETTER * self.constant

    @property
    def worse(self) -> bool:
        """Whether the last epoch's loss is more than a tenth above that of the best constant answer."""
        return self.loss > WORSE * self.constant


def measured_trial(trial: Trial, task: TrainingTask, record: TrainingRecord, reach: float) -> Trial:
    """Return the trial with what came of a training."""
    experiment = task.experiment
    losses = record.losses.astype(np.float64)
    steps = experiment.steps
    wrong = np.flatnonzero(~np.isfinite(losses))
    constant = constant_loss(experiment.model, task.examples)
    with np.errstate(all="ignore"):
        name, metric = _metric(task, record)
        trial = msgspec.structs.replace(
            trial,
            losses=tuple(float(losses[start : start + steps].mean()) for start in range(0, len(losses), steps)),
            validation=tuple(map(float, record.validation_losses)),
            constant=constant,
            metric_name=name,
            metric=metric,
            reached=_reached(losses, steps, reach * constant),
            diverged=int(wrong[0]) + 1 if wrong.size else 0,
            gradients_before=_norms(task, _true_values(task, task.state)[1]),
            parameters=experiment.model.size,
            steps=len(losses),
            seconds=record.seconds,
        )
        if not all(np.isfinite(array).all() for array in record.final.values()):
            return trial
        return _with_units(trial, task, record.final)


def constant_loss(model: Model, examples: Bundle) -> float:
    """Return the loss of the constant answer that has the least: the mean of each target, its median, or the shares of classes."""
    loss = model.layers[-1]
    target = np.asarray(examples[loss.inputs[1]], np.float64)
    mean = target.mean(0)
    if loss.kind == "mean-squared-error":
        return float(((target - mean) ** 2).mean())
    if loss.kind == "mean-absolute-error":
        return float(np.abs(target - np.median(target, axis=0)).mean())
    if loss.kind.startswith("categorical"):
        return float(_surprise(mean).sum())
    return float((_surprise(mean) + _surprise(1.0 - mean)).mean())


def _surprise(share: F64) -> F64:
    return -share * np.log(np.where(share > 0.0, share, 1.0))


def _metric(task: TrainingTask, record: TrainingRecord) -> tuple[str, float]:
    """Return what is said of a training beside its loss: accuracy of classes, else the error that is not the loss."""
    experiment = task.experiment
    loss = experiment.model.layers[-1]
    y = record.predictions["validation"].astype(np.float64)
    if loss.kind.startswith(DECIDING):
        finite = np.isfinite(y).all()
        return "accuracy", class_accuracy(experiment, y, task.validation) if finite else NAN
    error = y - task.validation[loss.inputs[1]]
    if loss.kind == "mean-absolute-error":
        return "mean squared error", float((error**2).mean())
    return "mean absolute error", float(np.abs(error).mean())


def _reached(losses: F64, window: int, stated: float) -> int:
    """Return the first step, from 1 on, at which the mean of the last `window` losses is at most `stated`; 0 for none."""
    means = np.convolve(losses, np.full(window, 1.0 / window), mode="valid")
    below = np.flatnonzero(means <= stated)
    return int(below[0]) + window if below.size else 0


def _true_values(task: TrainingTask, parameters: Bundle) -> tuple[dict[str, F64], dict[str, F64]]:
    """Return every layer's value in inference and the loss's gradients by name, float64, at the measured rows."""
    model = task.experiment.evaluation
    tensors = {**measured_rows(task), **parameters}
    layers = values(model, tensors)
    return layers, gradients(model, tensors, layers)


def _norms(task: TrainingTask, pulled: dict[str, F64]) -> dict[str, float]:
    """Return the norm of the gradient by each layer's weights, biases left out, in the order of computation."""
    names = [name for name in task.experiment.differentiable if name.endswith(("kernel", "table", "recurrent"))]
    return {name: float(np.linalg.norm(pulled[name])) for name in names}


def _with_units(trial: Trial, task: TrainingTask, final: Bundle) -> Trial:
    model = task.experiment.evaluation
    layers, pulled = _true_values(task, final)
    hidden = hidden_activations(model)
    output = [each for each in model.layers if each.name == model.output and each.kind == "activation"]
    strengths = [
        unit_strengths(each, _before(each, layers, task)) for each in (hidden if trial.role == "hidden" else output)
    ]
    tops = np.concatenate([strength for strength, _ in strengths]) if strengths else np.zeros(0)
    limits = np.concatenate([np.full(strength.shape, SATURATED * largest) for strength, largest in strengths] or [tops])
    finite = bool(tops.size) and bool(np.isfinite(tops).all())
    flat = layers[hidden[-1].name] if hidden else np.zeros((1, 0))
    flat = flat.reshape(-1, flat.shape[-1])[:ROWS]
    shown = bool(flat.size) and bool(np.isfinite(flat).all())
    return msgspec.structs.replace(
        trial,
        gradients_after=_norms(task, pulled),
        dead=float((tops == 0.0).mean()) if finite else NAN,
        saturated=float((tops <= limits).mean()) if finite else NAN,
        rank=float(centred_rank(flat)) if shown else NAN,
        width=flat.shape[-1],
        dimension=effective_dimension(flat) if shown else NAN,
    )


def _before(activation: Layer, layers: dict[str, F64], task: TrainingTask) -> F64:
    """Return what an activation reads, its pixels as rows."""
    source = activation.inputs[0]
    x = layers[source] if source in layers else measured_rows(task)[source]
    return np.asarray(x, np.float64).reshape(-1, x.shape[-1])[:ROWS]


def unit_strengths(activation: Layer, x: F64) -> tuple[F64, float]:
    """Return of each unit the largest absolute derivative over rows x (n, width), and the largest that any has for inputs in [-2, 2].

    Of a kernel that works on rows the derivative of a unit is the norm of its gradient by the row.
    """
    probes = uniform(f"study/{x.shape[-1]}", PROBES * x.shape[-1], -NEAR_ZERO, NEAR_ZERO).reshape(PROBES, -1)
    return _derivatives(activation, x).max(0), float(_derivatives(activation, probes.astype(np.float64)).max())


def _derivatives(activation: Layer, x: F64) -> F64:
    """Return |derivative| of each unit at each row, (n, units)."""
    formula = formula_of(activation)
    with np.errstate(all="ignore"):
        reading = Reading(activation, [x], {}, training=False)
        y = formula.forward(reading)
        if kernel_of(activation).form == "unary":
            return np.abs(_pulled(activation, reading, y, np.ones_like(y)))
        norms = []
        for unit in range(y.shape[-1]):
            cotangent = np.zeros_like(y)
            cotangent[:, unit] = 1.0
            norms.append(np.linalg.norm(_pulled(activation, reading, y, cotangent), axis=-1))
        return np.stack(norms, axis=-1)


def _pulled(activation: Layer, reading: Reading, y: F64, cotangent: F64) -> F64:
    pulled = formula_of(activation).vjp(reading, y, cotangent).inputs[0]
    assert pulled is not None  # x has a gradient
    return pulled


def effective_dimension(flat: F64) -> float:
    """Return the participation ratio (sum l)^2 / sum l^2 of the eigenvalues l of the covariance of rows (n, units); 0 where all are alike."""
    singular = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    if not singular.size or singular[0] <= rounding_noise(flat):
        return 0.0
    share = (singular / singular[0]) ** 2
    return float(share.sum() ** 2 / (share**2).sum())
