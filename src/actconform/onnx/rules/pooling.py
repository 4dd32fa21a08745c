"""Pools. A maximum passes g on to the first element that attains it; a mean or a norm spreads g over its window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.rules.registry import rule
from actconform.onnx.rules.windows import Window, along, known, static, window_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.rules.build import Build
    from actconform.onnx.rules.registry import Cotangents, Node


@rule("MaxPool")
def max_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """MaxPool: g is added where Indices point, the first maximum of each window, row by row."""
    x, cotangent, index = node.inputs[0], g[0], node.output(1)
    if cotangent is None:
        return [None]
    if index is None or node.attributes["storage_order"]:
        _, index = b.outputs(2, "MaxPool", x, **node.attributes | {"storage_order": 0})
    return [b.scatter(x, index, cotangent)]


@rule("MaxUnpool")
def max_unpool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """MaxUnpool: dx is g where the indices point."""
    (cotangent,) = g
    assert cotangent
    if node.input(2):
        raise node.refuse("its indices count in another shape where output_shape is given")
    return [b.Gather(b.Reshape(cotangent, b.integers([-1])), node.inputs[1], axis=0)]


@rule("AveragePool", widen=True)
def average_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """AveragePool: every element gets the sum of g / n over the windows that see it, n being what each counts."""
    (cotangent,) = g
    assert cotangent
    window = window_of(b, node, node.attributes["kernel_shape"])
    sizes, positions = static(b, node, node.inputs[0], 2), static(b, node, node.outputs[0], 2)
    counts = np.ones([1] * len(sizes))
    for axis, (size, position) in enumerate(zip(sizes, positions, strict=True)):
        last = window.before[axis] + size
        seen = window.seen(axis, position)
        if node.attributes["count_include_pad"]:  # what ceil_mode adds beyond the padding never counts
            inside = seen < last + window.after[axis]
        else:
            inside = (seen >= window.before[axis]) & (seen < last)
        dims = [1] * len(sizes)
        dims[axis] = position
        counts = counts * np.maximum(inside.sum(axis=1), 1).reshape(dims)
    shared = b.Div(cotangent, b.constant(counts if np.ptp(counts) else counts.flat[0]))
    return [_spread(b, shared, window, sizes, positions)]


@rule("LpPool", widen=True)
def lp_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """LpPool, y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p - 1) times the sum of g y^(1 - p) over the windows that see x."""
    (cotangent,) = g
    assert cotangent
    window = window_of(b, node, node.attributes["kernel_shape"])
    sizes, positions = static(b, node, node.inputs[0], 2), static(b, node, node.outputs[0], 2)
    return [_norm_gradient(b, node, cotangent, lambda each: _spread(b, each, window, sizes, positions))]


@rule("GlobalLpPool", widen=True)
def global_lp_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """GlobalLpPool, one window over the whole image: dx = sign(x) |x|^(p - 1) g y^(1 - p)."""
    (cotangent,) = g
    assert cotangent
    return [_norm_gradient(b, node, cotangent, lambda each: each)]


@rule("GlobalAveragePool", widen=True)
def global_average_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """GlobalAveragePool: dx = g / n everywhere, of n elements."""
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    sizes = known((b.shape(x) or (None, None, None))[2:])
    if sizes is not None:
        return [b.expand_like(b.Div(cotangent, math.prod(sizes)), x)]
    count = b.Cast(b.Div(b.Size(x), b.Size(cotangent)), to=b.element_type)
    return [b.expand_like(b.Div(cotangent, count), x)]


@rule("GlobalMaxPool")
def global_max_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """GlobalMaxPool: dx = g at the first maximum of each image, as MaxPool has it, and 0 elsewhere."""
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    flat = b.Reshape(x, b.integers([0, 0, -1]))
    place = b.Range(
        b.constant(np.array(0)), b.Squeeze(b.Shape(flat, start=2), b.integers([0])), b.constant(np.array(1))
    )
    first = b.Equal(place, b.ArgMax(flat, axis=2, keepdims=1))
    return [b.reshape_like(b.Where(first, b.Reshape(cotangent, b.integers([0, 0, 1])), 0.0), x)]


def _spread(b: Build, g: str, window: Window, sizes: tuple[int, ...], positions: tuple[int, ...]) -> str:
    """Return for every element of the image the sum of g over the windows that see it.

    That is a matrix of zeros and ones along each axis: whether an element is seen from a position.
    """
    for axis, (size, position) in enumerate(zip(sizes, positions, strict=True)):
        seen = window.seen(axis, position) - window.before[axis]
        there = (seen >= 0) & (seen < size)
        sees = np.zeros((size, position))
        sees[seen[there], np.nonzero(there)[0]] = 1.0
        g = along(b, g, 2 + axis, 2 + len(sizes), b.constant(sees))
    return g


def _norm_gradient(b: Build, node: Node, g: str, spread: Callable[[str], str]) -> str:
    """Return dx of a norm pool; `spread` takes what belongs to windows to their elements.

    Where x is infinite it is that of a window of signs in place of infinities, and zeros in place of all else.
    """
    x, p = node.inputs[0], node.attributes["p"]
    if p == 1:
        return b.Mul(spread(g), b.Sign(x))
    infinite = b.IsInf(x)
    ends = b.Where(infinite, b.Sign(x), 0.0)
    (norm,) = b.outputs(1, node.op_type, ends, **node.attributes)
    finite = _times_power(b, spread(_over_norm(b, g, node.outputs[0], p)), b.Where(infinite, 0.0, x), p)
    return b.Add(finite, b.Mul(spread(_over_norm(b, g, norm, p)), ends))


def _over_norm(b: Build, g: str, y: str, p: int) -> str:
    """Return g y^(1 - p), and 0 where the norm y is 0."""
    zero = b.Equal(y, 0.0)
    return b.Where(zero, 0.0, b.Div(g, b.Pow(b.Where(zero, 1.0, y), float(p - 1))))


def _times_power(b: Build, g: str, x: str, p: int) -> str:
    """Return g sign(x) |x|^(p - 1)."""
    return b.Mul(g, x if p == 2 else b.Mul(b.Sign(x), b.Pow(b.Abs(x), float(p - 1))))
