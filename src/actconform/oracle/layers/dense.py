"""Dense and convolutional layers, pooling, up-sampling and changes of shape: values and vector-Jacobian products.

Arrays have the batch first and channels last. NaN and infinities go where the sums and products take them. Every value here
is analytic, so complex numbers pass through; a maximum is then the one of the real parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from actconform.catalog.models.layer_kinds import same_pads
from actconform.oracle.layers.registry import LayerGradients, layer_formula

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.oracle.layers.registry import F64, Reading
    from actconform.types.model import Layer


def _pair(layer: Layer, setting: str) -> tuple[int, int]:
    return cast("tuple[int, int]", layer.settings[setting])


def _all_but_last(x: F64) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _dense_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    x, rows = reading.inputs[0], _all_but_last(g)
    d_kernel = np.tensordot(x, g, axes=(rows, rows))
    return LayerGradients([g @ reading.parameters["kernel"].T], {"kernel": d_kernel, "bias": g.sum(axis=rows)})


@layer_formula("dense", vjp=_dense_vjp)
def _dense(reading: Reading) -> F64:
    y: F64 = reading.inputs[0] @ reading.parameters["kernel"] + reading.parameters["bias"]
    return y


def _pads(layer: Layer, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the padding before and after each of the four axes of an image of that shape."""
    if layer.settings["padding"] == "valid":
        return [(0, 0)] * 4
    inner = zip(shape[1:3], _pair(layer, "size"), _pair(layer, "strides"), strict=True)
    return [(0, 0), *(same_pads(length, window, stride) for length, window, stride in inner), (0, 0)]


def _padded(layer: Layer, x: F64, fill: float) -> F64:
    return np.pad(x, _pads(layer, x.shape), constant_values=fill)


def _without_padding(layer: Layer, padded: F64, shape: tuple[int, ...]) -> F64:
    _, (top, _), (left, _), _ = _pads(layer, shape)
    return padded[:, top : top + shape[1], left : left + shape[2]]


def _taps(layer: Layer, padded: NDArray[Any]) -> list[NDArray[Any]]:
    """Return, for each place of the window in row-major order, a view of the pixels that all windows have there."""
    (height, width), (down, right) = _pair(layer, "size"), _pair(layer, "strides")
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    return [
        padded[:, row : row + rows : down, column : column + columns : right]
        for row in range(height)
        for column in range(width)
    ]


def _conv2d_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    x, kernel, layer = reading.inputs[0], reading.parameters["kernel"], reading.layer
    padded = _padded(layer, x, 0.0)
    d_padded, d_kernel = np.zeros_like(padded, np.result_type(g, kernel)), []
    matrices = kernel.reshape(-1, *kernel.shape[2:])
    for pixels, into, matrix in zip(_taps(layer, padded), _taps(layer, d_padded), matrices, strict=True):
        into[...] += np.tensordot(g, matrix, axes=(3, 1))
        d_kernel.append(np.tensordot(pixels, g, axes=((0, 1, 2), (0, 1, 2))))
    parameters = {"kernel": np.stack(d_kernel).reshape(kernel.shape), "bias": g.sum(axis=(0, 1, 2))}
    return LayerGradients([_without_padding(layer, d_padded, x.shape)], parameters)


@layer_formula("conv2d", vjp=_conv2d_vjp)
def _conv2d(reading: Reading) -> F64:
    """A sum of one matrix product for each place of the window: no pixel is copied more than once at a time."""
    kernel, layer = reading.parameters["kernel"], reading.layer
    taps = _taps(layer, _padded(layer, reading.inputs[0], 0.0))
    products = zip(taps, kernel.reshape(-1, *kernel.shape[2:]), strict=True)
    y: F64 = sum(np.tensordot(pixels, matrix, axes=1) for pixels, matrix in products) + reading.parameters["bias"]
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


def _reshape_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    return LayerGradients([g.reshape(reading.inputs[0].shape)])


@layer_formula("flatten", vjp=_reshape_vjp)
def _flatten(reading: Reading) -> F64:
    return reading.inputs[0].reshape(len(reading.inputs[0]), -1)


@layer_formula("reshape", vjp=_reshape_vjp)
def _reshape(reading: Reading) -> F64:
    shape = cast("tuple[int, ...]", reading.layer.settings["shape"])
    return reading.inputs[0].reshape(-1, *shape)
