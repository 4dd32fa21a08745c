"""The correctly rounded evaluator's operators over windows of an image, of any number of spatial axes: convolution and pooling.

As in elementwise: the real function of the inputs, in float64, channels first. Padding never wins a maximum; a NaN spreads over
the windows that have it. Products are summed in float64, not exactly: far below one rounding of float32, whatever their order.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from actconform.onnx.evaluate.elementwise import operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


class Placing(NamedTuple):
    """Where windows lie along one spatial axis: `beyond` is what the last one reaches over the padding, rounding upwards."""

    size: int
    stride: int
    dilation: int
    before: int
    after: int
    beyond: int = 0

    @property
    def reach(self) -> int:
        """How much of the axis one window covers."""
        return (self.size - 1) * self.dilation + 1


def _along(node: OperatorNode, name: str, rank: int) -> list[int]:
    return [int(value) for value in node.attributes.get(name) or [1] * rank]


def placings_of(node: OperatorNode, lengths: Sequence[int], size: Sequence[int]) -> list[Placing]:
    """Return where a node's windows of that size lie along each spatial axis of an image of these lengths."""
    rank, auto = len(lengths), node.attributes.get("auto_pad", "NOTSET")
    pads = _along(node, "pads", 2 * rank) if auto == "NOTSET" and node.attributes.get("pads") else [0] * 2 * rank
    settings = zip(
        size, _along(node, "strides", rank), _along(node, "dilations", rank), pads[:rank], pads[rank:], strict=True
    )
    placed = []
    for length, axis_settings in zip(lengths, settings, strict=True):
        place = Placing(*axis_settings)
        if auto.startswith("SAME"):
            total = max((math.ceil(length / place.stride) - 1) * place.stride + place.reach - length, 0)
            halves = total // 2, total - total // 2
            before, after = halves if auto == "SAME_UPPER" else halves[::-1]
            place = place._replace(before=before, after=after)
        if node.attributes.get("ceil_mode"):
            padded = place.before + length + place.after
            count = math.ceil((padded - place.reach) / place.stride) + 1
            count -= (count - 1) * place.stride >= length + place.before  # none begins in the padding after
            place = place._replace(beyond=max((count - 1) * place.stride + place.reach - padded, 0))
        placed.append(place)
    return placed


def count_of(length: int, place: Placing) -> int:
    """Return how many windows there are along an axis of that length, padding included."""
    return (length - place.reach) // place.stride + 1


def shifted(x: Array, axis: int, place: Placing) -> Iterator[Array]:
    """Yield, for each place in a window along one axis of a padded image, the view of what stands there in all windows."""
    span = (count_of(x.shape[axis], place) - 1) * place.stride + 1
    before = (slice(None),) * axis
    for first in range(0, place.reach, place.dilation):
        yield x[(*before, slice(first, first + span, place.stride))]


def padded_image(x: Array, placings: Sequence[Placing], fill: float, beyond: float) -> Array:
    """Return the image (b, c, *lengths) with `fill` in its padding and `beyond` where the last windows reach over it."""
    if any(place.before or place.after for place in placings):
        x = np.pad(x, [(0, 0), (0, 0), *((p.before, p.after) for p in placings)], constant_values=fill)
    if any(place.beyond for place in placings):
        x = np.pad(x, [(0, 0), (0, 0), *((0, p.beyond) for p in placings)], constant_values=beyond)
    return x


