"""Layers whose windows move over an image: convolutions, pools, up-sampling and resizing; values and vector-Jacobian products.

Arrays have the batch first and channels last. NaN and infinities go where the sums and products take them. Every value here
is analytic, so complex numbers pass through; a maximum is then the one of the real parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actconform.catalog.models.layer_kinds import extent, same_pads, transposed_cut
from actconform.oracle.layers.registry import LayerGradients, layer_formula

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.oracle.layers.registry import F64, Reading
    from actconform.types.model import Layer


def _pair(layer: Layer, setting: str) -> tuple[int, int]:
    return cast("tuple[int, int]", layer.settings[setting])


def _pads(layer: Layer, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the padding before and after each of the four axes of an image of that shape."""
    if layer.settings["padding"] == "valid":
        return [(0, 0)] * 4
    inner = zip(shape[1:3], extent(layer), _pair(layer, "strides"), strict=True)
    return [(0, 0), *(same_pads(length, window, stride) for length, window, stride in inner), (0, 0)]


def _padded(layer: Layer, x: F64, fill: float) -> F64:
    return np.pad(x, _pads(layer, x.shape), constant_values=fill)


def _without_padding(layer: Layer, padded: F64, shape: tuple[int, ...]) -> F64:
    _, (top, _), (left, _), _ = _pads(layer, shape)
    return padded[:, top : top + shape[1], left : left + shape[2]]


def _taps(layer: Layer, padded: NDArray[Any]) -> list[NDArray[Any]]:
    """Return, for each place of the window in row-major order, a view of the pixels that all windows have there."""
    (height, width), (down, right) = extent(layer), _pair(layer, "strides")
    row_step, column_step = cast("tuple[int, int]", layer.settings.get("dilations", (1, 1)))
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    return [
        padded[:, row : row + rows : down, column : column + columns : right]
        for row in range(0, height, row_step)
        for column in range(0, width, column_step)
    ]


def _groups(reading: Reading, *arrays: NDArray[Any]) -> list[tuple[NDArray[Any], ...]]:
    """Return the parts of each array's last axis, the first ones of all together, the second ones, ..."""
    groups = cast("int", reading.layer.settings.get("groups", 1))
    if groups == 1:
        return [arrays]
    return list(zip(*(np.split(array, groups, axis=-1) for array in arrays), strict=True))


def _conv2d_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    x, kernel, layer = reading.inputs[0], reading.parameters["kernel"], reading.layer
    padded = _padded(layer, x, 0.0)
    d_padded, d_kernel = np.zeros_like(padded, np.result_type(g, kernel)), []
    matrices = kernel.reshape(-1, *kernel.shape[2:])
    for pixels, into, matrix in zip(_taps(layer, padded), _taps(layer, d_padded), matrices, strict=True):
        for part, into_part, g_part, weights in _groups(reading, pixels, into, g, matrix):
            into_part[...] += np.tensordot(g_part, weights, axes=(3, 1))
            d_kernel.append(np.tensordot(part, g_part, axes=((0, 1, 2), (0, 1, 2))))
    by_group = np.stack(d_kernel).reshape(len(matrices), -1, *d_kernel[0].shape)  # (places, groups, read, filters)
    parameters = {"kernel": np.moveaxis(by_group, 1, 2).reshape(kernel.shape), "bias": g.sum(axis=(0, 1, 2))}
    return LayerGradients([_without_padding(layer, d_padded, x.shape)], parameters)


@layer_formula("conv2d", vjp=_conv2d_vjp)
def _conv2d(reading: Reading) -> F64:
    """A sum of one matrix product for each place of the window: no pixel is copied more than once at a time."""
    kernel, layer = reading.parameters["kernel"], reading.layer
    taps = _taps(layer, _padded(layer, reading.inputs[0], 0.0))
    products = (
        np.concatenate([np.tensordot(part, w, axes=1) for part, w in _groups(reading, pixels, matrix)], axis=-1)
        for pixels, matrix in zip(taps, kernel.reshape(-1, *kernel.shape[2:]), strict=True)
    )
    y: F64 = sum(products) + reading.parameters["bias"]
    return y


def _cuts(layer: Layer) -> list[tuple[int, int]]:
    """Return what is cut off before and after rows and columns of a transposed convolution."""
    padding = str(layer.settings["padding"])
    axes = zip(_pair(layer, "size"), _pair(layer, "strides"), strict=True)
    return [transposed_cut(window, stride, padding) for window, stride in axes]


def _transposed_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """It is a convolution of g, padded where the value was cut."""
    kernel, layer = reading.parameters["kernel"], reading.layer
    pads = [(before, max(after, 0)) for before, after in _cuts(layer)]
    taps = _taps(layer, np.pad(g, [(0, 0), *pads, (0, 0)]))
    matrices = kernel.reshape(-1, *kernel.shape[2:])
    d_x = np.add.reduce([np.tensordot(pixels, matrix, axes=1) for pixels, matrix in zip(taps, matrices, strict=True)])
    d_kernel = [np.tensordot(pixels, reading.inputs[0], axes=((0, 1, 2), (0, 1, 2))) for pixels in taps]
    return LayerGradients([d_x], {"kernel": np.stack(d_kernel).reshape(kernel.shape), "bias": g.sum(axis=(0, 1, 2))})


