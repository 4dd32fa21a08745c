"""The correctly rounded evaluator's operators over windows of an image, of any number of spatial axes: convolution, pooling, resizing.

As in elementwise: the real function of the inputs, in float64, channels first. Padding never wins a maximum; a NaN spreads over
the windows that have it. Products are summed in float64, not exactly: far below one rounding of float32, whatever their order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from actconform.errors import Unsupported
from actconform.onnx.evaluate.elementwise import operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def _placings(node: OperatorNode, lengths: Sequence[int], size: Sequence[int]) -> list[Placing]:
    rank, auto = len(lengths), node.attributes["auto_pad"]
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


def _padded(x: Array, placings: Sequence[Placing], fill: float, beyond: float) -> Array:
    inner = np.pad(x, [(0, 0), (0, 0), *((p.before, p.after) for p in placings)], constant_values=fill)
    return np.pad(inner, [(0, 0), (0, 0), *((0, p.beyond) for p in placings)], constant_values=beyond)


def _channels_first(x: Array) -> Array:
    turned: Array = np.moveaxis(x, -1, 1)
    return turned


@operation("Conv")
def _conv(node: OperatorNode, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    rank, groups = x.ndim - 2, int(node.attributes["group"])
    placings = _placings(node, x.shape[2:], kernel.shape[2:])
    windows = _windows(_padded(x, placings, 0.0, 0.0), placings)
    axes = [1, *range(2 + rank, 2 + 2 * rank)], list(range(1, 2 + rank))
    parts = zip(np.split(windows, groups, axis=1), np.split(kernel, groups), strict=True)
    y = np.concatenate([np.tensordot(part, weights, axes) for part, weights in parts], axis=-1)
    return _channels_first(y if bias is None else y + bias)


@operation("ConvTranspose")
def _conv_transpose(node: OperatorNode, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Each element of x adds its multiple of the kernel to the output, from which the padding is then cut off."""
    rank, groups = x.ndim - 2, int(node.attributes["group"])
    added = [int(value) for value in node.attributes.get("output_padding") or [0] * rank]
    placings = _placings(node, x.shape[2:], kernel.shape[2:])
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
    return _channels_first(joined if bias is None else joined + bias)


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


