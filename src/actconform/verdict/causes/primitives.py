"""The functions of formulas: library functions with their stated accuracy, choices, and what works on rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from scipy import special

from actconform.tolerance.running_error import sum_factor
from actconform.tolerance.ulp import ulp_of
from actconform.verdict.causes.arithmetic import SIGN_UNKNOWN, Condition, Number, settled

if TYPE_CHECKING:
    from actconform.verdict.causes.arithmetic import F64

Function: TypeAlias = Callable[["F64"], "F64"]
NanRule: TypeAlias = Literal["spreads", "skipped"]

UNSTATED = (4.0, 0.0)  # ULP in f32 of a primitive of which a library states nothing
FLOAT64 = (4.0, 0.0)  # of NumPy's and SciPy's functions, which evaluate formulas
UNSTATED_16 = (1.0, 0.0)  # in 16 bits a wider function, rounded once


def _softplus(x: F64) -> F64:
    return np.logaddexp(0.0, x)


def _sqrt(x: F64) -> F64:
    return np.sqrt(np.where((x < 0) & (x > -1e-300), 0.0, x))


def _sigmoid(x: F64) -> F64:
    """Return 1 / (1 + exp(-x)); SciPy's is 0 already where exp(-x) overflows."""
    decay = np.exp(-np.abs(x))
    return np.where(x < 0, decay, 1.0) / (1.0 + decay)


LIBRARY_FUNCTIONS: Mapping[str, Function] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "erf": special.erf,
    "erfc": special.erfc,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
    "sqrt": _sqrt,
}
ANCHORED = ("exp", "expm1", "log1p", "tanh", "erf", "erfc", "sqrt", "sigmoid")  # exact at 0, in every library


def accuracy_of(name: str, number: Number) -> tuple[float, float]:
    """Return the stated error of a primitive in the number's format: ULP of the result, and units u absolute."""
    arithmetic = number.arithmetic
    if arithmetic.exact:
        return arithmetic.accuracy.get(f"{name}/f64", FLOAT64)
    if arithmetic.fmt.bits == 16:
        return arithmetic.accuracy.get(f"{name}/{arithmetic.fmt.name}", UNSTATED_16)
    return arithmetic.accuracy.get(name, UNSTATED)


def primitive(name: str, x: Number, variant: str = "") -> Number:
    """Return a monotone library function of x: off through its argument by f(x + e) - f(x), by itself by its accuracy."""
    function = LIBRARY_FUNCTIONS[name]
    value = function(x.value)
    relative, absolute = accuracy_of(variant or name, x)
    passed_on = np.where(
        x.error > 0,
        np.maximum(np.abs(function(x.value + x.error) - value), np.abs(value - function(x.value - x.error))),
        0.0,
    )
    passed_on = np.where(np.isfinite(x.error), passed_on, x.error)
    own_error = _own_error(np.abs(value) + passed_on, relative, absolute, x)
    result = settled(value, passed_on + np.where(np.isfinite(value), own_error, 0.0), x.arithmetic, 0)
    if name in ANCHORED:
        return Number(result.value, np.where((x.value == 0) & (x.error == 0), 0.0, result.error), x.arithmetic)
    return result


def _own_error(reach: F64, relative: float, absolute: float, x: Number) -> F64:
    """Return the error of a primitive in itself: ULP of the result, none of what surely underflows, and units u."""
    fmt = x.arithmetic.fmt
    ulp = np.where(reach >= fmt.smallest_subnormal / 4, ulp_of(np.atleast_1d(reach), fmt).reshape(np.shape(reach)), 0.0)
    return relative * ulp + absolute * fmt.unit_roundoff


def log(x: Number) -> Number:
    """Return the natural logarithm; its error is infinite where x may be 0."""
    value = np.log(x.value)
    relative, absolute = accuracy_of("log", x)
    share = x.error / np.abs(x.value)
    passed_on = np.where(x.error == 0, 0.0, np.where(share < 1, -np.log1p(-np.minimum(share, 1)), np.inf))
    own_error = _own_error(np.abs(value) + passed_on, relative, absolute, x)
    error = np.where(~np.isfinite(value) & (x.error == 0), 0.0, passed_on + own_error)
    return settled(value, error, x.arithmetic, 0)


def square(x: Number) -> Number:
    """Return x^2 by a library's power function, off by its accuracy beside the rounding."""
    product = x * x
    own_error = 2.0 * accuracy_of("square", x)[0] * x.arithmetic.fmt.unit_roundoff * np.abs(product.value)
    return Number(product.value, product.error + np.where(np.isfinite(own_error), own_error, 0.0), x.arithmetic)


def reciprocal(x: Number) -> Number:
    """Return 1 / x as hardware approximates it: by a library's stated accuracy where it states one, else rounded once."""
    quotient = 1.0 / x
    relative, _ = x.arithmetic.accuracy.get("reciprocal", (0.0, 0.0))
    own_error = _own_error(
        np.abs(quotient.value) + np.where(np.isfinite(quotient.error), quotient.error, 0.0), relative, 0.0, x
    )
    return Number(quotient.value, quotient.error + np.where(np.isfinite(quotient.value), own_error, 0.0), x.arithmetic)


