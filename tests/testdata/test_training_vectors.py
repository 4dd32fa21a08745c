"""The limits of steps: a step in float32 keeps them whatever the order of its sums, and a step that is wrong by a little does not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.models.zoo import PUBLISHED
from actconform.oracle.training.trajectory import after_step, initial_slots, passed_through, trajectory
from actconform.testdata.model_vectors import touched_by_rounding
from actconform.testdata.training_tasks import training_task
from actconform.testdata.training_vectors import (
    FREE_RUNNING,
    GRADIENT,
    LOSS_PART,
    OPTIMIZER,
    STATISTICS,
    JudgedStep,
    free_running,
    step_limit,
    step_vectors,
)
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS
from actconform.types.training import Forms
from actconform.types.training_run import TrainingRecord

F32 = DTYPES["f32"]
U = F32.unit_roundoff
SMALL = {experiment.name: experiment for experiment in experiments() if PUBLISHED not in experiment.name}
STEPS = 3


def single(arrays):
    return {name: np.asarray(array).astype(np.float32) for name, array in arrays.items()}


def record_of(experiment, *, shown=True):
    """Return the task and record of a training in float64 whose every number is rounded to float32 and off by one rounding more."""
    task = training_task(experiment, keep=STEPS)
    state = single({**task.state, **initial_slots(experiment)})
    states, gradients, losses = [state], [], []
    for number in range(STEPS):
        moved, touch = touched_by_rounding(experiment.model, {**task.batch(number), **state}, U, 1000 + number)
        computed = passed_through(experiment.model, moved, touch)
        gradients.append(single({name: computed.gradients[f"d_{name}"] for name in experiment.differentiable}))
        losses.append(np.float32(computed.loss))
        # The optimizer works on the gradients as they are shown.
        exact = computed._replace(gradients={f"d_{name}": array for name, array in gradients[-1].items()})
        state = single(after_step(experiment, Forms(), number + 1, state, exact))
        states.append(state)
    record = TrainingRecord(
        losses=np.array(losses),
        states={name: np.stack([each[name] for each in states]) for name in states[0]},
        gradients={f"d_{name}": np.stack([each[name] for each in gradients]) for name in gradients[0]} if shown else {},
        final={},
        predictions={},
        validation_losses=np.zeros(0),
    )
    return task, record


def worst(task, record, number=1):
    """Return by part of a step the largest error as a share of its limit."""
    vectors, given = step_vectors(task, record.forms, JudgedStep(task, record, number), F32)
    shares = {}
    for vector, outputs in zip(vectors, given, strict=True):
        with np.errstate(all="ignore"):
            ratios = [
                np.max(
                    np.where(outputs[name] == truth, 0.0, np.abs(outputs[name] - truth) / vector.bounds[name]),
                    initial=0.0,
                )
                for name, truth in vector.truth.items()
            ]
        shares[vector.regime] = float(np.max(ratios))
    return shares


@pytest.mark.parametrize(
    "name", ["noise-softmax", "noise-relu", "images-softmax2", "blobs-nesterov", "map-dropout", "signals-relu"]
)
def test_a_step_that_is_off_by_roundings_keeps_every_limit(name):
    shares = worst(*record_of(SMALL[name]))
    parts = {LOSS_PART, GRADIENT, OPTIMIZER} | ({STATISTICS} if name.startswith("images") else set())
    assert shares.keys() == parts
    assert max(shares.values()) <= 1.0


@pytest.mark.parametrize(
    ("part", "change", "factor"),
    [
        (LOSS_PART, lambda record: record.losses, 1.0 + 2e-4),
        (GRADIENT, lambda record: record.gradients["d_dense2.kernel"], 1.0 + 2e-3),
        (OPTIMIZER, lambda record: record.states["dense3.kernel"][2:], 1.0 + 2e-6),
        (OPTIMIZER, lambda record: record.states["dense3.kernel/v"][2:], 1.0 + 2e-5),
    ],
)
def test_a_step_that_is_wrong_by_a_little_breaks_the_limit_of_its_part_alone(part, change, factor):
    task, record = record_of(SMALL["noise-relu"])
    change(record)[...] *= np.float32(factor)
    shares = worst(task, record)
    assert shares[part] > 1.0
    if part != GRADIENT:  # of which the optimizer's part is made
        assert all(share <= 1.0 for other, share in shares.items() if other != part)


def test_where_no_gradients_are_shown_the_optimizer_is_held_against_the_true_ones():
    task, record = record_of(SMALL["noise-relu"], shown=False)
    assert worst(task, record).keys() == {LOSS_PART, OPTIMIZER}
    assert max(worst(task, record).values()) <= 1.0
    record.states["dense3.kernel/m"][2] *= np.float32(1.01)
    assert worst(task, record)[OPTIMIZER] > 1.0


def test_running_statistics_are_held_against_the_form_that_a_backend_follows():
    task, record = record_of(SMALL["images-softmax2"])
    assert worst(task, record)[STATISTICS] <= 1.0
    assert worst(task, msgspec.structs.replace(record, forms=Forms(variance="unbiased")))[STATISTICS] > 1.0


def test_what_a_step_left_unchanged_is_judged_too():
    task, record = record_of(SMALL["blobs-momentum"])
    record.states["dense1.bias"][2] = record.states["dense1.bias"][1]
    assert worst(task, record)[OPTIMIZER] > 1.0


def test_free_running_losses_are_those_of_the_trajectory_and_may_be_off_by_roundings():
    task = training_task(SMALL["noise-relu"])
    (vector,) = free_running(task, Forms(), F32).vectors
    assert vector.regime == FREE_RUNNING
    losses = vector.truth[LOSS]
    assert losses.tolist() == trajectory(task, 20, Forms())[0]
    moved, _, _ = trajectory(task, 20, Forms(), lambda _: lambda __, array: array.astype(np.float32).astype(np.float64))
    assert (np.abs(np.array(moved) - losses) <= vector.bounds[LOSS]).all()
    faster = msgspec.structs.replace(
        task,
        experiment=msgspec.structs.replace(
            task.experiment, optimizer=msgspec.structs.replace(task.experiment.optimizer, beta2=0.99)
        ),
    )
    other = np.array(trajectory(faster, 20, Forms())[0])
    assert (np.abs(other - losses) > vector.bounds[LOSS]).sum() > 5


def test_a_published_model_may_move_by_more_roundings_because_its_numbers_are_longer_sums():
    """Of 589,824 gradients of dense1.kernel, Keras has four beyond 32 spreads, the furthest at 39: each is a product with sums of 2,304 terms."""
    published = next(experiment for experiment in experiments() if experiment.name == "images-softmax2@published")
    assert step_limit(published.model) == step_limit(published.evaluation) == 128.0
    assert {step_limit(experiment.model) for experiment in SMALL.values()} == {32.0}
