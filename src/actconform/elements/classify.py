"""From suspect elements to findings: what kind of difference, over which inputs, and the worst of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.elements.elementwise import units
from actconform.tolerance.row_bounds import flushes
from actconform.tolerance.ulp import contracted, to_hex, ulp_of
from actconform.types import Finding, FindingClass, Interval, Worst
from actconform.types.finding import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from actconform.elements.elementwise import ErrorStatistics, Sample
    from actconform.tolerance.limits import Tolerance

    F64 = NDArray[np.float64]
    Mask = NDArray[np.bool_]

PROFILED = (
    FindingClass.TAIL,
    FindingClass.SCALED_ERROR,
    FindingClass.KINK,
)  # of the single elements, those whose error has a limit


class Located(NamedTuple):
    """A finding and the elements of its sample that it counts, as flat indices."""

    finding: Finding
    elements: NDArray[np.int64]


def classify(sample: Sample, tolerance: Tolerance, errors: ErrorStatistics, regime: str, tensor: str) -> list[Finding]:
    """Return the findings among the suspects of a sample, as `locate` does, without their elements."""
    return [located.finding for located in locate(sample, tolerance, errors, regime, tensor)]


def locate(sample: Sample, tolerance: Tolerance, errors: ErrorStatistics, regime: str, tensor: str) -> list[Located]:
    """Return the findings among the suspects of a sample, one for each class and coherent interval of inputs.

    An element gets the first class that fits: nan-made, nan-lost, inf, zero-sign, (accepted: inside its bound or the interval
    of a kink), kink, subnormal-flush, range, scaled-error, tail. Where a subnormal input gives what 0 gives, or a result at
    the edge of the normal numbers lost its subnormal part, that is subnormal-flush, whatever else it breaks. The intervals of
    unary kernels are runs of neighbouring binades of one sign, so that two causes in one regime are two findings. What breaks
    a limit by an amount is counted in `errors.worst`, where there is one.
    """
    if not errors.suspects.size:
        return []
    with np.errstate(all="ignore"):
        suspects = sample.part(errors.suspects)
        findings = []
        for class_, mask, scaled, ulp in _classes(suspects, tolerance):
            indices = np.flatnonzero(mask)
            if errors.worst is not None and class_ in PROFILED:
                tail = class_ == FindingClass.TAIL
                errors.worst.add_breaches(suspects.x[indices], (ulp if tail else scaled)[indices], of_tail=tail)
            for run in (
                _runs(suspects.x[indices]) if tolerance.unary else [np.arange(indices.size)] if indices.size else []
            ):
                chosen = indices[run]
                unit = CLASSES[class_].unit
                size = ulp if unit == "ulp" else scaled
                worst = chosen[np.argmax(np.where(np.isnan(size[chosen]), -1.0, size[chosen]))]
                magnitude = float(size[worst]) if unit else 0.0
                finding = Finding(
                    class_=class_,
                    count=int(chosen.size),
                    regime=regime,
                    tensor=tensor,
                    interval=_interval(suspects.x[chosen], tolerance),
                    worst=Worst(
                        input_hex=to_hex(float(suspects.x[worst]), tolerance.fmt),
                        index=int(errors.suspects[worst]),
                        truth=float(suspects.truth[worst]),
                        got=float(suspects.got[worst]),
                        ulp=float(ulp[worst]),
                        scaled=float(scaled[worst]),
                    ),
                    magnitude=magnitude,
                )
                findings.append(Located(finding, errors.suspects[chosen]))
    return findings


def _classes(s: Sample, tolerance: Tolerance) -> Iterator[tuple[FindingClass, Mask, F64, F64]]:
    """Yield (class, mask, scaled error, ULP) with disjoint masks over the suspects."""
    fmt = tolerance.fmt
    got, truth, x = s.got.astype(np.float64), s.truth, s.x
    ct = np.ones_like(x) if s.cotangent is None else s.cotangent
    ulps = ulp_of(truth, fmt)
    unit, scales = units(s, tolerance, ulps)
    # an infinite output counts as the next power of two, so that one ULP around the largest number is one ULP; beyond that
    # as the truth, if of its sign
    cap = 2.0 ** (fmt.emax + 1)
    finite_got = np.where(np.isinf(got), np.copysign(np.maximum(cap, np.abs(truth)), got), got)
    scaled, ulp = np.abs(finite_got - truth) / unit, np.abs(finite_got - truth) / ulps
    # hardware that flushes does so below float32's exponents, not below float16's
    small_ulp = np.abs(contracted(finite_got, fmt) - contracted(truth, fmt)) / ulps if flushes(fmt) else ulp

    # an infinite cotangent may meet itself with the other sign in a derivative that is a sum
    open_ = ~(np.isnan(got) & (np.isnan(truth) | np.isinf(ct)))

    def take(class_: FindingClass, mask: Mask) -> tuple[FindingClass, Mask, F64, F64]:
        chosen = open_ & mask
        np.logical_and(open_, ~mask, out=open_)
        return class_, chosen, scaled, ulp

    yield take(FindingClass.NAN_MADE, np.isnan(got))
    yield take(FindingClass.NAN_LOST, np.isnan(truth))
    low, high = tolerance.range
    outside = (got < low) | (got > high)
    allowed = (scaled <= tolerance.limit) | (finite_got == truth)
    if tolerance.tail:
        accurate = small_ulp <= tolerance.tail_limit * tolerance.tail_condition(x)
        accurate |= np.abs(finite_got - truth) <= tolerance.tail_lost(x) * np.abs(ct)
        allowed &= accurate | (np.abs(truth) >= scales / 8) | tolerance.near_root(x)
    signs_differ = (got == 0) & (np.signbit(got) != np.signbit(truth)) & tolerance.zero_sign
    if s.bound is not None:
        allowed |= np.abs(got - truth) <= s.bound
    yield take(FindingClass.INF, (np.isinf(got) | (np.abs(truth) >= fmt.overflow)) & ~allowed)
    yield take(FindingClass.ZERO_SIGN, signs_differ & (np.abs(truth) <= fmt.smallest_subnormal / 2))
    open_ &= ~(allowed & ~outside)
    for kink in tolerance.kinks:
        at = np.abs(x - kink.x) <= ulp_of(np.full(1, kink.x), fmt)
        if kink.x == 0.0:
            at |= np.abs(x) < fmt.smallest_normal
        ends = np.sort([kink.left * ct, kink.right * ct], axis=0)
        slack = tolerance.limit * unit
        open_ &= ~(at & (got >= ends[0] - slack) & (got <= ends[1] + slack))
        yield take(FindingClass.KINK, at)
    yield take(FindingClass.SUBNORMAL_FLUSH, _flushed(s, got, tolerance.at_zero * ct, unit, tolerance))
    yield take(FindingClass.RANGE, outside)
    yield take(FindingClass.SCALED_ERROR, ~(scaled <= tolerance.limit))
    ulp = small_ulp
    yield take(FindingClass.TAIL, open_.copy())


def _flushed(sample: Sample, got: F64, at_zero: F64, unit: F64, tolerance: Tolerance) -> Mask:
    """Tell where a subnormal input was taken for 0, or a result at the edge of normal numbers lost its subnormal part."""
    normal, truth, x = tolerance.fmt.smallest_normal, sample.truth, sample.x
    like_zero = (np.abs(got - at_zero) <= (0.0 if tolerance.exact else tolerance.limit * unit)) & tolerance.unary
    handed_through = (np.abs(got) < normal) & (np.abs(truth) < normal)
    lost: Mask = (np.abs(x) < normal) & (like_zero | handed_through) | (np.abs(truth) < 2 * normal) & (got == 0)
    return lost


def _runs(x: F64) -> Iterator[NDArray[np.int64]]:
    """Yield index arrays: one for NaN, each infinity and zero, and one for each run of neighbouring binades of a sign."""
    mantissa, exponent = np.frexp(x)
    odd = ~np.isfinite(x) | (mantissa == 0)
    for same in (np.isnan(x), x == np.inf, x == -np.inf, x == 0):
        if same.any():
            yield np.flatnonzero(same)
    for sign in (-1.0, 1.0):
        indices = np.flatnonzero(~odd & (np.sign(x) == sign))
        if not indices.size:
            continue
        order = indices[np.argsort(exponent[indices], kind="stable")]
        gaps = np.flatnonzero(np.diff(exponent[order]) > 2) + 1
        yield from np.split(order, gaps)


def _interval(x: F64, tolerance: Tolerance) -> Interval:
    numbers = x[~np.isnan(x)]
    if not numbers.size:
        return Interval(to_hex(np.nan, tolerance.fmt), to_hex(np.nan, tolerance.fmt))
    return Interval(to_hex(float(numbers.min()), tolerance.fmt), to_hex(float(numbers.max()), tolerance.fmt))
