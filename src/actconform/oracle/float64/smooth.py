"""float64 formulas of the kernels with exponentials and roots, arranged so that no digits cancel.

Inputs and parameters hold float32 numbers, so that their products and squares are exact. Each formula is within 300 units of
the last place of float64 wherever the result is at least 2**-149, most within 6 (the limits are in tests/oracle/test_formulas).
Written with t = exp(-|x|), s = 1 / (1 + t), and derivatives that cross zero as expansions in d = x - root, the root held as
a sum of two float64 numbers. Constants are the values named, computed with 600 bits and rounded once.
"""

from __future__ import annotations

from math import factorial
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import erfcx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.oracle.rounding import F64

SELU_SCALE = 1.0507009873554805
SELU_SCALE_ALPHA = SELU_SCALE * 1.6732632423543772

SQRT_HALF = 0.7071067811865476
SQRT_HALF_PI = 1.2533141373155003  # sqrt(pi / 2)
DENSITY_AT_0 = 0.3989422804014327  # 1 / sqrt(2 pi)
TWICE_SQRT_2_OVER_PI = 1.5957691216057308  # 2 sqrt(2 / pi)
CUBIC = 0.044715

# 1 + x + exp(x) = 0, and exp(x) there.
SILU_ROOT = (-1.2784645427610737, -1.0946994183093437e-16)
SILU_EXP = 0.2784645427610738

# 4 (x + 1) + (4 x + 6) exp(x) + 4 exp(2 x) + exp(3 x) = 0; with a = exp(x) there: a, 4 a^2, a^3, 4 x + 6.
MISH_ROOT = (-1.1924312145154952, -4.8484829848031044e-17)
MISH_A, MISH_4A2, MISH_A3, MISH_4X6 = 0.3034825352815289, 0.3684065968836178, 0.027951242009170138, 1.2302751419380191

# 1 + exp(v) + 2 k (x + 3 c x^3) = 0 with v = 2 k (x + c x^3); exp(v) there.
GELU_TANH_ROOT = (-0.7524614220710163, 3.635560509207687e-17)
GELU_TANH_EXP = 0.29195521191476714

# Phi(x) + x phi(x) = 0; Taylor coefficients of x + Phi(x) / phi(x) there, from degree 18 down to 1. With M = Phi / phi they
# follow from M' = 1 + x M and M(n+1) = x M(n) + n M(n-1).
GELU_ROOT = (-0.7517915246935645, 1.4956759177009883e-17)
GELU_TAYLOR = (
    *(
        3.0423067680036925e-10,
        1.4296549279989754e-09,
        6.550954640512665e-09,
        2.922908595337198e-08,
        1.267894533424874e-07,
    ),
    *(
        5.337555257439918e-07,
        2.1763252273075144e-06,
        8.574964695538479e-06,
        3.2562488510342534e-05,
        0.00011880481453593035,
    ),
    *(0.00041494133776432855, 0.001381192711799605, 0.004357899676814093, 0.012944581025090893, 0.03587902436625702),
    *(0.09169645155828038, 0.21245271259101728, 1.4348095033989257),
)

# x cosh x - sinh x is the sum of these times x^(2 k + 1), all of one sign; 13 terms serve for |x| < 2.
TANH_SHRINK_SERIES = tuple(2 * k / factorial(2 * k + 1) for k in range(13, 0, -1))


def _sigmoid(v: F64) -> F64:
    t = np.exp(-np.abs(v))
    s = 1.0 / (1.0 + t)
    return np.where(v >= 0, s, t * s)


def _softplus(v: F64) -> F64:
    return np.maximum(v, 0.0) + np.log1p(np.exp(-np.abs(v)))


def _gated(x: F64, gate: F64) -> F64:
    """Return x * gate, with the limit +-0 where the gate has closed, at infinity too."""
    return np.where(gate == 0, np.copysign(0.0, x), x * gate)


def _distance(x: F64, root: tuple[float, float]) -> F64:
    return (x - root[0]) - root[1]


