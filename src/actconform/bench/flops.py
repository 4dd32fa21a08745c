"""The floating-point operations of a model's call, counted from its description alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.bench.workloads import Direction
    from actconform.types.model import Layer, Model, Shape

    Count = Callable[[Layer, Sequence[Shape], Shape], int]

ITEM = 4  # bytes of a float32
BACKWARD = 2  # times the forward operations: one product for the gradient of either factor


def _dense(_: Layer, inputs: Sequence[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][-1]


def _convolution(layer: Layer, inputs: Sequence[Shape], output: Shape) -> int:
    size = layer.settings["size"]
    assert isinstance(size, tuple)
    return math.prod(output) * math.prod(size) * inputs[0][-1] // int(layer.settings["groups"])  # type: ignore[arg-type]


def _transposed_convolution(layer: Layer, inputs: Sequence[Shape], output: Shape) -> int:
    size = layer.settings["size"]
    assert isinstance(size, tuple)
    return math.prod(inputs[0]) * math.prod(size) * output[-1]


def _attention(_: Layer, inputs: Sequence[Shape], __: Shape) -> int:
    q, k, v = inputs[:3]
    return q[0] * k[0] * (q[1] + v[1])


def _heads(_: Layer, inputs: Sequence[Shape], __: Shape) -> int:
    time, width = inputs[0]
    return 4 * time * width * width + 2 * time * time * width


def _recurrent(layer: Layer, inputs: Sequence[Shape], output: Shape) -> int:
    gates = {"lstm": 4, "gru": 3}[layer.kind]
    return math.prod(output) * gates * (inputs[0][-1] + output[-1])


def _read(_: Layer, inputs: Sequence[Shape], __: Shape) -> int:
    weights, memory = inputs
    return math.prod(weights) * memory[1]


def _similarity(_: Layer, inputs: Sequence[Shape], __: Shape) -> int:
    memory, key = inputs
    return math.prod(key) * memory[0]


def _directional(_: Layer, inputs: Sequence[Shape], __: Shape) -> int:
    link, weights = inputs
    return math.prod(weights) * link[0]


MULTIPLY_ADDS: dict[str, Count] = {
    "dense": _dense,
    "conv2d": _convolution,
    "conv2d-transpose": _transposed_convolution,
    "attention": _attention,
    "multi-head-attention": _heads,
    "lstm": _recurrent,
    "gru": _recurrent,
    "read": _read,
    "cosine-similarity": _similarity,
    "directional": _directional,
}


def flops(model: Model, batch: int, direction: Direction) -> int:
    """Return the floating-point operations of one call: two for each multiply-add of layers that multiply matrices.

    dense: rows in out; conv2d: pixels of the output filters window channels / groups; conv2d-transpose: pixels of the input
    channels window filters; attention: t s (d + m); multi-head-attention: 4 t d d + 2 t t d; lstm and gru: t gates u (d + u);
    read: r n m; cosine-similarity: r n w; directional: r n n. All other layers count as nothing. Backward counts as twice the
    forward.
    """
    shapes = {tensor.name: tensor.shape for tensor in model.inputs} | model.shapes
    multiply_adds = sum(
        MULTIPLY_ADDS[layer.kind](layer, [shapes[name] for name in layer.inputs], shapes[layer.name])
        for layer in model.layers
        if layer.kind in MULTIPLY_ADDS
    )
    return 2 * multiply_adds * batch * (1 if direction == "forward" else 1 + BACKWARD)
