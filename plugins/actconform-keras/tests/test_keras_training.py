"""Training in Keras: each optimizer's steps, batches, noise, running statistics and early stopping, as `fit` makes them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actconform import Unsupported
from actconform.oracle.layers.model import values
from actconform.testing.short_training import SHORT_OPTIMIZERS, compared_record, first_wrong_part, short_task
from actconform.types.training import EarlyStopping, Forms, Optimizer
from actconform_keras import KerasBackend, KerasGpu
from actconform_keras.training import KerasTraining

NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
DOCUMENT = Path(__file__).parents[3] / "docs" / "training.md"


@pytest.fixture(scope="module")
def backend() -> KerasBackend:
    made = KerasBackend()
    made._framework()
    return made


@pytest.mark.parametrize("name", SHORT_OPTIMIZERS)
def test_steps_are_right(backend: KerasBackend, name: str) -> None:
    task = short_task(optimizer=SHORT_OPTIMIZERS[name])
    record = backend.train(task)
    assert compared_record(task, record).findings == []
    assert record.losses.shape == (6,)
    assert set(record.states) == {
        *task.state,
        *(f"{one}/{slot}" for one in task.state for slot in SHORT_OPTIMIZERS[name].slots),
    }
    assert set(record.gradients) == {f"d_{one}" for one in task.state}
    assert record.implementation.endswith(f"; keras.optimizers: {NAMES[SHORT_OPTIMIZERS[name].kind]}; Model.fit")


class Careless(KerasTraining):
    """With another epsilon, weight decay, learning rate and momentum than is asked for."""

    def make_optimizer(self, rule: Optimizer) -> Any:
        changes = {"epsilon": 1e-3} if rule.kind in ("adam", "rmsprop") else {"weight_decay": 0.11}
        if rule.kind == "sgd":
            changes = {"momentum": 0.91} if rule.momentum else {"learning_rate": 0.0101}
        return super().make_optimizer(msgspec.structs.replace(rule, **changes))


@pytest.mark.parametrize(("name", "step"), [("sgd", 1), ("momentum", 2), ("adam", 1), ("adamw", 1), ("rmsprop", 1)])
def test_a_wrong_optimizer_is_found_at_its_first_wrong_step(backend: KerasBackend, name: str, step: int) -> None:
    backend.facts()
    task = short_task(optimizer=SHORT_OPTIMIZERS[name])
    assert first_wrong_part(compared_record(task, Careless(task).fit())) == (step, "optimizer")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("adam", Forms(epsilon="added to the corrected root")),
        ("rmsprop", Forms(epsilon="added to the root")),
        ("decayed", Forms(momentum="of gradients")),
    ],
)
def test_keras_follows_its_own_forms_and_no_others(backend: KerasBackend, name: str, other: Forms) -> None:
    rule = msgspec.structs.replace(SHORT_OPTIMIZERS[name], epsilon=1e-3)
    task = short_task(optimizer=rule)
    record = backend.train(task)
    assert compared_record(task, record).findings == []
    assert first_wrong_part(compared_record(task, record, other))[1] == "optimizer"


def test_batches_come_in_the_order_of_the_task(backend: KerasBackend) -> None:
    task = short_task()
    record = backend.train(task)
    order = task.order.copy()
    order[1, [0, 1]] = order[1, [1, 0]]
    assert first_wrong_part(compared_record(msgspec.structs.replace(task, order=order), record)) == (4, "loss")


def test_masks_are_those_of_the_step(backend: KerasBackend) -> None:
    task = short_task("map-dropout")
    record = backend.train(task)
    assert compared_record(task, record).findings == []
    stale = {name: np.concatenate([array[:2], array[1:]]) for name, array in task.noise.items()}
    assert first_wrong_part(compared_record(msgspec.structs.replace(task, noise=stale), record)) == (3, "loss")


def test_running_statistics_take_the_biased_variance(backend: KerasBackend) -> None:
    task = short_task("images-sigmoid", examples=16, batch=8, epochs=1, judged=2, free=2)
    record = backend.train(task)
    assert compared_record(task, record).findings == []
    assert "norm1.variance" in record.states
    assert first_wrong_part(
        compared_record(task, record, Forms(epsilon=record.forms.epsilon, variance="unbiased"))
    ) == (
        1,
        "batch statistics",
    )
    evaluated = values(task.experiment.evaluation, {**task.evaluated_on(task.validation), **record.final})
    np.testing.assert_allclose(
        record.predictions["validation"], evaluated[task.experiment.evaluation.output], rtol=1e-3, atol=1e-4
    )


def test_early_stopping_restores_the_weights_of_the_best_epoch(backend: KerasBackend) -> None:
    rule = Optimizer(kind="adam", learning_rate=0.3)
    task = short_task(
        "noise-relu", epochs=12, optimizer=rule, stopping=EarlyStopping(min_delta=0.001, patience=2), judged=0
    )
    record = backend.train(task)
    epochs = len(record.validation_losses)
    best, lowest = 0, float("inf")
    for number, loss in enumerate(record.validation_losses):
        if loss < lowest - 0.001:
            best, lowest = number, float(loss)
    assert epochs == best + 3 < 12
    assert record.losses.shape == (3 * epochs,)
    tensors = {**task.evaluated_on(task.validation), **record.final}
    loss = float(values(task.experiment.evaluation, tensors)["loss"])
    assert loss == pytest.approx(float(record.validation_losses[best]), rel=1e-4)
    assert loss != pytest.approx(float(record.validation_losses[-1]), rel=1e-3)
    assert record.states == record.gradients == {}


def test_the_document_has_the_defaults_of_keras() -> None:
    import keras

    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    written = [match for row in rows for match in re.findall(r"`(\w+)\((\w+)=([^)`]+)\)`", row[2])]
    assert {"SGD", "Adam", "AdamW", "RMSprop", "BatchNormalization"} == {name for name, _, _ in written}
    for name, argument, value in written:
        kind = getattr(keras.optimizers, name, None) or getattr(keras.layers, name)
        assert str(inspect.signature(kind).parameters[argument].default) == value, (name, argument)


def test_a_gpu_is_not_trained_on() -> None:
    with pytest.raises(Unsupported, match="keras-gpu fits no models: fit reads its batches on the CPU"):
        KerasGpu().train(short_task())
