"""Gradients of arithmetic, functions of one element, choices and casts.

A product with a derivative that may be infinite goes through `b.times` or `b.over`, so that a branch that was not taken gives 0
and no NaN. Kinks: |x| has derivative 0 at 0; equal arguments of Max and Min share the cotangent evenly; Clip passes it at both
bounds. A choice lets the cotangent pass where it meets NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from actconform.onnx.constants import FLOATS
from actconform.onnx.grad.rules.graph_builder import GraphBuilder
from actconform.onnx.grad.rules.registry import Node, rule

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.registry import Cotangents

Derivative: TypeAlias = Callable[[GraphBuilder, str, str], str]


def function(op_type: str, derivative: Derivative) -> None:
    """Register an operator of one element by its derivative, written with the names of its input and output."""

    def vjp(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
        assert g[0] is not None
        return [b.times(g[0], derivative(b, node.inputs[0], node.outputs[0]))]

    rule(op_type, widen=True)(vjp)


def _square(b: GraphBuilder, x: str) -> str:
    return b.Mul(x, x)


def _one_minus_square(b: GraphBuilder, x: str) -> str:
    """Return (1 - x)(1 + x), which near +-1 has the digits that 1 - x^2 lost."""
    return b.Mul(b.Sub(1.0, x), b.Add(1.0, x))


function("Exp", lambda _b, _x, y: y)
function("Sqrt", lambda b, _, y: b.Div(0.5, y))
function("Reciprocal", lambda b, _, y: b.Neg(_square(b, y)))
function("Abs", lambda b, x, _: b.Sign(x))
function("Sin", lambda b, x, _: b.Cos(x))
function("Cos", lambda b, x, _: b.Neg(b.Sin(x)))
function("Tan", lambda b, _, y: b.Add(1.0, _square(b, y)))
function("Asin", lambda b, x, _: b.Reciprocal(b.Sqrt(_one_minus_square(b, x))))
function("Acos", lambda b, x, _: b.Neg(b.Reciprocal(b.Sqrt(_one_minus_square(b, x)))))
function("Atan", lambda b, x, _: b.Reciprocal(b.Add(1.0, _square(b, x))))
function("Sinh", lambda b, x, _: b.Cosh(x))
function("Cosh", lambda b, x, _: b.Sinh(x))
function("Asinh", lambda b, x, _: b.Reciprocal(b.Sqrt(b.Add(1.0, _square(b, x)))))
function("Acosh", lambda b, x, _: b.Reciprocal(b.Mul(b.Sqrt(b.Sub(x, 1.0)), b.Sqrt(b.Add(x, 1.0)))))
function("Atanh", lambda b, x, _: b.Reciprocal(_one_minus_square(b, x)))
function("Erf", lambda b, x, _: b.Mul(2.0 / math.sqrt(math.pi), b.Exp(b.Neg(_square(b, x)))))


@rule("Neg", widen=True)
def _neg(b: GraphBuilder, _: Node, g: Cotangents) -> Cotangents:
    return [b.Neg(g[0])]


@rule("Log", widen=True)
def _log(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    assert g[0]
    return [b.over(g[0], node.inputs[0])]


@rule("Add", "Sum", widen=True)
def _sum(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    assert g[0]
    return _each(b, node, lambda _: g[0])


@rule("Mean", widen=True)
def _mean(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    share = b.Div(g[0], float(len(node.inputs)))
    return _each(b, node, lambda _: share)


@rule("Sub", widen=True)
def _sub(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    return _each(b, node, lambda i: b.Neg(g[0]) if i else g[0])


@rule("Mul", widen=True)
def _mul(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    a, c = node.inputs
    if a == c:  # a square: once rounded, once added
        return [b.times(b.times(_present(g), b.constant(2.0)), a)]
    return _each(b, node, lambda i: b.times(_present(g), (c, a)[i]))


@rule("Div", widen=True)
def _div(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    quotient, divisor = node.outputs[0], node.inputs[1]
    return _each(
        b, node, lambda i: b.Neg(b.times(_present(g), b.Div(quotient, divisor))) if i else b.over(_present(g), divisor)
    )


@rule("Mod", widen=True)
def _mod(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the gradient of x - n y, where n, the whole number of times that y was taken away, is (x - z) / y."""
    x, y = node.inputs
    z = node.outputs[0]
    return _each(b, node, lambda i: b.Neg(b.times(_present(g), b.Round(b.Div(b.Sub(x, z), y)))) if i else g[0])