def hypot(a: Number, b: Number | float) -> Number:
    """Return sqrt(a^2 + b^2) without intermediate overflow."""
    b = a.operand(b)
    value = np.hypot(a.value, b.value)
    own_error = 2.0 * a.arithmetic.fmt.unit_roundoff * value
    error = a.error + b.error + np.where(np.isfinite(value), own_error, 0.0)
    return settled(value, np.where(np.isinf(value), 0.0, error), a.arithmetic, 0)


def where(condition: Condition, yes: Number, no: Number | float) -> Number:
    """Return `yes` or `no`; where rounding may turn the condition, an error that reaches both."""
    no = yes.operand(no)
    value, skipped = np.where(condition.holds, yes.value, no.value), np.where(condition.holds, no.value, yes.value)
    error, skipped_error = (
        np.where(condition.holds, yes.error, no.error),
        np.where(condition.holds, no.error, yes.error),
    )
    if condition.unsure.any():
        apart = np.where(value == skipped, 0.0, np.abs(value - skipped)) + skipped_error
        turned = condition.unsure & ~(np.isnan(value) & np.isnan(skipped))
        error = np.where(turned, np.where(np.isnan(apart), np.nan, np.maximum(error, apart)), error)
    return Number(value, error, yes.arithmetic)


def maximum(a: Number, b: Number | float, nan: NanRule = "spreads") -> Number:
    """Return the larger; which zero comes of -0 and +0 is left open. `nan`: NaN in one operand spreads, or is skipped."""
    b = a.operand(b)
    value = (np.maximum if nan == "spreads" else np.fmax)(a.value, b.value)
    error = np.where(
        a.value - a.error > b.value + b.error,
        a.error,
        np.where(b.value - b.error > a.value + a.error, b.error, np.maximum(a.error, b.error)),
    )
    either = (a.value == 0) & (b.value == 0) & (np.signbit(a.value) != np.signbit(b.value))
    return Number(value, np.where(either, np.maximum(error, SIGN_UNKNOWN), error), a.arithmetic)


def minimum(a: Number, b: Number | float, nan: NanRule = "spreads") -> Number:
    """Return the smaller, as `maximum` does."""
    return -maximum(-a, -a.operand(b), nan)


def clip(x: Number, low: Number | float, high: Number | float) -> Number:
    """Return x between two bounds."""
    return minimum(maximum(x, low), high)


def sign(x: Number) -> Number:
    """Return -1, 0 or 1 by the sign of x, perhaps any of them where its error reaches zero."""
    return Number(np.sign(x.value), np.where((np.abs(x.value) <= x.error) & (x.error > 0), 1.0, 0.0), x.arithmetic)


def mask(condition: Condition, like: Number) -> Number:
    """Return 1 where the condition holds and 0 elsewhere, in the arithmetic of `like`."""
    return Number(condition.holds.astype(np.float64), condition.unsure.astype(np.float64), like.arithmetic)


def total(x: Number, axis: int | tuple[int, ...] | None, *, keepdims: bool = True) -> Number:
    """Return the sum along an axis, in any order."""
    parts = (x.value, x.error, np.abs(x.value) + x.error)
    value, error, reach = (np.asarray(np.sum(part, axis=axis, keepdims=keepdims)) for part in parts)
    terms = x.value.size // max(value.size, 1)
    if terms < 2:
        return Number(value, error, x.arithmetic)
    rounding = sum_factor(terms, x.arithmetic.fmt)
    sure = ~np.isfinite(value) & np.isfinite(error)  # an infinity or NaN among the terms, none of them in doubt
    error = np.where(sure, 0.0, np.where(reach == 0, 0.0, reach * rounding) + error)
    return settled(value, error, x.arithmetic, 0)


def largest(x: Number, axis: int | tuple[int, ...], nan: NanRule = "spreads", *, keepdims: bool = True) -> Number:
    """Return the maximum along an axis; `nan`: NaN spreads, or is skipped unless all are."""
    value = x.value.max(axis, keepdims=keepdims)
    if nan == "skipped":
        value = np.fmax.reduce(x.value, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]
    error = np.max(np.where(np.isfinite(x.error), x.error, 0.0), axis=axis, keepdims=keepdims)
    return Number(np.asarray(value), np.asarray(error), x.arithmetic)


def softmax(x: Number, axis: int, nan: NanRule = "spreads", *, logarithm: bool = False) -> Number:
    """Return softmax or its logarithm along an axis, shifted by the maximum."""
    shifted = x - largest(x, axis, nan)
    powers = primitive("exp", shifted)
    return shifted - log(total(powers, axis)) if logarithm else powers / total(powers, axis)
