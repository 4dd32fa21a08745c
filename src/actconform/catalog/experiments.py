"""The experiments in training: what the texts on activation functions claim, and each optimizer, small for every run, published for a full one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.catalog.models.feedforward import (
    mlp,
)
from actconform.types.training import Claim, EarlyStopping, Experiment, Optimizer

if TYPE_CHECKING:
    from actconform.types.model import Model

CLAIMS = "texts on activation functions"
ADAM = Optimizer(kind="adam", learning_rate=1e-3)


def experiments() -> tuple[Experiment, ...]:
    """Return every built-in experiment."""
    return (*_of_texts(), *_of_optimizers())


def _of_texts() -> list[Experiment]:
    fast = msgspec.structs.replace(ADAM, learning_rate=1e-2)
    return [
        _experiment(
            "noise-softmax",
            mlp("softmax", published=False),
            data="noise",
            examples=128,
            validation=128,
            epochs=40,
            optimizer=fast,
        ),
        _experiment(
            "noise-relu",
            mlp("relu", published=False),
            data="noise",
            examples=128,
            validation=128,
            epochs=40,
            optimizer=fast,
        ),
    ]


def _of_optimizers() -> list[Experiment]:
    return []


def _experiment(
    name: str,
    model: Model,
    evaluation: Model | None = None,
    *,
    data: str,
    examples: int,
    validation: int,
    epochs: int,
    batch: int = 32,
    optimizer: Optimizer = ADAM,
    stopping: EarlyStopping | None = None,
    claims: tuple[Claim, ...] = (),
    judged: int = 20,
) -> Experiment:
    model = msgspec.structs.replace(model, batch=batch)
    evaluation = msgspec.structs.replace(evaluation or model, batch=validation)
    return Experiment(
        name=name,
        source=model.source,
        model=model,
        evaluation=evaluation,
        data=data,
        examples=examples,
        validation=validation,
        batch=batch,
        epochs=epochs,
        optimizer=optimizer,
        stopping=stopping,
        claims=claims,
        judged=judged,
    )
