"""Training in torch: each optimizer's steps, batches, masks, running statistics and early stopping, in a loop over its own modules."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from actconform import Unavailable
from actconform.catalog.experiments import experiments
from actconform.comparison.steps import compare_training
from actconform.oracle.layers.model import values
from actconform.plugin.training_loop import train
from actconform.testdata.training_tasks import training_task
from actconform.testdata.training_vectors import free_running
from actconform.types.dtypes import DTYPES
from actconform.types.training import EarlyStopping, Forms, Optimizer
from actconform_torch import TorchBackend, TorchCompile
from actconform_torch.training import TorchTrainer

if TYPE_CHECKING:
    from actconform.comparison.steps import ComparedTraining
    from actconform.types.training_run import TrainingRecord, TrainingTask

EXPERIMENTS = {experiment.name: experiment for experiment in experiments()}
OPTIMIZERS = {
    "sgd": Optimizer(kind="sgd", learning_rate=0.01),
    "momentum": Optimizer(kind="sgd", learning_rate=0.01, momentum=0.9),
    "nesterov": Optimizer(kind="sgd", learning_rate=0.01, momentum=0.9, nesterov=True),
    "adam": Optimizer(kind="adam", learning_rate=0.01),
    "adamw": Optimizer(kind="adamw", learning_rate=0.01, weight_decay=0.1),
    "rmsprop": Optimizer(kind="rmsprop", learning_rate=0.001, beta2=0.9),
    "decayed": Optimizer(kind="sgd", learning_rate=0.01, momentum=0.9, decay=0.5, decay_steps=2),
}
NAMES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
DOCUMENT = Path(__file__).parents[3] / "docs" / "training.md"


def task_of(name: str = "blobs-adam", **changes: Any) -> TrainingTask:
    """A short training: two epochs of three batches, unless the changes say otherwise."""
    experiment = EXPERIMENTS[name]
    sizes = {"examples": 3 * experiment.batch, "epochs": 2, "judged": 5, "free": 5}
    return training_task(msgspec.structs.replace(experiment, **(sizes | changes)))


def compared(task: TrainingTask, record: TrainingRecord, forms: Forms | None = None) -> ComparedTraining:
    record.forms = forms or record.forms
    return compare_training(task, record, free_running(task, record.forms, DTYPES["f32"]), DTYPES["f32"])


def part_of(compared: ComparedTraining) -> tuple[int, str]:
    assert compared.findings
    assert compared.first is not None
    return compared.first.step, compared.first.part


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_right(name: str) -> None:
    task = task_of(optimizer=OPTIMIZERS[name])
    record = TorchBackend().train(task)
    assert compared(task, record).findings == []
    assert record.losses.shape == (6,)
    assert set(record.states) == {
        *task.state,
        *(f"{one}/{slot}" for one in task.state for slot in OPTIMIZERS[name].slots),
    }
    assert set(record.gradients) == {f"d_{one}" for one in task.state}
    assert record.implementation.endswith(f"; torch.optim.{NAMES[OPTIMIZERS[name].kind]}")


class Careless(TorchTrainer):
    """With another epsilon, weight decay, learning rate and momentum than is asked for."""

    def make_optimizer(self, parameters: Any, rule: Optimizer) -> Any:
        changes = {"epsilon": 1e-3} if rule.kind in ("adam", "rmsprop") else {"weight_decay": 0.11}
        if rule.kind == "sgd":
            changes = {"momentum": 0.91} if rule.momentum else {"learning_rate": 0.0101}
        return super().make_optimizer(parameters, msgspec.structs.replace(rule, **changes))


@pytest.mark.parametrize(("name", "step"), [("sgd", 1), ("momentum", 2), ("adam", 1), ("adamw", 1), ("rmsprop", 1)])
def test_a_wrong_optimizer_is_found_at_its_first_wrong_step(name: str, step: int) -> None:
    task = task_of(optimizer=OPTIMIZERS[name])
    assert part_of(compared(task, train(Careless(task), task))) == (step, "optimizer")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("adam", Forms(epsilon="added to the root")),
        ("rmsprop", Forms(epsilon="inside the root")),
        ("decayed", Forms(momentum="of updates")),
    ],
)
def test_torch_follows_its_own_forms_and_no_others(name: str, other: Forms) -> None:
    rule = msgspec.structs.replace(OPTIMIZERS[name], epsilon=1e-3)
    task = task_of(optimizer=rule)
    record = TorchBackend().train(task)
    assert compared(task, record).findings == []
    assert part_of(compared(task, record, other))[1] == "optimizer"


def test_batches_come_in_the_order_of_the_task() -> None:
    task = task_of()
    record = TorchBackend().train(task)
    order = task.order.copy()
    order[1, [0, 1]] = order[1, [1, 0]]
    assert part_of(compared(msgspec.structs.replace(task, order=order), record)) == (4, "loss")


def test_masks_are_those_of_the_step() -> None:
    task = task_of("map-dropout")
    record = TorchBackend().train(task)
    assert compared(task, record).findings == []
    stale = {name: np.concatenate([array[:2], array[1:]]) for name, array in task.noise.items()}
    assert part_of(compared(msgspec.structs.replace(task, noise=stale), record)) == (3, "loss")


def test_running_statistics_take_the_unbiased_variance() -> None:
    task = task_of("images-sigmoid", examples=16, batch=8, epochs=1, judged=2, free=2)
    record = TorchBackend().train(task)
    assert compared(task, record).findings == []
    assert "norm1.variance" in record.states
    assert part_of(compared(task, record, Forms(epsilon=record.forms.epsilon, variance="biased"))) == (
        1,
        "batch statistics",
    )
    evaluated = values(task.experiment.evaluation, {**task.evaluated_on(task.validation), **record.final})
    np.testing.assert_allclose(
        record.predictions["validation"], evaluated[task.experiment.evaluation.output], rtol=1e-3, atol=1e-4
    )


def test_early_stopping_restores_the_weights_of_the_best_epoch() -> None:
    rule = Optimizer(kind="adam", learning_rate=0.3)
    task = task_of(
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
    task = task_of(epochs=1, judged=3, free=3)
    record = TorchCompile().train(task)
    assert compared(task, record).findings == []
    assert record.implementation.endswith("torch.optim.Adam, by torch.compile")


def test_the_document_has_the_defaults_of_torch() -> None:
    import torch

    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    written = [match for row in rows for match in re.findall(r"`(\w+)\((\w+)=([^)`]+)\)`", row[3])]
    assert {"SGD", "Adam", "AdamW", "RMSprop", "BatchNorm2d"} == {name for name, _, _ in written}
    for name, argument, value in written:
        kind = getattr(torch.optim, name, None) or getattr(torch.nn, name)
        assert str(inspect.signature(kind).parameters[argument].default) == value, (name, argument)
