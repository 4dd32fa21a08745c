"""What is measured of a training, by networks whose numbers are known beforehand."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from study_trainer import DefinitionTrainer

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import KERNELS
from actconform.catalog.models.builder import layer
from actconform.comparison import training_measures
from actconform.plugin.training_loop import train
from actconform.study.trial import Trial, constant_loss, effective_dimension, measured_trial, unit_strengths
from actconform.study.variants import study_variant
from actconform.testdata.training_tasks import training_task

EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}


def trial_of(name, role, kernel, epochs=2, change=lambda task: task, reach=0.5):
    experiment = msgspec.structs.replace(study_variant(EXPERIMENTS[name], role, KERNELS[kernel], 0), epochs=epochs)
    task = change(training_task(experiment, keep=0))
    record = train(DefinitionTrainer(task), task)
    stub = Trial(experiment=name, variant="", role=role, kernel=kernel, seed=0)
    return measured_trial(stub, task, record, reach), record


def with_bias(value):
    def change(task):
        biases = {name: np.full_like(array, value) for name, array in task.state.items() if name.endswith("bias")}
        return msgspec.structs.replace(task, state={**task.state, **biases})

    return change


def test_a_softmax_in_hidden_layers_has_rank_n_less_one_and_its_gradient_vanishes():
    softmax, _ = trial_of("noise-relu", "hidden", "softmax")
    relu, _ = trial_of("noise-relu", "hidden", "relu")
    assert (softmax.rank, softmax.width) == (7, 8)
    assert 1.0 <= softmax.dimension <= 7.0
    ratios = [list(trial.gradients_before.values()) for trial in (softmax, relu)]
    assert ratios[0][0] / ratios[0][-1] < 1e-3 < ratios[1][0] / ratios[1][-1]
    assert list(softmax.gradients_before) == [f"dense{number}.kernel" for number in range(1, 6)] + ["head.kernel"]
    assert softmax.gradients_before.keys() == softmax.gradients_after.keys()


def test_losses_are_means_of_epochs_and_steps_to_the_stated_loss_are_counted_from_one():
    trial, record = trial_of("noise-relu", "hidden", "relu", epochs=40)
    steps = EXPERIMENTS["noise-relu"].steps
    assert trial.losses == pytest.approx(record.losses.astype(np.float64).reshape(40, steps).mean(1))
    assert trial.loss == trial.losses[-1] < 0.5 * trial.constant
    means = [record.losses[end - steps : end].mean() for end in range(steps, len(record.losses) + 1)]
    assert trial.reached == steps + next(k for k, mean in enumerate(means) if mean <= 0.5 * trial.constant)
    assert not trial.no_better
    assert (trial.diverged, trial.steps, trial.metric_name) == (0, 160, "mean absolute error")


def test_one_softmax_unit_is_dead_and_learns_nothing():
    trial, _ = trial_of("noise-relu", "output", "softmax")
    assert (trial.dead, trial.saturated) == (1.0, 1.0)
    assert set(trial.gradients_before.values()) == {0.0}
    assert trial.no_better
    assert trial.reached == 0


def test_relus_below_zero_are_dead_and_sigmoids_far_out_saturated():
    dead, _ = trial_of("noise-relu", "hidden", "relu", change=with_bias(-50.0))
    assert (dead.dead, dead.saturated, dead.rank, dead.dimension) == (1.0, 1.0, 0.0, 0.0)
    saturated, _ = trial_of("noise-relu", "hidden", "sigmoid", change=with_bias(-20.0))
    assert (saturated.dead, saturated.saturated) == (0.0, 1.0)
    alive, _ = trial_of("noise-relu", "hidden", "sigmoid")
    assert (alive.dead, alive.saturated) == (0.0, 0.0)


def test_a_loss_that_is_not_finite_is_diverged_at_its_first_step():
    trial, record = trial_of("noise-relu", "hidden", "exponential")
    assert trial.diverged == 1 + int(np.flatnonzero(~np.isfinite(record.losses))[0])
    assert np.isnan(trial.loss)
    assert np.isnan(trial.rank)
    assert not trial.no_better


def test_the_metric_of_classes_is_accuracy():
    trial, record = trial_of("blobs-adam", "output", "softmax")
    task = training_task(EXPERIMENTS["blobs-adam"], keep=0)
    right = record.predictions["validation"].argmax(-1) == task.validation["target"].argmax(-1)
    assert (trial.metric_name, trial.metric) == ("accuracy", right.mean())


def test_the_metric_of_a_mean_absolute_error_is_the_mean_square():
    trial, record = trial_of("signals-relu", "output", "sigmoid", epochs=1)
    task = training_task(EXPERIMENTS["signals-relu"], keep=0)
    error = record.predictions["validation"] - task.validation["target"].astype(np.float64)
    assert trial.metric_name == "mean squared error"
    assert trial.metric == pytest.approx((error**2).mean())


@pytest.mark.parametrize(
    ("name", "target", "least"),
    [
        ("noise-relu", [[1.0], [2.0], [6.0]], 14 / 3),
        ("signals-relu", [[1.0], [2.0], [6.0]], 5 / 3),
        ("blobs-adam", [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], -(np.log(1 / 3) + 2 * np.log(2 / 3)) / 3),
        ("images-sigmoid", [[1.0], [0.0], [0.0]], -(np.log(1 / 3) + 2 * np.log(2 / 3)) / 3),
        ("images-sigmoid", [[1.0], [1.0], [1.0]], 0.0),
    ],
)
def test_the_best_constant_answer(name, target, least):
    assert constant_loss(EXPERIMENTS[name].model, {"target": np.array(target)}) == pytest.approx(least)


def test_the_derivative_of_a_softmax_unit_is_the_norm_of_its_row_of_the_jacobian():
    x = np.array([[0.3, -1.0, 2.0], [5.0, 0.0, -5.0]])
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    jacobians = [np.diag(row) - np.outer(row, row) for row in p]
    strengths, largest = unit_strengths(layer("a", "activation", "x", kernel="softmax"), x)
    assert strengths == pytest.approx(np.max([np.linalg.norm(jacobian, axis=1) for jacobian in jacobians], axis=0))
    assert 0.3 < largest < 0.36  # p (1 - p) is at most 1/4, beside up to as much by the others
    strengths, largest = unit_strengths(layer("a", "activation", "x", kernel="tanh"), x)
    assert strengths == pytest.approx(1.0 - np.tanh(np.abs(x).min(0)) ** 2)
    assert largest == pytest.approx(1.0, abs=1e-3)


def test_the_effective_dimension_is_the_participation_ratio():
    rows = np.random.default_rng(7).normal(size=(4000, 3)) * [1.0, 1.0, 0.0] + 5.0
    assert effective_dimension(rows) == pytest.approx(2.0, rel=0.01)
    variances = np.linalg.eigvalsh(np.cov((rows * [3.0, 1.0, 1.0]).T))
    assert effective_dimension(rows * [3.0, 1.0, 1.0]) == pytest.approx(variances.sum() ** 2 / (variances**2).sum())
    assert effective_dimension(np.full((10, 4), 0.1)) == 0.0


def test_of_a_large_model_as_few_examples_are_measured_as_are_judged(monkeypatch):
    monkeypatch.setattr(training_measures, "judged_rows", lambda model: 16)

    def beyond_is_nan(task):
        x = task.examples["x"].copy()
        x[16:] = np.nan
        return msgspec.structs.replace(task, examples={**task.examples, "x": x})

    trial, record = trial_of("noise-relu", "hidden", "relu", change=beyond_is_nan)
    assert np.isnan(record.losses).any()
    assert np.isfinite([*trial.gradients_before.values()]).all()
