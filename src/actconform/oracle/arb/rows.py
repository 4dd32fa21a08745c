"""Row kernels in exact arithmetic: every element the binary64 number nearest to the true result.

Sums and quotients of rationals are taken as fractions; exponentials and error functions in Arb's balls, with the precision
raised until both ends of a ball round to the same number (Ziv). What a formula in float64 gets by selection or by one
product (max, maxout, hardmax, argmax, reglu, prelu's values) is correctly rounded already and taken from it.
"""

from __future__ import annotations

from fractions import Fraction
from math import copysign, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from actconform.oracle.arb.flint import python_flint
from actconform.oracle.float64.rows import ROW_FORMULAS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from actconform.oracle.rounding import F64
    from actconform.types import Kernel

Ball: TypeAlias = Any  # flint.arb
# (a row, its cotangent or None) -> the row of values or of gradients; both are finite but for x = -inf beside a finite maximum
Row: TypeAlias = "Callable[[list[float], list[float] | None], list[float]]"

FIRST_BITS = 128
# a sum that is exactly zero is known to round to zero once its ball is below 2**-1075
LAST_BITS = 1 << 14


def exact_rows(kernel: Kernel, inputs: Mapping[str, F64], cotangent: F64 | None) -> dict[str, NDArray[Any]]:
    """Return {"y"}, or with a cotangent of y {"d_x", ...}: every element correctly rounded to binary64, argmax as int64.

    `inputs` hold numbers of 24 bits, as all formats compared do: a product of two is then no tie between neighbours in
    binary64. Shapes and special values are those of `actconform.oracle.float64.rows`. Raises ImportError without python-flint,
    KeyError for a kernel without a formula, or of tier "scaled" without a definition here, ValueError for the gradient of one that has none, and ArithmeticError where
    LAST_BITS do not decide a rounding.
    """
    if kernel.name not in ROW_FORMULAS:
        where = f"actconform.oracle.float64.rows.row_formula({kernel.name!r}, ...)"
        raise KeyError(f"row kernel {kernel.name} has no float64 formula: register one with {where}")
    if kernel.tier != "exact" and kernel.name not in {**_ROWS, **_GATED}:
        raise KeyError(f"row kernel {kernel.name} has no exact definition: add one to actconform.oracle.arb.rows")
    formula = ROW_FORMULAS[kernel.name]
    if cotangent is not None and formula.vjp is None:
        message = f"{kernel.name} has no gradient, by declaration: ask for its value, without a cotangent"
        raise ValueError(message)
    with np.errstate(all="ignore"):
        if cotangent is None or formula.vjp is None:
            rough: dict[str, NDArray[Any]] = {"y": formula.value(inputs, kernel)}
        else:
            rough = dict(formula.vjp(inputs, cotangent, kernel))
        if kernel.name in _ROWS:
            (name,) = rough
            x = -inputs["x"] if kernel.name == "softmin" else inputs["x"]
            sign = -1.0 if kernel.name == "softmin" and cotangent is not None else 1.0
            rough[name] = sign * _by_rows(_ROWS[kernel.name], x, cotangent, kernel.axis, sign * rough[name])
        elif kernel.name in _GATED:
            rough |= _gated(_GATED[kernel.name], inputs["x"], cotangent, kernel.axis, rough)
        elif "d_slope" in rough and cotangent is not None:
            rough["d_slope"] = _slope_gradient(inputs["x"], cotangent, rough["d_slope"])
    return rough


def _rounded(compute: Callable[[Any], list[Ball]]) -> list[float]:
    """Return the binary64 nearest to each real number that `compute(arb)` encloses at the working precision."""
    flint = python_flint()
    done: dict[int, float] = {}
    bits = FIRST_BITS
    while bits <= LAST_BITS:
        with flint.ctx.workprec(bits):
            balls = compute(flint.arb)
            for i, ball in enumerate(balls):
                if i in done:
                    continue
                low, high = float(ball.lower()), float(ball.upper())
                if low == high:
                    done[i] = low if copysign(1.0, low) == copysign(1.0, high) else 0.0
        if len(done) == len(balls):
            return [done[i] for i in range(len(balls))]
        bits *= 2
    undecided = next(i for i in range(len(balls)) if i not in done)
    message = f"{LAST_BITS} bits do not decide how element {undecided} rounds: {balls[undecided]}"
    raise ArithmeticError(message)


def _by_rows(row: Row, x: F64, g: F64 | None, axis: int, rough: F64) -> F64:
    """Apply `row` along `axis`; rows that are not finite, and masked entries, keep what IEEE arithmetic gave in `rough`."""
    out = np.moveaxis(rough.copy(), axis, -1)
    rows = np.moveaxis(x, axis, -1)
    cotangents = None if g is None else np.moveaxis(g, axis, -1)
    for index in np.ndindex(rows.shape[:-1]):
        x_row = rows[index]
        g_row = None if cotangents is None else cotangents[index]
        if np.isfinite(x_row.max()) and (g_row is None or np.isfinite(g_row).all()):
            result_row = row(x_row.tolist(), None if g_row is None else g_row.tolist())
            out[index] = np.where(np.isfinite(x_row), result_row, out[index])
    return np.moveaxis(out, -1, axis)


def _exponentials(arb: Any, x: list[float]) -> list[Ball]:
    top = arb(max(x))
    return [(arb(v) - top).exp() if isfinite(v) else arb(0) for v in x]


