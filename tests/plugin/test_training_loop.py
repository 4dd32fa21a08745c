"""The loop that frameworks leave to their users: what it keeps, when it ends, which weights it restores."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actconform.catalog.experiments import experiments
from actconform.plugin.training_loop import Stopping, Trainer, train
from actconform.testdata.training_tasks import training_task
from actconform.types.training import EarlyStopping, Forms

BLOBS = next(experiment for experiment in experiments() if experiment.name == "blobs-sgd")


class Counting(Trainer):
    """A trainer whose parameters count its steps, and whose validation losses are given."""

    implementation = "counting"
    forms = Forms(variance="unbiased")

    def __init__(self, task, validation_losses=()):
        self.count, self.batches, self.evaluations = 0, [], 0
        self._names = [parameter.name for parameter in task.experiment.model.parameters]
        self._validation = list(validation_losses)

    def step(self, batch, number):
        assert number == self.count
        self.count += 1
        self.batches.append(batch)
        return 100.0 - number

    def state(self):
        return {
            **{name: np.full(1, self.count, np.float32) for name in self._names},
            "dense1.bias/momentum": np.zeros(1),
        }

    def restore(self, state):
        self.count = int(state["dense1.kernel"][0])

    def gradients(self):
        return {"d_dense1.bias": np.full(1, self.count, np.float32)}

    def evaluate(self, inputs):
        self.evaluations += 1
        loss = self._validation.pop(0) if self._validation else 1.0
        return loss, np.full(len(inputs["x"]), self.count, np.float32)


def test_every_step_reads_its_batch_and_leaves_its_loss():
    task = training_task(BLOBS)
    trainer = Counting(task)
    record = train(trainer, task)
    assert record.losses.tolist() == [100.0 - number for number in range(40)]
    for number, batch in enumerate(trainer.batches):
        assert all(np.array_equal(batch[name], array) for name, array in task.batch(number).items())
    assert (record.implementation, record.forms) == ("counting", Forms(variance="unbiased"))


def test_the_first_steps_leave_the_state_before_and_after_each_and_their_gradients():
    task = training_task(BLOBS, keep=3)
    record = train(Counting(task), task)
    assert record.states["dense2.kernel"].ravel().tolist() == [0, 1, 2, 3]
    assert record.gradients["d_dense1.bias"].ravel().tolist() == [1, 2, 3]
    assert train(Counting(task), training_task(BLOBS, keep=0)).states == {}


def test_the_record_ends_with_parameters_alone_and_their_predictions():
    task = training_task(BLOBS, keep=0)
    record = train(Counting(task), task)
    assert set(record.final) == {parameter.name for parameter in BLOBS.model.parameters}
    assert {name: (len(y), y[0]) for name, y in record.predictions.items()} == {
        "examples": (320, 40),
        "validation": (80, 40),
    }
    assert record.validation_losses.tolist() == [1.0, 1.0]


def stopped(losses, *, min_delta=0.1, patience=2, epochs=10):
    experiment = msgspec.structs.replace(
        BLOBS, epochs=epochs, stopping=EarlyStopping(min_delta=min_delta, patience=patience)
    )
    task = training_task(experiment, keep=0)
    record = train(Counting(task, losses), task)
    return len(record.validation_losses), int(record.final["dense1.kernel"][0]) // BLOBS.steps


@pytest.mark.parametrize(
    ("losses", "ran", "best"),
    [
        ([3.0, 2.0, 1.0, 1.5, 1.5, 0.1], 5, 3),  # two epochs without a better one
        ([3.0, 2.95, 2.9, 0.0], 3, 1),  # better by less than min_delta is not better
        ([3.0, 2.95, 2.85, 2.84, 2.84], 5, 3),  # but what adds up to it is
        ([float("nan")] * 4, 2, 2),  # no epoch was best: the weights are the last ones
    ],
)
def test_training_ends_and_restores_the_best_weights(losses, ran, best):
    assert stopped(losses) == (ran, best)


def test_the_best_weights_are_restored_too_where_training_came_to_its_end():
    assert stopped([1.0, 2.0, 3.0], patience=9, epochs=3) == (3, 1)


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=12), st.integers(1, 4))
def test_early_stopping_is_its_definition(losses, patience):
    """Against the definition written over all epochs at once."""
    stopping = Stopping(EarlyStopping(min_delta=0.5, patience=patience))
    ended = None
    for number, loss in enumerate(losses, 1):
        # as a checkpoint has it: the next epoch goes on from these two numbers
        stopping = Stopping(EarlyStopping(min_delta=0.5, patience=patience), stopping.best, stopping.waited)
        stopping.improves(loss)
        if stopping.ended:
            ended = number
            break
    best, since, expected = float("inf"), 0, None
    for number, loss in enumerate(losses, 1):
        better = loss < best - 0.5
        best, since = (loss, 0) if better else (best, since + 1)
        if since == patience:
            expected = number
            break
    assert ended == expected
