"""Gradients of activation functions.

Smooth ones are written so that no digits cancel and nothing overflows into NaN, for any x up to infinity: with
t = exp(-|x|) the derivative of the logistic function is t / (1 + t)^2, where s(1 - s) would be 0 from x = 17 on. In 16 bits
they are computed in float32 and rounded once. Kinks: relu, thresholded-relu, shrink and hard-sigmoid have derivative 0 there,
leaky-relu, prelu, elu, celu and selu that of the negative side, hard-swish that of its middle. NaN lets the cotangent pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from onnx import TensorProto

from actconform.onnx.grad.rules.graph_builder import GraphBuilder
from actconform.onnx.grad.rules.registry import Node, rule

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.registry import Cotangents

Derivative: TypeAlias = Callable[[GraphBuilder, Node, str], str]


def smooth(op_type: str) -> Callable[[Derivative], Derivative]:
    """Register the derivative of an operator of one element, a function of builder, node and x."""

    def register(derivative: Derivative) -> Derivative:
        def vjp(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
            assert g[0]
            return [b.times(g[0], derivative(b, node, node.inputs[0]))]

        rule(op_type, widen=True)(vjp)
        return derivative

    return register


def _decay(b: GraphBuilder, x: str, rate: float = 1.0) -> str:
    """Return exp(-rate |x|), between 0 and 1."""
    size = b.Abs(x)
    return b.Exp(b.Neg(size) if rate == 1.0 else b.Mul(size, -rate))


def _bounded(b: GraphBuilder, x: str, bound: float) -> str:
    """Return x between -bound and bound, beyond which nothing changes any more, so that no infinity meets a 0."""
    return b.Max(b.Min(x, bound), -bound)


def _logistic(b: GraphBuilder, x: str) -> str:
    """Return 1 / (1 + exp(-x)); unlike some runtimes' Sigmoid not 0 in the tail."""
    t = _decay(b, x)
    return b.Div(b.Where(b.Less(x, 0.0), t, 1.0), b.Add(t, 1.0))


def _gate_slope(b: GraphBuilder, v: str, w: str) -> str:
    """Return the derivative of x s(v(x)), s being the logistic function and w = x v'(x): s(v) (1 + w s(-v))."""
    t = _decay(b, v)
    up = b.Add(t, 1.0)
    below = b.Mul(t, b.Add(up, w))
    above = b.Add(up, b.Mul(t, w))
    return b.Div(b.Where(b.Less(v, 0.0), below, above), b.Mul(up, up))


@smooth("Sigmoid")
def _sigmoid(b: GraphBuilder, _: Node, x: str) -> str:
    t = _decay(b, x)
    up = b.Add(t, 1.0)
    return b.Div(t, b.Mul(up, up))


@smooth("Tanh")
def _tanh(b: GraphBuilder, _: Node, x: str) -> str:
    """Return 4 q / (1 + q)^2 with q = exp(-2 |x|)."""
    q = _decay(b, x, 2.0)
    up = b.Add(q, 1.0)
    return b.Div(b.Mul(q, 4.0), b.Mul(up, up))


@smooth("Softplus")
def _softplus(b: GraphBuilder, _: Node, x: str) -> str:
    return _logistic(b, x)


@smooth("Softsign")
def _softsign(b: GraphBuilder, _: Node, x: str) -> str:
    inverse = b.Reciprocal(b.Add(b.Abs(x), 1.0))
    return b.Mul(inverse, inverse)


@smooth("Swish")
def _swish(b: GraphBuilder, node: Node, x: str) -> str:
    alpha = node.attributes["alpha"]
    v = _bounded(b, x if alpha == 1.0 else b.Mul(x, alpha), 1000.0)
    return _gate_slope(b, v, v)


