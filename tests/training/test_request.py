"""The options of a training: which optimizer they describe, and which of them cannot be together."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from actconform.errors import UsageError
from actconform.training.request import (
    TrainRequest,
    TrainSettings,
    difference_of_settings,
    expect_counts,
    loss_of,
    optimizer_of,
    stopping_of,
)
from actconform.types.training import EarlyStopping, Optimizer


def request(**options) -> TrainRequest:
    return TrainRequest(**{"model": Path("m.onnx"), "data": Path("d.npz"), "loss": "mean-squared-error", **options})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Optimizer(kind="adam", learning_rate=0.001)),
        ({"optimizer": "sgd"}, Optimizer(kind="sgd", learning_rate=0.01)),
        (
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "decay": 0.5, "decay_steps": 10},
            Optimizer(kind="sgd", learning_rate=0.01, momentum=0.9, nesterov=True, decay=0.5, decay_steps=10),
        ),
        (
            {"optimizer": "adamw", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-8},
            Optimizer(kind="adamw", learning_rate=0.001, weight_decay=0.1, beta1=0.8, beta2=0.99, epsilon=1e-8),
        ),
        ({"optimizer": "rmsprop", "beta2": 0.9}, Optimizer(kind="rmsprop", learning_rate=0.001, beta2=0.9)),
    ],
)
def test_the_optimizer_is_that_of_the_options(options, expected):
    assert optimizer_of(request(**options)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"optimizer": "adm"}, "did you mean adam"),
        ({"momentum": 0.9}, "--momentum is a number of sgd"),
        ({"optimizer": "sgd", "epsilon": 1e-8}, "--epsilon is a number of adam and adamw and rmsprop"),
        ({"optimizer": "sgd", "nesterov": True}, "--nesterov"),
        ({"learning_rate": 0.0}, "--learning-rate 0 is not"),
        ({"learning_rate": -1.0}, "--learning-rate -1 is not"),
        ({"learning_rate": float("inf")}, "--learning-rate inf is not"),
        ({"beta1": 1.0}, "--beta1 1 is not"),
        ({"beta2": float("nan")}, "--beta2 nan is not"),
        ({"epsilon": -1e-8}, "--epsilon -1e-08 is not"),
        ({"decay": 1.5}, "--decay 1.5 is not"),
        ({"decay": 0.5, "decay_steps": 0}, "--decay-steps 0 is not"),
        ({"decay": 0.5, "decay_steps": 2.5}, "--decay-steps 2.5 is not"),
        ({"decay_steps": 5}, "give --decay too"),
    ],
)
def test_impossible_numbers_of_an_optimizer_are_named(options, expected):
    with pytest.raises(UsageError) as raised:
        optimizer_of(request(**options))
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch": 0}, "--batch 0"),
        ({"epochs": -2}, "--epochs -2"),
        ({"steps": 0}, "--steps 0"),
        ({"epochs": 1, "steps": 1}, "one of them"),
        ({"validation": 0.0}, "--validation 0 "),
        ({"validation": float("nan")}, "--validation nan"),
        ({"validation": "half"}, "--validation half of type str"),
        ({"batch": 2.5}, "--batch 2.5 is not a whole number"),
        ({"steps": True}, "--steps True"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296"),
        ({"seed": 0.5}, "--seed 0.5"),
        ({"timeout": -5}, "--timeout -5"),
        ({"timeout": float("nan")}, "--timeout nan"),
        ({"max_memory": -1}, "--max-memory -1"),
        ({"max_memory": float("inf")}, "--max-memory inf"),
    ],
)
def test_impossible_counts_are_named(options, expected):
    expect_counts(request(batch=1, epochs=1, validation=0.5, seed=2**32 - 1, timeout=1, max_memory=0.01))
    with pytest.raises(UsageError) as raised:
        expect_counts(request(**options))
    assert expected in str(raised.value)


def test_early_stopping_needs_validation():
    assert stopping_of(request()) is None
    assert stopping_of(request(validation=0.2, stop_patience=3)) == EarlyStopping(min_delta=0.0, patience=3)
    for options in ({"stop_patience": 3}, {"stop_min_delta": 0.1}, {"validation": 0.2, "stop_patience": 0}):
        with pytest.raises(UsageError, match="--stop-patience"):
            stopping_of(request(**options))


def test_a_loss_is_one_that_there_is():
    assert loss_of(request()) == "mean-squared-error"
    with pytest.raises(UsageError, match="did you mean mean-squared-error"):
        loss_of(request(loss="mean-square-error"))
    with pytest.raises(UsageError, match=r"--loss is missing.*mean-absolute-error"):
        loss_of(request(loss=None))


def test_every_setting_that_differs_is_named():
    settings = TrainSettings(
        loss="mean-squared-error",
        optimizer=Optimizer(kind="adam", learning_rate=0.1),
        output="y",
        target="t",
        batch=8,
        parameters=("w",),
        validation=0.0,
        stopping=None,
        runtime="ort-cpu",
        seed=0,
    )
    assert difference_of_settings(settings, settings) == ""
    others = {
        "loss": "mean-absolute-error",
        "optimizer": Optimizer(kind="adam", learning_rate=0.1, decay=0.5),
        "output": "z",
        "target": "u",
        "batch": 9,
        "parameters": ("v",),
        "validation": 0.5,
        "stopping": EarlyStopping(),
        "runtime": "openvino",
        "seed": 1,
    }
    assert set(others) == set(TrainSettings.__struct_fields__)
    for name, value in others.items():
        difference = difference_of_settings(settings, msgspec.structs.replace(settings, **{name: value}))
        option = {"optimizer": "--decay is 0.5", "stopping": "--stop-"}.get(name, f"--{name}")
        assert difference.startswith(option), difference
        assert "and the checkpoint has" in difference