@rule("Pow", widen=True)
def _pow(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return e x^(e-1), and x^e log(x), NaN for negative x.

    The former is 0 where e is, at x = 0 too, or where the power is, at an infinite e too; the latter is 0 where x^e is: at x = 0 where e >= 0, at infinity where e < 0.
    """
    x, e = node.inputs
    value = b.value(e)
    if value is not None and value.size == 1 and np.isfinite(value.astype(np.float64)) and not node.wanted[1]:
        exponent = float(value.reshape(()))
        return [None if exponent == 0 else b.sum_to(b.times(_present(g), _slope(b, x, exponent)), x, node.outputs[0])]
    kind = b.element_type_of(e)
    real = e if kind == b.element_type else b.Cast(e, to=b.element_type)

    def cotangent(i: int) -> str:
        if i == 0:
            power = b.Pow(x, b.Sub(real, 1.0))
            level = b.Or(b.Equal(real, 0.0), b.Equal(power, 0.0))
            return b.times(_present(g), b.Where(level, 0.0, b.Mul(real, power)))
        at_zero = b.And(b.Equal(x, 0.0), b.GreaterOrEqual(real, 0.0))
        flat = b.Or(at_zero, b.And(b.Equal(x, float("inf")), b.Less(real, 0.0)))
        d_exponent = b.times(_present(g), b.Where(flat, 0.0, b.Mul(node.outputs[0], b.Log(x))))
        return d_exponent if kind == b.element_type else b.Cast(d_exponent, to=kind)

    return _each(b, node, cotangent)


def _slope(b: GraphBuilder, x: str, exponent: float) -> str:
    if exponent == 1:
        return b.constant(1.0)
    power = x if exponent == 2 else b.Pow(x, exponent - 1.0)
    return b.Mul(power, exponent)


@rule("Max", "Min")
def _extremum(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangent where an argument is the extremum; several that are share it evenly.

    The arguments are compared with one another, not with the output: a runtime may hold those in more precision than that.
    """
    if len(node.inputs) == 1:
        return [g[0]]
    loses = b.Less if node.op_type == "Max" else b.Greater
    beaten = [
        reduce(b.Or, [loses(x, argument) for j, argument in enumerate(node.inputs) if j != i])
        for i, x in enumerate(node.inputs)
    ]
    winners = b.Sum(*(b.Where(loser, 0.0, 1.0) for loser in beaten))
    share = b.Div(g[0], winners)
    return _each(b, node, lambda i: b.drop(beaten[i], share))


@rule("Clip")
def _clip(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangent between the bounds and at them; beyond a bound it is that bound's."""
    x, low, high = node.inputs[0], node.input(1), node.input(2)
    below = b.Less(x, low) if low else None
    above = b.Greater(x, high) if high else None
    outside = b.Or(below, above) if below and above else below or above
    cotangents: list[str | None] = [b.drop(outside, _present(g)) if outside else g[0], None, None]
    if below and low and node.wants(1):  # crossed bounds: the upper one holds everywhere
        raised = b.And(below, b.LessOrEqual(low, high)) if high else below
        cotangents[1] = b.sum_to(b.keep(raised, _present(g)), low, x)
    if above and high and node.wants(2):
        lowered = b.Or(above, b.Greater(low, high)) if low else above
        cotangents[2] = b.sum_to(b.keep(lowered, _present(g)), high, x)
    return cotangents


@rule("Where")
def _where(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    condition = node.inputs[0]
    return _each(b, node, lambda i: (b.keep if i == 1 else b.drop)(condition, _present(g)))


@rule("Identity")
def _identity(_: GraphBuilder, __: Node, g: Cotangents) -> Cotangents:
    return [g[0]]


@rule("Cast", "CastLike")
def _cast(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangent in the type of the input; rounding has the derivative of what it rounds."""
    element_type = b.element_type_of(node.outputs[0])
    if element_type not in FLOATS:
        raise node.refuse("only casts among float16, bfloat16, float32 and float64 have a gradient")
    return [b.Cast(g[0], to=b.element_type_of(node.inputs[0]))]


@rule("Dropout", widen=True)
def _dropout(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangent unchanged in inference; in training, scaled where the mask, an output, kept the element."""
    training = node.input(2)
    value = b.value(training)
    if not training or (value is not None and not value.any()):
        return [g[0]]
    mask, ratio = node.output(1), node.input(1)
    if mask is None:
        raise node.refuse("in training it needs its mask as a second output")
    left = b.Sub(1.0, b.Cast(ratio, to=b.element_type) if ratio else 0.5)
    scale = b.Reciprocal(left) if value is not None else b.Where(training, b.Reciprocal(left), 1.0)
    return [b.keep(mask, b.Mul(g[0], scale))]


def _present(g: Cotangents) -> str:
    """Return the cotangent of an only output: a rule runs where one flows."""
    assert g[0] is not None
    return g[0]


def _each(b: GraphBuilder, node: Node, cotangent: Callable[[int], str | None]) -> list[str | None]:
    """Return the cotangents of inputs that were broadcast to the output, each computed in the output's shape where wanted."""
    cotangents: list[str | None] = []
    for i, x in enumerate(node.inputs):
        broadcast = cotangent(i) if node.wanted[i] else None
        cotangents.append(b.sum_to(broadcast, x, node.outputs[0]) if broadcast else None)
    return cotangents