@smooth("Mish")
def _mish(b: GraphBuilder, _: Node, x: str) -> str:
    """Return the derivative of x tanh(softplus(x)), by t = exp(-|x|) a fraction of polynomials.

    t (4 + 6 t + 4 t^2 + t^3 + 4 x (1 + t)) / (2 + 2 t + t^2)^2 for negative x,
    (1 + 4 t + (4 x + 6) t^2 + 4 (x + 1) t^3) / (1 + 2 t + 2 t^2)^2 for positive x.
    """
    x = _bounded(b, x, 1000.0)
    t = _decay(b, x)
    four_x = b.Mul(x, 4.0)
    below = b.Mul(t, b.Add(_polynomial(b, t, [4.0, 6.0, 4.0, 1.0]), b.Mul(four_x, b.Add(t, 1.0))))
    squared = b.Mul(t, t)
    above = b.Add(_polynomial(b, t, [1.0, 4.0, 6.0, 4.0]), b.Mul(b.Mul(four_x, squared), b.Add(t, 1.0)))
    negative = b.Less(x, 0.0)
    # 1 + (1 + t)^2 and, times t^2, 1 + (1 + 1/t)^2
    root = b.Where(negative, _polynomial(b, t, [2.0, 2.0, 1.0]), _polynomial(b, t, [1.0, 2.0, 2.0]))
    return b.Div(b.Where(negative, below, above), b.Mul(root, root))


def _polynomial(b: GraphBuilder, t: str, coefficients: Sequence[float]) -> str:
    """Return the polynomial in t by Horner's rule, from its coefficients, that of t^0 first."""
    *rest, last = coefficients
    if len(rest) == 0:
        return b.constant(last)
    total = t if last == 1.0 else b.Mul(t, last)
    for coefficient in rest[:0:-1]:
        total = b.Mul(b.Add(total, coefficient), t)
    return b.Add(total, rest[0])


@smooth("Gelu")
def _gelu(b: GraphBuilder, node: Node, x: str) -> str:
    if node.attributes["approximate"] == "tanh":
        return _gelu_tanh(b, x)
    return _gelu_erf(b, x)


def _gelu_tanh(b: GraphBuilder, x: str) -> str:
    """Return the slope of x s(v), v = 2 k (x + c x^3) and x v' = 2 k (x + 3 c x^3), k = sqrt(2 / pi), c = 0.044715."""
    k, c = 2.0 * math.sqrt(2.0 / math.pi), 0.044715
    x = _bounded(b, x, 30.0)
    squared = b.Mul(x, x)
    scaled = b.Mul(x, k)
    v = b.Mul(scaled, b.Add(b.Mul(squared, c), 1.0))
    return _gate_slope(b, v, b.Mul(scaled, b.Add(b.Mul(squared, 3.0 * c), 1.0)))


