"""Frameworks in plain numpy that build models: one is right, one has a wrong epsilon in one layer, one answers with wrong names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform import Backend, Program, Unsupported, hookimpl
from actconform.oracle.layers.model import gradients, values
from actconform.types.model import LOSS, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Model

    Arrays = dict[str, Any]

FAULTY_LAYER = "norm2"
EPSILON = 1e-3


class Layered(Program):
    """A model computed in float64, each layer's value rounded to float32; `change` may spoil what it answers."""

    implementation = "layers of numpy"

    def __init__(self, model: Model, change: Callable[[Arrays], Arrays] = dict) -> None:
        self.model, self.change = model, change

    def intermediates(self, inputs: Arrays) -> Arrays:
        return values(self.model, inputs, lambda _, value: np.asarray(value, np.float32))

    def forward(self, inputs: Arrays) -> Arrays:
        layers = self.intermediates(inputs)
        return {OUTPUT: layers[self.model.output], LOSS: layers[LOSS]}

    def vjp(self, inputs: Arrays, cotangents: Arrays) -> Arrays:
        found = gradients(self.model, inputs, values(self.model, inputs))
        return self.change(
            {f"d_{name}": (cotangents[LOSS] * array).astype(np.float32) for name, array in found.items()}
        )


def with_epsilon(model: Model) -> Model:
    layers = [
        msgspec.structs.replace(layer, settings={**layer.settings, "epsilon": EPSILON})
        if layer.name == FAULTY_LAYER and "epsilon" in layer.settings
        else layer
        for layer in model.layers
    ]
    return msgspec.structs.replace(model, layers=tuple(layers))


def careless(found: Arrays) -> Arrays:
    """Forget one gradient, call another as nobody does, transpose a third and give a fourth in float64."""
    del found["d_head.bias"]
    found["d_dense1.weight"] = found.pop("d_dense1.kernel")
    found["d_dense2.kernel"] = found["d_dense2.kernel"].T
    found["d_dense3.bias"] = found["d_dense3.bias"].astype(np.float64)
    return found


class Right(Backend):
    name = "right-nn"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def build_model(self, model: Model, dtype: str) -> Program:
        if model.name == "dnc-memory":
            raise Unsupported("no layers with a memory")
        return Layered(model)


class Epsilon(Right):
    name = "epsilon-nn"

    def build_model(self, model: Model, dtype: str) -> Program:
        return Layered(with_epsilon(model))


class Careless(Right):
    name = "careless-nn"

    def build_model(self, model: Model, dtype: str) -> Program:
        return Layered(model, careless)


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Right, Epsilon, Careless]
