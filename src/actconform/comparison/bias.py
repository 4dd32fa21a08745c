"""Errors that do not cancel: results that lie on one side of the truth, though each is within its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.elements.classify import Located
from actconform.elements.elementwise import units
from actconform.oracle.rounding import round_to
from actconform.text import number_of
from actconform.tolerance.limits import BIAS_POINTS, BINADE_POINTS, END_ULP
from actconform.tolerance.ulp import to_hex, ulp_of
from actconform.types import Finding, FindingClass, Interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from actconform.elements.elementwise import ErrorStatistics, Sample
    from actconform.tolerance.limits import Tolerance

    F64 = NDArray[np.float64]

# Few points at many places, whose mean is that of those points; all numbers of a format, which nearest.py judges more closely
NOT_JUDGED = ("special", "exhaustive", "memory")


def locate_bias(
    sample: Sample, tolerance: Tolerance, errors: ErrorStatistics, regime: str, tensor: str
) -> Iterator[Located]:
    """Yield a `bias` finding for each sign of x on whose side a unary kernel errs away from zero, or towards it.

    The error is sign(truth) (got - truth) in units, so that the two halves of an odd function do not cancel. Its mean is taken
    over the elements within their limit: over one sign of x, then over each binade, of at least BIAS_POINTS and
    BINADE_POINTS distinct numbers. Beyond `tolerance.bias_limit` it is a finding, which counts the elements of the groups.
    """
    if not tolerance.unary or not np.isfinite(tolerance.bias_limit) or regime in NOT_JUDGED:
        return
    with np.errstate(all="ignore"):
        judged = np.isfinite(sample.x) & np.isfinite(sample.truth) & np.isfinite(sample.got.astype(np.float64))
        judged[errors.suspects] = False
        for negative in (False, True):
            indices = np.flatnonzero(judged & (np.signbit(sample.x) == negative))
            if indices.size < BINADE_POINTS:
                continue
            part = sample.part(indices)
            error = np.sign(part.truth) * (part.got.astype(np.float64) - part.truth)
            error /= units(part, tolerance, ulp_of(part.truth, tolerance.fmt))[0]
            chosen, worst = _biased(part.x, error, tolerance.bias_limit)
            if chosen.size:
                yield _located(part.x[chosen], indices[chosen], worst, tolerance, (regime, tensor))


def unreached_ends(
    sample: Sample, tolerance: Tolerance, errors: ErrorStatistics, regime: str, tensor: str
) -> Iterator[Finding]:
    """Yield a `bias` finding for each value that a unary function saturates at and that no result has, each within its limit.

    A value is an end where the truth is within END_ULP of it, rounded, at BINADE_POINTS inputs or more: whatever way of computing is
    accurate reaches it at some of them. No formula of a cause explains that.
    """
    if not tolerance.unary or regime in NOT_JUDGED or sample.cotangent is not None:
        return  # a gradient's last factor may be a reciprocal that is approximate
    with np.errstate(all="ignore"):
        nearest = round_to(sample.truth, tolerance.fmt)
        near = np.abs(sample.truth - nearest) <= END_ULP * ulp_of(sample.truth, tolerance.fmt)
        got = sample.got.astype(np.float64)
        near &= np.isfinite(sample.x) & np.isfinite(nearest) & np.isfinite(got) & (nearest != 0)
        near[errors.suspects] = False
        at_end = np.flatnonzero(near)
    ends, group = np.unique(nearest[at_end], return_inverse=True)
    for end in np.flatnonzero(np.bincount(group) >= BINADE_POINTS):
        elements = at_end[group == end]
        if (got[elements] == ends[end]).any():
            continue
        x = sample.x[elements]
        closest = got[elements][np.argmin(np.abs(got[elements] - ends[end]))]
        yield Finding(
            class_=FindingClass.BIAS,
            count=int(elements.size),
            regime=regime,
            tensor=tensor,
            interval=Interval(to_hex(float(x.min()), tolerance.fmt), to_hex(float(x.max()), tolerance.fmt)),
            worst=None,
            magnitude=float(np.abs(closest - ends[end]) / ulp_of(ends[end : end + 1], tolerance.fmt)[0]),
            evidence=f"{ends[end]:.9g} is never reached: {closest:.9g} is the closest of {number_of(elements.size, 'result')} where it is right",
        )


def _biased(x: F64, error: F64, limit: float) -> tuple[NDArray[np.int64], float]:
    """Return the elements of biased groups and the worst mean: all elements, or those of single binades; none where no mean is beyond `limit`."""
    distinct, first = np.unique(x, return_index=True)
    mean = float(error.mean())
    if distinct.size >= BIAS_POINTS and abs(mean) > limit:
        return np.arange(x.size), mean
    _, binade = np.unique(np.frexp(x)[1], return_inverse=True)
    points = np.bincount(binade[first], minlength=int(binade.max()) + 1)
    means = np.bincount(binade, error) / np.bincount(binade)
    biased = (points >= BINADE_POINTS) & (np.abs(means) > limit)
    if not biased.any():
        return np.empty(0, np.int64), 0.0
    return np.flatnonzero(biased[binade]), float(means[biased][np.argmax(np.abs(means[biased]))])


def _located(x: F64, elements: NDArray[np.int64], mean: float, tolerance: Tolerance, place: tuple[str, str]) -> Located:
    side = "away from 0" if mean > 0 else "towards 0"
    finding = Finding(
        class_=FindingClass.BIAS,
        count=int(elements.size),
        regime=place[0],
        tensor=place[1],
        interval=Interval(to_hex(float(x.min()), tolerance.fmt), to_hex(float(x.max()), tolerance.fmt)),
        worst=None,
        magnitude=abs(mean),
        evidence=f"errors lie {side} by up to {abs(mean):.3g} units on average over {number_of(elements.size, 'element')} that are each within their limit",
    )
    return Located(finding, elements)
