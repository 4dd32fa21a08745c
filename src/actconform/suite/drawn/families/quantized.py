"""Quantization of tensors, and products of quantized ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.suite.drawn.drawer import Drawer, ValueRange
from actconform.suite.drawn.families.windows import drawn_window
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import Array, DrawnNode

KINDS = ("uint8", "int8")
SCALES = (0.5, 1.0, 0.25, 0.0625, 0.1, 0.007874016, 2.0)
QUANTIZED = ValueRange(most=64, nan=False)


def _scale(d: Drawer, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    return np.array([d.choice(SCALES) for _ in range(int(np.prod(shape)))], np.float64).reshape(shape).astype(dtype)


def _along(d: Drawer, shape: tuple[int, ...]) -> tuple[int | None, tuple[int, ...]]:
    """Return the axis of the scales and their shape: none and a scalar, or those of one axis."""
    if not shape or not d.flag():
        return None, ()
    axis = d.axis(len(shape))
    return axis, (shape[axis],)


@drawn_operator("QuantizeLinear")
def _quantize(d: Drawer) -> DrawnNode:
    """Of numbers: what NaN becomes, the standard leaves open."""
    shape = d.shape(high=4)
    axis, scales = _along(d, shape)
    zero = d.array(scales, d.choice(KINDS)) if d.flag() else None
    dtype = d.dtype(("float32", "float16"))
    scale_dtype = dtype if d.opset >= 19 else "float32"
    return d.node([d.array(shape, dtype, QUANTIZED), _scale(d, scales, scale_dtype), zero], {"axis": axis})


@drawn_operator("DequantizeLinear")
def _dequantize(d: Drawer) -> DrawnNode:
    shape, kind = d.shape(high=4), d.choice((*KINDS, "int32"))
    axis, scales = _along(d, shape)
    zero = d.array(scales, kind) if d.flag() and kind != "int32" else None
    dtype = d.choice(("float32", "float16")) if d.opset >= 19 else "float32"
    values = ValueRange(most=10_000) if kind == "int32" else ValueRange()
    return d.node([d.array(shape, kind, values), _scale(d, scales, dtype), zero], {"axis": axis})


@drawn_operator("DynamicQuantizeLinear")
def _dynamic_quantize(d: Drawer) -> DrawnNode:
    """Not of zeros alone, whose scale would be 0."""
    array = d.array(
        d.shape(low=1, high=4, empty=False), "float32", ValueRange(most=64, nan=False, infinite=False, tiny=False)
    )
    array.flat[0] = 3.0
    return d.node([array], outputs=3)


@drawn_operator("QLinearMatMul")
def _quantized_matmul(d: Drawer) -> DrawnNode:
    kinds = [d.choice(KINDS) for _ in range(3)]
    m, k, n = d.choice((2, 1, 3, 5)), d.choice((2, 1, 3, 8, 17)), d.choice((2, 1, 3, 5))
    stack = d.shape(high=1, empty=False)
    inputs: list[Array | None] = [
        *(d.array((*stack, m, k), kinds[0]), _scale(d, ()), d.array((), kinds[0])),
        *(d.array((*stack, k, n), kinds[1]), _scale(d, ()), d.array((), kinds[1])),
        *(np.array(d.choice((1.0, 8.0, 64.0, 0.25)), np.float32), d.array((), kinds[2])),
    ]
    return d.node(inputs)


@drawn_operator("QLinearConv")
def _quantized_conv(d: Drawer) -> DrawnNode:
    window = drawn_window(d)
    group = d.choice((1, 2))
    channels, filters = group * d.choice((1, 2)), group * d.choice((1, 2, 3))
    kinds = [d.choice(KINDS) for _ in range(2)]
    per_filter = (filters,) if d.flag() else ()
    weight_zero = np.zeros(per_filter, kinds[1])
    bias = d.array((filters,), "int32", ValueRange(most=1000)) if d.flag() else None
    inputs = [
        *(d.array((1, channels, *window.spatial), kinds[0]), _scale(d, ()), d.array((), kinds[0])),
        *(d.array((filters, channels // group, *window.kernel), kinds[1]), _scale(d, per_filter), weight_zero),
        *(np.array(d.choice((1.0, 8.0, 64.0)), np.float32), d.array((), kinds[0]), bias),
    ]
    return d.node(inputs, {**window.attributes, "group": group if group > 1 else None})


@drawn_operator("ConvInteger")
def _integer_conv(d: Drawer) -> DrawnNode:
    window = drawn_window(d)
    kinds = [d.choice(KINDS) for _ in range(2)]
    channels, filters = d.choice((1, 2, 3)), d.choice((1, 2))
    zeros = [d.array((), kind) if d.flag() else None for kind in kinds]
    x = d.array((1, channels, *window.spatial), kinds[0])
    return d.node([x, d.array((filters, channels, *window.kernel), kinds[1]), *zeros], window.attributes)
