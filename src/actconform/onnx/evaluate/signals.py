"""The correctly rounded evaluator's GridSample, DFT and Det, in float64."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.elementwise import operation

if TYPE_CHECKING:
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@operation("Det")
def _det(_: OperatorNode, x: Array) -> Array:
    return np.asarray(np.linalg.det(x))


@operation("DFT")
def _dft(node: OperatorNode, x: Array, length: Array | None = None, axis: Array | None = None) -> Array:
    """Numbers with their imaginary parts along the last axis; real ones have but one number there."""
    attributes = node.attributes
    if attributes["inverse"] and attributes["onesided"]:
        raise Unsupported("the correctly rounded evaluator does not know a one-sided inverse DFT")
    along = int(attributes.get("axis", -2 if axis is None else axis)) % x.ndim
    numbers = x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0)
    transform = np.fft.ifft if attributes["inverse"] else np.fft.fft
    result = transform(numbers, n=None if length is None else int(length), axis=along)
    if attributes["onesided"]:
        result = result.take(np.arange(result.shape[along] // 2 + 1), along)
    return np.stack([result.real, result.imag], -1)


@operation("GridSample")
def _grid_sample(node: OperatorNode, x: Array, grid: Array) -> Array:
    """Weighted pixels about each place; beyond the image zeros, the border, or the image mirrored."""
    places = grid.shape[1:-1]
    y = np.zeros((*x.shape[:2], *places))
    for at in np.ndindex(len(x), *places):
        taps = [_taps(node, grid[at][::-1][axis], size) for axis, size in enumerate(x.shape[2:])]
        for pixels in itertools.product(*taps):
            weight = np.prod([weight for _, weight in pixels])
            y[at[0], :, *at[1:]] += weight * x[at[0], :, *(pixel for pixel, _ in pixels)]
    return y


def _taps(node: OperatorNode, coordinate: float, size: int) -> list[tuple[int, float]]:
    """Return the pixels along one axis that are read for a coordinate of -1 to 1, and their weights."""
    first, last = (0.0, size - 1.0) if node.attributes["align_corners"] else (-0.5, size - 0.5)
    place = (coordinate + 1) / 2 * (last - first) + first
    mode, padding = node.attributes["mode"].removeprefix("bi"), node.attributes["padding_mode"]
    if mode != "cubic":
        place = _moved(padding, place, (first, last), size)
    floor = int(np.floor(place))
    t = place - floor
    if mode == "nearest":
        taps = [(int(np.rint(place)), 1.0)]
    elif mode == "linear":
        taps = [(floor, 1 - t), (floor + 1, t)]
    else:
        taps = [(floor + step, _keys(abs(t - step))) for step in (-1, 0, 1, 2)]
    if padding == "zeros":
        return [(pixel, weight) for pixel, weight in taps if 0 <= pixel < size]
    return [(int(_moved(padding, pixel, (first, last), size)), weight) for pixel, weight in taps]


def _moved(padding: str, place: float, edges: tuple[float, float], size: int) -> float:
    """Return a place, or a pixel, moved into the image as the padding says."""
    if padding == "zeros":
        return place
    first, last = edges
    if padding == "reflection" and last > first:
        turns, rest = divmod(abs(place - first), last - first)
        place = first + (last - first - rest if turns % 2 else rest)
    return min(max(place, 0.0), size - 1.0)


def _keys(distance: float, a: float = -0.75) -> float:
    """Return the weight of a pixel at that distance, at most 2 (Keys 1981)."""
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance**2 + 1
    return ((distance - 5) * distance + 8) * distance * a - 4 * a
