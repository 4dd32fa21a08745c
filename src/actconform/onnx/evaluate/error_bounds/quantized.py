"""Error bounds of quantization, and of products of quantized numbers.

Sums of integers are exact. Quantizing rounds a quotient to an integer: where the quotient, computed in float32 or better, may
fall on either side of a tie, two levels are right, and elsewhere one alone. Quotients by powers of two are exact, and so are
their ties. Of 16-bit inputs quotients are taken to be computed in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from actconform.onnx.evaluate.error_bounds.products import doubt_of_integers
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost
from actconform.onnx.evaluate.quantized import quantized, spread_over, without_zero_point
from actconform.onnx.evaluate.windows import convolved, per_channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64

U = 2.0**-24  # of float32, in which quotients are computed
QUOTIENT = 3.0 * U  # of x / scale: the reciprocal and the product, or the conversion of an integer and the division
RESCALED = (
    5.0 * U
)  # of a sum times a_scale b_scale / y_scale: two roundings of the factor, or three, the conversion, the product


def _powers_of_two(*scales: Array) -> bool:
    return all(bool(np.all(np.frexp(scale)[0] == 0.5)) for scale in scales)


def _wide(parameter: Approximation, reshape: Callable[[Array], Array]) -> Approximation:
    """Return a scale or zero point, reshaped to broadcast, in float64."""
    error = None if parameter.error is None else reshape(np.array(errors(parameter)))
    return Approximation(reshape(parameter.value.astype(np.float64)), error)


def _doubtful(*inputs: Approximation | None) -> bool:
    return any(each is not None and each.error is not None for each in inputs)


def _levels(
    value: Array, z: F64, off: F64, zero_point: Approximation | None, *, saturate: bool = True
) -> Approximation:
    """Return quantized numbers, `value`, of the quotients z, which may be off by `off`."""
    zero = None if zero_point is None else zero_point.value
    reach = np.where(np.isfinite(z), off, 0.0) + (0.0 if zero_point is None else errors(zero_point))
    up, down = (
        quantized(end, zero, value.dtype, saturate=saturate).astype(np.float64) for end in (z + reach, z - reach)
    )
    levels = value.astype(np.float64)
    error = np.maximum(up - levels, levels - down)
    return Approximation(value, error if np.any(error) else None)


@error_bound("QuantizeLinear", arithmetic=False)
def _quantize(
    context: BoundContext, x: Approximation, scale: Approximation, zero_point: Approximation | None = None
) -> Approximation:
    value = context.values((x, scale, zero_point))[0]
    spread = _spread(context, x)
    s = _wide(scale, spread)
    exact = _powers_of_two(s.value) and x.value.dtype.kind == "f"
    if exact and not _doubtful(x, scale, zero_point):
        return Approximation(value)
    zero = None if zero_point is None else _wide(zero_point, spread)
    z = x.value / s.value
    off = np.abs(z) * ((0.0 if exact else QUOTIENT) + errors(s) / s.value) + errors(x) / s.value
    return _levels(value, z, off, zero, saturate=bool(context.node.attributes.get("saturate", 1)))


def _spread(context: BoundContext, x: Approximation) -> Callable[[Array], Array]:
    attributes = context.node.attributes
    axis, block_size = attributes.get("axis", 1), attributes.get("block_size", 0)
    return lambda parameter: spread_over(parameter, x.value, axis, block_size)


@error_bound("DequantizeLinear", arithmetic=False)
def _dequantize(
    context: BoundContext, x: Approximation, scale: Approximation, zero_point: Approximation | None = None
) -> Approximation:
    """A difference, which a narrow format may round, and a product."""
    fmt = context.float_format
    value = context.values((x, scale, zero_point))[0]
    size = np.abs(value)
    error = 2.0 * fmt.unit_roundoff * size
    small = size < 2.0 * fmt.smallest_normal
    if np.count_nonzero(small) > np.count_nonzero(size == 0.0):
        error += np.where(small & (size > 0.0), 2.0 * lost(fmt), 0.0)
    if not _doubtful(x, scale, zero_point):
        return Approximation(value, error)
    s = _wide(scale, _spread(context, x))
    doubt = errors(x)
    if zero_point is not None:
        doubt = doubt + errors(_wide(zero_point, _spread(context, x)))
    levels = np.where(s.value == 0.0, 0.0, size / np.abs(s.value))
    return Approximation(value, error + doubt * (np.abs(s.value) + errors(s)) + levels * errors(s))


@error_bound("DynamicQuantizeLinear", arithmetic=False)
def _quantize_dynamically(context: BoundContext, x: Approximation) -> tuple[Approximation, ...]:
    """Of 8 bits over the tensor's own range. Where a run shows scale and zero point, the numbers are judged by these."""
    value, scale, zero = context.values((x,))
    s, doubt = float(scale), float(np.max(errors(x), initial=0.0))
    moves = 2.0 * doubt / (255.0 * s)
    turn = -min(float(np.min(x.value, initial=0.0)), 0.0) / s
    zero_point = _levels(zero, np.asarray(turn), np.asarray(turn * (RESCALED + moves) + doubt / s), None)
    scales = Approximation(scale, np.asarray(s * (3.0 * U + moves) + (2.0**-126 if s < 2.0**-120 else 0.0)))
    _, seen_scale, seen_zero = (*context.observed, None, None, None)[:3]
    if seen_scale is not None and seen_zero is not None and np.all(seen_scale > 0) and np.all(np.isfinite(seen_scale)):
        z = x.value / seen_scale
        value = quantized(z, seen_zero, value.dtype)
        off, shift = np.abs(z) * QUOTIENT + errors(x) / seen_scale, Approximation(np.asarray(seen_zero, np.float64))
    else:
        z = x.value / s
        off = np.abs(z) * (RESCALED + moves) + errors(x) / s
        shift = Approximation(zero.astype(np.float64), zero_point.error)
    return _levels(value, z, off, shift), scales, zero_point


