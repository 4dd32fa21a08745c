"""What a training came to, in the measures of claims, and which claims it does not bear out."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.models.zoo import PUBLISHED
from actconform.comparison.training_measures import broken_claims, curve_of, hidden_measures
from actconform.testdata.training_tasks import training_task
from actconform.types.training import Claim, EarlyStopping
from actconform.types.training_run import TrainingRecord

SMALL = {experiment.name: experiment for experiment in experiments() if PUBLISHED not in experiment.name}


def record_of(task, **fields):
    """Return the record of a training that changed nothing and always predicts 0."""
    experiment = task.experiment
    steps = experiment.steps * experiment.epochs
    y = {
        name: np.zeros_like(rows["target"])
        for name, rows in (("examples", task.examples), ("validation", task.validation))
    }
    record = TrainingRecord(
        losses=np.arange(steps, 0, -1).astype(np.float32),
        states={},
        final=dict(task.state),
        predictions=y,
        validation_losses=np.arange(experiment.epochs, dtype=np.float32),
    )
    return msgspec.structs.replace(record, **fields)


def test_a_curve_has_the_first_losses_and_the_means_of_epochs():
    task = training_task(SMALL["blobs-sgd"])  # 2 epochs of 20 steps
    curve = curve_of(task, record_of(task))
    assert curve.first == tuple(range(40, 20, -1))
    assert curve.losses == (30.5, 10.5)
    assert curve.validation == (0.0, 1.0)
    assert curve.epoch == 0
    measures = curve.measures
    assert (measures["first loss"], measures["loss"], measures["validation loss"]) == (30.5, 10.5, 1.0)
    assert measures["largest parameter change"] == 0.0


def test_the_epoch_of_the_best_validation_loss_is_named_where_training_stops_early():
    experiment = msgspec.structs.replace(SMALL["blobs-sgd"], stopping=EarlyStopping())
    task = training_task(experiment)
    assert curve_of(task, record_of(task, validation_losses=np.array([3.0, 1.0], np.float32))).epoch == 2
    coarse = msgspec.structs.replace(SMALL["blobs-sgd"], epochs=3, stopping=EarlyStopping(min_delta=0.1))
    task = training_task(coarse)
    assert curve_of(task, record_of(task, validation_losses=np.array([0.5, 0.45, 0.44], np.float32))).epoch == 1


@pytest.mark.parametrize(
    ("name", "scores"), [("blobs-sgd", 1.0), ("images-softmax2", 1.0), ("images-sigmoid", 0.9), ("bits-latent", 5.0)]
)
def test_accuracy_counts_the_rows_whose_class_is_chosen(name, scores):
    task = training_task(SMALL[name])
    target = task.examples["target"]
    binary = name in ("images-sigmoid", "bits-latent")
    low = 1.0 - scores if name == "images-sigmoid" else -scores
    right = np.where(target > 0.5, scores, low) if binary else target * scores
    wrong = right.copy()
    wrong[: len(wrong) // 4] = (
        (scores + low - wrong[: len(wrong) // 4]) if binary else np.roll(wrong[: len(wrong) // 4], 1, -1)
    )
    validation = task.validation["target"]
    for y, accuracy in ((right, 1.0), (wrong, 0.75)):
        measures = curve_of(task, record_of(task, predictions={"examples": y, "validation": validation})).measures
        assert measures["accuracy"] == accuracy


def test_units_of_relu_that_no_example_reaches_are_dead():
    task = training_task(SMALL["noise-relu"])
    assert hidden_measures(task, task.state)["dead units"] < 0.1
    bias = {name: np.full_like(array, -1e6) if name == "dense2.bias" else array for name, array in task.state.items()}
    behind = 12 + 16 + 12 + 8  # of 64 units: the second layer, and those that read nothing but zeros of it
    assert behind / 64 <= hidden_measures(task, bias)["dead units"] < 1.0


def test_units_of_a_hidden_softmax_are_linearly_dependent_and_those_of_relu_have_no_such_measure():
    softmax, relu = training_task(SMALL["noise-softmax"]), training_task(SMALL["noise-relu"])
    rng = np.random.default_rng(0)
    spread = {name: array + rng.normal(size=array.shape) * 2.0 for name, array in softmax.state.items()}
    assert hidden_measures(softmax, spread)["rank deficiency"] == 1.0
    assert "rank deficiency" not in hidden_measures(relu, relu.state)


def test_the_gradient_ratio_is_that_of_the_first_step_and_of_the_backend_itself():
    task = training_task(SMALL["noise-sigmoid"])
    shown = {f"d_{name}": np.zeros((2, *task.state[name].shape), np.float32) for name in task.experiment.differentiable}
    shown["d_dense1.kernel"][0, 0, 0], shown["d_head.kernel"][0, 0, 0] = 3.0, 4.0
    assert curve_of(task, record_of(task, gradients=shown)).measures["gradient ratio"] == 0.75


def test_where_a_backend_shows_no_gradients_the_gradient_ratio_is_that_of_the_truth():
    task = training_task(SMALL["noise-sigmoid"])
    assert 0.001 < curve_of(task, record_of(task)).measures["gradient ratio"] < 0.05


def test_a_claim_that_does_not_hold_is_a_finding_with_its_numbers():
    task = training_task(SMALL["noise-relu"])
    curve = curve_of(task, record_of(task))
    (finding,) = [finding for finding in broken_claims(task.experiment, curve) if finding.tensor == "loss"]
    assert (finding.class_, finding.regime) == ("property", "claims")
    assert (
        finding.evidence
        == "hidden layers of relu learn noise by rote: loss 2.5, expected at most 0.2 (published: 0.4808)"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.4])
def test_no_number_bears_out_no_claim(value):
    claim = Claim(text="it learns", measure="loss", at_least=-1.0, at_most=0.3)
    assert not claim.holds(value)
    experiment = msgspec.structs.replace(SMALL["blobs-sgd"], claims=(claim,))
    task = training_task(experiment)
    curve = msgspec.structs.replace(curve_of(task, record_of(task)), measures={"loss": value})
    (finding,) = broken_claims(experiment, curve)
    assert finding.evidence.endswith("expected at least -1 and at most 0.3")


def test_a_measure_that_a_training_lacks_bears_out_no_claim():
    experiment = msgspec.structs.replace(
        SMALL["blobs-sgd"], claims=(Claim(text="it is dependent", measure="rank deficiency", at_least=1.0),)
    )
    task = training_task(experiment)
    assert len(broken_claims(experiment, curve_of(task, record_of(task)))) == 1
