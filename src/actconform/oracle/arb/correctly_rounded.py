"""Correctly rounded values and derivatives of the unary kernels, from Arb: the truth behind the goldens.

Each number is enclosed in a ball at 128 bits and more, until both ends of the ball round to the same number (Ziv's strategy).
Needs python-flint: pip install "actconform[golden]".
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import numpy as np

from actconform.oracle.arb import kernels as d
from actconform.oracle.arb.flint import python_flint
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.rounding import F64, all_patterns, round_to, to_bits
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flint import arb
    from numpy.typing import NDArray

    from actconform.types import Aspect, Kernel
    from actconform.types.dtypes import FloatFormat

Function: TypeAlias = "Callable[[arb, Mapping[str, float]], arb | float]"
Rounding: TypeAlias = "Callable[[arb], float]"
T = TypeVar("T")

FIRST_BITS = 128
LAST_BITS = 1 << 16
# Formulas err by at most 300 * 2**-52 of the result where it is at least 2**-149; smaller results round to zero in 16 bits.
FORMULA_ERROR = 2.0**-42


class Definition(NamedTuple):
    """`value(x, parameters)` encloses f(x), `derivative` f'(x), x an exact arb; `signed_zero` where f(+-0) = +-0."""

    value: Function
    derivative: Function
    signed_zero: bool


EXACT: dict[str, Definition] = {}


def definition(*names: str, derivative: Function, signed_zero: bool = False) -> Callable[[Function], Function]:
    """Register the decorated value, and its `derivative`, as the definition in Arb of the kernels with these names.

        @definition("cube", derivative=lambda x, parameters: 3 * x**2, signed_zero=True)
        def cube(x, parameters):
            return x**3

    Both take an exact `flint.arb` and may return a plain float where the result is a known number, such as -0.0.
    Raises ValueError where a name has a definition already.
    """

    def register(value: Function) -> Function:
        for name in names:
            if name in EXACT:
                message = f"kernel {name} has an exact definition already: give the new one a name of its own"
                raise ValueError(message)
            EXACT[name] = Definition(value, derivative, signed_zero)
        return value

    return register


def exact(kernel: Kernel, aspect: Aspect, x: NDArray[np.floating]) -> F64:
    """Return f(x), or f'(x) for aspect "gradient", rounded once to binary64, to nearest with ties to even; shape of x.

    x is any array of binary64, binary32 or binary16 numbers. Underflow is gradual and keeps the sign, overflow gives
    infinity. NaN gives NaN; +-inf gives the kernel's own limits; an exact zero is +0, but f(+-0) = +-0 where the definition
    says `signed_zero`. Raises ImportError without python-flint, KeyError for a kernel without a definition, ArithmeticError
    where 65,536 bits do not decide a rounding.
    """
    points = np.asarray(x, dtype=np.float64)
    return np.array(list(_rounded(kernel, aspect, points.ravel().tolist(), float)), dtype=np.float64).reshape(
        points.shape
    )


def exactly_rounded(kernel: Kernel, aspect: Aspect, x: NDArray[np.floating], dtype: str) -> F64:
    """Return f(x), or f'(x), rounded once to `dtype`, "f32", "f16" or "bf16", as float64: as `exact`, which rounds to binary64."""
    points = np.asarray(x, dtype=np.float64).ravel().tolist()
    rounding = partial(_round_arb, target=DTYPES[dtype])
    return np.array(list(_rounded(kernel, aspect, points, rounding)), dtype=np.float64).reshape(np.shape(x))


def exact_table(kernel: Kernel, aspect: Aspect, dtype: str) -> NDArray[np.uint16]:
    """Return the patterns of f, or f', at all 65,536 numbers of "f16" or "bf16" in pattern order, each rounded once to dtype.

    The float64 formula serves wherever both ends of an interval of relative half-width 2**-42 about it round alike; Arb
    decides the rest and the points whose input or formula is not finite. NaN is 0x7E00 in f16, 0x7FC0 in bf16. Zeros keep the
    formula's sign. Raises as `exact` does, and KeyError for a kernel without a float64 formula.
    """
    target = DTYPES[dtype]
    x = all_patterns(target)
    formula = _registered(FORMULAS, kernel, "float64 formula", "actconform.oracle.float64.registry.formula")
    rough = (formula.value if aspect == "value" else formula.derivative)(x, kernel.parameters)
    with np.errstate(all="ignore"):
        low, high = round_to(rough * (1 - FORMULA_ERROR), target), round_to(rough * (1 + FORMULA_ERROR), target)
    unsure = np.flatnonzero(~((low == high) & np.isfinite(x) & np.isfinite(rough)))
    low[unsure] = list(_rounded(kernel, aspect, x[unsure].tolist(), partial(_round_arb, target=target)))
    return to_bits(low, target)


def _rounded(kernel: Kernel, aspect: Aspect, points: list[float], rounding: Rounding) -> Iterator[float]:
    entry = _registered(EXACT, kernel, "exact definition", "actconform.oracle.arb.correctly_rounded.definition")
    python_flint()  # before the first definition uses it
    function = entry.value if aspect == "value" else entry.derivative
    signed_zero = entry.signed_zero and aspect == "value"
    limits = kernel.at_infinity if aspect == "value" else kernel.gradient_at_infinity
    for point in points:
        if math.isnan(point):
            yield math.nan
        elif math.isinf(point):
            yield limits[int(point > 0)]
        else:
            result = nearest(lambda x: function(x, kernel.parameters), point, rounding)
            if result is None:
                message = f"{kernel.name}: {LAST_BITS} bits do not decide how the {aspect} at {point.hex()} rounds"
                raise ArithmeticError(message)
            yield point if signed_zero and point == 0 == result else result