def _polynomial(coefficients: tuple[float, ...], x: F64) -> F64:
    """Return the polynomial by Horner's rule, coefficients from the highest degree down."""
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result *= x
        result += coefficient
    return result


def sigmoid(x: F64, _: Mapping[str, float]) -> F64:
    return _sigmoid(x)


def sigmoid_derivative(x: F64, _: Mapping[str, float]) -> F64:
    t = np.exp(-np.abs(x))
    return t / np.square(1.0 + t)


def log_sigmoid(x: F64, _: Mapping[str, float]) -> F64:
    return -_softplus(-x)


def log_sigmoid_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return _sigmoid(-x)


def softplus(x: F64, parameters: Mapping[str, float]) -> F64:
    beta = parameters.get("beta", 1.0)
    return _softplus(beta * x) / beta


def softplus_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    return _sigmoid(parameters.get("beta", 1.0) * x)


def tanh(x: F64, _: Mapping[str, float]) -> F64:
    return np.tanh(x)


def tanh_derivative(x: F64, _: Mapping[str, float]) -> F64:
    q = np.exp(-2.0 * np.abs(x))
    return 4.0 * q / np.square(1.0 + q)


def tanh_shrink(x: F64, _: Mapping[str, float]) -> F64:
    near = np.abs(x) < 2.0
    z = np.where(near, x, 0.0)
    square = z * z
    small = z * square * _polynomial(TANH_SHRINK_SERIES, square) / np.cosh(z)
    return np.where(near, small, x - np.tanh(x))


def tanh_shrink_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return np.square(np.tanh(x))


def softsign(x: F64, _: Mapping[str, float]) -> F64:
    # The largest number behaves as infinity does, without inf / inf.
    x = np.clip(x, -np.finfo(np.float64).max, np.finfo(np.float64).max)
    return x / (1.0 + np.abs(x))


def softsign_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return np.square(1.0 / (1.0 + np.abs(x)))


def elu(x: F64, parameters: Mapping[str, float]) -> F64:
    return np.where(x > 0, x, parameters.get("alpha", 1.0) * np.expm1(x))


def elu_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    return np.where(x >= 0, 1.0, parameters.get("alpha", 1.0) * np.exp(x))


def selu(x: F64, _: Mapping[str, float]) -> F64:
    return np.where(x > 0, SELU_SCALE * x, SELU_SCALE_ALPHA * np.expm1(x))


def selu_derivative(x: F64, _: Mapping[str, float]) -> F64:
    return np.where(x >= 0, SELU_SCALE, SELU_SCALE_ALPHA * np.exp(x))


def celu(x: F64, parameters: Mapping[str, float]) -> F64:
    alpha = parameters["alpha"]
    return np.where(x > 0, x, alpha * np.expm1(x / alpha))


def celu_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    return np.where(x >= 0, 1.0, np.exp(x / parameters["alpha"]))


def exponential(x: F64, _: Mapping[str, float]) -> F64:
    """Serve as exponential and as its derivative."""
    return np.exp(x)


def squareplus(x: F64, parameters: Mapping[str, float]) -> F64:
    b = parameters["b"]
    root = np.sqrt(x * x + b)
    return np.where(x >= 0, 0.5 * (x + root), 0.5 * b / (root - x))


def squareplus_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    # f'(x) + f'(-x) = 1: only the small one of the two needs care.
    b = parameters["b"]
    root = np.sqrt(x * x + b)
    small: F64 = 0.5 * b / (root * (root + np.abs(x)))
    return np.where(x >= 0, 1.0 - small, small)


def gelu_erf(x: F64, _: Mapping[str, float]) -> F64:
    """Return x Phi(x), from the tail Phi(-|x|) = erfcx(|x| / sqrt 2) exp(-x^2 / 2) / 2, whose x^2 is exact."""
    tail: F64 = 0.5 * erfcx(np.abs(x) * SQRT_HALF) * np.exp(-0.5 * x * x)
    return _gated(x, np.where(x >= 0, 1.0 - tail, tail))