def _gelu_erf(b: GraphBuilder, x: str) -> str:
    """Return Phi(x) + x phi(x), phi being the normal density and Phi its integral.

    With a = |x| it is h = phi(a) (R(a) - a) for negative x and 1 - h for positive x, where R = Phi(-a) / phi(a), Mills'
    ratio, falls smoothly from 1.25 like 1 / a: in the tail 1 + erf would have no digits left.
    """
    double = b.element_type == TensorProto.DOUBLE
    top, mills = (40.0, MILLS_DOUBLE) if double else (15.0, MILLS_SINGLE)  # phi(top) is 0
    a = b.Min(b.Abs(x), top)
    density = b.Mul(b.Exp(b.Mul(b.Mul(a, a), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    u = b.Div(b.Sub(a, MILLS_CENTRE), b.Add(a, MILLS_CENTRE))
    h = b.Mul(density, b.Sub(_polynomial(b, u, mills), a))
    return b.Where(b.Less(x, 0.0), h, b.Sub(1.0, h))


# Mills' ratio of the normal law as a polynomial in u = (a - 4) / (a + 4): sqrt(pi / 2) erfcx(a / sqrt(2)) interpolated at the
# Chebyshev points of [0, 15], off by less than 3e-7, and of [0, 40], off by less than 1e-14. The coefficient of u^0 is first.
MILLS_CENTRE = 4.0
MILLS_SINGLE = (
    0.236652285,
    -0.427125406,
    0.311775894,
    -0.179707517,
    0.0773701347,
    -0.0214879475,
    0.00108827686,
    0.00189336941,
)
MILLS_DOUBLE = (
    0.2366523829135681,
    -0.4271237467661081,
    0.311772558209293,
    -0.17974381473000825,
    0.07736659072536563,
    -0.021286526701522025,
    0.0012722685587873558,
    0.0016012691918359287,
    -0.0004691948766246839,
    -0.00011418937673815613,
    7.178377280423804e-05,
    1.1603618653505161e-05,
    -1.0721088146522858e-05,
    -2.050916700736449e-06,
    1.5621863961367605e-06,
    4.583678638881331e-07,
    -1.603779368707253e-07,
    -7.162217890433577e-08,
    -1.6429001993227935e-09,
)


@rule("Relu")
def _relu(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return the cotangent where y > 0: testing y leaves runtimes free to fuse what made x."""
    return [b.Where(b.LessOrEqual(node.outputs[0], 0.0), 0.0, g[0])]


@rule("LeakyRelu", widen=True)
def _leaky_relu(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    return [b.Where(b.Greater(node.inputs[0], 0.0), g[0], b.Mul(g[0], node.attributes["alpha"]))]


@rule("PRelu", widen=True)
def _prelu(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    x, slope = node.inputs
    positive = b.Greater(x, 0.0)
    cotangents: list[str | None] = [b.Where(positive, g[0], b.Mul(g[0], slope)), None]
    if node.wanted[1]:
        cotangents[1] = b.sum_to(b.Where(positive, 0.0, b.Mul(g[0], x)), slope, x)
    return cotangents


@rule("ThresholdedRelu", widen=True)
def _thresholded_relu(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    return [b.Where(b.LessOrEqual(node.inputs[0], node.attributes["alpha"]), 0.0, g[0])]


@rule("Shrink", widen=True)
def _shrink(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    x, bound = node.inputs[0], node.attributes["lambd"]
    return [b.Where(b.And(b.GreaterOrEqual(x, -bound), b.LessOrEqual(x, bound)), 0.0, g[0])]


@rule("HardSigmoid", widen=True)
def _hard_sigmoid(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return alpha g between the kinks, which are found exactly: alpha x + beta may round onto 0 or 1 before x is there."""
    alpha, beta, x = node.attributes["alpha"], node.attributes["beta"], node.inputs[0]
    if alpha == 0.0:
        return [None]
    low, high = sorted([-beta / alpha, (1.0 - beta) / alpha])
    outside = b.Or(b.LessOrEqual(x, low), b.GreaterOrEqual(x, high))
    return [b.Where(outside, 0.0, b.Mul(g[0], alpha))]


@rule("HardSwish", widen=True)
def _hard_swish(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return 0, x / 3 + 1/2 or 1 times g, the middle piece with both kinks."""
    x = node.inputs[0]
    middle = b.Add(b.Div(x, 3.0), 0.5)
    slope = b.Where(b.Less(x, -3.0), 0.0, b.Where(b.Greater(x, 3.0), 1.0, middle))
    return [b.Mul(g[0], slope)]


@smooth("Elu")
def _elu(b: GraphBuilder, node: Node, x: str) -> str:
    return b.Where(b.Greater(x, 0.0), 1.0, b.Mul(b.Exp(x), node.attributes["alpha"]))


@smooth("Selu")
def _selu(b: GraphBuilder, node: Node, x: str) -> str:
    alpha, gamma = node.attributes["alpha"], node.attributes["gamma"]
    return b.Where(b.Greater(x, 0.0), gamma, b.Mul(b.Exp(x), alpha * gamma))


@smooth("Celu")
def _celu(b: GraphBuilder, node: Node, x: str) -> str:
    return b.Where(b.Greater(x, 0.0), 1.0, b.Exp(b.Div(x, node.attributes["alpha"])))


@rule("Softmax", widen=True)
def _softmax(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return y (g - sum(g y))."""
    (cotangent,), (y,) = g, node.outputs
    total = b.sum_over(b.Mul(cotangent, y), [node.attributes["axis"]])
    return [b.Mul(y, b.Sub(cotangent, total))]


@rule("LogSoftmax", widen=True)
def _log_softmax(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Return g - softmax(x) sum(g)."""
    (cotangent,) = g
    assert cotangent
    total = b.sum_over(cotangent, [node.attributes["axis"]])
    return [b.Sub(cotangent, b.Mul(b.Exp(node.outputs[0]), total))]
