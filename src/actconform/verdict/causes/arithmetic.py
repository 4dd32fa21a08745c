"""Running-error arithmetic with IEEE specials: what an implementation that rounds every step may give, element by element.

A formula written in `Number` is computed once in float64. Beside each value stands how far an implementation may be from it that
rounds every operation to `Arithmetic.fmt` in any order the formula allows, with or without fused multiply-adds (Higham 2002,
section 3.3). In the same pass overflow, underflow and invalid operations are taken as IEEE 754 takes them: what surely overflows is
infinity without error, what may overflow has an infinite error, 0/0, inf - inf and inf * 0 are NaN. So one evaluation tells which
infinities, NaN and signed zeros must come, and where they may.

An operation without rounding (a product of powers of two, a sum of neighbours, a maximum) has no error. Comparisons know where
rounding may turn them; `where` then admits both branches. A value of NaN or infinity with error 0 must be just that; an infinite
error admits any number or infinity, an error of NaN admits anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actconform.oracle.rounding import round_to
from actconform.tolerance.row_bounds import flushes
from actconform.types.dtypes import FloatFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.types.cause import LibraryAccuracy

F64: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
Flush: TypeAlias = Literal["kept", "may", "always"]

EXACT = FloatFormat(
    "f64", 64, 53, -960, 1022
)  # binary64, short of the ends of its range: mathematics as far as it reaches
EXPONENT = np.int64(0x7FF0_0000_0000_0000)
SIGN_UNKNOWN = 5e-324  # an error that changes no number but admits either zero


@dataclass(frozen=True)
class Arithmetic:
    """How an implementation computes: format, subnormal numbers, division, accuracy of its primitives.

    `flush`: "kept" is gradual underflow, "may" lets subnormal inputs and results become zero, "always" makes them zero. It
    holds for float32 and what is converted to it by shifting: hardware keeps the subnormal numbers of float16 all the same.
    `division` counts the roundings of a division: 2 where it is a product with the reciprocal.
    `accuracy` maps a primitive to its error in ULP of the result and in units of u = 2**-precision, absolute.
    """

    fmt: FloatFormat
    flush: Flush = "kept"
    division: int = 1
    accuracy: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, library: LibraryAccuracy, fmt: FloatFormat, facts: Mapping[str, str]) -> Arithmetic:
        """Return the arithmetic of a library in a format, under the facts of the machine."""
        accuracy = {
            name: (library.ulp.get(name, 0.0 if name in library.absolute else 1.0), library.absolute.get(name, 0.0))
            for name in library.ulp.keys() | library.absolute.keys()
        }
        by_fact: Flush = "always" if facts.get("subnormals") == "flushed" else "kept"
        return cls(fmt, library.flush or by_fact, library.division, accuracy)

    @property
    def exact(self) -> bool:
        """Whether it is float64 itself, in which constants are as they are written."""
        return self.fmt.precision >= EXACT.precision

    @property
    def underflow(self) -> Flush:
        """What becomes of subnormal numbers in this format."""
        return self.flush if flushes(self.fmt) else "kept"

    def to(self, fmt: FloatFormat) -> Arithmetic:
        """Return the same in another format."""
        return replace(self, fmt=fmt)


@dataclass(frozen=True, eq=False)
class Condition:
    """A comparison elementwise, and where rounding may turn it."""

    holds: Mask
    unsure: Mask

    def __invert__(self) -> Condition:
        return Condition(~self.holds, self.unsure)

    def __and__(self, condition: Condition) -> Condition:
        unsure = (self.unsure & (condition.holds | condition.unsure)) | (condition.unsure & (self.holds | self.unsure))
        return Condition(self.holds & condition.holds, unsure)

    def __or__(self, condition: Condition) -> Condition:
        return ~(~self & ~condition)


@dataclass(frozen=True, eq=False)
class Number:
    """A float64 array `value` and how far an implementation may be from it, `error`, in one shape."""

    value: F64
    error: F64
    arithmetic: Arithmetic

    __array_ufunc__ = None  # array + Number is left to Number's operators

    def _exactly(self, in_float64: Mask, in_format: Any) -> Any:
        """Tell where float64 computes a product or quotient without error: of numbers of a narrow format it has twice the bits."""
        return in_float64 if self.arithmetic.exact else in_format

    @property
    def sign_unknown(self) -> Mask:
        """Where its error reaches beyond zero."""
        return (np.abs(self.value) <= self.error) & (self.error > 0)

    @property
    def surely_nan(self) -> Mask:
        """Where it is NaN, without doubt: then so is what is computed with it."""
        certain: Mask = np.isnan(self.value) & (self.error == 0)
        return certain

    def operand(self, number: Number | float) -> Number:
        """Return a plain number as a constant of the format, with the error of its rounding."""
        if isinstance(number, Number):
            return number
        return Number(*_constant(float(number).hex(), self.arithmetic.fmt), self.arithmetic)

    def moved(self, move: Callable[[F64], F64]) -> Number:
        """Return it with its elements moved by `move`, without arithmetic."""
        return Number(move(self.value), move(self.error), self.arithmetic)

    def rounded_to(self, arithmetic: Arithmetic) -> Number:
        """Return it converted to another arithmetic: rounded once where that is narrower."""
        if arithmetic.fmt.precision < self.arithmetic.fmt.precision:
            return settled(self.value, self.error, arithmetic, exact=np.True_)
        return Number(self.value, self.error, arithmetic)

    def __neg__(self) -> Number:
        return Number(-self.value, self.error, self.arithmetic)

    def __abs__(self) -> Number:
        return Number(np.abs(self.value), self.error, self.arithmetic)

    def __add__(self, addend: Number | float) -> Number:
        addend = self.operand(addend)
        total = self.value + addend.value
        back = total - self.value
        exact = (self.value == total - back) & (addend.value == back)  # Knuth's two-sum: float64 lost nothing
        return settled(total, self.error + addend.error, self.arithmetic, exact=exact)

    def __sub__(self, subtrahend: Number | float) -> Number:
        return self + -self.operand(subtrahend)

    def __mul__(self, factor: Number | float) -> Number:
        factor = self.operand(factor)
        a, b = np.abs(self.value), np.abs(factor.value)
        product = self.value * factor.value
        if _all_finite(a, self.error, b, factor.error):
            error = a * factor.error + self.error * (b + factor.error)
        else:
            error = _times(a, factor.error) + _times(self.error, b + factor.error)
            certain = (np.isinf(a) & (self.error == 0) & (b > factor.error)) | (
                np.isinf(b) & (factor.error == 0) & (a > self.error)
            )
            certain |= self.surely_nan | factor.surely_nan
            wild = (np.isinf(self.error) & (b <= factor.error)) | (np.isinf(factor.error) & (a <= self.error))
            wild |= np.isnan(self.error) | np.isnan(factor.error)
            error = np.where(certain, 0.0, np.where(wild, np.nan, error))
        either = (product == 0) & (error == 0)
        if either.any():
            error = np.where(either & (self.sign_unknown | factor.sign_unknown), SIGN_UNKNOWN, error)
        return settled(product, error, self.arithmetic, exact=self._exactly(_is_power(a) | _is_power(b), np.True_))

    def __truediv__(self, divisor: Number | float) -> Number:
        divisor = self.operand(divisor)
        quotient = self.value / divisor.value
        least = np.abs(divisor.value) - divisor.error
        if _all_finite(self.value, self.error, divisor.value, divisor.error) and (least > 0).all():
            error = (self.error + np.abs(quotient) * divisor.error) / least
        else:
            error = self._quotient_error(divisor, quotient, least)
        error = np.where((quotient == 0) & (error == 0) & self.sign_unknown, SIGN_UNKNOWN, error)
        exact = self._exactly(_is_power(np.abs(divisor.value)), divisor.value * quotient == self.value)
        return settled(quotient, error, self.arithmetic, self.arithmetic.division, exact=exact)

    def _quotient_error(self, divisor: Number, quotient: F64, least: F64) -> F64:
        """Return the error that the operands bring into a quotient where infinities or a divisor near zero are among them."""
        nonzero = np.abs(self.value) > self.error
        by_infinity = np.where(np.isinf(self.error), np.nan, 0.0)  # what may be infinite too gives NaN
        error = (self.error + _times(np.abs(quotient), divisor.error)) / least
        error = np.where(np.isinf(divisor.value), by_infinity, error)
        sure = np.isinf(self.value) & (self.error == 0) & (least > 0)
        sure |= (divisor.value == 0) & (divisor.error == 0) & (nonzero | (self.error == 0))
        sure |= np.isnan(quotient) & (self.error + divisor.error == 0) | self.surely_nan | divisor.surely_nan
        return np.where(sure, 0.0, np.where(least > 0, error, np.where(nonzero, np.inf, np.nan)))

    def __radd__(self, addend: float) -> Number:
        return self + addend

    def __rsub__(self, minuend: float) -> Number:
        return self.operand(minuend) - self

    def __rmul__(self, factor: float) -> Number:
        return self * factor

    def __rtruediv__(self, dividend: float) -> Number:
        return self.operand(dividend) / self

    def compared(self, number: Number | float, test: Callable[[F64, F64], Mask]) -> Condition:
        """Return `test` of both values, unsure where their errors overlap."""
        number = self.operand(number)
        slack = self.error + number.error
        near = (np.abs(self.value - number.value) <= slack) & (slack > 0)
        return Condition(test(self.value, number.value), near | np.isnan(slack))


def settled(value: F64, error: Any, arithmetic: Arithmetic, roundings: int = 1, *, exact: Any = False) -> Number:
    """Return the result of an operation: rounded to the format, lost below it or infinite above it.

    `error` is what the operands bring along. `exact` tells where `value` has no error of float64: there it has none of the format
    either, if it is a number of it. `roundings` of 0 is for a primitive, whose error is in `error` already.
    """
    fmt, shape = arithmetic.fmt, np.shape(value)
    value = np.atleast_1d(np.asarray(value, np.float64))
    brought = np.broadcast_to(np.asarray(error, np.float64), value.shape)
    size = np.abs(value)
    reach = size + brought
    half = _half_ulp(reach, fmt)
    rounded = brought + (roundings * half if roundings else np.where(size < fmt.smallest_normal, half, 0.0))
    if roundings == 1:
        free = exact & (brought == 0)
        if np.any(free):
            rounded = np.where(free & _is_number_of(value, size, fmt), 0.0, rounded)
    value, rounded = _underflown(value, size, brought, rounded, arithmetic)
    if reach.size and reach.max() < fmt.overflow / 4:  # false where there is a NaN
        return Number(value.reshape(shape), rounded.reshape(shape), arithmetic)
    finite = np.isfinite(size)
    overflows = (np.where(brought > 0, size - rounded, size) >= fmt.overflow) & finite
    rounded = np.where(~overflows & (brought > 0) & (size + rounded >= fmt.overflow) & finite, np.inf, rounded)
    value = np.where(overflows, np.copysign(np.inf, value), value)
    special = ~finite
    rounded = np.where(overflows, 0.0, np.where(special, np.where(np.isfinite(brought), 0.0, np.nan), rounded))
    return Number(value.reshape(shape), rounded.reshape(shape), arithmetic)


@cache
def _constant(digits: str, fmt: FloatFormat) -> tuple[F64, F64]:
    """Return a number, in hexadecimal as 0.0 equals -0.0, as one of the format, and the error of its rounding; both are only read."""
    wide = np.asarray(float.fromhex(digits))
    if fmt.precision >= EXACT.precision:
        return wide, np.zeros(())
    rounded = round_to(wide, fmt)
    return rounded, np.where(rounded == wide, 0.0, np.abs(rounded - wide))


def _all_finite(*arrays: F64) -> bool:
    """Tell whether no array holds an infinity or NaN; one that is near the largest number may count as one that does."""
    return all(np.isfinite(array.sum()) for array in arrays)


def _half_ulp(reach: F64, fmt: FloatFormat) -> F64:
    """Return half the gap between numbers of the format at each magnitude, never below the subnormal gap; 0 at zero."""
    binade = (reach.view(np.int64) & EXPONENT).view(np.float64)
    half = np.maximum(binade * 2.0**-fmt.precision, fmt.smallest_subnormal / 2)
    nonzero: F64 = half * (reach != 0)
    return nonzero


def _underflown(value: F64, size: F64, brought: F64, error: F64, arithmetic: Arithmetic) -> tuple[F64, F64]:
    """Return value and error where results below the normal range are lost: surely, or perhaps."""
    fmt = arithmetic.fmt
    if not (size - error < fmt.smallest_normal).any():
        return value, error
    if arithmetic.underflow == "kept":
        # mathematics has no least number: below float64's range a result is unsure, not 0
        gone = (size + brought <= fmt.smallest_subnormal / 2) & (not arithmetic.exact)
    else:
        small = (size - error < fmt.smallest_normal) & ((value != 0) | (error > 0))
        gone = (size + error < fmt.smallest_normal * (1 - 2 * fmt.unit_roundoff)) & (arithmetic.underflow == "always")
        error = np.where(small, error + fmt.smallest_normal, error)
    gone &= value != 0
    nothing = np.where(brought > size, SIGN_UNKNOWN, 0.0)
    return np.where(gone, np.copysign(0.0, value), value), np.where(gone, nothing, error)


def _is_number_of(value: F64, size: F64, fmt: FloatFormat) -> Mask:
    """Tell which finite values are numbers of the format: no bit beyond its precision, none below its last subnormal."""
    surplus = np.int64((1 << (EXACT.precision - fmt.precision)) - 1)
    fits = (np.ascontiguousarray(value).view(np.int64) & surplus) == 0
    steps = size / fmt.smallest_subnormal
    representable: Mask = np.where(size >= fmt.smallest_normal, fits, steps == np.floor(steps))
    return representable


def _is_power(size: F64) -> Mask:
    """Tell which magnitudes are powers of two, or 0: they multiply and divide without rounding."""
    fraction = np.int64(0x000F_FFFF_FFFF_FFFF)
    power: Mask = (np.ascontiguousarray(size).view(np.int64) & fraction) == 0
    return power.reshape(np.shape(size)) & np.isfinite(size)


def _times(a: F64, b: F64) -> F64:
    """Return a b, 0 where either factor is 0."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def as_read(values: F64, arithmetic: Arithmetic) -> Number:
    """Return inputs, numbers of the format, as the implementation reads them: subnormal ones perhaps as zero."""
    values = np.asarray(values, np.float64)
    none = np.zeros(values.shape)
    if arithmetic.underflow == "kept":
        return Number(values, none, arithmetic)
    low = np.abs(values) < arithmetic.fmt.smallest_normal
    if arithmetic.underflow == "always":
        return Number(np.where(low, np.copysign(0.0, values), values), none, arithmetic)
    return Number(values, np.where(low, np.abs(values), 0.0), arithmetic)


def admits(number: Number, got: F64, *, zero_sign: bool) -> Mask:
    """Tell for each output whether the implementation can have given it; `zero_sign`: a zero's sign counts."""
    value, error = number.value, number.error
    with np.errstate(invalid="ignore"):
        near = (~np.isnan(value) & (np.abs(got - value) <= error)) | (got == value)
    if zero_sign:
        near &= (np.signbit(got) == np.signbit(value)) | (error > 0) | (got != 0) | (value != 0)
    finite_or_nan = np.where(np.isnan(got), np.isnan(value), near)
    allowed: Mask = np.asarray(
        np.where(np.isinf(got), (got == value) | np.isinf(error), finite_or_nan) | np.isnan(error), np.bool_
    )
    return allowed
