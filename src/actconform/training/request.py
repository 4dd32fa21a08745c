"""What a user asks of a training: the model, the data, and every number; and what of it is impossible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, get_args

import msgspec

from actconform.catalog.models.layer_kinds import LOSSES
from actconform.errors import UsageError, near
from actconform.text import one_line
from actconform.types.training import EarlyStopping, Optimizer, OptimizerKind

RATES = {"sgd": 0.01, "adam": 0.001, "adamw": 0.001, "rmsprop": 0.001}
"""The learning rate of each optimizer where none is given."""
OWN_NUMBERS: dict[str, tuple[str, ...]] = {
    "momentum": ("sgd",),
    "nesterov": ("sgd",),
    "beta1": ("adam", "adamw"),
    "beta2": ("adam", "adamw", "rmsprop"),
    "epsilon": ("adam", "adamw", "rmsprop"),
    "weight_decay": ("adamw",),
}
"""The numbers that not all optimizers have, and which ones do."""
TARGET_NAME = "target"
LARGEST_SEED = 2**32 - 1


class TrainRequest(NamedTuple):
    """The options of `actconform train`; None where an option is not given."""

    model: Path
    data: Path
    loss: str | None
    optimizer: str = "adam"
    target: str | None = None
    output: str | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None
    weight_decay: float | None = None
    decay: float | None = None
    decay_steps: int | None = None
    batch: int | None = None
    epochs: int | None = None
    steps: int | None = None
    parameters: tuple[str, ...] = ()
    validation: float | None = None
    stop_patience: int | None = None
    stop_min_delta: float | None = None
    runtime: str = "ort-cpu"
    seed: int = 0
    out: Path = Path("actconform-train")
    resume: bool = False
    timeout: float | None = None
    max_memory: float | None = None


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides on the numbers of a training beside model and data; a checkpoint goes on under the same alone."""

    loss: str
    optimizer: Optimizer
    output: str
    target: str
    batch: int
    parameters: tuple[str, ...]
    validation: float
    stopping: EarlyStopping | None
    runtime: str
    seed: int


def optimizer_of(request: TrainRequest) -> Optimizer:
    """Return the optimizer that the options describe; raise UsageError where there is none such, or a number cannot be."""
    kinds = get_args(OptimizerKind)
    if request.optimizer not in kinds:
        raise UsageError(
            f"--optimizer: there is no optimizer {one_line(request.optimizer, 80)!r}{near(request.optimizer, [*kinds])}"
        )
    numbers = {name: value for name in OWN_NUMBERS if (value := getattr(request, name)) is not None}
    for name in numbers:
        if request.optimizer not in OWN_NUMBERS[name]:
            owners = " and ".join(OWN_NUMBERS[name])
            raise UsageError(f"{option(name)} is a number of {owners}, and --optimizer is {request.optimizer}")
    if request.nesterov and not request.momentum:
        raise UsageError("--nesterov looks ahead along the momentum, and there is none: give --momentum, such as 0.9")
    rate = RATES[request.optimizer] if request.learning_rate is None else request.learning_rate
    _expect_number("learning_rate", rate, "a positive number", fits=0.0 < rate < math.inf)
    for name in ("momentum", "beta1", "beta2"):
        value = numbers.get(name, 0.0)
        _expect_number(name, value, "a number from 0 on, and below 1", fits=0.0 <= value < 1.0)
    for name in ("epsilon", "weight_decay"):
        value = numbers.get(name, 0.0)
        _expect_number(name, value, "a number from 0 on", fits=0.0 <= value < math.inf)
    if request.decay_steps is not None and request.decay is None:
        raise UsageError(
            "--decay-steps says after how many steps the learning rate falls: give --decay too, such as 0.5"
        )
    decay = 1.0 if request.decay is None else request.decay
    _expect_number("decay", decay, "above 0, and at most 1", fits=0.0 < decay <= 1.0)
    every = 1 if request.decay_steps is None else request.decay_steps
    _expect_number("decay_steps", every, "a whole number from 1 on", fits=_counts(every))
    kind = next(kind for kind in kinds if kind == request.optimizer)
    return Optimizer(kind=kind, learning_rate=rate, decay=decay, decay_steps=every, **numbers)