def nearest(
    function: Callable[[arb], arb | float], point: float, rounding: Rounding, last_bits: int = LAST_BITS
) -> float | None:
    """Return the number to which both ends of the ball round, or None where no precision up to `last_bits` is enough."""
    from flint import arb, ctx

    bits = FIRST_BITS
    while bits <= last_bits:
        with ctx.workprec(bits):
            result = function(arb(point))
            if not isinstance(result, arb):
                if result == 0:
                    return result  # a ball has no -0
                result = arb(result)
            low, high = rounding(result.lower()), rounding(result.upper())
        if low == high and math.copysign(1, low) == math.copysign(1, high):
            return low
        bits *= 2
    return None


def _round_arb(end: arb, target: FloatFormat) -> float:
    """Return the number of `target` nearest to an exact arb, ties to even; a result that underflows to zero keeps its sign."""
    if not end.is_finite():
        return float(end)
    mantissa, exponent = map(int, end.man_exp())
    size, sign = abs(mantissa), -1.0 if mantissa < 0 else 1.0
    top = size.bit_length() + exponent - 1
    if top > target.emax:
        return sign * math.inf
    if top < target.emin - target.precision:
        return sign * 0.0
    last_place = max(top, target.emin) - target.precision + 1
    dropped = last_place - exponent
    if dropped <= 0:
        return math.ldexp(mantissa, exponent)
    truncated, rest = size >> dropped, size & ((1 << dropped) - 1)
    half = 1 << (dropped - 1)
    if rest > half or (rest == half and truncated & 1):
        truncated += 1
    rounded = math.ldexp(truncated, last_place)
    return sign * (math.inf if rounded > target.largest else rounded)


def _registered(registry: Mapping[str, T], kernel: Kernel, content: str, where: str) -> T:
    if kernel.name not in registry:
        message = f"kernel {kernel.name} has no {content}: register one with {where}({kernel.name!r}, ...)"
        raise KeyError(message)
    return registry[kernel.name]


definition("linear", derivative=d.linear_derivative, signed_zero=True)(d.linear)
definition("relu", derivative=d.relu_derivative)(d.relu)
definition(
    *("leaky-relu", "leaky-relu-0.2", "leaky-relu-0.3", "leaky-relu-default"),
    derivative=d.leaky_derivative,
    signed_zero=True,
)(d.leaky)
definition("hard-sigmoid-onnx", "hard-sigmoid-default", derivative=d.hard_sigmoid_derivative)(d.hard_sigmoid)
definition("hard-sigmoid-relu6", derivative=d.hard_sigmoid_relu6_derivative)(d.hard_sigmoid_relu6)
definition("hard-swish", derivative=d.hard_swish_derivative, signed_zero=True)(d.hard_swish)
definition("hard-tanh", derivative=d.hard_tanh_derivative, signed_zero=True)(d.hard_tanh)
definition("relu6", derivative=d.relu6_derivative)(d.relu6)
definition("relu-squared", derivative=d.relu_squared_derivative)(d.relu_squared)
definition("thresholded-relu", derivative=d.thresholded_relu_derivative)(d.thresholded_relu)
definition("threshold", derivative=d.threshold_derivative)(d.threshold)
definition("hard-shrink", derivative=d.shrink_derivative)(d.hard_shrink)
definition("soft-shrink", derivative=d.shrink_derivative)(d.soft_shrink)
definition("sparse-plus", derivative=d.sparse_sigmoid)(d.sparse_plus)
definition("sparse-sigmoid", derivative=d.sparse_sigmoid_derivative)(d.sparse_sigmoid)

definition("sigmoid", derivative=d.sigmoid_derivative)(d.sigmoid)
definition("log-sigmoid", derivative=d.log_sigmoid_derivative)(d.log_sigmoid)
definition("softplus", "softplus-beta", derivative=d.softplus_derivative)(d.softplus)
definition("tanh", derivative=d.tanh_derivative, signed_zero=True)(d.tanh)
definition("tanh-shrink", derivative=d.tanh_shrink_derivative, signed_zero=True)(d.tanh_shrink)
definition("softsign", derivative=d.softsign_derivative, signed_zero=True)(d.softsign)
definition("elu", "elu-half", derivative=d.elu_derivative, signed_zero=True)(d.elu)
definition("selu", derivative=d.selu_derivative, signed_zero=True)(d.selu)
definition("celu", derivative=d.celu_derivative, signed_zero=True)(d.celu)
definition("exponential", derivative=d.exponential)(d.exponential)
definition("squareplus", derivative=d.squareplus_derivative)(d.squareplus)
definition("gelu-erf", "gelu-default", derivative=d.gelu_erf_derivative, signed_zero=True)(d.gelu_erf)
definition("gelu-tanh", derivative=d.gelu_tanh_derivative, signed_zero=True)(d.gelu_tanh)
definition("silu", "swish", "quick-gelu", derivative=d.swish_derivative, signed_zero=True)(d.swish)
definition("mish", derivative=d.mish_derivative, signed_zero=True)(d.mish)
