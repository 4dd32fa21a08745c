"""A model with its gradients, for `--gradients`: what a runtime computes of them, and whether they are those of the graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.checking.flatten import flatten, wide
from actconform.errors import GradientError, Unsupported, UnsupportedOperator, UsageError
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.text import one_line

if TYPE_CHECKING:
    import onnx

    from actconform.checking.flatten import FlatGraph
    from actconform.types.case import Bundle

COTANGENT, GRADIENT = "ct_", "d_"
MOST_ELEMENTS = 4_000_000  # of weights whose gradients are compared: their draws of rounding are held at once
STEP = 1e-6  # of the difference quotient, relative to the size of an input: its error is some 1e-10 of the value


def with_gradients(model: onnx.ModelProto, *, beside_trained: bool = False) -> onnx.ModelProto:
    """Return `model` with a cotangent input for each float output, and the gradient of each float input as a further output.

    Of a model without float inputs, such as one of tokens, the gradients are those of its float weights; `beside_trained` a trained model
    they are those of inputs and weights, up to MOST_ELEMENTS of them.
    Raises UsageError, naming the node, where an operator has no gradient.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    floats = any(value.type.tensor_type.elem_type in FORMATS for value in inputs)
    weights = [tensor.name for tensor in model.graph.initializer if tensor.data_type in FORMATS and tensor.dims]
    try:
        wrt = None if floats or not weights else weights
        if beside_trained:
            wrt = [value.name for value in inputs if value.type.tensor_type.elem_type in FORMATS] + _smallest(model)
        return add_gradients(model, wrt=wrt, cotangent=COTANGENT, gradient=GRADIENT)
    except (GradientError, UnsupportedOperator, Unsupported) as error:
        raise UsageError(f"--gradients: {one_line(str(error))}") from error


def _smallest(model: onnx.ModelProto) -> list[str]:
    """Return the float weights that together have at most MOST_ELEMENTS elements, the smallest first to be taken, in the order of the graph."""
    sizes = {
        tensor.name: math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type in FORMATS and tensor.dims
    }
    read = {name for node in model.graph.node for name in node.input}
    chosen, total = set(), 0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        total += sizes[name]
        if total <= MOST_ELEMENTS and name in read:
            chosen.add(name)
    return [name for name in sizes if name in chosen]


def add_cotangents(model: onnx.ModelProto, sample: Bundle, seed: int) -> Bundle:
    """Return `sample` with a cotangent for each float output of `model`, standard normal, in the output's shape and dtype."""
    graph = flatten(model, sample)
    generator = np.random.default_rng([seed, 1])
    drawn = {
        COTANGENT + name: generator.standard_normal(truth.shape).astype(STORAGE[graph.types[name]])
        for name, truth in graph.truth.items()
        if graph.types.get(name) in FORMATS
    }
    return {**sample, **drawn}


def difference_note(model: onnx.ModelProto, graph: FlatGraph, sample: Bundle) -> str:
    """Return a sentence that holds the gradients against a difference quotient of the model itself, both in float64.

    `graph` is the flat one with gradients, `model` the one without. Along a direction drawn by chance the derivative of the sum
    of outputs times cotangents is the sum of the gradients times the direction. At kinks both may differ, rightly.
    """
    inputs = {name: wide(array) for name, array in sample.items() if not name.startswith(COTANGENT)}
    generator = np.random.default_rng(0)
    directions = {
        name: generator.standard_normal(array.shape)
        for name, array in inputs.items()
        if GRADIENT + name in graph.truth and array.size
    }
    if not directions:
        return "gradients: no float input has one that could be held against a difference quotient"
    slope = sum(float(np.sum(graph.truth[GRADIENT + name] * along)) for name, along in directions.items())
    size = max(float(np.sqrt(np.mean(inputs[name] ** 2))) for name in directions) or 1.0
    ends = []
    for sign in (1.0, -1.0):
        moved = {name: inputs[name] + sign * STEP * size * along for name, along in directions.items()}
        truth = flatten(model, {**{name: sample[name] for name in inputs}, **moved}).truth
        ends.append(
            sum(
                float(np.sum(truth[name] * wide(sample[COTANGENT + name])))
                for name in truth
                if COTANGENT + name in sample
            )
        )
    quotient = (ends[0] - ends[1]) / (2.0 * STEP * size)
    return (
        f"gradients: along a direction drawn by chance they give {slope:.8g}, and a difference quotient of the model in "
        f"float64 {quotient:.8g}"
    )
