"""The correctly rounded evaluator's operators of quantized tensors, and casts to the types that only hold them.

Integers are exact: their products are summed in float64, which holds every sum of up to 2^37 products of 8 bits. What becomes
an integer is rounded once, half to even, from the real quotient. Floats of 8 bits and fewer are rounded once, to nearest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from actconform.errors import Unsupported
from actconform.onnx.evaluate.element_types import STORAGE, storage
from actconform.onnx.evaluate.elementwise import operation
from actconform.onnx.evaluate.windows import convolved, per_channel
from actconform.oracle.rounding import round_to
from actconform.types.dtypes import FloatFormat

if TYPE_CHECKING:
    from typing import Any

    from actconform.onnx.evaluate.elementwise import Array, OperatorNode

    Dtype = np.dtype[Any]

WIDE = 1000  # an exponent that these formats have no need of: what overflows is decided apart
FLOATS = {
    "float8_e4m3fn": (FloatFormat("e4m3fn", 8, 4, -6, WIDE), 448.0),
    "float8_e4m3fnuz": (FloatFormat("e4m3fnuz", 8, 4, -7, WIDE), 240.0),
    "float8_e5m2": (FloatFormat("e5m2", 8, 3, -14, WIDE), 57344.0),
    "float8_e5m2fnuz": (FloatFormat("e5m2fnuz", 8, 3, -15, WIDE), 57344.0),
    "float4_e2m1fn": (FloatFormat("e2m1fn", 4, 2, 0, WIDE), 6.0),
}
"""By the dtype of ml_dtypes the precision of a small float and its smallest exponent; and its largest number."""
SCALES, HIGHEST = "float8_e8m0fnu", 127  # powers of two from 2^-127 to 2^127


def small_float(x: Array, dtype: Dtype, *, saturate: bool) -> Array:
    """Return numbers rounded once to a float of 8 bits or fewer, of that dtype.

    What overflows is the largest number with `saturate`, and else infinite, or NaN where the format has no infinity; one of 4
    bits saturates always. A NaN stays one where the format has it.
    """
    fmt, largest = FLOATS[dtype.name]
    wide = x.astype(np.float64)
    rounded = round_to(wide, fmt)
    over = np.abs(rounded) > largest
    if saturate or dtype.name == "float4_e2m1fn":
        rounded = np.clip(rounded, -largest, largest)
    else:
        lost = np.copysign(np.inf, rounded) if dtype.name == "float8_e5m2" else np.nan
        rounded = np.where(over, lost, rounded)
    return rounded.astype(dtype)


def power_of_two(x: Array, dtype: Dtype, *, saturate: bool, round_mode: str) -> Array:
    """Return |x| as float8_e8m0: a power of two, rounded up, down or to the nearest; NaN for what is none or overflows."""
    size = np.abs(x.astype(np.float64))
    fraction, exponent = np.frexp(size)  # size = fraction 2^exponent, fraction in [1/2, 1)
    raised_from = {"up": 0.5 + 2.0**-53, "down": 1.0, "nearest": 0.75}[round_mode]
    power = exponent - 1 + (fraction >= raised_from)
    if saturate:
        power = np.clip(np.where(np.isinf(size), HIGHEST, power), -HIGHEST, HIGHEST)
    power = np.where(size == 0, -HIGHEST, power)
    bad = np.isnan(size) | (power > HIGHEST) | (np.isinf(size) & (not saturate))
    return np.where(bad, np.nan, np.ldexp(1.0, np.clip(power, -HIGHEST, HIGHEST))).astype(dtype)


def _cast_to(node: OperatorNode, x: Array, dtype: Dtype) -> Array:
    """Return x for a tensor of that dtype; the evaluator itself brings numbers to the larger types."""
    saturate = bool(node.attributes.get("saturate", 1))
    if dtype == x.dtype:
        return x
    if dtype.name in FLOATS:
        return small_float(x, dtype, saturate=saturate)
    if dtype.name == SCALES:
        return power_of_two(x, dtype, saturate=saturate, round_mode=node.attributes.get("round_mode", "up"))
    return x.astype(np.float64) if x.dtype.kind not in "iufb" and "int" not in x.dtype.name else x


@operation("Cast")
def _cast(node: OperatorNode, x: Array) -> Array:
    return _cast_to(node, x, storage(node.attributes["to"]))


@operation("CastLike")
def _cast_like(node: OperatorNode, x: Array, like: Array) -> Array:
    return _cast_to(node, x, like.dtype)


@operation("BitCast", exact=True)
def _bit_cast(node: OperatorNode, x: Array) -> Array:
    """Return the same bits as another type of that width; floats of 16 bits, which the evaluator holds alike, only from integers."""
    into = storage(node.attributes["to"])
    if x.dtype == np.float64:
        if into.itemsize not in {4, 8}:
            raise Unsupported("BitCast of 16-bit floats")
        x = x.astype(np.float32 if into.itemsize == 4 else np.float64)
    return x.view(into)


def spread_over(parameter: Array, x: Array, axis: int, block_size: int = 0) -> Array:
    """Return scales or zero points so that they broadcast over x: one in all, one an index along `axis`, or one a block there."""
    if parameter.ndim == x.ndim and block_size:
        cut = [slice(None)] * x.ndim
        cut[axis] = slice(x.shape[axis])
        return np.repeat(parameter, min(block_size, x.shape[axis]), axis)[tuple(cut)]
    return parameter.reshape(()) if parameter.size == 1 else per_channel(parameter, x, axis % x.ndim)


def code_limits(dtype: Dtype) -> tuple[int, int]:
    """Return the least and the largest integer of a dtype, such as uint4."""
    bits = int(dtype.name.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if dtype.name[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def quantized(ratio: Array, zero_point: Array | None, dtype: Dtype, *, saturate: bool = True) -> Array:
    """Return x / scale, which is `ratio`, as numbers of a quantized dtype: rounded, moved by the zero point, saturated."""
    if dtype.name in FLOATS:
        return small_float(ratio, dtype, saturate=saturate)
    moved = np.rint(ratio) + (0.0 if zero_point is None else zero_point.astype(np.float64))
    return np.clip(moved, *code_limits(dtype)).astype(np.int64).astype(dtype)


@operation("QuantizeLinear")
def _quantize(node: OperatorNode, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    attributes = node.attributes
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    stated = attributes.get("output_dtype") or TensorProto.UINT8
    dtype = STORAGE[stated] if zero_point is None else zero_point.dtype
    ratio = x.astype(np.float64) / spread_over(scale.astype(np.float64), x, axis, block)
    zero = None if zero_point is None else spread_over(zero_point, x, axis, block)
    return quantized(ratio, zero, dtype, saturate=bool(attributes.get("saturate", 1)))


@operation("DequantizeLinear")
def _dequantize(node: OperatorNode, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    axis, block = node.attributes.get("axis", 1), node.attributes.get("block_size", 0)
    moved = x.astype(np.float64)
    if zero_point is not None:
        moved -= spread_over(zero_point.astype(np.float64), x, axis, block)
    y: Array = moved * spread_over(scale.astype(np.float64), x, axis, block)
    return y


@operation("DynamicQuantizeLinear")
def _dynamically_quantize(_: OperatorNode, x: Array) -> tuple[Array, Array, Array]:
    """Return uint8 numbers over the range of x and 0, their scale (1 where x is all 0, as runtimes have it) and zero point.

    The numbers count in steps of the scale as its float32 tensor has it.
    """
    low, high = min(float(x.min(initial=0.0)), 0.0), max(float(x.max(initial=0.0)), 0.0)
    scale = (high - low) / 255.0 or 1.0
    step = float(np.float32(scale))
    zero_point = np.asarray(np.clip(np.rint(-low / step), 0, 255), np.uint8)
    return quantized(x / step, zero_point, np.dtype(np.uint8)), np.asarray(scale), zero_point


def without_zero_point(x: Array, zero_point: Array | None, axis: int) -> Array:
    """Return x less its zero points, in all, or one an index along `axis`, or as they broadcast, in float64."""
    if zero_point is None:
        return x.astype(np.float64)
    if zero_point.ndim == 1 and zero_point.size > 1:
        zero_point = per_channel(zero_point, x, axis % x.ndim)
    return x.astype(np.float64) - (zero_point.reshape(()) if zero_point.size == 1 else zero_point)


@operation("MatMulInteger")
def _matmul_integer(
    _: OperatorNode, a: Array, b: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None
) -> Array:
    """Return the product of integers; zero points are one in all, one a row of a, one a column of b."""
    product: Array = without_zero_point(a, a_zero_point, -2) @ without_zero_point(b, b_zero_point, -1)
    return product.astype(np.int64)


@operation("ConvInteger")
def _conv_integer(
    node: OperatorNode, x: Array, w: Array, x_zero_point: Array | None = None, w_zero_point: Array | None = None
) -> Array:
    """Return the convolution of integers, padded with x's zero point; w's is one in all or one an output channel."""
    return convolved(node, without_zero_point(x, x_zero_point, 1), without_zero_point(w, w_zero_point, 0)).astype(
        np.int64
    )


@operation("QLinearMatMul")
def _quantized_matmul(  # noqa: PLR0913, PLR0917  as the standard orders them
    _: OperatorNode,
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
) -> Array:
    """Scales and zero points are one in all, one a row of a and of the product, one a column of b."""
    product = without_zero_point(a, a_zero_point, -2) @ without_zero_point(b, b_zero_point, -1)
    scales = [
        scale if scale.ndim != 1 or scale.size == 1 else per_channel(scale, product, axis % product.ndim)
        for scale, axis in ((a_scale, -2), (b_scale, -1), (y_scale, -2))
    ]
    zero = y_zero_point if y_zero_point.ndim != 1 or y_zero_point.size == 1 else y_zero_point[:, None]
    a_unit, b_unit, y_unit = (scale.reshape(()) if scale.size == 1 else scale for scale in scales)
    zero = zero.reshape(()) if zero.size == 1 else zero
    return quantized(product * (a_unit * b_unit / y_unit), zero, y_zero_point.dtype)


@operation("QLinearConv")
def _quantized_conv(  # noqa: PLR0913, PLR0917  as the standard orders them
    node: OperatorNode,
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    bias: Array | None = None,
) -> Array:
    """Of w, scale and zero point are one in all or one an output channel; the bias counts in steps of x's scale times w's."""
    total = convolved(node, without_zero_point(x, x_zero_point, 1), without_zero_point(w, w_zero_point, 0))
    if bias is not None:
        total += per_channel(bias, total)
    unit = x_scale.reshape(()) * w_scale / y_scale.reshape(())
    ratio = total * (unit.reshape(()) if unit.size == 1 else per_channel(unit, total))
    return quantized(ratio, y_zero_point.reshape(()), y_zero_point.dtype)
