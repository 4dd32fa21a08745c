"""Error bounds of operators on signals: DFT, STFT, windows, MelWeightMatrix.

A transform may be summed directly or by a fast algorithm, in any order: its bound is in units of the sum of the signal's sizes.
Sines and cosines may be of angles computed in float32, and unreduced, up to 2 pi n for n numbers, unless n is a power of two.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost_in_sum
from actconform.tolerance.running_error import sum_factor

if TYPE_CHECKING:
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat

SINGLE_UNIT = 2.0**-24  # of angles, in float32 or better
SINE_ROUNDINGS = 8.0
HERTZ_ROUNDINGS = 64.0  # of a frequency through logarithm, steps of mel and power, as it may be moved by its edges


def _angle_unit(fmt: FloatFormat) -> float:
    return min(fmt.unit_roundoff, SINGLE_UNIT)


def _transform_factor(n: int, fmt: FloatFormat) -> float:
    """Return the error of a transform of n numbers in units of the sum of their sizes, windowed and scaled.

    In 16 bits each stage of a fast transform rounds products and two sums.
    """
    sums = sum_factor(2 * max(n, 1), fmt) * (3.0 if fmt.bits == 16 else 1.0)
    angles = 0.0 if n & (n - 1) == 0 else 2.0 * (2.0 * math.pi * n)  # a step and its multiple are rounded
    return sums + SINE_ROUNDINGS * fmt.unit_roundoff + angles * _angle_unit(fmt)


def _transformed(value: F64, reach: F64, passed_on: F64 | None, n: int, fmt: FloatFormat) -> Approximation:
    """Return a transform of n numbers, `reach` the sum of their sizes, `passed_on` that of their errors."""
    if passed_on is not None:
        reach = reach + passed_on
    error = _transform_factor(n, fmt) * reach + np.where(reach > 0.0, lost_in_sum(2 * n, fmt), 0.0)
    return Approximation(value, error if passed_on is None else error + passed_on)


@error_bound("DFT")
def _dft(
    context: BoundContext,
    x: Approximation,
    length: Approximation | None = None,
    axis: Approximation | None = None,
) -> Approximation:
    value = context.values((x, length, axis))[0]
    attributes = context.node.attributes
    stated = attributes.get("axis", -2 if axis is None else np.ravel(axis.value)[0])
    along = int(stated) % x.value.ndim
    read = n = x.value.shape[along] if length is None else int(np.ravel(length.value)[0])
    half = bool(attributes["onesided"] and attributes["inverse"])
    if half:
        n = 2 * (x.value.shape[along] - 1) if length is None else n
        read = n // 2 + 1
    # of half a spectrum each number stands for two
    share = (2.0 if half else 1.0) / (n if attributes["inverse"] else 1)

    def total(sizes: F64) -> F64:
        summed: F64 = np.sum(sizes.take(range(min(read, sizes.shape[along])), along), axis=(along, -1), keepdims=True)
        return summed * share

    passed_on = None if x.error is None else total(errors(x))
    return _transformed(value, total(np.abs(x.value)), passed_on, n, context.float_format)


@error_bound("STFT")
def _stft(
    context: BoundContext,
    x: Approximation,
    step: Approximation,
    window: Approximation | None = None,
    length: Approximation | None = None,
) -> Approximation:
    value = context.values((x, step, window, length))[0]
    stated = x.value.shape[1] if window is None else len(window.value)
    n = stated if length is None else int(np.ravel(length.value)[0])
    by = int(np.ravel(step.value)[0])

    def total(sizes: F64, weights: F64) -> F64:
        """Return the sums over frames, (batch, frames, 1, 1)."""
        flat = np.sum(sizes.reshape(*sizes.shape[:2], -1), axis=-1)
        frames: F64 = sliding_window_view(flat, n, axis=1)[:, ::by]
        summed: F64 = (frames @ weights)[..., None, None]
        return summed

    weights = Approximation(np.ones(n)) if window is None else window
    passed_on = None
    if x.error is not None or weights.error is not None:
        passed_on = total(errors(x), weights.size) + total(np.abs(x.value), np.array(errors(weights)))
    return _transformed(value, total(np.abs(x.value), np.abs(weights.value)), passed_on, n, context.float_format)


@error_bound("HannWindow", "HammingWindow", "BlackmanWindow", arithmetic=False)
def _window(context: BoundContext, size: Approximation) -> Approximation:
    """Cosines of angles up to 4 pi, with weights that add up to 1, as one or two terms of a sum."""
    value = context.values((size,))[0]
    fmt = context.float_format
    return Approximation(value, np.asarray(SINE_ROUNDINGS * (fmt.unit_roundoff + math.pi * _angle_unit(fmt))))


@error_bound("MelWeightMatrix", arithmetic=False)
def _mel_weights(context: BoundContext, *inputs: Approximation) -> Approximation:
    """Quotients of whole numbers; a corner of a triangle that lies next to a whole frequency may be on either side of it."""
    value = context.values(inputs)[0]
    fmt = context.float_format
    error = 2.0 * fmt.unit_roundoff * np.abs(value)
    off = HERTZ_ROUNDINGS * _angle_unit(fmt)
    for ends in itertools.product((-1.0, 1.0), repeat=2):
        edges = [
            each.value * (1.0 + end * off) + end * errors(each) for each, end in zip(inputs[3:], ends, strict=True)
        ]
        moved = context.compute([*(each.value for each in inputs[:3]), *edges])[0]
        error = np.maximum(error, np.abs(moved - value) * (1.0 + 2.0 * fmt.unit_roundoff) + 2.0 * fmt.unit_roundoff)
    return Approximation(value, error)
