"""The pass over elements plainly within their limit as one compiled loop, by numba: the same numbers as NumPy's blocks, sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from actconform.elements.elementwise import Sample
from actconform.tolerance.limits import ROOT_RADIUS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.tolerance.limits import Tolerance

STRIP = 1024  # elements whose intermediate numbers stay in the first level of the cache
EXPONENTS = 1 << 11  # of binary64
TO_EXPONENT = np.uint64(52)
LANES = 4  # counters side by side: neighbours fall into the same bin, and one counter would wait for itself
SCALES = (None, "one", "input", "one-or-input", "gelu-tanh")


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function at its first call, and keeps the machine code where files may be written."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(error_model="numpy", cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder can be written, neither this one nor the user's cache
            return njit(error_model="numpy", **options)(function)  # type: ignore[no-any-return]

    return decorate


class NumericRule(NamedTuple):
    """A tolerance as numbers, for compiled code."""

    scale: int
    """Index into SCALES."""
    from_bound: bool
    """Whether the unit is the sample's bound: neither a scale nor ULP."""
    floored: bool
    """Whether the size in the unit may fall below the smallest normal number."""
    lowest: int
    """Biased exponent of the smallest normal number's binade, in binary64."""
    highest: int
    lost_bits: int
    smallest_normal: float
    unit_roundoff: float
    limit: float
    tail_limit: float
    of_tail: float
    low: float
    high: float
    zero_sign: bool
    root_radius: float
    shift: np.uint64


class Totals(NamedTuple):
    """What the loop adds up: see ErrorStatistics. `figures` has max_ulp, max_scaled, signed_sum; `worst` has no element where it is not wanted."""

    figures: NDArray[np.float64]
    by_exponent: NDArray[np.int64]
    worst: NDArray[np.float64]
    suspects: NDArray[np.int64]


class Strip(NamedTuple):
    """A strip's numbers: errors in ULP and in units, the most that the profile may count of each, s(x), and what is left of the arrays."""

    ulp: NDArray[np.float64]
    ratio: NDArray[np.float64]
    most: NDArray[np.float64]
    scale: NDArray[np.float64]
    truth: NDArray[np.float64]
    x: NDArray[np.float64]
    cotangent: NDArray[np.float64]
    within: NDArray[np.bool_]


def numeric_rule(tolerance: Tolerance, sample: Sample, shift: int) -> NumericRule:
    """Return the rule of a tolerance for a sample; `bins` of the histogram begin at the exponent `first_bin`."""
    fmt = tolerance.fmt
    return NumericRule(
        scale=SCALES.index(tolerance.scale),
        from_bound=tolerance.scale is None and not tolerance.exact and sample.bound is not None,
        floored=tolerance.scale == "input" or sample.cotangent is not None,
        lowest=fmt.emin + 1023,
        highest=fmt.emax + 1023,
        lost_bits=fmt.precision - 1,
        smallest_normal=fmt.smallest_normal,
        unit_roundoff=fmt.unit_roundoff,
        limit=tolerance.limit,
        tail_limit=tolerance.tail_limit,
        of_tail=tolerance.limit / tolerance.tail_limit,
        low=tolerance.range[0],
        high=tolerance.range[1],
        zero_sign=tolerance.zero_sign,
        root_radius=ROOT_RADIUS,
        shift=np.uint64(shift),
    )


def add_elements(sample: Sample, rule: NumericRule, roots: NDArray[np.float64], totals: Totals) -> int:
    """Add all elements of a sample to the totals; return how many suspects were written."""
    nothing = np.empty(0)
    got: NDArray[Any] = sample.got if sample.got.dtype == np.float32 else sample.got.astype(np.float64)
    number: int = _add(
        np.ascontiguousarray(got),
        np.ascontiguousarray(sample.truth),
        np.ascontiguousarray(sample.x),
        nothing if sample.bound is None else np.ascontiguousarray(sample.bound),
        nothing if sample.cotangent is None else np.ascontiguousarray(sample.cotangent),
        rule,
        roots,
        totals,
    )
    return number


class PlainErrors(NamedTuple):
    """Of elements none of which needs a second look: errors in ULP and, signed, in units; how many outputs are the float32 nearest to the truth."""

    ulp: NDArray[np.float64]
    signed: NDArray[np.float64]
    right: int