def _softmax(x: list[float], g: list[float] | None) -> list[float]:
    def compute(arb: Any) -> list[Ball]:
        e = _exponentials(arb, x)
        total = sum(e, arb(0))
        if g is None:
            return [v / total for v in e]
        mean = sum((v * arb(c) for v, c in zip(e, g, strict=True)), arb(0)) / total
        return [v / total * (arb(c) - mean) for v, c in zip(e, g, strict=True)]

    return _rounded(compute)


def _log_softmax(x: list[float], g: list[float] | None) -> list[float]:
    def compute(arb: Any) -> list[Ball]:
        e = _exponentials(arb, x)
        total = sum(e, arb(0))
        if g is None:
            shift = arb(max(x)) + total.log()
            return [arb(v) - shift if isfinite(v) else arb(0) for v in x]
        scaled_sum = sum((arb(c) for c in g), arb(0)) / total
        return [arb(c) - v * scaled_sum for v, c in zip(e, g, strict=True)]

    return _rounded(compute)


def _sparsemax(x: list[float], g: list[float] | None) -> list[float]:
    exact = [Fraction(v) if isfinite(v) else None for v in x]
    total, count = Fraction(0), 0
    for v in sorted((v for v in exact if v is not None), reverse=True):
        if 1 + (count + 1) * v <= total + v:
            break
        total, count = total + v, count + 1
    tau = (total - 1) / count
    if g is None:
        return [float(v - tau) if v is not None and v > tau else 0.0 for v in exact]
    inside = [v is not None and v > tau for v in exact]
    mean = sum((Fraction(c) for c, s in zip(g, inside, strict=True) if s), Fraction(0)) / count
    return [float(Fraction(c) - mean) if s else 0.0 for c, s in zip(g, inside, strict=True)]


_ROWS: dict[str, Row] = {
    "softmax": _softmax,
    "softmax-axis1": _softmax,
    "softmin": _softmax,
    "log-softmax": _log_softmax,
    "log-softmax-axis1": _log_softmax,
    "sparsemax": _sparsemax,
}


def _slope_gradient(x: F64, g: F64, rough: F64) -> F64:
    """Return the sum of g x where x <= 0, for each entry of the last axis; columns that are not finite stay as they are."""
    out = rough.copy()
    x, g = (array.reshape(-1, array.shape[-1]) for array in (x, g))
    for c in np.flatnonzero(np.isfinite(rough)):
        terms = (Fraction(v) * Fraction(w) for v, w in zip(x[:, c].tolist(), g[:, c].tolist(), strict=True) if v <= 0)
        out[c] = float(sum(terms, Fraction(0)))
    return out


class _Factor(NamedTuple):
    """A function of a ball and its derivative; no derivative means that it is 1."""

    value: Callable[[Ball], Ball]
    derivative: Callable[[Ball], Ball] | None


def _sigmoid(x: Ball) -> Ball:
    # exp of a large positive number would overflow the exponent
    e = (-abs(x)).exp()
    return (1 if x >= 0 else e) / (1 + e)


def _normal_cdf(x: Ball) -> Ball:
    return (-x / python_flint().arb(2).sqrt()).erfc() / 2


def _gelu_derivative(x: Ball) -> Ball:
    arb = python_flint().arb
    return _normal_cdf(x) + x * (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


_IDENTITY = _Factor(lambda x: x, None)
_SIGMOID = _Factor(_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x))
_SILU = _Factor(lambda x: x * _sigmoid(x), lambda x: _sigmoid(x) * (1 + x * _sigmoid(-x)))
_GELU = _Factor(lambda x: x * _normal_cdf(x), _gelu_derivative)
_GATED = {"glu": (_IDENTITY, _SIGMOID), "swiglu": (_SILU, _IDENTITY), "geglu": (_GELU, _IDENTITY)}


def _gated(
    factors: tuple[_Factor, _Factor], x: F64, g: F64 | None, axis: int, rough: Mapping[str, F64]
) -> dict[str, NDArray[Any]]:
    first, second = factors
    a, b = np.split(x, 2, axis=axis)
    if g is None:
        return {"y": _products([(first.value, a), (second.value, b)], rough["y"])}
    rough_a, rough_b = np.split(rough["d_x"], 2, axis=axis)
    d_a = _products([(_IDENTITY.value, g), (first.derivative, a), (second.value, b)], rough_a)
    d_b = _products([(_IDENTITY.value, g), (first.value, a), (second.derivative, b)], rough_b)
    return {"d_x": np.concatenate([d_a, d_b], axis=axis)}


def _products(terms: list[tuple[Callable[[Ball], Ball] | None, F64]], rough: F64) -> F64:
    """Return the products of functions of arrays, element by element; with `rough` where something is not finite."""
    used = [(function, array) for function, array in terms if function is not None]
    finite = np.logical_and.reduce([np.isfinite(array) for _, array in used])
    out = rough.copy()
    for index in map(tuple, np.argwhere(finite).tolist()):
        values = [(function, float(array[index])) for function, array in used]
        out[index] = _product(values) or copysign(0.0, float(rough[index]))
    return out


def _product(values: list[tuple[Callable[[Ball], Ball], float]]) -> float:
    def compute(arb: Any) -> list[Ball]:
        product = arb(1)
        for function, value in values:
            product *= function(arb(value))
        return [product]

    return _rounded(compute)[0]
