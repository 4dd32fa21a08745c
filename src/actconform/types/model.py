"""What a reference model is, as data: inputs, layers in the order of computation, parameters; no framework's terms."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import msgspec

from actconform.types.kernel import Kernel

Setting: TypeAlias = int | float | str | tuple[int, ...] | Kernel
Shape: TypeAlias = tuple[int, ...]

LOSS = "loss"  # the name of the last layer, and of its output
OUTPUT = "y"


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a model: its shape without the batch, and what its numbers are drawn from.

    `draw`: "normal"; "uniform" in [-1, 1); "unit" in (0, 1); "softmax", rows of positive numbers that sum to 1;
    "one-hot" rows; "binary", 0 or 1; "gumbel"; "mask:R", 0 for the fraction R and else 1; "padding", ones and
    then zeros, each row one 1 more than the row before, and 1 behind a full one; "ids:N", whole numbers from 0 to N - 1, repeated ones among them.
    `role`: "data" has a gradient, "target" and "noise" (masks, ids, Gumbel noise) have none; only the loss reads a target.
    """

    name: str
    shape: Shape
    draw: str
    role: Literal["data", "target", "noise"] = "data"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter: "LAYER.NAME", its canonical shape, how it is initialized, whether training changes it by gradient.

    Canonical: dense kernels (in, out), convolution kernels (height, width, in, out). `init`: "he_uniform",
    "glorot_uniform", "zeros", "ones", or "near:V", V plus uniform in [-1/4, 1/4), so that no term of a layer is lost.
    """

    name: str
    shape: Shape
    init: str
    trainable: bool = True


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: what kind it is, which earlier layers or inputs it reads, and its settings; see catalog/models/layer_kinds.py."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    settings: dict[str, Setting] = {}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A reference network, described once; every backend builds it with its own layers. Made by `describe`, which checks it.

    Its tensors are those of `inputs` and `parameters` by name, all with the batch first and channels last, and it gives
    "y", the value of layer `output`, and "loss", that of the last layer, a scalar. `shapes` has each layer's shape without the
    batch; the loss has (). `training` says whether batch normalization uses the statistics of the batch and dropout its mask.
    """

    name: str
    source: str
    inputs: tuple[Input, ...]
    layers: tuple[Layer, ...]
    output: str
    parameters: tuple[Parameter, ...]
    shapes: dict[str, Shape]
    batch: int
    training: bool = False

    def layer(self, name: str) -> Layer:
        """Return the layer of that name; raise KeyError where there is none."""
        return next(layer for layer in self.layers if layer.name == name)

    def parameters_of(self, layer: str) -> tuple[Parameter, ...]:
        """Return the parameters of a layer, in the order of its kind."""
        return tuple(parameter for parameter in self.parameters if parameter.name.rpartition(".")[0] == layer)

    @property
    def size(self) -> int:
        """How many numbers its parameters have, those that are not trainable among them."""
        return sum(math.prod(parameter.shape) for parameter in self.parameters)

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The names that have a gradient: inputs of role "data", then trainable parameters."""
        data = tuple(model_input.name for model_input in self.inputs if model_input.role == "data")
        return data + tuple(parameter.name for parameter in self.parameters if parameter.trainable)
