"""One primitive of one library in one dtype, measured: the largest errors, and what becomes of results and inputs below normal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from actconform.accuracy.points import POINTS, everything, inputs, partners
from actconform.tolerance.ulp import to_hex, ulp_of
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.accuracy.primitives import F64, Primitive
    from actconform.types.dtypes import FloatFormat

    Compute = Callable[..., NDArray[Any]]

Fate = Literal["", "kept", "may", "always"]
Mask: TypeAlias = NDArray[np.bool_]

MOST_ULP = 128  # beyond it a relative statement says little, and units u are added
CLOSE = 8.0  # ULP within which an answer is taken for the one to another input
AT_ONCE = 1 << 17  # what is compared at a time stays in the cache
SHORT = 3  # length of short arrays, which are left to the tail of vector code
SHORT_ARRAYS = 600


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a primitive in a dtype. Inputs are bit patterns, of both operands where there are two.

    `ulp` is the largest error in ULP of a normal result, `unit` the largest in units u = 2**-precision among results below 2. Whole numbers
    that hold: |error| <= `stated_ulp` ULP + `stated_absolute` u, for which `absolute` u would do; and, tighter where operations inside
    underflow, |error| <= `high_ulp` ULP + `underflow_steps` steps of the smallest subnormal number.

    `flush` tells what becomes of results and inputs below normal, "" where there are none; `subnormal_error` is the largest error
    of a subnormal result that was kept, in steps. `early_overflow` is the input of the smallest true result for which infinity came,
    `early_count` how many there were. `wrong` maps what came for what, in kinds of numbers, to the first input.
    """

    primitive: str
    dtype: str
    points: int
    ulp: float
    ulp_at: str
    unit: float
    unit_at: str
    stated_ulp: int
    stated_absolute: int
    absolute: float
    high_ulp: int
    underflow_steps: int
    flush: Fate
    subnormal_error: float
    early_overflow: str
    early_count: int
    wrong: dict[str, str]