def convolved(node: OperatorNode, x: Array, kernel: Array) -> Array:
    """Return the convolution without bias of x (b, c, *lengths) in its dtype, float32 or float64, by BLAS.

    The columns that are multiplied have at most COLUMNS elements at a time, of at least one place.
    """
    groups = int(node.attributes.get("group", 1))
    placings = placings_of(node, x.shape[2:], kernel.shape[2:])
    x = padded_image(x, placings, 0.0, 0.0)
    counts = [count_of(length, place) for length, place in zip(x.shape[2:], placings, strict=True)]
    if kernel.shape[1] == 1 and groups > 1:
        return _depthwise(x, kernel, placings, counts)
    weights = kernel.reshape(groups, len(kernel) // groups, -1)
    y = np.empty((len(x), *weights.shape[:2], *counts), x.dtype)
    parts = x.reshape(len(x), groups, kernel.shape[1], *x.shape[2:])
    if all(place.size == 1 for place in placings):
        (taken,) = _taps(parts, placings, counts)
        y.reshape(*y.shape[:3], -1)[:] = weights @ taken.reshape(*taken.shape[:3], math.prod(counts))
        return y.reshape(len(x), len(kernel), *counts)
    rank = len(placings)
    by_column = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    for item in range(len(x)):
        windows = _windows(parts[item], placings)
        for piece in _pieces(counts, COLUMNS // max(weights[:, 0].size, 1)):
            columns = windows[:, :, *piece].transpose(by_column).reshape(groups, weights.shape[2], -1)
            into = y[item][..., *piece]
            into[:] = (weights @ columns).reshape(into.shape)
    return y.reshape(len(x), len(kernel), *counts)


COLUMNS = 200_000  # numbers, 1.6 MB: what stays in the cache between being gathered and multiplied is twice as fast
BLOCK = 1 << 16  # numbers that stay in the processor's cache


def _taps(x: Array, placings: Sequence[Placing], counts: Sequence[int]) -> Iterator[Array]:
    """Yield the view of what stands at each place of the windows over the last axes, in the order of the kernel's elements."""
    for at in np.ndindex(*(place.size for place in placings)):
        spans = [
            slice(i * p.dilation, i * p.dilation + (n - 1) * p.stride + 1, p.stride)
            for i, p, n in zip(at, placings, counts, strict=True)
        ]
        yield x[(slice(None),) * (x.ndim - len(spans)) + tuple(spans)]


def _pieces(counts: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Yield slices that cut the places of the output into pieces of at most `most`, or one."""
    inner = math.prod(counts[1:])
    if inner > most and len(counts) > 1:
        for i in range(counts[0]):
            yield from ((slice(i, i + 1), *rest) for rest in _pieces(counts[1:], most))
        return
    step = max(1, most // max(inner, 1))
    for i in range(0, counts[0], step):
        yield slice(i, i + step), *[slice(None)] * (len(counts) - 1)


def _depthwise(x: Array, kernel: Array, placings: Sequence[Placing], counts: Sequence[int]) -> Array:
    """Return a convolution in which each output has one input channel: sums of shifted images, a few channels at a time."""
    repeats = len(kernel) // x.shape[1]
    y = np.zeros((len(x), x.shape[1], repeats, *counts), x.dtype)
    weights = kernel.reshape(x.shape[1], repeats, -1, *[1] * len(counts))
    step = max(1, BLOCK // max(math.prod(y.shape[2:]), 1))
    for item in range(len(x)):
        for first in range(0, x.shape[1], step):
            channels = slice(first, first + step)
            total = y[item, channels]
            for k, view in enumerate(_taps(x[item, channels], placings, counts)):
                total += view[:, None] * weights[channels, :, k]
    return y.reshape(len(x), len(kernel), *counts)


def per_channel(parameter: Array, x: Array, axis: int = 1) -> Array:
    """Return one number for each channel so that it broadcasts over x."""
    return parameter.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


@operation("Conv")
def _conv(node: OperatorNode, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    y = convolved(node, x, kernel)
    return y if bias is None else y + per_channel(bias, y)


@operation("ConvTranspose")
def _conv_transpose(node: OperatorNode, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Each element of x adds its multiple of the kernel to the output, from which the padding is then cut off."""
    rank, groups = x.ndim - 2, int(node.attributes["group"])
    added = [int(value) for value in node.attributes.get("output_padding") or [0] * rank]
    placings = placings_of(node, x.shape[2:], kernel.shape[2:])
    full = [(n - 1) * p.stride + p.reach + more for n, p, more in zip(x.shape[2:], placings, added, strict=True)]
    cuts = [_cut(node, axis, x.shape[2 + axis], full[axis], placings[axis]) for axis in range(rank)]
    room = [max(length, cut.stop) for length, cut in zip(full, cuts, strict=True)]
    parts = []
    for part, weights in zip(np.split(x, groups, axis=1), np.split(kernel, groups), strict=True):
        y = np.zeros((x.shape[0], *room, kernel.shape[1]))
        for at in np.ndindex(*kernel.shape[2:]):
            reached = [
                slice(i * p.dilation, i * p.dilation + (n - 1) * p.stride + 1, p.stride)
                for i, n, p in zip(at, x.shape[2:], placings, strict=True)
            ]
            y[(slice(None), *reached)] += np.tensordot(part, weights[(slice(None), slice(None), *at)], ([1], [0]))
        parts.append(y[(slice(None), *cuts)])
    joined = np.concatenate(parts, axis=-1)
    return np.moveaxis(joined if bias is None else joined + bias, -1, 1)


def _cut(node: OperatorNode, axis: int, length: int, full: int, place: Placing) -> slice:
    """Return which part of the full output is kept: what the padding leaves, or as much as output_shape says."""
    auto, output_shape = node.attributes["auto_pad"], node.attributes.get("output_shape")
    if not output_shape and not auto.startswith("SAME"):
        return slice(place.before, full - place.after)
    size = (
        int(output_shape[axis]) if output_shape else min(length * place.stride, full)
    )  # runtimes add no zeros of themselves
    total = max(full - size, 0)
    before = total // 2 if auto == "SAME_UPPER" else total - total // 2
    return slice(before, before + size)


def _over_windows(x: Array, placings: Sequence[Placing], combine: Callable[[Array, Array], Array]) -> Array:
    """Return what `combine` makes of each window of a padded image, one axis after the other."""
    for axis, place in enumerate(placings, 2):
        x = reduce(combine, shifted(x, axis, place))
    return x


@operation("MaxPool", exact=True)
def _max_pool(node: OperatorNode, x: Array) -> Array | tuple[Array, Array]:
    """Return the largest of each window; if asked for, where in the whole tensor the first of them stands."""
    placings = placings_of(node, x.shape[2:], node.attributes["kernel_shape"])
    least = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    image = padded_image(x, placings, least, least)
    if not node.asks_for(1):
        return _over_windows(image, placings, np.maximum)
    order: Literal["C", "F"] = "F" if node.attributes.get("storage_order") else "C"
    pixels = math.prod(x.shape[2:])
    where = np.arange(pixels).reshape(x.shape[2:], order=order) + np.arange(0, x.size, max(pixels, 1)).reshape(
        *x.shape[:2], *[1] * len(placings)
    )
    windows, places = (_windows(part, placings) for part in (image, padded_image(where, placings, -1, -1)))
    flat, at = (array.reshape(*array.shape[: x.ndim], -1) for array in (windows, places))
    first = np.argmax(flat, axis=-1)[..., None]
    return np.take_along_axis(flat, first, -1)[..., 0], np.take_along_axis(at, first, -1)[..., 0]


def _windows(x: Array, placings: Sequence[Placing]) -> Array:
    """Return the windows of a padded image (b, c, *lengths) as (b, c, *counts, *sizes), a view."""
    rank = len(placings)
    every = sliding_window_view(x, [place.reach for place in placings], tuple(range(2, 2 + rank)))
    strides, dilations = (
        [slice(None, None, step) for step in steps]
        for steps in zip(*((p.stride, p.dilation) for p in placings), strict=True)
    )
    view: Array = every[(slice(None), slice(None), *strides, *dilations)]
    return view


@operation("AveragePool")
def _average_pool(node: OperatorNode, x: Array) -> Array:
    """Padding counts with count_include_pad; what the last window reaches over it never does."""
    placings = placings_of(node, x.shape[2:], node.attributes["kernel_shape"])
    total = _over_windows(padded_image(x, placings, 0.0, 0.0), placings, np.add)
    included = float(node.attributes.get("count_include_pad", 0))
    counts = _over_windows(padded_image(np.ones((1, 1, *x.shape[2:])), placings, included, 0.0), placings, np.add)
    mean: Array = total / counts
    return mean


@operation("GlobalAveragePool")
def _global_average_pool(_: OperatorNode, x: Array) -> Array:
    mean: Array = np.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True)
    return mean


@operation("LpPool")
def _lp_pool(node: OperatorNode, x: Array) -> Array:
    placings = placings_of(node, x.shape[2:], node.attributes["kernel_shape"])
    p = node.attributes["p"]
    norm: Array = _over_windows(padded_image(np.abs(x), placings, 0.0, 0.0) ** p, placings, np.add) ** (1 / p)
    return norm


@operation("GlobalLpPool")
def _global_lp_pool(node: OperatorNode, x: Array) -> Array:
    p = node.attributes["p"]
    norm: Array = np.sum(np.abs(x) ** p, axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)
    return norm