def _centred(x: Approximation, zero_point: Approximation | None, axis: int) -> Approximation:
    """Return integers less their zero points, which may be those along an axis, in float64."""
    wide = without_zero_point(x.value, None if zero_point is None else zero_point.value, axis)
    if zero_point is None or not _doubtful(x, zero_point):
        return Approximation(wide, x.error)
    return Approximation(
        wide, errors(x) + np.abs(without_zero_point(np.zeros_like(wide), np.array(errors(zero_point)), axis))
    )


@error_bound("ConvInteger")
def _conv_integer(
    context: BoundContext,
    x: Approximation,
    kernel: Approximation,
    x_zero_point: Approximation | None = None,
    kernel_zero_point: Approximation | None = None,
) -> Approximation:
    """Exact: sums of integers."""
    value = context.values((x, kernel, x_zero_point, kernel_zero_point))[0]
    factors = _centred(x, x_zero_point, 1), _centred(kernel, kernel_zero_point, 0)
    return Approximation(value, doubt_of_integers(lambda a, b: convolved(context.node, a, b), *factors))


@error_bound("MatMulInteger")
def _matmul_integer(
    context: BoundContext,
    a: Approximation,
    b: Approximation,
    a_zero_point: Approximation | None = None,
    b_zero_point: Approximation | None = None,
) -> Approximation:
    """Exact: sums of integers. Zero points of a list are those of A's rows and B's columns."""
    value = context.values((a, b, a_zero_point, b_zero_point))[0]
    factors = _centred(a, a_zero_point, -2), _centred(b, b_zero_point, -1)
    return Approximation(value, doubt_of_integers(np.matmul, *factors))


def _rescaled(
    value: Array,
    sums: Approximation,
    scales: tuple[Approximation, Approximation, Approximation],
    zero_point: Approximation,
) -> Approximation:
    """Return quantized numbers, `value`: sums of integers times the scales of both factors over that of the result."""
    a, b, y = (each.value for each in scales)
    z = sums.value * (a * b / y)
    exact = _powers_of_two(a, b, y) and bool(np.all(np.abs(sums.value) < 2.0**24))
    relative = (0.0 if exact else RESCALED) + sum(errors(each) / np.abs(each.value) for each in scales)
    off = np.abs(z) * relative + errors(sums) * (a * b / y) * (1.0 + relative)
    return _levels(value, z, off, zero_point)


def _along(axis: int, x: Array) -> Callable[[Array], Array]:
    """Return what makes of parameters one in all, or one an index along an axis of x, or leaves them as they are."""

    def along(parameter: Array) -> Array:
        if parameter.size == 1:
            return parameter.reshape(())
        return per_channel(parameter, x, axis % x.ndim) if parameter.ndim == 1 else parameter

    return along


@error_bound("QLinearMatMul", arithmetic=False)
def _quantized_matmul(context: BoundContext, *inputs: Approximation) -> Approximation:
    """Of A, its scale and zero point, B and its, and those of the result. Those of a list are of A's rows and B's columns."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    value = context.values(inputs)[0]
    factors = _centred(a, a_zero, -2), _centred(b, b_zero, -1)
    total = np.asarray(np.matmul(*(each.value for each in factors)))
    sums = Approximation(total, doubt_of_integers(np.matmul, *factors))
    rows, columns = _along(-2, total), _along(-1, total)
    scales = _wide(a_scale, rows), _wide(b_scale, columns), _wide(y_scale, rows)
    return _rescaled(value, sums, scales, _wide(y_zero, rows))


@error_bound("QLinearConv", arithmetic=False)
def _quantized_conv(context: BoundContext, *inputs: Approximation | None) -> Approximation:
    """Of x, its scale and zero point, the kernel and its, those of the result, and a bias of integers."""
    value = context.values(inputs)[0]
    bias = inputs[8] if len(inputs) > 8 else None
    x, x_scale, x_zero, kernel, kernel_scale, kernel_zero, y_scale, y_zero = cast("list[Approximation]", inputs[:8])
    factors = _centred(x, x_zero, 1), _centred(kernel, kernel_zero, 0)
    total = convolved(context.node, *(each.value for each in factors))
    doubt = doubt_of_integers(lambda a, b: convolved(context.node, a, b), *factors)
    channels = _along(1, total)
    if bias is not None:
        total = total + _wide(bias, channels).value
        if bias.error is not None:
            doubt = (0.0 if doubt is None else doubt) + errors(_wide(bias, channels))
    scales = _wide(x_scale, channels), _wide(kernel_scale, channels), _wide(y_scale, channels)
    return _rescaled(value, Approximation(total, doubt), scales, _wide(y_zero, channels))
