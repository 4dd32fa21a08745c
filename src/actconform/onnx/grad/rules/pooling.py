"""Pools. A maximum passes g on to the first element that attains it; a mean or a norm spreads g over its window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.onnx.grad.rules.registry import rule
from actconform.onnx.grad.rules.windows import (
    along,
    expect_whole_image,
    image_sizes,
    padding_at_run_time,
    refused_padding,
    window_in,
    window_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.onnx.grad.rules.build import Build
    from actconform.onnx.grad.rules.registry import Cotangents, Node


@rule("MaxPool")
def max_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """MaxPool: g is added where Indices point, the first maximum of each window, row by row."""
    x, cotangent, index = node.inputs[0], g[0], node.output(1)
    if cotangent is None:
        return [None]
    _expect_placed(b, node)
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
    _expect_placed(b, node)
    axes = _windows_along(b, node)
    for axis, along_it in enumerate(axes):
        cotangent = b.Div(cotangent, b.Reshape(along_it.counts, b.integers([-1] + [1] * (len(axes) - 1 - axis))))
    return [_spread(b, cotangent, axes)]


@rule("LpPool", widen=True)
def lp_pool(b: Build, node: Node, g: Cotangents) -> Cotangents:
    """LpPool, y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p - 1) times the sum of g y^(1 - p) over the windows that see x."""
    (cotangent,) = g
    assert cotangent
    _expect_placed(b, node)
    axes = _windows_along(b, node)
    return [_norm_gradient(b, node, cotangent, lambda each: _spread(b, each, axes))]


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
    sizes = image_sizes(b, x)
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


def _expect_placed(b: Build, node: Node) -> None:
    """Raise UnsupportedOperator where it depends on the runtime which padding a pool finds by itself.

    ONNX Runtime pads as if there were no dilations. Its MaxPool refuses to run where others cut the image.
    """
    window = window_in(node, node.attributes["kernel_shape"])
    if node.attributes["auto_pad"].startswith("SAME") and window.spans != window.kernel:
        raise refused_padding(node)
    if node.op_type != "MaxPool":
        expect_whole_image(b, node, window, spared=0)


class _Along(NamedTuple):
    """A pool's windows along one axis: which elements each sees, 0 or 1 (positions, size), and how many each counts."""

    sees: str
    counts: str


def _windows_along(b: Build, node: Node) -> list[_Along]:
    """Return the windows along every spatial axis, as constants where the sizes are known."""
    kernel = node.attributes["kernel_shape"]
    x, y = (image_sizes(b, each) for each in (node.inputs[0], node.outputs[0]))
    padding_counts = bool(node.attributes.get("count_include_pad"))
    if x is None or y is None:
        return [_along_at_run_time(b, node, axis, padding_counts=padding_counts) for axis in range(len(kernel))]
    window = window_of(b, node, kernel)
    axes = []
    for axis, (size, positions) in enumerate(zip(x, y, strict=True)):
        seen = window.seen(axis, positions) - window.before[axis]
        steps = np.arange(size) - seen[:, :1]  # from where each window begins, (positions, size)
        sees = (steps >= 0) & (steps < window.spans[axis]) & (steps % window.dilations[axis] == 0)
        # what ceil_mode adds beyond the padding never counts
        inside = seen < size + window.after[axis] if padding_counts else (seen >= 0) & (seen < size)
        counts = np.maximum(inside.sum(axis=1), 1)
        axes.append(_Along(*(b.constant(each.astype(np.float64)) for each in (sees, counts))))
    return axes


def _along_at_run_time(b: Build, node: Node, axis: int, *, padding_counts: bool) -> _Along:
    """Return the windows along one axis of a size that a run tells."""
    window = window_in(node, node.attributes["kernel_shape"])
    size, positions = (b.Squeeze(b.size_of(each, 2 + axis)) for each in (node.inputs[0], node.outputs[0]))
    before, after = (b.constant(np.array(pad[axis])) for pad in (window.before, window.after))
    if node.attributes["auto_pad"].startswith("SAME"):
        before, after = padding_at_run_time(b, node, size, positions, (window.strides[axis], window.spans[axis]))
    zero, one = b.constant(np.array(0)), b.constant(np.array(1))
    corners = b.Sub(b.Mul(b.Range(zero, positions, one), b.constant(np.array(window.strides[axis]))), before)
    corners = b.Unsqueeze(corners, b.integers([1]))
    steps = b.Sub(b.Range(zero, size, one), corners)  # from where each window begins, (positions, size)
    span, dilation = (b.constant(np.array(each[axis])) for each in (window.spans, window.dilations))
    sees = b.And(b.Not(b.Less(steps, zero)), b.Less(steps, span))
    if window.dilations[axis] > 1:
        sees = b.And(sees, b.Equal(b.Mod(steps, dilation), zero))
    places = b.Add(corners, b.constant(np.arange(window.kernel[axis]) * window.dilations[axis]))  # (positions, kernel)
    inside = b.Less(places, b.Add(size, after) if padding_counts else size)
    if not padding_counts:
        inside = b.And(inside, b.Not(b.Less(places, zero)))
    counts = b.sum_over(b.Cast(inside, to=b.element_type), [1], keepdims=False)
    return _Along(b.Cast(sees, to=b.element_type), b.Max(counts, 1.0))


def _spread(b: Build, g: str, axes: Sequence[_Along]) -> str:
    """Return for every element of the image the sum of g over the windows that see it."""
    for axis, (sees, _) in enumerate(axes, 2):
        g = along(b, g, axis, 2 + len(axes), b.Transpose(sees, perm=[1, 0]))
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