def _over_window(windows: Array) -> tuple[int, ...]:
    return tuple(range(2 + (windows.ndim - 2) // 2, windows.ndim))


@operation("MaxPool")
def _max_pool(node: OperatorNode, x: Array) -> tuple[Array, Array]:
    """Return the largest of each window, and where in the whole tensor the first of them stands."""
    placings = _placings(node, x.shape[2:], node.attributes["kernel_shape"])
    least = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    windows = _windows(_padded(x, placings, least, least), placings)
    places = _windows(_padded(np.arange(x.size).reshape(x.shape), placings, -1, -1), placings)
    outside = windows.ndim - len(_over_window(windows))
    flat, where = (array.reshape(*array.shape[:outside], -1) for array in (windows, places))
    first = np.argmax(flat, axis=-1)[..., None]
    return np.take_along_axis(flat, first, -1)[..., 0], np.take_along_axis(where, first, -1)[..., 0]


@operation("AveragePool")
def _average_pool(node: OperatorNode, x: Array) -> Array:
    """Padding counts with count_include_pad; what the last window reaches over it never does."""
    placings = _placings(node, x.shape[2:], node.attributes["kernel_shape"])
    windows = _windows(_padded(x, placings, 0.0, 0.0), placings)
    image = np.ones((1, 1, *x.shape[2:]))
    counts = _windows(_padded(image, placings, float(node.attributes["count_include_pad"]), 0.0), placings)
    over = _over_window(windows)
    mean: Array = np.sum(windows, axis=over) / np.sum(counts, axis=over)
    return mean


@operation("GlobalAveragePool")
def _global_average_pool(_: OperatorNode, x: Array) -> Array:
    mean: Array = np.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True)
    return mean


@operation("LpPool")
def _lp_pool(node: OperatorNode, x: Array) -> Array:
    placings = _placings(node, x.shape[2:], node.attributes["kernel_shape"])
    windows = _windows(_padded(np.abs(x), placings, 0.0, 0.0), placings)
    return _norm(windows, _over_window(windows), node.attributes["p"])


@operation("GlobalLpPool")
def _global_lp_pool(node: OperatorNode, x: Array) -> Array:
    return _norm(np.abs(x), tuple(range(2, x.ndim)), node.attributes["p"], keepdims=True)


def _norm(sizes: Array, axes: tuple[int, ...], p: int, *, keepdims: bool = False) -> Array:
    norm: Array = np.sum(sizes**p, axis=axes, keepdims=keepdims) ** (1 / p)
    return norm


@operation("Resize")
def _resize(
    node: OperatorNode, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Array:
    """Interpolate along one axis after the other; beyond its edges the image goes on as there, but where it was cropped."""
    axes = [int(axis) % x.ndim for axis in node.attributes.get("axes") or range(x.ndim)]
    corners = np.reshape([0.0, 1.0] if roi is None or not roi.size else roi, (2, -1))
    corners = np.broadcast_to(corners, (2, len(axes)))
    lengths = [x.shape[axis] for axis in axes]
    for axis, crop, scale, count in zip(axes, corners.T, *_targets(node, lengths, scales, sizes), strict=True):
        length = x.shape[axis]
        cropped = node.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
        if scale == 1 and count == length and not cropped:
            continue
        places = _crop_places(crop, length, count) if cropped else _places(node, length, scale, count)
        samples = _samples(node, places, length, scale)
        x = np.add.reduce(
            [_spread(weight, x.ndim, axis) * x.take(at.clip(0, length - 1), axis) for at, weight in samples]
        )
        if cropped:
            outside = _spread((places < 0) | (places > length - 1), x.ndim, axis)
            x = np.where(outside, node.attributes["extrapolation_value"], x)
    return x


def _targets(
    node: OperatorNode, lengths: Sequence[int], scales: Array | None, sizes: Array | None
) -> tuple[list[float], list[int]]:
    """Return the scale and the new length of every axis that is resized."""
    if sizes is None or not len(sizes):
        assert scales is not None  # the standard asks for one of the two
        factors = [float(scale) for scale in scales]
        return factors, [math.floor(length * scale) for length, scale in zip(lengths, factors, strict=True)]
    counts = [int(size) for size in sizes]
    ratios = [count / length for count, length in zip(counts, lengths, strict=True)]
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return ratios, counts
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [ratio] * len(lengths), [math.floor(ratio * length + 0.5) for length in lengths]


def _crop_places(crop: Array, length: int, count: int) -> Array:
    """Return where in the image each pixel lies of a part that begins and ends at these shares of it."""
    first, last = crop * (length - 1)
    return np.linspace(first, last, count) if count > 1 else np.array([(first + last) / 2])


def _spread(weights: Array, rank: int, axis: int) -> Array:
    return weights.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _places(node: OperatorNode, length: int, scale: float, count: int) -> Array:
    """Return where in the image each pixel of the result lies, pixels of the image being at 0, 1, 2, ..."""
    i, mode = np.arange(count, dtype=np.float64), node.attributes["coordinate_transformation_mode"]
    middle = (i + 0.5) / scale - 0.5
    match mode:
        case "half_pixel":
            return middle
        case "pytorch_half_pixel":
            return middle if count > 1 else np.zeros(1)
        case "half_pixel_symmetric":
            return length / 2 * (1 - count / (scale * length)) + middle
        case "asymmetric":
            return i / scale
        case "align_corners":
            return i * (length - 1) / max(count - 1, 1)
        case "tf_half_pixel_for_nn":  # of opset 11 alone, but tf2onnx writes it at any
            return middle + 0.5
    raise Unsupported(
        f"the correctly rounded evaluator does not know Resize with coordinate_transformation_mode = {mode}"
    )


ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda place: np.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: np.floor(place + 0.5),
}


def _samples(node: OperatorNode, places: Array, length: int, scale: float) -> list[tuple[Array, Array]]:
    """Return the pixels that take part: for each place the index of one, and its weight.

    With `antialias` the weights of a smaller image reach further, as far as the distance of its pixels.
    """
    below, mode = np.floor(places), node.attributes["mode"]
    if mode == "nearest":
        return [(ROUNDINGS[node.attributes["nearest_mode"]](places).astype(np.int64), np.ones(len(places)))]
    smoothed = bool(node.attributes.get("antialias")) and scale < 1
    density = scale if smoothed else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / density)
    at = np.stack([below + step for step in range(1 - reach, reach + 1)])
    distance = np.abs(places - at) * density
    if mode == "linear":
        weights = np.maximum(1.0 - distance, 0.0)
    else:
        weights = np.where(distance < 2, _cubic(node.attributes["cubic_coeff_a"], distance), 0.0)
    if smoothed:
        weights = weights / weights.sum(axis=0)
    if node.attributes["exclude_outside"]:
        weights = np.where((at < 0) | (at >= length), 0.0, weights)
        weights /= weights.sum(axis=0)
    return list(zip(at.astype(np.int64), weights, strict=True))


def _cubic(a: float, distance: Array) -> Array:
    """Return the weight of a pixel at that distance, at most 2 (Keys 1981, equation 15 with -1/2 free)."""
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, inner, outer)