@np.errstate(all="ignore")
def measured(primitive: Primitive, compute: Compute, dtype: str, points: int | None) -> Accuracy:
    """Return how accurate `compute`, a function of arrays of `dtype`, is as `primitive`.

    float32 is measured at about `points` inputs, at all of them where that is None; functions of two operands then at POINTS. Some are measured
    again in arrays of length SHORT. `compute` may return a wider dtype.
    """
    tally = Tally(primitive, DTYPES[dtype])
    exhaustive = points is None and primitive.operands == 1
    for values in everything(dtype) if exhaustive else [inputs(dtype, points or POINTS)]:
        low, high = primitive.domain
        x = values[~((values.astype(np.float64) < low) | (values.astype(np.float64) > high))]
        operands = (x, partners(x)) if primitive.operands == 2 else (x,)
        outputs = compute(*operands)
        for start in range(0, x.size, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            tally.add([operand[part] for operand in operands], outputs[part])
    for start in np.random.default_rng(22).integers(0, x.size - SHORT, SHORT_ARRAYS):
        short = [operand[start : start + SHORT].copy() for operand in operands]
        tally.add(short, compute(*short))
    return tally.accuracy()


class Tally:
    """The largest error in each binade of true results, and counts of what else happened."""

    def __init__(self, primitive: Primitive, fmt: FloatFormat) -> None:
        self.primitive, self.fmt = primitive, fmt
        self.exponents = np.arange(fmt.emin - fmt.precision, fmt.emax + 2)  # the first is of all that rounds to zero
        self.worst, self.at = np.zeros(self.exponents.size), [""] * self.exponents.size
        self.points = self.lost = self.kept = 0
        self.early: tuple[float, str] = (np.inf, "")
        self.early_count = 0
        self.wrong: dict[str, str] = {}

    @np.errstate(all="ignore")
    def add(self, operands: Sequence[NDArray[Any]], outputs: NDArray[Any]) -> None:
        """Count the `outputs` at `operands`; raise ValueError where their shape is another."""
        if outputs.shape != operands[0].shape:
            raise ValueError(f"{self.primitive.name} gave shape {outputs.shape} for {operands[0].shape}")
        x, got = [operand.astype(np.float64) for operand in operands], outputs.astype(np.float64)
        truth = np.asarray(self.primitive.truth(*x))
        size, rounded = np.abs(truth), self._in_format(truth)
        ulps = np.abs(got - truth) / ulp_of(truth, self.fmt)
        same_sign = np.signbit(got) == np.signbit(truth)
        at_zero = np.any([operand == 0 for operand in x], axis=0) & (truth == 0) & (got == 0)
        right = ((got == rounded) & ~(at_zero & ~same_sign) & ~np.isfinite(rounded)) | (np.isnan(got) & np.isnan(truth))
        number = np.isfinite(got) & np.isfinite(truth) & ~(at_zero & ~same_sign)
        lost = self._below_normal(x, truth, got, right | (number & (ulps <= CLOSE)))
        early = np.isinf(got) & np.isfinite(rounded) & same_sign & ~lost
        self.points += got.size
        self._count_early(x, size, early)
        self._count_wrong(x, truth, got, ~(number | right | early | lost))
        self._count_errors(x, size, np.where(number & ~lost, ulps, 0.0))

    def _below_normal(self, x: list[F64], truth: F64, got: F64, accurate: Mask) -> Mask:
        """Count what is below normal, as result or operand, and tell where it was lost.

        A result is lost where 0 came; an operand where the output is that of zero or for the smallest normal number, or between these
        where zero has a pole.
        """
        fmt, size = self.fmt, np.abs(truth)
        # A result just above may be lost, having been subnormal on the way, but is not kept.
        matters = (size >= 2.0 * fmt.smallest_subnormal) & (
            size < fmt.smallest_normal * (1.0 + 64.0 * fmt.unit_roundoff)
        )
        lost: Mask = matters & (got == 0)
        low = [(np.abs(operand) < fmt.smallest_normal) & (operand != 0) for operand in x]
        places = np.flatnonzero(np.any(low, axis=0))
        small_operands, low = [operand[places] for operand in x], [each[places] for each in low]
        read_wrongly = np.zeros(places.size, bool)
        for sign in (1.0, -1.0):
            zero, normal = (
                self._in_format(self._instead(small_operands, low, sign * value))
                for value in (0.0, fmt.smallest_normal)
            )
            read_wrongly |= self._alike(got[places], zero) | self._alike(got[places], normal)
            between = (got[places] >= np.minimum(zero, normal)) & (got[places] <= np.maximum(zero, normal))
            read_wrongly |= between & np.isinf(zero)
            if sign > 0:
                tells = ~self._alike(self._in_format(truth[places]), zero, 2.0 * CLOSE)
        lost[places] |= read_wrongly & tells & ~accurate[places]
        matters &= size < fmt.smallest_normal * (1.0 - fmt.unit_roundoff)
        matters[places] |= tells
        self.lost += int(lost.sum())
        self.kept += int((matters & ~lost & np.isfinite(got)).sum())
        return lost

    def _instead(self, x: list[F64], low: list[Mask], value: float) -> F64:
        """Return the true results where `value`, of the operand's sign times its own, stands for each operand that is `low`."""
        sign = np.copysign(1.0, value)
        changed = [
            np.where(each, np.copysign(value, operand) * sign, operand) for operand, each in zip(x, low, strict=True)
        ]
        return np.asarray(self.primitive.truth(*changed))

    def _in_format(self, truth: F64) -> F64:
        """Return infinity for what is beyond the format; nothing else is rounded."""
        clamped: F64 = np.where(np.abs(truth) >= self.fmt.overflow, np.copysign(np.inf, truth), truth)
        return clamped

    def _alike(self, got: F64, truth: F64, ulps: float = CLOSE) -> Mask:
        alike: Mask = np.abs(got - truth) <= ulps * ulp_of(truth, self.fmt)
        alike |= (got == truth) | (np.isnan(got) & np.isnan(truth))
        return alike

    def _count_early(self, x: list[F64], size: F64, early: Mask) -> None:
        if early.any():
            first = int(np.argmin(np.where(early, size, np.inf)))
            self.early = min(self.early, (float(size[first]), self._hex(x, first)))
            self.early_count += int(early.sum())

    def _count_wrong(self, x: list[F64], truth: F64, got: F64, wrong: Mask) -> None:
        for index in np.flatnonzero(wrong):
            self.wrong.setdefault(f"{_kind(got[index])} for {_kind(truth[index])}", self._hex(x, int(index)))

    def _count_errors(self, x: list[F64], size: F64, ulps: F64) -> None:
        exponents = np.where(size == 0, self.exponents[0], np.frexp(np.where(np.isfinite(size), size, 0.0))[1] - 1)
        binade = np.clip(exponents - self.exponents[0], 0, self.worst.size - 1)
        largest = np.zeros_like(self.worst)
        np.maximum.at(largest, binade, ulps)
        for slot in np.flatnonzero(largest > self.worst):
            index = int(np.flatnonzero((binade == slot) & (ulps == largest[slot]))[0])
            self.worst[slot], self.at[slot] = largest[slot], self._hex(x, index)

    def _hex(self, x: list[F64], index: int) -> str:
        return " ".join(to_hex(float(operand[index]), self.fmt) for operand in x)

    def accuracy(self) -> Accuracy:
        """Return the accuracy over all that was added."""
        fmt, exponents = self.fmt, self.exponents
        flush: Fate = "" if not self.lost + self.kept else "kept" if not self.lost else "may" if self.kept else "always"
        normal = np.where(exponents >= fmt.emin, self.worst, 0.0)
        units_per_ulp = np.ldexp(1.0, np.clip(exponents, fmt.emin, fmt.emax) + 1)
        units = np.where(exponents <= 0, self.worst * units_per_ulp, 0.0)
        relative, absolute = smallest_statement(self.worst if flush == "kept" else normal, units_per_ulp)
        high = max(int(np.ceil(self.worst[exponents >= fmt.emin + fmt.precision].max())), 1)
        steps = (normal - high) * units_per_ulp / np.ldexp(1.0, fmt.emin + 1)
        return Accuracy(
            primitive=self.primitive.name,
            dtype=fmt.name,
            points=self.points,
            ulp=float(normal.max()),
            ulp_at=self.at[int(normal.argmax())],
            unit=float(units.max()),
            unit_at=self.at[int(units.argmax())],
            stated_ulp=relative,
            stated_absolute=int(np.ceil(absolute)),
            absolute=absolute,
            high_ulp=high,
            underflow_steps=max(int(np.ceil(steps.max())), 0),
            flush=flush,
            subnormal_error=float(self.worst[exponents < fmt.emin].max()),
            early_overflow=self.early[1],
            early_count=self.early_count,
            wrong=self.wrong,
        )


def smallest_statement(worst: F64, units_per_ulp: F64) -> tuple[int, float]:
    """Return a whole number of ULP, and units u, that together bound the errors, given by binade in ULP.

    Relative alone up to MOST_ULP; beyond it what allows least at results near 1.
    """
    relative = max(int(np.ceil(worst.max())), 1)
    if relative <= MOST_ULP:
        return relative, 0.0
    needed = {ulp: float(np.max((worst - ulp) * units_per_ulp)) for ulp in range(1, MOST_ULP + 1)}
    best = min(needed, key=lambda ulp: 2 * ulp + np.ceil(needed[ulp]))
    return best, needed[best]


def _kind(value: float) -> str:
    if not np.isfinite(value):
        return str(float(value))
    return "a number" if value else "-0" if np.signbit(value) else "0"
