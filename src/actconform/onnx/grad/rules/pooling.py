"""Pools. A maximum passes g on to the first element that attains it; a mean or a norm spreads g over its window."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.onnx.grad.rules.registry import rule
from actconform.onnx.grad.rules.windows import (
    expect_whole_image,
    image_sizes,
    padding_at_run_time,
    refused_padding,
    unseen,
    window_in,
    window_of,
)
from actconform.onnx.pool_sizes import SIZES_CORRECTED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents, Node

_MOST_POSITIONS = 2**16  # of windows along an axis for which a constant is written


@rule("MaxPool")
def max_pool(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """MaxPool: g is added where Indices point, the first maximum of each window, row by row."""
    x, cotangent, index = node.inputs[0], g[0], node.output(1)
    if cotangent is None:
        return [None]
    _expect_placed(b, node)
    if index is None or node.attributes["storage_order"]:
        _, index = b.outputs(2, "MaxPool", x, **node.attributes | {"storage_order": 0})
    return [b.scatter(x, index, cotangent)]


@rule("MaxUnpool")
def max_unpool(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """MaxUnpool: dx is g where the indices point."""
    (cotangent,) = g
    assert cotangent
    if node.input(2):
        raise node.refuse("its indices count in another shape where output_shape is given")
    return [b.Gather(b.Reshape(cotangent, b.integers([-1])), node.inputs[1], axis=0)]


@rule("AveragePool", widen=True)
def average_pool(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """AveragePool: every element gets the sum of g / n over the windows that see it, n being what each counts."""
    (cotangent,) = g
    assert cotangent
    _expect_placed(b, node)
    axes = _windows_along(b, node)
    for axis, along_it in enumerate(axes):
        counts = along_it.counts
        if isinstance(counts, str):
            counts = b.Reshape(counts, b.integers([-1] + [1] * (len(axes) - 1 - axis)))
        cotangent = b.Div(cotangent, counts)
    return [_spread(b, node, cotangent, axes)]


@rule("LpPool", widen=True)
def lp_pool(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """LpPool, y = (sum |x|^p)^(1/p): dx = sign(x) |x|^(p - 1) times the sum of g y^(1 - p) over the windows that see x."""
    (cotangent,) = g
    assert cotangent
    _expect_placed(b, node)
    axes = _windows_along(b, node)
    return [_norm_gradient(b, node, cotangent, lambda each: _spread(b, node, each, axes))]


@rule("GlobalLpPool", widen=True)
def global_lp_pool(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """GlobalLpPool, one window over the whole image: dx = sign(x) |x|^(p - 1) g y^(1 - p)."""
    (cotangent,) = g
    assert cotangent
    return [_norm_gradient(b, node, cotangent, lambda each: each)]


@rule("GlobalAveragePool", widen=True)
def global_average_pool(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """GlobalAveragePool: dx = g / n everywhere, of n elements."""
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    sizes = image_sizes(b, x)
    if sizes is not None:
        return [b.expand_like(b.Div(cotangent, math.prod(sizes)), x)]
    count = b.Cast(b.Div(b.Size(x), b.Size(cotangent)), to=b.element_type)
    return [b.expand_like(b.Div(cotangent, count), x)]


@rule("GlobalMaxPool")
def global_max_pool(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """GlobalMaxPool: dx = g at the first maximum of each image, as MaxPool has it, and 0 elsewhere."""
    x, (cotangent,) = node.inputs[0], g
    assert cotangent
    flat = b.Reshape(x, b.integers([0, 0, -1]))
    place = b.Range(
        b.constant(np.array(0)), b.Squeeze(b.Shape(flat, start=2), b.integers([0])), b.constant(np.array(1))
    )
    first = b.Equal(place, b.ArgMax(flat, axis=2, keepdims=1))
    return [b.reshape_like(b.Where(first, b.Reshape(cotangent, b.integers([0, 0, 1])), 0.0), x)]


def _expect_placed(b: GraphBuilder, node: Node) -> None:
    """Raise UnsupportedOperator where it depends on the runtime which padding a pool finds by itself.

    ONNX Runtime pads as if there were no dilations. Its MaxPool refuses to run where others cut the image.
    """
    window = window_in(node, node.attributes["kernel_shape"])
    if node.attributes["auto_pad"].startswith("SAME") and window.spans != window.kernel:
        raise refused_padding(node)
    if node.op_type == "MaxPool":
        return
    expect_whole_image(b, node, window, spared=0)
    # the size that onnx infers of such a node with ceil_mode is another one, and ONNX Runtime sizes the gradient's nodes by it
    if node.attributes.get("ceil_mode") and node.opset < SIZES_CORRECTED and max(unseen(b, node, window)) > 0:
        raise refused_padding(node)


class _Axis(NamedTuple):
    """A pool's windows along one axis of the image.

    `counts` is how many elements each window counts; the image begins at `begin` and ends at `end` from the first of the
    first window on, and `unseen` elements of it lie behind the last one: numbers, or names of tensors (1,) that a run tells.
    """

    counts: str | float
    begin: int | str
    end: int | str
    unseen: int | str


def _windows_along(b: GraphBuilder, node: Node) -> list[_Axis]:
    """Return the windows along every spatial axis, as numbers where the sizes are known."""
    kernel = node.attributes["kernel_shape"]
    x, y = (image_sizes(b, each) for each in (node.inputs[0], node.outputs[0]))
    padding_counts = bool(node.attributes.get("count_include_pad"))
    if x is None or y is None or max(y) > _MOST_POSITIONS:
        return [_along_at_run_time(b, node, axis, padding_counts=padding_counts) for axis in range(len(kernel))]
    window = window_of(b, node, kernel)
    axes = []
    for axis, (size, positions) in enumerate(zip(x, y, strict=True)):
        step, elements, before = window.dilations[axis], window.kernel[axis], window.before[axis]
        corners = np.arange(positions) * window.strides[axis] - before

        # what ceil_mode adds beyond the padding never counts
        ends = [size + window.after[axis]] if padding_counts else [size, 0]
        inside = [np.clip(-((corners - place) // step), 0, elements) for place in ends]
        counts = np.maximum(inside[0] - inside[-1] * (not padding_counts), 1).astype(np.float64)
        reach = (positions - 1) * window.strides[axis] + window.spans[axis]
        count = float(counts[0]) if len({*counts}) == 1 else b.constant(counts)
        axes.append(_Axis(count, before, before + size, max(before + size - reach, 0)))
    return axes


def _along_at_run_time(b: GraphBuilder, node: Node, axis: int, *, padding_counts: bool) -> _Axis:
    """Return the windows along one axis of a size that a run tells."""
    window = window_in(node, node.attributes["kernel_shape"])
    size, positions = (b.size_of(each, 2 + axis) for each in (node.inputs[0], node.outputs[0]))
    before, after = (b.integers([pad[axis]]) for pad in (window.before, window.after))
    if node.attributes["auto_pad"].startswith("SAME"):
        before, after = padding_at_run_time(b, node, size, positions, (window.strides[axis], window.spans[axis]))
    zero, one, stride, step = (b.constant(np.array(n)) for n in (0, 1, window.strides[axis], window.dilations[axis]))
    corners = b.Sub(b.Mul(b.Range(zero, b.Squeeze(positions), one), stride), before)

    def inside(place: str) -> str:
        ahead = b.Add(b.Max(b.Sub(place, corners), zero), b.Sub(step, one))
        return b.Min(b.Div(ahead, step), b.constant(np.array(window.kernel[axis])))

    counts = inside(b.Add(size, after)) if padding_counts else b.Sub(inside(size), inside(zero))
    reach = b.Add(b.Mul(b.Sub(positions, one), stride), b.constant(np.array(window.spans[axis])))
    counts, end = b.Cast(b.Max(counts, one), to=b.element_type), b.Add(before, size)
    return _Axis(counts, before, end, b.Max(b.Sub(end, reach), zero))


def _spread(b: GraphBuilder, node: Node, g: str, axes: Sequence[_Axis]) -> str:
    """Return for every element of the image the sum of g over the windows that see it.

    Along one axis after the other windows of ones are laid over each other, each channel an image of its own; what lies
    in the padding is cut off.
    """
    window = window_in(node, node.attributes["kernel_shape"])
    batch, channels = (b.shape(g) or (None, None))[:2]
    count = b.integers([-1 if batch is None or channels is None else batch * channels, 1])
    images = b.Reshape(g, b.Concat(count, b.Shape(g, start=2), axis=0))
    for axis in range(len(axes)):

        def only(numbers: Sequence[int], axis: int = axis) -> list[int]:
            return [number if each == axis else 1 for each, number in enumerate(numbers)]

        kernel, strides = only(window.kernel), only(window.strides)
        if max(kernel + strides) > 1:
            ones = b.Expand(1.0, b.integers([1, 1, *kernel]))
            images = b.ConvTranspose(images, ones, strides=strides, dilations=only(window.dilations))

    def together(*numbers: int | str) -> str:
        constants = [each for each in numbers if not isinstance(each, str)]
        if len(constants) == len(numbers):
            return b.integers(constants)
        return b.Concat(*(each if isinstance(each, str) else b.integers([each]) for each in numbers), axis=0)

    if any(axis.unseen != 0 for axis in axes):
        images = b.Pad(images, together(*[0] * (4 + len(axes)), *(axis.unseen for axis in axes)))
    begins, ends = together(*(axis.begin for axis in axes)), together(*(axis.end for axis in axes))
    images = b.Slice(images, begins, ends, b.integers(range(2, 2 + len(axes))))
    return b.reshape_like(images, node.inputs[0])


def _norm_gradient(b: GraphBuilder, node: Node, g: str, spread: Callable[[str], str]) -> str:
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


def _over_norm(b: GraphBuilder, g: str, y: str, p: int) -> str:
    """Return g y^(1 - p), and 0 where the norm y is 0."""
    zero = b.Equal(y, 0.0)
    return b.Where(zero, 0.0, b.Div(g, b.Pow(b.Where(zero, 1.0, y), float(p - 1))))


def _times_power(b: GraphBuilder, g: str, x: str, p: int) -> str:
    """Return g sign(x) |x|^(p - 1)."""
    return b.Mul(g, x if p == 2 else b.Mul(b.Sign(x), b.Pow(b.Abs(x), float(p - 1))))