def gelu_erf_derivative(x: F64, _: Mapping[str, float]) -> F64:
    """Phi(x) + x phi(x), from w = phi(x) (M - |x|), M = Phi(-|x|) / phi(x): w for x < 0, else 1 - w; near the root a series."""
    size = np.minimum(np.abs(x), 1e3)
    density = DENSITY_AT_0 * np.exp(-0.5 * size * size)
    small = density * (SQRT_HALF_PI * erfcx(size * SQRT_HALF) - size)
    d = _distance(x, GELU_ROOT)
    near = np.abs(d) < 0.3
    d = np.where(near, d, 0.0)
    return np.where(near, density * d * _polynomial(GELU_TAYLOR, d), np.where(x >= 0, 1.0 - small, small))


def _gelu_tanh_argument(x: F64) -> F64:
    """Return v with (1 + tanh(v / 2)) / 2 = sigmoid(v)."""
    return TWICE_SQRT_2_OVER_PI * (x * (1.0 + CUBIC * (x * x)))


def gelu_tanh(x: F64, _: Mapping[str, float]) -> F64:
    return _gated(x, _sigmoid(_gelu_tanh_argument(x)))


def gelu_tanh_derivative(x: F64, _: Mapping[str, float]) -> F64:
    x = np.clip(x, -1e3, 1e3)
    t = np.exp(-np.abs(_gelu_tanh_argument(x)))
    s = 1.0 / (1.0 + t)
    positive = s * (1.0 + TWICE_SQRT_2_OVER_PI * (x + 3.0 * CUBIC * (x * x * x)) * t * s)
    d = _distance(x, GELU_TANH_ROOT)
    step = TWICE_SQRT_2_OVER_PI * d
    root = GELU_TANH_ROOT[0]
    change = step * (1.0 + CUBIC * (x * x + x * root + root * root))
    slope = GELU_TANH_EXP * np.expm1(change) + step * (1.0 + 3.0 * CUBIC * (x * x + x * root + root * root))
    return np.where(x > 0, positive, t * s * s * slope)


def swish(x: F64, parameters: Mapping[str, float]) -> F64:
    """Serve silu, swish (beta) and quick-gelu (which calls the factor alpha)."""
    return _gated(x, _sigmoid(_swish_factor(parameters) * x))


def swish_derivative(x: F64, parameters: Mapping[str, float]) -> F64:
    z = np.clip(_swish_factor(parameters) * x, -1e4, 1e4)
    t = np.exp(-np.abs(z))
    s = 1.0 / (1.0 + t)
    d = _distance(z, SILU_ROOT)
    return np.where(z > 0, s * (1.0 + z * t * s), t * s * s * (d + SILU_EXP * np.expm1(d)))


def _swish_factor(parameters: Mapping[str, float]) -> float:
    return parameters.get("beta", parameters.get("alpha", 1.0))


def mish(x: F64, _: Mapping[str, float]) -> F64:
    t = np.exp(-np.abs(x))
    n = t * (t + 2.0)
    positive = (1.0 + 2.0 * t) / (1.0 + 2.0 * t + 2.0 * t * t)
    return _gated(x, np.where(x >= 0, positive, n / (n + 2.0)))


def mish_derivative(x: F64, _: Mapping[str, float]) -> F64:
    x = np.clip(x, -1e4, 1e4)
    t = np.exp(-np.abs(x))
    cubic = 1.0 + t * (4.0 + t * (4.0 * x + 6.0 + t * 4.0 * (x + 1.0)))
    positive = cubic / np.square(1.0 + 2.0 * t + 2.0 * t * t)
    d = _distance(x, MISH_ROOT)
    e = np.expm1(d)
    w = (
        4.0 * d
        + MISH_A * (MISH_4X6 * e + 4.0 * d * (1.0 + e))
        + MISH_4A2 * np.expm1(2.0 * d)
        + MISH_A3 * np.expm1(3.0 * d)
    )
    return np.where(x > 0, positive, t * w / np.square(2.0 + 2.0 * t + t * t))
