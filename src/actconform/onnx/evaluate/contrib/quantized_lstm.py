"""DynamicQuantizeLSTM of ONNX Runtime: an LSTM whose products are of 8-bit integers, the left sides quantized as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.contrib.registry import contrib
from actconform.onnx.evaluate.recurrent import recurrent_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@contrib("DynamicQuantizeLSTM", types=(0, 0, 0), direction="forward", input_forget=0)
def _dynamic_quantize_lstm(  # noqa: PLR0913, PLR0917  as the schema orders them
    node: OperatorNode,
    op: Operators,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor | None,
    c: Tensor | None,
    p: Tensor | None,
    w_scale: Tensor,
    w_zero: Tensor,
    r_scale: Tensor,
    r_zero: Tensor,
) -> tuple[Array, ...]:
    """The input up to the longest sequence's end, and the states of a batch at each step, are quantized over their ranges."""
    bias, ends, h_0, c_0, peepholes = (None if each is None else op.array(each) for each in (b, lengths, h, c, p))
    kernel, recurrence = dequantized_weights(w, w_scale, w_zero), dequantized_weights(r, r_scale, r_zero)
    return recurrent_layer(
        node._replace(op_type="LSTM"),
        _quantized_input(op.array(x), ends),
        kernel.swapaxes(1, 2),
        recurrence.swapaxes(1, 2),
        bias,
        ends,
        h_0,
        c_0,
        peepholes,
        prepared=requantized,
    )


def _quantized_input(x: Array, lengths: Array | None) -> Array:
    """Return the input (steps, batch, columns) after quantization of the steps that any sequence has."""
    longest = len(x) if lengths is None else int(lengths.max(initial=0))
    return np.concatenate([requantized(x[:longest]), x[longest:]])


def dequantized_weights(weights: Array, scale: Array, zero: Array) -> Array:
    """Return weights (directions, columns, gates) as numbers; a scale and a zero point for each direction, or for each gate."""
    step, centre = (np.asarray(each, np.float64).reshape(len(weights), 1, -1) for each in (scale, zero))
    numbers: Array = (weights - centre) * step
    return numbers


def requantized(x: Array, starts: Sequence[int] = (0,)) -> Array:
    """Return numbers as they are after quantization to 8 bits; rows from each of `starts` to before the next by themselves."""
    step, zero = quantization(x, starts)
    level = np.rint(zero)
    numbers: Array = (np.clip(np.rint(x / step) + level, 0, 255) - level) * step
    return numbers


def quantization(x: Array, starts: Sequence[int] = (0,)) -> tuple[Array, Array]:
    """Return the distance of levels over the range of each part, which takes in 0, and where 0 lies among them; for every row."""
    rows = x.reshape(len(x), -1)
    low = part_extremes(np.minimum, rows.min(axis=1, initial=0.0), starts)
    high = part_extremes(np.maximum, rows.max(axis=1, initial=0.0), starts)
    step = np.where(high > low, (high - low) / 255, 1.0)
    shape = (-1, *[1] * (x.ndim - 1))
    return step.reshape(shape), (-low / step).reshape(shape)


def part_extremes(extreme: np.ufunc, rows: Array, starts: Sequence[int]) -> Array:
    """Return for each row the smallest or largest number of its part."""
    if not len(rows):
        return rows
    parts = np.asarray(starts)
    return np.repeat(extreme.reduceat(rows, parts), np.diff(parts, append=len(rows)))
