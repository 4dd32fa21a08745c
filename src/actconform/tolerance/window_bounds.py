"""The bounds of layers whose windows move over an image, as `actconform.tolerance.layer_bounds` has them of all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from actconform.catalog.models.layer_kinds import extent, same_pads, transposed_cut
from actconform.oracle.layers.windows import neighbours
from actconform.tolerance.running_error import Bounded, bounded_inputs, exact_inputs, projected, widest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.oracle.layers.registry import Reading
    from actconform.tolerance.running_error import F64
    from actconform.types.dtypes import FloatFormat

    Bound: TypeAlias = Callable[[Reading, FloatFormat], Bounded]

PLACE_ROUNDINGS = 5.0  # of a pixel's place: the scale or its inverse, the product, the halves before and after it


def _pair(reading: Reading, setting: str) -> tuple[int, int]:
    return cast("tuple[int, int]", reading.layer.settings[setting])


def _windows(reading: Reading, x: Bounded) -> Bounded:
    """Return the pixels of all windows, (b, rows, columns, height, width, channels); zeros of the padding are among them."""
    layer, strides = reading.layer, _pair(reading, "strides")
    steps = cast("tuple[int, int]", layer.settings.get("dilations", (1, 1)))
    pads = [(0, 0)] * 4
    if layer.settings["padding"] == "same":
        pads[1:3] = [same_pads(*axis) for axis in zip(x.value.shape[1:3], extent(layer), strides, strict=True)]

    def windows(v: F64) -> F64:
        view = np.lib.stride_tricks.sliding_window_view(np.pad(v, pads), extent(layer), axis=(1, 2))
        view = view[:, :: strides[0], :: strides[1], :, :: steps[0], :: steps[1]]
        return np.moveaxis(view, 3, -1)

    return x.moved(windows)


def _joined(parts: Sequence[Bounded]) -> Bounded:
    value, error = (np.concatenate([getattr(part, of) for part in parts], axis=-1) for of in ("value", "error"))
    return Bounded(value, error, parts[0].fmt)


def _in_rows(v: F64) -> F64:
    return v.reshape(*v.shape[:3], -1)


def _conv2d(reading: Reading, fmt: FloatFormat) -> Bounded:
    """A dense layer of all windows of each group; zeros of the padding count as terms."""
    (x,) = bounded_inputs(reading, fmt)
    windows, groups = _windows(reading, x), cast("int", reading.layer.settings.get("groups", 1))
    kernel, bias = (exact_inputs(reading.parameters[name], fmt) for name in ("kernel", "bias"))
    read, filters = kernel.value.shape[2], kernel.value.shape[3] // groups
    parts = []
    for group in range(groups):
        channels, outputs = (slice(group * n, (group + 1) * n) for n in (read, filters))
        weights = kernel[..., outputs].moved(lambda w: w.reshape(-1, w.shape[-1]))
        parts.append(projected(windows[..., channels].moved(_in_rows), weights, bias[outputs]))
    return _joined(parts)


def _of_residue(first: int, stride: int, before: int, out: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the places of the output, cut by `before`, that are `first` modulo the stride, and the last pixel that reaches each."""
    at = np.arange((first - before) % stride, out, stride)
    return at, (at + before) // stride


