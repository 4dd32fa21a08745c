"""Arithmetic that carries along what rounding may have done: running error analysis (Higham 2002, section 3.3; Wilkinson 1986).

A formula written in `Bounded` numbers is computed in float64, and beside each value stands how far an implementation in `fmt`
may be from it that rounds every step to `fmt` and sums in any order. Allowed beyond the one rounding of IEEE arithmetic: two
for a division (a product with the reciprocal), four for 1 / sqrt, `EXP_ULP` for exp and log. `step` is what may be lost
below the normal range, as in tolerance.row_bounds. Sums in 16 bits are taken to be pairwise or in a wider accumulator. Errors of
2**-53 in the values, and overflow of intermediate results, are not in the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actconform.oracle.rounding import round_to
from actconform.tolerance.row_bounds import EXP_ULP, dot_factor, flushes
from actconform.types.dtypes import FloatFormat  # noqa: TC001  part of a dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.oracle.layers.registry import Reading

F64: TypeAlias = NDArray[np.float64]
Axes: TypeAlias = int | tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Bounded:
    """A number that an implementation in `fmt` has computed as something within `error` of `value`, elementwise.

    `value` and `error` have one shape and float64; `error` >= 0, infinite or NaN where rounding may do anything, as in a
    division by what may be zero. Operators broadcast as NumPy's do and take plain numbers, which are constants of `fmt`.
    """

    value: F64
    error: F64
    fmt: FloatFormat

    __array_ufunc__ = None  # so that array + Bounded calls Bounded.__radd__

    @property
    def reach(self) -> F64:
        """The largest magnitude that it may have."""
        reach: F64 = np.abs(self.value) + self.error
        return reach

    def moved(self, move: Callable[[F64], F64]) -> Bounded:
        """Return it with its elements moved by `move`, without arithmetic."""
        return Bounded(move(self.value), move(self.error), self.fmt)

    def __getitem__(self, place: Any) -> Bounded:
        return Bounded(self.value[place], self.error[place], self.fmt)

    def __neg__(self) -> Bounded:
        return Bounded(-self.value, self.error, self.fmt)

    def __abs__(self) -> Bounded:
        return Bounded(np.abs(self.value), self.error, self.fmt)

    def __add__(self, operand: Bounded | float) -> Bounded:
        operand = self._operand(operand)
        return self._rounded(self.value + operand.value, self.error + operand.error)

    def __sub__(self, operand: Bounded | float) -> Bounded:
        return self + -self._operand(operand)

    def __mul__(self, operand: Bounded | float) -> Bounded:
        operand = self._operand(operand)
        error = np.abs(self.value) * operand.error + self.error * operand.reach
        return self._rounded(self.value * operand.value, error)

    def __truediv__(self, operand: Bounded | float) -> Bounded:
        operand = self._operand(operand)
        value = self.value / operand.value
        certain = np.abs(operand.value) - operand.error
        error = np.where(certain > 0.0, (self.error + np.abs(value) * operand.error) / certain, np.inf)
        return self._rounded(value, error, roundings=2)

    def __radd__(self, operand: float) -> Bounded:
        return self + operand

    def __rsub__(self, operand: float) -> Bounded:
        return -self + operand

    def __rmul__(self, operand: float) -> Bounded:
        return self * operand

    def __matmul__(self, operand: Bounded) -> Bounded:
        """Sums of k products in any order: `dot_factor(k, u)` of their absolute values."""
        k = self.value.shape[-1]
        reach = self.reach @ operand.reach
        # the difference is 0 or off by 2**-53 of what `dot_factor` allows anyway
        passed_on = np.maximum(reach - np.abs(self.value) @ np.abs(operand.value), 0.0)
        product_rounding = self.fmt.unit_roundoff if self.fmt.bits == 16 else 0.0
        error = passed_on + (sum_factor(k, self.fmt) + product_rounding) * reach + self._lost(reach, 2 * k)
        return Bounded(self.value @ operand.value, error, self.fmt)

    def __rtruediv__(self, operand: float) -> Bounded:
        return self._operand(operand) / self

    def __pow__(self, exponent: float) -> Bounded:
        """Return a power: a root, with exponent 0.5, of what is not negative; or of a number above 0 by any exponent, off as `exp` is.

        A power of what is exactly 0 by a positive exponent is 0.
        """
        if exponent == 0.5:
            value = np.sqrt(self.value)
            above = np.sqrt(self.value + self.error) - value
            below = value - np.sqrt(np.maximum(self.value - self.error, 0.0))
            return self._rounded(value, np.maximum(above, below), roundings=2)
        value = self.value**exponent
        exact = (self.value == 0.0) & (self.error == 0.0) & (exponent > 0.0)
        share = self.error / np.where(exact, 1.0, self.value)
        relative = np.abs(exponent) * np.where(share < 1.0, -np.log1p(-np.minimum(share, 1.0)), np.inf)
        relative = relative + self.fmt.unit_roundoff * 2.0 * EXP_ULP[self.fmt.bits]
        return Bounded(value, np.where(exact, 0.0, value * np.expm1(relative) + self._step()), self.fmt)

    def sum(self, axis: Axes) -> Bounded:
        """Return the sum along `axis`, kept at length 1, in any order."""
        value, error, reach = (np.sum(part, axis=axis, keepdims=True) for part in (self.value, self.error, self.reach))
        k = self.value.size // max(value.size, 1)
        return Bounded(value, error + sum_factor(k, self.fmt) * reach + self._lost(reach, k), self.fmt)

    def mean(self, axis: Axes) -> Bounded:
        """Return the mean along `axis`, kept at length 1: one sum and division, or means of means."""
        total = self.sum(axis)
        mean = total / float(self.value.size // max(total.value.size, 1))
        return self._rounded(mean.value, mean.error)

    def exp(self) -> Bounded:
        """Return e to its power: off by `EXP_ULP`, and by a rounding of the argument in the reduction of its range."""
        value = np.exp(self.value)
        unit = self.fmt.unit_roundoff
        relative = self.error + unit * (2.0 * EXP_ULP[self.fmt.bits] + self.reach)
        return Bounded(value, value * np.expm1(relative) + self._step(), self.fmt)

    def log(self) -> Bounded:
        """Return the natural logarithm; its error is infinite where the number may be 0."""
        value = np.log(self.value)
        share = self.error / self.value
        error = np.where(share < 1.0, -np.log1p(-np.minimum(share, 1.0)), np.inf)
        unit = 2.0 * EXP_ULP[self.fmt.bits] * self.fmt.unit_roundoff
        return Bounded(value, error + unit * (np.abs(value) + error), self.fmt)

    def inverse_root(self, least: float = 0.0) -> Bounded:
        """Return 1 / sqrt; `least` is below what the number itself may be computed as."""
        value = 1.0 / np.sqrt(self.value)
        # upwards it moves further, unless `least` holds it
        above = 1.0 / np.sqrt(np.maximum(self.value - self.error, least)) - value
        below = value - 1.0 / np.sqrt(self.value + self.error)
        return self._rounded(value, np.maximum(above, below), roundings=4)

    def clip(self, low: float, high: float) -> Bounded:
        """Return it between two constants, which `fmt` may have to round; no error where it is surely beyond them."""
        value, rounding = (
            np.clip(self.value, low, high),
            max(_representation_error(low, self.fmt), _representation_error(high, self.fmt)),
        )
        above = np.clip(self.value + self.error, low, high) - value
        below = value - np.clip(self.value - self.error, low, high)
        error = np.maximum(above, below) + np.where(value == self.value, 0.0, rounding)
        return Bounded(value, error, self.fmt)

    def _operand(self, operand: Bounded | float) -> Bounded:
        if isinstance(operand, Bounded):
            return operand
        return constant_number(operand, self.fmt)

    def _rounded(self, value: F64, error: F64, roundings: int = 1) -> Bounded:
        error = error + roundings * self.fmt.unit_roundoff * (np.abs(value) + error)
        small = (np.abs(value) - error < self.fmt.smallest_normal) & ((value != 0.0) | (error > 0.0))
        return Bounded(value, error + np.where(small, roundings * self._step(), 0.0), self.fmt)

    def _lost(self, reach: F64, times: int) -> F64:
        return np.where(reach > 0.0, times * self._step(), 0.0)

    def _step(self) -> float:
        return self.fmt.smallest_normal if flushes(self.fmt) else self.fmt.smallest_subnormal


def exact_inputs(values: F64, fmt: FloatFormat) -> Bounded:
    """Return numbers of `fmt` as they are; subnormal ones may be read as zero where hardware flushes."""
    lost = np.abs(values) < (fmt.smallest_normal if flushes(fmt) else 0.0)
    return Bounded(values, np.where(lost, np.abs(values), 0.0), fmt)


def constant_number(number: float, fmt: FloatFormat) -> Bounded:
    """Return a constant that is written with all its digits, and may be computed with as the nearest number of `fmt`."""
    return Bounded(np.asarray(number, np.float64), np.asarray(_representation_error(number, fmt)), fmt)


def bounded_inputs(reading: Reading, fmt: FloatFormat) -> list[Bounded]:
    """Return a layer's inputs, each with the error that its reading knows of."""
    exact = [exact_inputs(array, fmt) for array in reading.inputs]
    if not reading.errors:
        return exact
    return [Bounded(x.value, x.error + error, fmt) for x, error in zip(exact, reading.errors, strict=True)]


