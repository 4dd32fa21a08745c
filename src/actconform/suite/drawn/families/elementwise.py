"""Operators of one element: functions, and those of two or more operands that broadcast."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.suite.drawn.drawer import ANY, EVERYTHING, FLOATS, INTEGERS, Drawer, ValueRange
from actconform.suite.drawn.registry import drawn_operator

if TYPE_CHECKING:
    from actconform.suite.drawn.node import Array, DrawnNode

INTEGER_ARITHMETIC = ValueRange(most=5)
"""Whose sums and products stay in the range of every integer type: what overflow gives, the standard leaves open."""


@drawn_operator(
    *("Ceil", "Floor", "Round", "Sqrt", "Reciprocal", "Exp", "Log", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan"),
    *("Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh", "Erf", "Sigmoid", "Softplus", "IsNaN"),
)
def _function(d: Drawer) -> DrawnNode:
    return d.node([d.array(d.shape(huge=True), d.dtype())])


GATED = ValueRange(infinite=False)
"""For products with a gate: at infinity their formulas give NaN where their limits are numbers, and either is defensible."""


@drawn_operator("Softsign", "Mish")
def _gated(d: Drawer) -> DrawnNode:
    return d.node([d.array(d.shape(huge=True), d.dtype(), GATED)])


NARROW = ("float32", "float16", "bfloat16")
"""For operators whose body in the standard has constants of float32: of float64 it says two things."""


@drawn_operator("HardSwish")
def _hard_swish(d: Drawer) -> DrawnNode:
    return d.node([d.array(d.shape(huge=True), d.dtype(NARROW), GATED)])


@drawn_operator("Abs", "Neg", "Sign", "Relu")
def _signed(d: Drawer) -> DrawnNode:
    """Of no least integer, which has no absolute or negative value; Sign of no NaN, of which its definition says nothing."""
    dtype = d.dtype(EVERYTHING[:-1])
    values = ValueRange(nan=d.op_type != "Sign") if dtype in FLOATS else ValueRange(most=100)
    return d.node([d.array(d.shape(huge=True), dtype, values)])


@drawn_operator("Not")
def _not(d: Drawer) -> DrawnNode:
    return d.node([d.array(d.shape(), "bool")])


@drawn_operator("BitwiseNot")
def _bitwise_not(d: Drawer) -> DrawnNode:
    return d.node([d.array(d.shape(), d.dtype(INTEGERS))])


@drawn_operator("LeakyRelu", "Elu", "Celu", "ThresholdedRelu")
def _with_alpha(d: Drawer) -> DrawnNode:
    alpha = d.number(0.125, 2.125) if d.flag() else None
    return d.node([d.array(d.shape(huge=True), d.dtype())], {"alpha": alpha})


@drawn_operator("Selu")
def _selu(d: Drawer) -> DrawnNode:
    attributes = {"alpha": d.number(0.5, 2.0), "gamma": d.number(0.5, 2.0)} if d.flag() else {}
    return d.node([d.array(d.shape(), d.dtype())], attributes)


@drawn_operator("HardSigmoid")
def _hard_sigmoid(d: Drawer) -> DrawnNode:
    attributes = {"alpha": d.number(0.0625, 1.0), "beta": d.number(0.0, 1.0)} if d.flag() else {}
    return d.node([d.array(d.shape(), d.dtype())], attributes)


@drawn_operator("Shrink")
def _shrink(d: Drawer) -> DrawnNode:
    attributes = {"bias": d.number(-1.0, 1.0), "lambd": d.number(0.0, 2.0)} if d.flag() else {}
    return d.node([d.array(d.shape(), d.dtype())], attributes)


@drawn_operator("Gelu")
def _gelu(d: Drawer) -> DrawnNode:
    return d.node(
        [d.array(d.shape(huge=True), d.dtype(NARROW), GATED)], {"approximate": d.choice((None, "none", "tanh"))}
    )


@drawn_operator("Swish")
def _swish(d: Drawer) -> DrawnNode:
    return d.node([d.array(d.shape(), d.dtype(), GATED)], {"alpha": d.number(0.25, 4.25) if d.flag() else None})


@drawn_operator("PRelu")
def _prelu(d: Drawer) -> DrawnNode:
    """With finite slopes: an infinite one times 0 is asked by no network."""
    shape, dtype = d.shape(), d.dtype()
    return d.node(
        [d.array(shape, dtype), d.array(d.broadcast(shape), dtype, ValueRange(most=64, nan=False, infinite=False))]
    )


@drawn_operator("IsInf")
def _is_inf(d: Drawer) -> DrawnNode:
    attributes = {"detect_negative": d.choice((None, 0, 1)), "detect_positive": d.choice((None, 0, 1))}
    return d.node([d.array(d.shape(), d.dtype())], attributes)


def operands(d: Drawer, dtype: str, count: int, values: ValueRange = ANY) -> list[Array]:
    """Return operands that broadcast, at least one of the full shape unless dimensions of 1 meet others."""
    shape = d.shape(huge=True)
    shapes = [shape, *(d.broadcast(shape) if d.flag() else shape for _ in range(count - 1))]
    order = d.permutation(count)
    return [d.array(shapes[place], dtype, values) for place in order]


@drawn_operator("Add", "Sub", "Mul")
def _arithmetic(d: Drawer) -> DrawnNode:
    dtype = d.dtype((*FLOATS, *INTEGERS))
    values = ANY if dtype in FLOATS else INTEGER_ARITHMETIC
    a, b = operands(d, dtype, 2, values)
    if dtype.startswith("uint") and d.op_type == "Sub":
        a = a + np.array(5, dtype)
    return d.node([a, b])


@drawn_operator("Div")
def _div(d: Drawer) -> DrawnNode:
    """Integers by no 0, and none that gives a number out of range; the standard truncates from opset 14 on, positive ones everywhere."""
    dtype = d.dtype((*FLOATS, *INTEGERS))
    if dtype in FLOATS:
        return d.node(operands(d, dtype, 2))
    a, b = operands(d, dtype, 2, ValueRange(most=100, least=0))
    return d.node([a, np.where(b == 0, np.array(1, dtype), b)])


@drawn_operator("Mod")
def _mod(d: Drawer) -> DrawnNode:
    dtype = d.dtype((*FLOATS, *INTEGERS))
    if dtype in FLOATS:
        a, b = operands(d, dtype, 2, ValueRange(most=64, nan=False, infinite=False, tiny=False))
        return d.node([a, np.where(b == 0, np.array(1, dtype), b)], {"fmod": 1})
    a, b = operands(d, dtype, 2, ValueRange(most=100))
    return d.node([a, np.where(b == 0, np.array(3, dtype), b)], {"fmod": d.choice((None, 0, 1))})


@drawn_operator("Pow")
def _pow(d: Drawer) -> DrawnNode:
    dtype = d.dtype(("float32", "float16", "float64", "bfloat16", "int32", "int64"))
    if dtype not in FLOATS:
        a, b = operands(d, dtype, 2, ValueRange(most=5))
        return d.node([a, np.abs(b)])
    return d.node(operands(d, dtype, 2))


@drawn_operator("Max", "Min")
def _extremum(d: Drawer) -> DrawnNode:
    dtype = d.dtype((*FLOATS, *INTEGERS))
    return d.node(operands(d, dtype, d.choice((2, 1, 3, 4))))


@drawn_operator("Sum", "Mean")
def _several(d: Drawer) -> DrawnNode:
    """Of numbers that do not overflow on the way."""
    return d.node(operands(d, d.dtype(), d.choice((2, 1, 3, 4)), ValueRange(most=64)))


@drawn_operator("And", "Or", "Xor")
def _logic(d: Drawer) -> DrawnNode:
    return d.node(operands(d, "bool", 2))


@drawn_operator("Equal")
def _equal(d: Drawer) -> DrawnNode:
    return d.node(operands(d, d.dtype(EVERYTHING), 2))


@drawn_operator("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def _ordered(d: Drawer) -> DrawnNode:
    return d.node(operands(d, d.dtype((*FLOATS, *INTEGERS)), 2))


@drawn_operator("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def _bitwise(d: Drawer) -> DrawnNode:
    return d.node(operands(d, d.dtype(INTEGERS), 2))


@drawn_operator("BitShift")
def _bit_shift(d: Drawer) -> DrawnNode:
    """By less than the bits of the type; more the standard leaves open."""
    dtype = d.dtype(("uint64", "uint32", "uint8", "uint16"))
    a, b = operands(d, dtype, 2)
    return d.node([a, b % np.array(np.iinfo(dtype).bits, dtype)], {"direction": d.choice(("LEFT", "RIGHT"))})


@drawn_operator("Where")
def _where(d: Drawer) -> DrawnNode:
    shape, dtype = d.shape(), d.dtype(EVERYTHING, "T")
    condition = d.array(d.broadcast(shape), "bool")
    return d.node([condition, d.array(shape, dtype), d.array(d.broadcast(shape), dtype)])


@drawn_operator("Clip")
def _clip(d: Drawer) -> DrawnNode:
    """Between bounds in order. With a bound left out, of finite numbers: the standard has infinity clipped to the largest one then, its reference not."""
    dtype = d.dtype((*FLOATS, *INTEGERS))
    low, high = (np.array(d.integer(*ends), dtype) if d.flag() else None for ends in ((0, 2), (2, 5)))
    values = ANY if low is not None and high is not None else ValueRange(infinite=False)
    return d.node([d.array(d.shape(huge=True), dtype, values), low, high])