def _conv2d_transpose(reading: Reading, fmt: FloatFormat) -> Bounded:
    """Of each residue of places modulo the strides a convolution of its own, with the part of the kernel that reaches there."""
    (x,) = bounded_inputs(reading, fmt)
    kernel, bias = (exact_inputs(reading.parameters[name], fmt) for name in ("kernel", "bias"))
    size, strides, padding = _pair(reading, "size"), _pair(reading, "strides"), reading.layer.settings["padding"]
    cuts = [transposed_cut(*axis, str(padding)) for axis in zip(size, strides, strict=True)]
    outs = [(n - 1) * s + k - sum(cut) for n, s, k, cut in zip(x.value.shape[1:3], strides, size, cuts, strict=True)]
    value = np.broadcast_to(bias.value, (len(x.value), *outs, len(bias.value))).copy()
    error = np.zeros_like(value)
    for residue in np.ndindex(*strides):
        part = kernel[residue[0] :: strides[0], residue[1] :: strides[1]]
        if not part.value.size:
            continue  # nothing but the bias
        axes = zip(residue, strides, cuts, outs, strict=True)
        (at_rows, rows), (at_columns, columns) = (_of_residue(r, s, cut[0], out) for r, s, cut, out in axes)
        seen = _reaching(x, part.value.shape[:2])[:, rows[:, None], columns].moved(_in_rows)
        turned = part.moved(lambda w: np.swapaxes(w[::-1, ::-1], 2, 3).reshape(-1, w.shape[2]))
        y = projected(seen, turned, bias)
        value[:, at_rows[:, None], at_columns], error[:, at_rows[:, None], at_columns] = y.value, y.error
    return Bounded(value, error, fmt)


def _reaching(x: Bounded, size: tuple[int, ...]) -> Bounded:
    """Return for each pixel, and for as many behind the last, the window of that size that ends there; zeros beyond the image."""
    pads = [(0, 0), *((n - 1, n) for n in size), (0, 0)]
    return x.moved(
        lambda v: np.moveaxis(np.lib.stride_tricks.sliding_window_view(np.pad(v, pads), size, axis=(1, 2)), 3, -1)
    )


def _average_pool(reading: Reading, fmt: FloatFormat) -> Bounded:
    (x,) = bounded_inputs(reading, fmt)
    image = exact_inputs(np.ones((1, *x.value.shape[1:3], 1)), fmt)
    total, counts = (_windows(reading, each).sum((3, 4)) for each in (x, image))
    return (total / Bounded(counts.value, np.zeros_like(counts.value), fmt)).moved(lambda v: v[:, :, :, 0, 0])


def _global_average_pool(reading: Reading, fmt: FloatFormat) -> Bounded:
    (x,) = bounded_inputs(reading, fmt)
    return x.mean((1, 2))


def _resized(x: Bounded, axis: int, count: int) -> Bounded:
    """Between two neighbours, both weighted or one plus a part of the difference; a place's rounding may choose other ones."""
    length = x.value.shape[axis]
    low, high, weights = neighbours(length, count)
    moved = PLACE_ROUNDINGS * x.fmt.unit_roundoff * (low + weights + 1.0)
    along = [-1 if n == axis else 1 for n in range(x.value.ndim)]
    weight = Bounded(weights.reshape(along), moved.reshape(along), x.fmt)

    def taken(places: NDArray[np.intp]) -> Bounded:
        return x.moved(lambda v: v.take(np.clip(places, 0, length - 1), axis))

    a, b = taken(low), taken(high)
    y = widest((1.0 - weight) * a + weight * b, a + weight * (b - a), b + (1.0 - weight) * (a - b))
    beyond = taken(low - 1).reach + a.reach + b.reach + taken(high + 1).reach
    close = ((weights < moved) | (weights > 1.0 - moved)).reshape(along)
    return Bounded(y.value, y.error + np.where(close, weight.error * beyond, 0.0), x.fmt)


def _bilinear(reading: Reading, fmt: FloatFormat) -> Bounded:
    (x,) = bounded_inputs(reading, fmt)
    rows, columns = _pair(reading, "size")
    return widest(_resized(_resized(x, 1, rows), 2, columns), _resized(_resized(x, 2, columns), 1, rows))


WINDOW_BOUNDS: Mapping[str, Bound] = {
    "conv2d": _conv2d,
    "conv2d-transpose": _conv2d_transpose,
    "average-pool": _average_pool,
    "global-average-pool": _global_average_pool,
    "bilinear-resize": _bilinear,
}