def widest(first: Bounded, *alternatives: Bounded) -> Bounded:
    """Return one value, written in several ways, with the largest of the errors: an implementation may choose."""
    error = first.error
    for alternative in alternatives:
        error = np.maximum(error, alternative.error)
    return Bounded(first.value, error, first.fmt)


def projected(x: Bounded, kernel: Bounded, bias: Bounded) -> Bounded:
    """Return x W + b, b one more term of the sums: matrix products begin with it as often as they end with it."""
    ones = np.ones((*x.value.shape[:-1], 1))
    longer = Bounded(np.concatenate([x.value, ones], -1), np.concatenate([x.error, 0.0 * ones], -1), x.fmt)
    higher = [np.concatenate([w, b[None]]) for w, b in ((kernel.value, bias.value), (kernel.error, bias.error))]
    return longer @ Bounded(higher[0], higher[1], x.fmt)


def _representation_error(constant: float, fmt: FloatFormat) -> float:
    """Return how far a constant may be from what is written; one beyond the largest number of `fmt` is kept in a wider format."""
    if abs(constant) >= fmt.overflow:
        return fmt.unit_roundoff * abs(constant)
    return float(abs(round_to(np.asarray(constant), fmt) - constant))


def sum_factor(k: int, fmt: FloatFormat) -> float:
    """Return the error of a sum of k terms in units of the sum of their absolute values."""
    if fmt.bits > 16:
        return dot_factor(k, fmt.unit_roundoff)
    return (1.0 + float(np.log2(max(k, 1)))) * fmt.unit_roundoff
