"""Error bounds of ONNX Runtime's own operators that standard ones do not compose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from actconform.onnx.evaluate.contrib.quantized_lstm import (
    dequantized_weights,
    part_extremes,
    quantization,
    requantized,
)
from actconform.onnx.evaluate.contrib.registry import CONTRIB_DOMAIN
from actconform.onnx.evaluate.error_bounds.recurrent import LayerInputs, bounded_layer
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import as_bounded, errors
from actconform.tolerance.running_error import Bounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat


@error_bound("Inverse", domain=CONTRIB_DOMAIN)
def _inverse(context: BoundContext, x: Approximation) -> Approximation:
    """By triangular factors with row exchanges: 3 n u |inverse| |L| |U| |inverse| (Higham 2002, section 14.3), to first order."""
    (inverse,) = context.values([x])
    permuted, lower, upper = scipy.linalg.lu(x.value)
    factors = permuted @ np.abs(lower) @ np.abs(upper)
    moved = 3.0 * x.value.shape[-1] * context.float_format.unit_roundoff * factors + errors(x)
    return Approximation(inverse, np.abs(inverse) @ moved @ np.abs(inverse))


@error_bound("DynamicQuantizeLSTM", domain=CONTRIB_DOMAIN)
def _dynamic_quantize_lstm(  # noqa: PLR0913, PLR0917  as the schema orders them
    context: BoundContext,
    x: Approximation,
    w: Approximation,
    r: Approximation,
    b: Approximation | None,
    lengths: Approximation | None,
    h: Approximation | None,
    c: Approximation | None,
    p: Approximation | None,
    w_scale: Approximation,
    w_zero: Approximation,
    r_scale: Approximation,
    r_zero: Approximation,
) -> tuple[Approximation, ...]:
    """As of an LSTM whose products read quantized numbers. Sums of integers are exact; their scale is rounded three times."""
    fmt = context.float_format
    bias, h_0, c_0, peepholes = (None if each is None else as_bounded(each, fmt) for each in (b, h, c, p))
    kernel, recurrence = _matrix(w, w_scale, w_zero, fmt), _matrix(r, r_scale, r_zero, fmt)
    ends = None if lengths is None else lengths.value
    inputs = LayerInputs(
        _quantized_input(as_bounded(x, fmt), ends), kernel, recurrence, bias, ends, h_0, c_0, peepholes
    )
    return bounded_layer(context, "LSTM", inputs, _quantized_states)


def _matrix(weights: Approximation, scale: Approximation, zero: Approximation, fmt: FloatFormat) -> Bounded:
    numbers = dequantized_weights(weights.value, scale.value, zero.value)
    return Bounded(numbers, 3.0 * fmt.unit_roundoff * np.abs(numbers), fmt)


def _quantized_input(x: Bounded, lengths: Array | None) -> Bounded:
    longest = len(x.value) if lengths is None else int(lengths.max(initial=0))
    first = _requantized(x[:longest])
    value, error = (
        np.concatenate([part, rest[longest:]]) for part, rest in ((first.value, x.value), (first.error, x.error))
    )
    return Bounded(value, error, x.fmt)


def _quantized_states(x: Bounded) -> Bounded:
    """Return the states of a batch after quantization over their range.

    Runtimes that share a batch among threads quantize the rows of each by themselves: any even division may be.
    """
    together = _requantized(x)
    error, batch = together.error, len(x.value)
    for rows in {-(-batch // parts) for parts in range(2, batch + 1)}:
        apart = _requantized(x, range(0, batch, rows))
        error = np.maximum(error, np.abs(apart.value - together.value) + apart.error)
    return Bounded(together.value, error, x.fmt)


def _requantized(x: Bounded, starts: Sequence[int] = (0,)) -> Bounded:
    """Return numbers after quantization, a level off where a rounding or the error can bring them over a tie."""
    step, zero = quantization(x.value, starts)
    doubt = part_extremes(np.maximum, x.error.reshape(len(x.error), -1).max(axis=1, initial=0.0), starts)
    unsure = 2.0 * doubt.reshape(step.shape) / (255.0 * step) + 4.0 * x.fmt.unit_roundoff  # of the step, relatively
    place = x.value / step
    levels = _crossed(place, x.error / step + np.abs(place) * unsure) + _crossed(zero, (zero + 1.0) * unsure)
    numbers = requantized(x.value, starts)
    return Bounded(numbers, step * levels + np.abs(numbers) * unsure, x.fmt)


def _crossed(place: F64, error: F64) -> F64:
    """Return by how many levels a rounding to the nearest may differ."""
    nearest = np.rint(place)
    crossed: F64 = np.maximum(np.abs(np.rint(place + error) - nearest), np.abs(np.rint(place - error) - nearest))
    return crossed