class PlainBlocks:
    """Counts blocks of float32 outputs in which nothing needs a second look; arrays are kept from block to block."""

    def __init__(self, tolerance: Tolerance, size: int) -> None:
        nothing = np.empty(0)
        self._rule = numeric_rule(tolerance, Sample(nothing, nothing, nothing), 0)
        within = np.empty(size, np.bool_)
        self._strip = Strip(
            np.empty(size), np.empty(size), np.empty(size), np.ones(size), nothing, nothing, nothing, within
        )
        self._figures, self._roots = np.zeros(3), np.asarray(tolerance.roots, np.float64)
        self._counts = np.zeros((LANES, EXPONENTS), np.int64)

    @property
    def by_exponent(self) -> NDArray[np.int64]:
        """How many errors in ULP had each biased exponent of binary64, 0 being that of 0."""
        counts: NDArray[np.int64] = self._counts.sum(axis=0)
        return counts

    def add(self, sample: Sample, dropped: int, places: int) -> PlainErrors | None:
        """Count a block of at most `size` elements; None, and nothing is counted, where an element needs a second look.

        It does where it may break a limit, where output or truth is zero, subnormal or not finite, and where the truth lies within `places` of
        its last places of midway between two float32: `dropped` bits are beyond float32's. The arrays are those of the next call too.
        """
        right = _plain(
            sample.got,
            sample.truth,
            sample.x,
            self._rule,
            self._roots,
            self._strip,
            self._figures,
            self._counts,
            dropped,
            places,
        )
        if right < 0:
            return None
        return PlainErrors(self._strip.ulp[: sample.got.size], self._strip.ratio[: sample.got.size], right)


@compiled(nogil=True)
def _plain(got, truth, x, rule, roots, strip, figures, counts, dropped, places):
    """Return how many outputs are right, or -1 where an element needs a second look."""
    bits = truth.view(np.int64)
    mask, first = (np.int64(1) << dropped) - 1, (np.int64(1) << (dropped - 1)) - places
    right, odd = 0, False
    for i in range(got.size):
        odd |= ((bits[i] - first) & mask) <= 2 * places
        odd |= (abs(truth[i]) < rule.smallest_normal) | (got[i] == 0.0)
        right += got[i] == np.float32(truth[i])
    if odd:
        return -1
    nothing = np.empty(0)
    _measure(got, truth, x, nothing, nothing, rule, strip)
    singly, _ = _judge(got, rule, strip, figures)
    if singly:
        return -1
    _count(truth, x, rule, roots, strip, counts, nothing)
    return right


@compiled(nogil=True)
def _add(got, truth, x, bound, cotangent, rule, roots, totals):
    strip = Strip(
        np.empty(STRIP),
        np.empty(STRIP),
        np.empty(STRIP),
        np.ones(STRIP),
        np.empty(STRIP),
        np.empty(STRIP),
        np.empty(cotangent.size and STRIP),
        np.empty(STRIP, np.bool_),
    )
    counts = np.zeros((LANES, EXPONENTS), np.int64)
    suspects = 0
    for start in range(0, got.size, STRIP):
        part = slice(start, min(start + STRIP, got.size))
        of_got, of_truth, of_x, of_cotangent = got[part], truth[part], x[part], cotangent[part]
        _measure(of_got, of_truth, of_x, bound[part], of_cotangent, rule, strip)
        singly, larger = _judge(of_got, rule, strip, totals.figures)
        if singly:
            left = _take_out(
                of_got, of_truth, of_x, of_cotangent, rule, roots, strip, counts, start, totals.suspects[suspects:]
            )
            suspects += of_got.size - left
            of_truth, of_x, of_cotangent = strip.truth[:left], strip.x[:left], strip.cotangent[:left]
        _sum(of_truth.size, of_cotangent, strip, totals.figures, larger)
        _count(of_truth, of_x, rule, roots, strip, counts, totals.worst)
    for lane in range(LANES):
        totals.by_exponent[:] += counts[lane]
    return suspects


@compiled()
def _measure(got, truth, x, bound, cotangent, rule, strip):
    """Write the errors of a strip in ULP and, signed, in units."""
    bits = truth.view(np.int64)
    if rule.scale > 1 or cotangent.size:
        _scale(x, cotangent, rule.scale, strip.scale)
    least = rule.smallest_normal if rule.floored else 0.0
    for i in range(truth.size):
        exponent = min(max((bits[i] >> 52) & 0x7FF, rule.lowest), rule.highest) - rule.lost_bits
        per_ulp = np.int64((2046 - exponent) << 52).view(np.float64)  # a power of two: a product with it is a quotient
        difference = np.float64(got[i]) - truth[i]
        strip.ulp[i] = abs(difference) * per_ulp
        if rule.scale == 0:
            strip.ratio[i] = difference / bound[i] if rule.from_bound else difference * per_ulp
        else:
            size = abs(truth[i]) if abs(truth[i]) > strip.scale[i] else strip.scale[i]  # NaN in x is kept
            strip.ratio[i] = difference / ((least if size < least else size) * rule.unit_roundoff)