@layer_formula("conv2d-transpose", vjp=_transposed_vjp)
def _conv2d_transpose(reading: Reading) -> F64:
    x, kernel, layer = reading.inputs[0], reading.parameters["kernel"], reading.layer
    cuts = _cuts(layer)
    axes = zip(x.shape[1:3], _pair(layer, "size"), _pair(layer, "strides"), cuts, strict=True)
    lengths = [(n - 1) * stride + window - min(after, 0) for n, window, stride, (_, after) in axes]
    full = np.zeros((len(x), *lengths, kernel.shape[2]), np.result_type(x, kernel))
    for into, matrix in zip(_taps(layer, full), kernel.reshape(-1, *kernel.shape[2:]), strict=True):
        into[...] += np.tensordot(x, matrix, axes=(3, 1))
    rows, columns = (slice(before, n - max(after, 0)) for n, (before, after) in zip(lengths, cuts, strict=True))
    y: F64 = full[:, rows, columns] + reading.parameters["bias"]
    return y


def _windows(reading: Reading) -> tuple[F64, NDArray[np.intp]]:
    """Return the pixels of all windows, their places along axis 0, and the place of each window's first maximum."""
    layer, x = reading.layer, reading.inputs[0]
    pixels = np.stack(_taps(layer, _padded(layer, x, -np.inf)))
    image = np.stack(_taps(layer, _padded(layer, np.ones((1, *x.shape[1:3], 1)), 0.0)))
    # where nothing is above -inf, padding would win by standing first
    empty = pixels.real.max(axis=0) == -np.inf
    return pixels, np.where(empty, image.argmax(axis=0), pixels.real.argmax(axis=0))


def _max_pool_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    layer, x = reading.layer, reading.inputs[0]
    d_padded = np.zeros_like(_padded(layer, x, 0.0), g.dtype)
    winner = _windows(reading)[1]
    for place, into in enumerate(_taps(layer, d_padded)):
        into[...] += np.where(winner == place, g, 0.0)
    return LayerGradients([_without_padding(layer, d_padded, x.shape)])


@layer_formula("max-pool", vjp=_max_pool_vjp)
def _max_pool(reading: Reading) -> F64:
    """The gradient goes to the first maximum of a window in row-major order; the first NaN of a window is its maximum."""
    pixels, winner = _windows(reading)
    y: F64 = np.take_along_axis(pixels, winner[np.newaxis], axis=0)[0]
    return y


def _up_sampling_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    rows, columns = _pair(reading.layer, "size")
    batch, height, width, channels = reading.inputs[0].shape
    return LayerGradients([g.reshape(batch, height, rows, width, columns, channels).sum(axis=(2, 4))])


@layer_formula("up-sampling", vjp=_up_sampling_vjp)
def _up_sampling(reading: Reading) -> F64:
    rows, columns = _pair(reading.layer, "size")
    return reading.inputs[0].repeat(rows, axis=1).repeat(columns, axis=2)


def _counts(reading: Reading) -> F64:
    """Return how many pixels of the image each window has, (1, rows, columns, 1)."""
    image = np.ones((1, *reading.inputs[0].shape[1:3], 1))
    counts: F64 = sum(_taps(reading.layer, _padded(reading.layer, image, 0.0)), np.zeros(()))
    return counts


def _average_pool_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    layer, x = reading.layer, reading.inputs[0]
    d_padded = np.zeros_like(_padded(layer, x, 0.0), g.dtype)
    share = g / _counts(reading)
    for into in _taps(layer, d_padded):
        into[...] += share
    return LayerGradients([_without_padding(layer, d_padded, x.shape)])


@layer_formula("average-pool", vjp=_average_pool_vjp)
def _average_pool(reading: Reading) -> F64:
    y: F64 = sum(_taps(reading.layer, _padded(reading.layer, reading.inputs[0], 0.0))) / _counts(reading)
    return y


def _global_average_pool_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    x = reading.inputs[0]
    return LayerGradients([np.broadcast_to(g[:, None, None] / (x.shape[1] * x.shape[2]), x.shape).copy()])


@layer_formula("global-average-pool", vjp=_global_average_pool_vjp)
def _global_average_pool(reading: Reading) -> F64:
    y: F64 = reading.inputs[0].mean(axis=(1, 2))
    return y


def neighbours(length: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], F64]:
    """Return, for each of `count` pixels made of `length`, both neighbours and the second one's weight in [0, 1]."""
    places = np.clip((np.arange(count) + 0.5) * (length / count) - 0.5, 0.0, length - 1.0)
    low = np.floor(places).astype(np.intp)
    return low, np.minimum(low + 1, length - 1), places - low


def _resized(x: F64, axis: int, count: int) -> F64:
    low, high, weight = neighbours(x.shape[axis], count)
    weight = weight.reshape([-1 if n == axis else 1 for n in range(x.ndim)])
    y: F64 = (1.0 - weight) * x.take(low, axis) + weight * x.take(high, axis)
    return y


def _resized_back(g: F64, axis: int, length: int) -> F64:
    """Pull g back through the resizing of one axis: each pixel gets its share of those that it is a neighbour of."""
    low, high, weight = neighbours(length, g.shape[axis])
    moved = np.moveaxis(g, axis, -1)
    d_x = np.zeros((*moved.shape[:-1], length), g.dtype)
    for i in range(moved.shape[-1]):
        d_x[..., low[i]] += (1.0 - weight[i]) * moved[..., i]
        d_x[..., high[i]] += weight[i] * moved[..., i]
    return np.moveaxis(d_x, -1, axis)


def _bilinear_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    rows, columns = reading.inputs[0].shape[1:3]
    return LayerGradients([_resized_back(_resized_back(g, 2, columns), 1, rows)])


@layer_formula("bilinear-resize", vjp=_bilinear_vjp)
def _bilinear_resize(reading: Reading) -> F64:
    rows, columns = _pair(reading.layer, "size")
    return _resized(_resized(reading.inputs[0], 1, rows), 2, columns)
