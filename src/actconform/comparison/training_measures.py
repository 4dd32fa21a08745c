"""What a training came to, in the measures that claims are about, and the claims that it does not bear out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.catalog.models.layer_kinds import kernel_of
from actconform.comparison.comparator import structural
from actconform.comparison.early_stopping import definitions
from actconform.oracle.layers.model import values
from actconform.oracle.training.trajectory import passed_through
from actconform.testdata.training_vectors import judged_rows
from actconform.types import FindingClass
from actconform.types.model import LOSS
from actconform.types.result import Curve

if TYPE_CHECKING:
    from actconform.oracle.layers.registry import F64
    from actconform.types import Bundle, Finding
    from actconform.types.training import Experiment
    from actconform.types.training_run import TrainingRecord, TrainingTask

SHOWN_STEPS = 20
PROPERTY = "claims"  # the regime of findings
DECIDING = ("categorical", "binary")  # losses of models that choose a class
DEAD_ROWS = 256  # examples at which units are called dead; fewer of a large model


def curve_of(task: TrainingTask, record: TrainingRecord) -> Curve:
    """Return how a training went, with its measures: none where a loss or a final parameter is no number."""
    experiment = task.experiment
    losses = record.losses.astype(np.float64)
    epochs = [
        float(losses[start : start + experiment.steps].mean()) for start in range(0, len(losses), experiment.steps)
    ]
    validation = [float(loss) for loss in record.validation_losses]
    with np.errstate(all="ignore"):
        finite = all(np.isfinite(array).all() for array in (record.losses, *record.final.values()))
        measures = _measures(task, record, epochs, validation) if finite else {}
    return Curve(
        first=tuple(float(loss) for loss in losses[:SHOWN_STEPS]),
        losses=tuple(epochs),
        validation=tuple(validation),
        measures=measures,
        epoch=definitions(experiment.stopping, validation)[0].best if experiment.stopping else 0,
        about=experiment.about,
        steps=experiment.steps,
        claims=experiment.claims,
    )


def broken_claims(experiment: Experiment, curve: Curve) -> list[Finding]:
    """Return a finding of class `property` for each claim that a training does not bear out, the measure as tensor."""
    findings = []
    for claim in experiment.claims:
        value = curve.measures.get(claim.measure, float("nan"))
        if not claim.holds(value):
            published = f" (published: {claim.published})" if claim.published else ""
            evidence = f"{claim.text}: {claim.measure} {value:.6g}, expected {claim.wanted}{published}"
            findings.append(structural(FindingClass.PROPERTY, PROPERTY, claim.measure, evidence))
    return findings


def _measures(
    task: TrainingTask, record: TrainingRecord, epochs: list[float], validation: list[float]
) -> dict[str, float]:
    experiment = task.experiment
    change = max(
        float(np.abs(record.final[name].astype(np.float64) - task.state[name]).max())
        for name in experiment.differentiable
    )
    measures = {
        "first loss": epochs[0],
        "loss": epochs[-1],
        "validation loss": validation[-1],
        "largest parameter change": change,
    }
    if experiment.model.layers[-1].kind.startswith(DECIDING):
        measures["accuracy"] = class_accuracy(experiment, record.predictions["examples"], task.examples)
        measures["validation accuracy"] = class_accuracy(experiment, record.predictions["validation"], task.validation)
    return measures | hidden_measures(task, record.final) | _gradient_ratio(task, record)


def _gradient_ratio(task: TrainingTask, record: TrainingRecord) -> dict[str, float]:
    """Return by how much the gradient has shrunk on its way back in the first step: the backend's own, the true one where it shows none."""
    kernels = [f"d_{name}" for name in task.experiment.differentiable if name.endswith("kernel")]
    if len(kernels) < 2:
        return {}
    shown = {name: array[0] for name, array in record.gradients.items()}
    pulled = shown or passed_through(task.experiment.model, {**task.batch(0), **task.state}).gradients
    first, last = (float(np.linalg.norm(pulled[name].astype(np.float64))) for name in (kernels[0], kernels[-1]))
    return {"gradient ratio": first / last if last else float("nan")}


def class_accuracy(experiment: Experiment, y: np.ndarray, rows: Bundle) -> float:
    """Return the share of rows whose class is chosen: the largest score, or of one unit, or independent bits, which side of a half."""
    target = rows[experiment.model.layers[-1].inputs[1]]
    if experiment.model.layers[-1].kind.startswith("categorical"):
        return float((y.argmax(-1) == target.argmax(-1)).mean())
    half = 0.0 if experiment.model.layers[-1].kind.endswith("logits") else 0.5
    return float(((y > half) == (target > 0.5)).mean())


def rounding_noise(flat: F64) -> float:
    """Return the singular value of rows (n, units) that rounding alone may make: the bound of numpy.linalg.matrix_rank with the Frobenius norm in place of the largest.

    Of the rows as they are, also where their mean is then taken off: that leaves a rounding of the size of what it was taken from.
    """
    return float(np.linalg.norm(flat) * max(flat.shape) * np.finfo(np.float64).eps)


def centred_rank(flat: F64) -> int:
    """Return the rank of rows (n, units) less their mean, all finite; what rounding may leave counts as 0."""
    return int(np.linalg.matrix_rank(flat - flat.mean(0), tol=rounding_noise(flat)))


def measured_rows(task: TrainingTask) -> Bundle:
    """Return the first examples as inference reads them, at which hidden layers are measured: 256, fewer of a large model."""
    count = min(DEAD_ROWS, judged_rows(task.experiment.evaluation))
    return {name: array[:count] for name, array in task.evaluated_on(task.examples).items()}


def hidden_measures(task: TrainingTask, parameters: Bundle) -> dict[str, float]:
    """Return what became of the hidden layers, by the float64 truth at up to 256 examples: measures of layers that are there.

    dead units: the share of units behind a relu that are 0 at every example. rank deficiency: of the last softmax in a hidden layer, how many fewer dimensions its centred values have than units.
    """
    model = task.experiment.evaluation
    layers = values(model, {**measured_rows(task), **parameters})
    measures = {}
    relus = [layer for layer in model.layers if layer.kind == "activation" and kernel_of(layer).name == "relu"]
    if relus:
        dead = [(layers[layer.name].reshape(-1, layers[layer.name].shape[-1]) == 0.0).all(0) for layer in relus]
        measures["dead units"] = float(np.concatenate(dead).mean())
    head = model.layers[-1].inputs[0]
    hidden = [
        layer
        for layer in model.layers
        if layer.kind == "activation" and kernel_of(layer).name == "softmax" and layer.name not in (head, LOSS)
    ]
    if hidden:
        value = layers[hidden[-1].name]
        flat = value.reshape(-1, value.shape[-1])
        measures["rank deficiency"] = float(flat.shape[-1] - centred_rank(flat))
    return measures
