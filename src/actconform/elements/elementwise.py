"""One tensor against its truth: every element's error in its unit, in blocks that stay in cache."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from actconform.elements.error_profile import WorstByBinade
from actconform.tolerance.ulp import ulp_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.tolerance.limits import Tolerance

F64: TypeAlias = "NDArray[np.float64]"

BLOCK = 1 << 15
HISTOGRAM_BINS = 36
COMPILED_FROM = 1 << 24  # elements: what is compiled for fewer is not paid back
_FIRST_EXPONENT = -8


class Sample(msgspec.Struct, frozen=True):
    """One tensor of one regime, flat: the output in its own dtype, the float64 truth, and the float64 input beside each.

    `cotangent` (signed powers of two) is what the truth was multiplied by. `bound` is an absolute error that is allowed
    whatever the unit says; it is the unit itself where the tolerance has no other (rows that are not exact).
    """

    got: NDArray[Any]
    truth: F64
    x: F64
    cotangent: F64 | None = None
    bound: F64 | None = None

    def part(self, where: slice | NDArray[np.int64]) -> Sample:
        """Return the same for some of the elements."""
        return Sample(
            got=self.got[where],
            truth=self.truth[where],
            x=self.x[where],
            cotangent=None if self.cotangent is None else self.cotangent[where],
            bound=None if self.bound is None else self.bound[where],
        )


class ErrorStatistics(msgspec.Struct):
    """What one pass over a sample saw; the maxima are those of the elements plainly within their limit.

    `histogram` counts |error| in ULP by powers of two: exact; below 2**-8; [2**-8, 2**-7); ...; 2**25 and more. Non-finite
    outputs and truths count in nothing but `n`. `suspects` are flat indices, ascending, of all elements that are not plainly
    within their limit: kinks, flushes, equal NaNs and the like are among them until `classify` has looked.
    `worst` is by input, for unary kernels; `classify` adds the breaches.
    """

    n: int
    max_ulp: float = 0.0
    max_scaled: float = 0.0
    signed_sum: float = 0.0
    within: int = 0
    histogram: NDArray[np.int64] = msgspec.field(default_factory=lambda: np.zeros(HISTOGRAM_BINS, np.int64))
    suspects: NDArray[np.int64] = msgspec.field(default_factory=lambda: np.empty(0, np.int64))
    worst: WorstByBinade | None = None

    @property
    def bias(self) -> float:
        """Mean signed error, in units, over the elements within their limit; 0 where there is none."""
        return self.signed_sum / self.within if self.within else 0.0


def elementwise_errors(sample: Sample, tolerance: Tolerance) -> ErrorStatistics:
    """Return the errors of all elements, in ULP and in the tolerance's unit, and which elements are suspect.

    A NaN never wins a comparison: an element is within its limit only where `error <= limit` holds. Exact for f32 and
    narrower outputs, computed in float64. Raises ValueError when the arrays are of unequal length.
    """
    n = sample.got.size
    if not sample.truth.size == sample.x.size == n:
        message = f"output has {n} elements, truth {sample.truth.size}, input {sample.x.size}: they must be equal"
        raise ValueError(message)
    errors = ErrorStatistics(n=n, worst=WorstByBinade(tolerance) if tolerance.unary else None)
    if n >= COMPILED_FROM and (code := compiled_code()):
        _compiled_pass(code, sample, tolerance, errors)
        return errors
    suspects = []
    with np.errstate(all="ignore"):
        for start in range(0, n, BLOCK):
            part = slice(start, min(start + BLOCK, n))
            suspects.append(_block(sample.part(part), tolerance, errors) + start)
    if suspects:
        errors.suspects = np.concatenate(suspects)
    return errors


@cache
def compiled_code() -> Any:
    """Return the module with the compiled pass, None where numba is not installed: the extra actconform[fast]."""
    try:
        return importlib.import_module("actconform.elements.compiled")
    except ImportError:
        return None


def _compiled_pass(compiled: Any, sample: Sample, tolerance: Tolerance, errors: ErrorStatistics) -> None:
    """Count all elements of a sample, as `_block` does, by the compiled loop."""
    worst = errors.worst
    rule = compiled.numeric_rule(tolerance, sample, worst.shift if worst else 0)
    table = worst.table if worst else np.empty(0)
    suspects = np.empty(errors.n, np.int64)
    totals = compiled.Totals(np.zeros(3), np.zeros(compiled.EXPONENTS, np.int64), table, suspects)
    number = compiled.add_elements(sample, rule, np.asarray(tolerance.roots, np.float64), totals)
    errors.histogram = _binned(totals.by_exponent, int(totals.by_exponent[0]))
    errors.suspects = suspects[:number].copy()
    errors.max_ulp, errors.max_scaled, errors.signed_sum = totals.figures.tolist()
    errors.within = errors.n - number


class BlockErrors(NamedTuple):
    """The errors of a block: |error| in ULP; the error in the tolerance's unit, signed, and its size; which elements are plainly within
    their limit; and s(x), of one element where it is the same for all. NaN where output or truth is not finite.
    """

    ulp: F64
    signed: F64
    scaled: F64
    within: NDArray[np.bool_]
    scales: F64


def block_errors(block: Sample, tolerance: Tolerance) -> BlockErrors:
    """Return the errors of a few elements, which stay in cache; NumPy's warnings are the caller's to silence."""
    got = block.got.astype(np.float64)
    ulps = ulp_of(block.truth, tolerance.fmt)
    unit, scales = units(block, tolerance, ulps)
    signed = got - block.truth
    ulp = np.abs(signed)
    ulp /= ulps
    signed /= unit
    scaled = ulp if unit is ulps else np.abs(signed)
    within = scaled <= tolerance.limit
    if tolerance.tail:
        # whether the tail tier applies is looked up only where it could be broken
        far = ulp > tolerance.tail_limit
        if far.any():
            within &= ~(far & (np.abs(block.truth) < scales / 8) & ~tolerance.near_root(block.x))
    _hold_range_and_sign(within, got, block.truth, tolerance)
    return BlockErrors(ulp, signed, scaled, within, scales)


def _block(block: Sample, tolerance: Tolerance, errors: ErrorStatistics) -> NDArray[np.int64]:
    ulp, ratio, scaled, within, scales = block_errors(block, tolerance)
    if block.cotangent is not None:
        ratio *= np.sign(block.cotangent)
    suspects, x, truth = np.empty(0, np.int64), block.x, block.truth
    if not within.all():
        suspects = np.flatnonzero(~within)
        errors.histogram += _histogram(ulp[~within & np.isfinite(ulp)])
        ulp, scaled, ratio, x, truth = ulp[within], scaled[within], ratio[within], x[within], truth[within]
        scales = scales[within] if scales.size > 1 else scales
    errors.signed_sum += float(ratio.sum())
    errors.within += ratio.size
    if ulp.size:
        errors.max_ulp = max(errors.max_ulp, float(ulp.max()))
        errors.max_scaled = max(errors.max_scaled, float(scaled.max()))
        errors.histogram += _histogram(ulp)
    if errors.worst is not None:
        errors.worst.add(x, truth, scales, scaled, ulp)
    return suspects


def _hold_range_and_sign(within: NDArray[np.bool_], got: F64, truth: F64, tolerance: Tolerance) -> None:
    low, high = tolerance.range
    if low > -np.inf:
        within &= got >= low
    if high < np.inf:
        within &= got <= high
    if tolerance.zero_sign:
        zero = got == 0.0
        if zero.any():
            within &= ~(zero & (np.signbit(got) != np.signbit(truth)))


def units(block: Sample, tolerance: Tolerance, ulps: F64) -> tuple[F64, F64]:
    """Return the unit of error of each element, and s(x), the size below which absolute error counts (0 where there is none).

    s has one element where it is the same for all.
    """
    if tolerance.scale is None:
        unit = ulps if tolerance.exact or block.bound is None else block.bound
        return unit, np.zeros(1)
    scales = np.ones(1) if tolerance.scale == "one" else tolerance.scales(block.x)
    if block.cotangent is not None:
        scales = scales * np.abs(block.cotangent)
    size = np.maximum(np.abs(block.truth), scales)
    if tolerance.scale == "input" or block.cotangent is not None:  # the others are 1 at least
        np.maximum(size, tolerance.fmt.smallest_normal, out=size)
    size *= tolerance.fmt.unit_roundoff
    return size, scales


def _histogram(ulp: F64) -> NDArray[np.int64]:
    by_exponent = np.bincount(ulp.view(np.int64) >> 52, minlength=0x7FF)
    return _binned(by_exponent, int(ulp.size - np.count_nonzero(ulp)))


def _binned(by_exponent: NDArray[np.int64], exact: int) -> NDArray[np.int64]:
    first = 1023 + _FIRST_EXPONENT
    last = first + HISTOGRAM_BINS - 3
    small, large = by_exponent[:first].sum() - exact, by_exponent[last:].sum()
    return np.concatenate([[exact, small], by_exponent[first:last], [large]])
