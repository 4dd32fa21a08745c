"""What the experiments share: how one is made of a model, and what the heads of image classifiers show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.types.training import Claim, Experiment, Optimizer

if TYPE_CHECKING:
    from actconform.types.model import Model

ADAM = Optimizer(kind="adam", learning_rate=1e-3)
HEADS = ("softmax1", "sigmoid", "softmax2")


def experiment_of(name: str, model: Model, *, evaluation: Model | None = None, **settings: Any) -> Experiment:
    """Return an experiment of a model: its batch is the experiment's, and in inference it reads all validation rows at once."""
    model = msgspec.structs.replace(model, batch=settings["batch"])
    inference = msgspec.structs.replace(evaluation or model, batch=settings["validation"])
    return Experiment(name=name, source=model.source, model=model, evaluation=inference, **settings)


def head_claims(head: str) -> tuple[Claim, ...]:
    """Return what an image classifier of that head shows: softmax of one unit is the constant 1, whose gradient is 0."""
    if head == "softmax1":
        return (
            Claim(text="one unit of softmax changes no parameter", measure="largest parameter change", at_most=0.0),
            Claim(text="and cannot learn", measure="accuracy", at_most=0.65, published="0.50"),
            Claim(text="its loss stays high", measure="loss", at_least=5.0, published="7.60"),
        )
    what = {"sigmoid": "one unit of sigmoid", "softmax2": "two units of softmax"}[head]
    return (
        Claim(text=f"{what} can learn", measure="accuracy", at_least=0.95, published="0.98"),
        Claim(text="and the loss falls", measure="loss", at_most=0.2, published="0.06"),
    )
