"""The unary kernels in Arb's ball arithmetic, written as they are defined: `exact` raises the precision until the digits hold.

x is an exact ball; a plain float is returned where the result is, or rounds to, that very number, -0.0 included. At a kink the derivative is
the one of the right side, or of the side on which the definition puts the point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flint import arb

    Result: TypeAlias = "arb | float"

# The two binary64 numbers that the kernel's definition names.
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def linear(x: arb, _: Mapping[str, float]) -> Result:
    return x


def linear_derivative(_x: arb, _: Mapping[str, float]) -> Result:
    return 1.0


def relu(x: arb, _: Mapping[str, float]) -> Result:
    return x if x > 0 else 0.0


def relu_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 1.0 if x >= 0 else 0.0


def leaky(x: arb, parameters: Mapping[str, float]) -> Result:
    return x if x > 0 else x * parameters["alpha"]


def leaky_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return 1.0 if x >= 0 else parameters["alpha"]


def hard_sigmoid(x: arb, parameters: Mapping[str, float]) -> Result:
    line = x * parameters["alpha"] + parameters["beta"]
    return 0.0 if line <= 0 else 1.0 if line >= 1 else line


def hard_sigmoid_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    line = x * parameters["alpha"] + parameters["beta"]
    return 0.0 if line < 0 or line >= 1 else parameters["alpha"]


def hard_sigmoid_relu6(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x <= -3 else 1.0 if x >= 3 else (x + 3) / 6


def hard_sigmoid_relu6_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x < -3 or x >= 3 else (x * 0 + 1) / 6


def hard_swish(x: arb, _: Mapping[str, float]) -> Result:
    return -0.0 if x <= -3 else x if x >= 3 else x * (x + 3) / 6


def hard_swish_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x < -3 else 1.0 if x >= 3 else (2 * x + 3) / 6


def hard_tanh(x: arb, _: Mapping[str, float]) -> Result:
    return -1.0 if x <= -1 else 1.0 if x >= 1 else x


def hard_tanh_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x < -1 or x >= 1 else 1.0


def relu6(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x <= 0 else 6.0 if x >= 6 else x


def relu6_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x < 0 or x >= 6 else 1.0


def relu_squared(x: arb, _: Mapping[str, float]) -> Result:
    return x * x if x > 0 else 0.0


def relu_squared_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 2 * x if x > 0 else 0.0


def thresholded_relu(x: arb, parameters: Mapping[str, float]) -> Result:
    return x if x > parameters["alpha"] else 0.0


def thresholded_relu_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return 1.0 if x > parameters["alpha"] else 0.0


def threshold(x: arb, parameters: Mapping[str, float]) -> Result:
    return x if x > parameters["threshold"] else parameters["default"]


def threshold_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return 1.0 if x > parameters["threshold"] else 0.0


def hard_shrink(x: arb, parameters: Mapping[str, float]) -> Result:
    return x if abs(x) > parameters["lambda"] else 0.0


def soft_shrink(x: arb, parameters: Mapping[str, float]) -> Result:
    bound = parameters["lambda"]
    return x - bound if x > bound else x + bound if x < -bound else 0.0


def shrink_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return 1.0 if abs(x) > parameters["lambda"] else 0.0


def sparse_plus(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x <= -1 else x if x >= 1 else (x + 1) ** 2 / 4


def sparse_sigmoid(x: arb, _: Mapping[str, float]) -> Result:
    """Serve as sparse-sigmoid and, being continuous, as the derivative of sparse-plus."""
    return 0.0 if x <= -1 else 1.0 if x >= 1 else (x + 1) / 2


def sparse_sigmoid_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 0.0 if x < -1 or x >= 1 else 0.5


def _sigmoid(v: arb) -> arb:
    return 1 / (1 + (-v).exp())


def sigmoid(x: arb, _: Mapping[str, float]) -> Result:
    return _sigmoid(x)


def sigmoid_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return _sigmoid(x) * _sigmoid(-x)


def log_sigmoid(x: arb, _: Mapping[str, float]) -> Result:
    return -(-x).exp().log1p()


def log_sigmoid_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return _sigmoid(-x)


def softplus(x: arb, parameters: Mapping[str, float]) -> Result:
    beta = parameters.get("beta", 1.0)
    return (x * beta).exp().log1p() / beta


def softplus_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return _sigmoid(x * parameters.get("beta", 1.0))


def tanh(x: arb, _: Mapping[str, float]) -> Result:
    return x.tanh()


def tanh_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return x.sech() ** 2


def tanh_shrink(x: arb, _: Mapping[str, float]) -> Result:
    if abs(x) > 1000:
        # 1 - |tanh x| is positive and below 2**-2000, where x - 1 may be a tie: any small positive number rounds alike.
        return x - x.sgn() * (1 - (x * 0 + 2) ** -200)
    return x - x.tanh()


def tanh_shrink_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return x.tanh() ** 2


def softsign(x: arb, _: Mapping[str, float]) -> Result:
    return x / (1 + abs(x))


def softsign_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return 1 / (1 + abs(x)) ** 2


def elu(x: arb, parameters: Mapping[str, float]) -> Result:
    return x if x > 0 else x.expm1() * parameters.get("alpha", 1.0)


def elu_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return 1.0 if x >= 0 else x.exp() * parameters.get("alpha", 1.0)


def selu(x: arb, _: Mapping[str, float]) -> Result:
    return x * SELU_SCALE if x > 0 else x.expm1() * SELU_SCALE * SELU_ALPHA


def selu_derivative(x: arb, _: Mapping[str, float]) -> Result:
    return SELU_SCALE if x >= 0 else x.exp() * SELU_SCALE * SELU_ALPHA


def celu(x: arb, parameters: Mapping[str, float]) -> Result:
    alpha = parameters["alpha"]
    return x if x > 0 else (x / alpha).expm1() * alpha


def celu_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return 1.0 if x >= 0 else (x / parameters["alpha"]).exp()


def exponential(x: arb, _: Mapping[str, float]) -> Result:
    """Serve as exponential and as its derivative."""
    return x.exp()


def squareplus(x: arb, parameters: Mapping[str, float]) -> Result:
    return (x + (x * x + parameters["b"]).sqrt()) / 2


def squareplus_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    return (1 + x / (x * x + parameters["b"]).sqrt()) / 2


# Below -1000 gelu and its derivative underflow every format to -0; Arb's erfc loses the sign there.
UNDERFLOW = -1000


def _normal_cdf(x: arb) -> arb:
    root_half = (x * 0 + 2).rsqrt()
    return (-x * root_half).erfc() / 2


def gelu_erf(x: arb, _: Mapping[str, float]) -> Result:
    return -0.0 if x < UNDERFLOW else x * _normal_cdf(x)


def gelu_erf_derivative(x: arb, _: Mapping[str, float]) -> Result:
    if x < UNDERFLOW:
        return -0.0
    return _normal_cdf(x) + x * (-x * x / 2).exp() / (2 * x.pi()).sqrt()


def _gelu_tanh_argument(x: arb) -> arb:
    """Return v with (1 + tanh(v / 2)) / 2 = sigmoid(v); 0.044715 is taken as the decimal."""
    return (8 / x.pi()).sqrt() * (x + x**3 * 44715 / 1_000_000)


def gelu_tanh(x: arb, _: Mapping[str, float]) -> Result:
    return x * _sigmoid(_gelu_tanh_argument(x))


def gelu_tanh_derivative(x: arb, _: Mapping[str, float]) -> Result:
    v = _gelu_tanh_argument(x)
    slope = (8 / x.pi()).sqrt() * (1 + x * x * 3 * 44715 / 1_000_000)
    return _sigmoid(v) * (1 + x * slope * _sigmoid(-v))


def swish(x: arb, parameters: Mapping[str, float]) -> Result:
    """Serve silu, swish (beta) and quick-gelu (which calls the factor alpha)."""
    return x * _sigmoid(x * parameters.get("beta", parameters.get("alpha", 1.0)))


def swish_derivative(x: arb, parameters: Mapping[str, float]) -> Result:
    z = x * parameters.get("beta", parameters.get("alpha", 1.0))
    return _sigmoid(z) * (1 + z * _sigmoid(-z))


def mish(x: arb, _: Mapping[str, float]) -> Result:
    # tanh(log(1 + e)) = ((1 + e)^2 - 1) / ((1 + e)^2 + 1)
    n = x.exp() * (x.exp() + 2)
    return x * n / (n + 2)


def mish_derivative(x: arb, _: Mapping[str, float]) -> Result:
    e = x.exp()
    n = e * (e + 2)
    return n / (n + 2) + x * 4 * e * (e + 1) / (n + 2) ** 2