def loss_of(request: TrainRequest) -> str:
    """Return the loss; raise UsageError where none is given, or there is none of that name."""
    if not request.loss:
        raise UsageError(
            f"--loss is missing: an exported model has no loss of its own; choose one of {', '.join(LOSSES)}"
        )
    if request.loss not in LOSSES:
        raise UsageError(f"--loss: there is no loss {one_line(request.loss, 80)!r}{near(request.loss, [*LOSSES])}")
    return request.loss


def stopping_of(request: TrainRequest) -> EarlyStopping | None:
    """Return when training ends early, None where it does not; raise UsageError for what cannot be."""
    if request.stop_patience is None:
        if request.stop_min_delta is not None:
            raise UsageError("--stop-min-delta says what counts as a gain: give --stop-patience too, in epochs")
        return None
    if request.validation is None:
        raise UsageError("--stop-patience waits for the validation loss to fall: give --validation too, such as 0.2")
    _expect_number("stop_patience", request.stop_patience, "1 or more epochs", fits=_counts(request.stop_patience))
    least = 0.0 if request.stop_min_delta is None else request.stop_min_delta
    _expect_number("stop_min_delta", least, "a number from 0 on", fits=0.0 <= least < math.inf)
    return EarlyStopping(min_delta=least, patience=request.stop_patience)


def expect_counts(request: TrainRequest) -> None:
    """Raise UsageError where batch, epochs, steps, seed, the share of validation, or a limit of time or memory cannot be."""
    for name in ("batch", "epochs", "steps"):
        value = getattr(request, name)
        _expect_number(name, value, "a whole number from 1 on", fits=value is None or _counts(value))
    fits = _counts(request.seed, least=0) and request.seed <= LARGEST_SEED
    _expect_number("seed", request.seed, f"a whole number from 0 to {LARGEST_SEED}", fits=fits)
    for name, least, unit in (("timeout", 1.0, "seconds"), ("max_memory", 0.01, "GiB")):
        limit = getattr(request, name)
        fits = limit is None or (_is_number(limit) and least <= limit < math.inf)
        _expect_number(name, limit, f"{least:g} or more {unit}", fits=fits)
    if request.epochs is not None and request.steps is not None:
        raise UsageError("--epochs and --steps both say when training ends: give one of them")
    share = request.validation
    _expect_number(
        "validation",
        share,
        "a share above 0 and below 1, such as 0.2",
        fits=share is None or (_is_number(share) and 0.0 < share < 1.0),
    )


def option(name: str) -> str:
    """Return a field of the request as it is written on the command line: "--learning-rate"."""
    return f"--{name.replace('_', '-')}"


def difference_of_settings(stored: TrainSettings, wanted: TrainSettings) -> str:
    """Return the first setting in which a checkpoint differs from what is asked, both named; empty where none does."""
    before, now = (_flat(settings) for settings in (stored, wanted))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            return f"{option(name)} is {_words(now.get(name))}, and the checkpoint has {_words(before.get(name))}"
    return ""


def _counts(value: object, least: int = 1) -> bool:
    """Tell whether a value, which may come from Python, is an int of at least that."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _expect_number(name: str, value: object, wanted: str, *, fits: bool) -> None:
    if fits:
        return
    if value is None:
        raise UsageError(f"{option(name)}: {wanted}")
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if not isinstance(value, int | float):  # such as a text or an integer of numpy, from Python
        shown = f"{one_line(shown, 80)} of type {type(value).__name__}"
    raise UsageError(f"{option(name)} {shown} is not {wanted}")


def _flat(settings: TrainSettings) -> dict[str, object]:
    """Return the settings by the names of their options."""
    fields = msgspec.to_builtins(settings)
    optimizer, stopping = fields.pop("optimizer"), fields.pop("stopping") or {}
    optimizer["optimizer"] = optimizer.pop("kind")
    return {**fields, **optimizer, **{f"stop_{name}": value for name, value in stopping.items()}}


def _words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(one_line(str(item), 80) for item in value)
    return (
        "not given" if value in (None, "") else one_line(f"{value:g}" if isinstance(value, float) else str(value), 80)
    )