@compiled()
def _scale(x, cotangent, rule, scale):
    """Write s(x): see `actconform.tolerance.limits.SCALES`; 1 at an infinity, NaN where x is NaN."""
    for i in range(x.size):
        size = abs(x[i])
        if rule == 1 or size == np.inf:
            scale[i] = 1.0
        elif rule == 2:
            scale[i] = size
        elif rule == 3:
            scale[i] = 1.0 if size < 1.0 else size
        else:
            scale[i] = 1.0 + size * (1.0 + 0.134 * x[i] * x[i])
    for i in range(cotangent.size):
        scale[i] *= abs(cotangent[i])


@compiled()
def _judge(got, rule, strip, figures):
    """Write which elements are within their limit, but for the tail's and the sign of zero, and the most that the profile may count of each.

    Return how many have to be looked at singly, and whether any is larger than the maxima so far.
    """
    singly, larger = 0, False
    tail_limit = rule.tail_limit if rule.scale else np.inf
    for i in range(got.size):
        scaled = abs(strip.ratio[i])
        strip.within[i] = (scaled <= rule.limit) & (got[i] >= rule.low) & (got[i] <= rule.high)
        strip.most[i] = max(scaled, strip.ulp[i] * rule.of_tail)
        odd = (strip.ulp[i] > tail_limit) | (rule.zero_sign & (got[i] == 0.0))
        singly += (not strip.within[i]) | odd
        larger |= (strip.ulp[i] > figures[0]) | (scaled > figures[1])
    return singly, larger


@compiled()
def _take_out(got, truth, x, cotangent, rule, roots, strip, counts, start, suspects):
    """Write the suspects of a strip and their histogram, move what is left together, and return how many are left."""
    exponents = strip.ulp.view(np.uint64)
    left = taken = 0
    for i in range(truth.size):
        fits = strip.within[i]
        if rule.scale and strip.ulp[i] > rule.tail_limit:
            fits &= not _in_tail(truth[i], x[i], strip.scale[i], rule, roots)
        if rule.zero_sign and got[i] == 0.0:
            fits &= np.signbit(got[i]) == np.signbit(truth[i])
        if not fits:
            suspects[taken] = start + i
            taken += 1
            if strip.ulp[i] < np.inf:
                counts[0, exponents[i] >> TO_EXPONENT] += 1
            continue
        for array in (strip.ulp, strip.ratio, strip.most, strip.scale):
            array[left] = array[i]
        strip.truth[left], strip.x[left] = truth[i], x[i]
        if cotangent.size:
            strip.cotangent[left] = cotangent[i]
        left += 1
    if rule.scale == 1 and not cotangent.size:
        strip.scale[:] = 1.0
    return left


# All elements are within their limits here, so none is NaN, and a sum may be made in any order.
@compiled(fastmath={"reassoc", "nnan", "nsz"})
def _sum(n, cotangent, strip, figures, larger):
    """Add to the maxima and the signed sum."""
    total = 0.0
    if cotangent.size:
        for i in range(n):
            total += np.sign(cotangent[i]) * strip.ratio[i]
    else:
        for i in range(n):
            total += strip.ratio[i]
    figures[2] += total
    if larger:
        for i in range(n):
            figures[0] = max(figures[0], strip.ulp[i])
            figures[1] = max(figures[1], abs(strip.ratio[i]))


@compiled()
def _count(truth, x, rule, roots, strip, counts, worst):
    """Add to the histogram and to the profile."""
    exponents = strip.ulp.view(np.uint64)
    for i in range(0, x.size - LANES + 1, LANES):
        for lane in range(LANES):
            counts[lane, exponents[i + lane] >> TO_EXPONENT] += 1
    for i in range(x.size - x.size % LANES, x.size):
        counts[0, exponents[i] >> TO_EXPONENT] += 1
    if worst.size:
        patterns = x.view(np.uint64)
        larger = False
        for i in range(x.size):  # seldom true, and a loop without branches
            larger |= strip.most[i] > worst[patterns[i] >> rule.shift]
        if larger:
            _profile(truth, x, rule, roots, strip, worst)


@compiled()
def _profile(truth, x, rule, roots, strip, worst):
    """Add to the profile."""
    patterns = x.view(np.uint64)
    for i in range(x.size):
        group = patterns[i] >> rule.shift
        if strip.most[i] > worst[group]:
            scaled = abs(strip.ratio[i])
            if rule.scale and strip.ulp[i] > 4 * scaled and _in_tail(truth[i], x[i], strip.scale[i], rule, roots):
                scaled = strip.most[i]
            worst[group] = max(worst[group], scaled)


@compiled()
def _in_tail(truth, x, scale, rule, roots):
    """Tell whether relative accuracy counts at an element."""
    if not abs(truth) < scale / 8:
        return False
    for root in roots:
        if abs(x - root) < rule.root_radius:
            return False
    return True
