"""Training in torch: each optimizer's steps, batches, masks, running statistics and early stopping, in a loop over its own modules."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actconform import Unavailable
from actconform.oracle.layers.model import values
from actconform.plugin.training_loop import train
from actconform.testing.short_training import SHORT_OPTIMIZERS, compared_record, first_wrong_part, short_task
from actconform.types.training import EarlyStopping, Forms, Optimizer
from actconform_torch import TorchBackend, TorchCompile
from actconform_torch.training import TorchTrainer

NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
DOCUMENT = Path(__file__).parents[3] / "docs" / "training.md"


@pytest.mark.parametrize("name", SHORT_OPTIMIZERS)
def test_steps_are_right(name: str) -> None:
    task = short_task(optimizer=SHORT_OPTIMIZERS[name])
    record = TorchBackend().train(task)
    assert compared_record(task, record).findings == []
    assert record.losses.shape == (6,)
    assert set(record.states) == {
        *task.state,
        *(f"{one}/{slot}" for one in task.state for slot in SHORT_OPTIMIZERS[name].slots),
    }
    assert set(record.gradients) == {f"d_{one}" for one in task.state}
    assert record.implementation.endswith(f"; torch.optim.{NAMES[SHORT_OPTIMIZERS[name].kind]}")


class Careless(TorchTrainer):
    """With another epsilon, weight decay, learning rate and momentum than is asked for."""

    def make_optimizer(self, parameters: Any, rule: Optimizer) -> Any:
        changes = {"epsilon": 1e-3} if rule.kind in ("adam", "rmsprop") else {"weight_decay": 0.11}
        if rule.kind == "sgd":
            changes = {"momentum": 0.91} if rule.momentum else {"learning_rate": 0.0101}
        return super().make_optimizer(parameters, msgspec.structs.replace(rule, **changes))


@pytest.mark.parametrize(("name", "step"), [("sgd", 1), ("momentum", 2), ("adam", 1), ("adamw", 1), ("rmsprop", 1)])
def test_a_wrong_optimizer_is_found_at_its_first_wrong_step(name: str, step: int) -> None:
    task = short_task(optimizer=SHORT_OPTIMIZERS[name])
    assert first_wrong_part(compared_record(task, train(Careless(task), task))) == (step, "optimizer")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("adam", Forms(epsilon="added to the root")),
        ("rmsprop", Forms(epsilon="inside the root")),
        ("decayed", Forms(momentum="of updates")),
    ],
)
def test_torch_follows_its_own_forms_and_no_others(name: str, other: Forms) -> None:
    rule = msgspec.structs.replace(SHORT_OPTIMIZERS[name], epsilon=1e-3)
    task = short_task(optimizer=rule)
    record = TorchBackend().train(task)
    assert compared_record(task, record).findings == []
    assert first_wrong_part(compared_record(task, record, other))[1] == "optimizer"


def test_batches_come_in_the_order_of_the_task() -> None:
    task = short_task()
    record = TorchBackend().train(task)
    order = task.order.copy()
    order[1, [0, 1]] = order[1, [1, 0]]
    assert first_wrong_part(compared_record(msgspec.structs.replace(task, order=order), record)) == (4, "loss")


def test_masks_are_those_of_the_step() -> None:
    task = short_task("map-dropout")
    record = TorchBackend().train(task)
    assert compared_record(task, record).findings == []
    stale = {name: np.concatenate([array[:2], array[1:]]) for name, array in task.noise.items()}
    assert first_wrong_part(compared_record(msgspec.structs.replace(task, noise=stale), record)) == (3, "loss")


def test_running_statistics_take_the_unbiased_variance() -> None:
    task = short_task("images-sigmoid", examples=16, batch=8, epochs=1, judged=2, free=2)
    record = TorchBackend().train(task)
    assert compared_record(task, record).findings == []
    assert "norm1.variance" in record.states
    assert first_wrong_part(compared_record(task, record, Forms(epsilon=record.forms.epsilon, variance="biased"))) == (
        1,
        "batch statistics",
    )
    evaluated = values(task.experiment.evaluation, {**task.evaluated_on(task.validation), **record.final})
    np.testing.assert_allclose(
        record.predictions["validation"], evaluated[task.experiment.evaluation.output], rtol=1e-3, atol=1e-4
    )


def test_early_stopping_restores_the_weights_of_the_best_epoch() -> None:
    rule = Optimizer(kind="adam", learning_rate=0.3)
    task = short_task(
        "noise-relu", epochs=12, optimizer=rule, stopping=EarlyStopping(min_delta=0.001, patience=2), judged=0
    )
    record = TorchBackend().train(task)
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


def test_torch_compile_trains_as_torch_does() -> None:
    try:
        TorchCompile().facts()
    except Unavailable as unavailable:
        pytest.skip(str(unavailable))
    task = short_task(epochs=1, judged=3, free=3)
    record = TorchCompile().train(task)
    assert compared_record(task, record).findings == []
    assert record.implementation.endswith("torch.optim.Adam, by torch.compile")


def test_the_document_has_the_defaults_of_torch() -> None:
    import torch

    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    written = [match for row in rows for match in re.findall(r"`(\w+)\((\w+)=([^)`]+)\)`", row[3])]
    assert {"SGD", "Adam", "AdamW", "RMSprop", "BatchNorm2d"} == {name for name, _, _ in written}
    for name, argument, value in written:
        kind = getattr(torch.optim, name, None) or getattr(torch.nn, name)
        assert str(inspect.signature(kind).parameters[argument].default) == value, (name, argument)
