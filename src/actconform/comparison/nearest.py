"""Results of a 16-bit format beside the numbers nearest to the truth: what no single element's limit can see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.elements.classify import Located
from actconform.elements.elementwise import units
from actconform.oracle.rounding import round_to
from actconform.text import number_of
from actconform.tolerance.limits import (
    BINADE_POINTS,
    GRADIENT_SHARE_LIMIT,
    NEAREST_BIAS_LIMIT,
    NEAREST_SHARE_LIMIT,
    OUTLIER_LIMIT,
)
from actconform.tolerance.row_bounds import flushes
from actconform.tolerance.ulp import to_hex, ulp_of
from actconform.types import Finding, FindingClass, Interval, Worst

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from actconform.elements.elementwise import ErrorStatistics, Sample
    from actconform.tolerance.limits import Tolerance

    F64 = NDArray[np.float64]
    Mask = NDArray[np.bool_]

EXHAUSTIVE = "exhaustive"  # the regime of all numbers of a 16-bit format
BESIDE = 4  # neighbours on each side of a lone outlier


def locate_inexact(
    sample: Sample, tolerance: Tolerance, errors: ErrorStatistics, regime: str, tensor: str
) -> list[Located]:
    """Return what is wrong with elements within their limits in 16 bits: of unary kernels at all numbers of the format, of rows
    where a result is rounded once (its bound is one unit, as of a product).

    A result computed in float32 and rounded once is the nearest number but where it lies within float32's error of a tie. For
    each sign of x: `bias` where results deviate from the nearest numbers away from zero, or towards it, by more than
    NEAREST_BIAS_LIMIT units on average, over all or over one binade of x; else `scaled-error` where more than
    NEAREST_SHARE_LIMIT of the results that cannot be exact are not the nearest (of gradients GRADIENT_SHARE_LIMIT). `scaled-error` too for a lone outlier: an
    element that is further off than the eight beside it by OUTLIER_LIMIT units. Findings count the results that are not nearest.
    """
    fmt = tolerance.fmt
    if fmt.bits != 16 or (tolerance.unary and regime != EXHAUSTIVE) or (not tolerance.unary and sample.bound is None):
        return []
    with np.errstate(all="ignore"):
        got = sample.got.astype(np.float64)
        ulps, nearest = ulp_of(sample.truth, fmt), round_to(sample.truth, fmt)
        error = np.abs(got - sample.truth)
        judged = np.isfinite(sample.x) & np.isfinite(nearest) & np.isfinite(got)
        if flushes(fmt):
            judged &= np.abs(sample.truth) >= fmt.smallest_normal
        if sample.bound is not None:
            judged &= sample.bound <= ulps
        judged[errors.suspects] = False
        inexact = judged & (error > 0.5 * ulps)
        if not inexact.any():
            return []
        where = np.flatnonzero(inexact)
        part = sample.part(where)
        unit = np.maximum(units(part, tolerance, ulps[where])[0], ulps[where])
        deviation = np.zeros(got.size)
        deviation[where] = np.sign(part.truth) * (got[where] - nearest[where]) / unit
        varying = _varying(sample.x, nearest)
    located: list[Located] = []
    for negative in (False, True):
        side = judged & (np.signbit(sample.x) == negative)
        located += _of_one_sign(sample, tolerance, side & (error > 0), varying, deviation, (regime, tensor))
        located += _outliers(sample, tolerance, side, deviation, (regime, tensor))
    return located


def _varying(x: F64, nearest: F64) -> Mask:
    """Tell where the nearest number is another one than at a neighbour of x: where a function saturates, rounding shows nothing."""
    order = np.argsort(x, kind="stable")
    steps = np.diff(nearest[order]) != 0
    varying = np.zeros(x.size, np.bool_)
    varying[order] = np.append(steps, False) | np.append(False, steps)
    return varying


def _of_one_sign(
    sample: Sample, tolerance: Tolerance, rounded: Mask, varying: Mask, deviation: F64, place: tuple[str, str]
) -> Iterator[Located]:
    """Yield the finding of the results on one side of 0 that cannot be exact, if they are biased or too few are nearest."""
    indices = np.flatnonzero(rounded)
    off = deviation[indices]
    if indices.size < BINADE_POINTS:
        return
    mean, of_varying = float(off.mean()), deviation[rounded & varying]
    if abs(mean) > NEAREST_BIAS_LIMIT:
        words = f"results lie {_direction(mean)} from the nearest numbers by {abs(mean):.2g} units on average"
        yield _located(FindingClass.BIAS, sample, tolerance, indices[off != 0], abs(mean), words, place)
        return
    _, binade = np.unique(np.frexp(sample.x[indices])[1], return_inverse=True)
    points = np.bincount(binade)
    means = np.bincount(binade, off) / points
    biased = (points >= BINADE_POINTS) & (np.abs(means) > NEAREST_BIAS_LIMIT)
    if biased.any() and sample.cotangent is None:  # where factors are rounded before, a binade may lean
        worst = float(means[biased][np.argmax(np.abs(means[biased]))])
        words = f"in {np.count_nonzero(biased)} binades results lie {_direction(worst)} from the nearest numbers by up to {abs(worst):.2g} units on average"
        yield _located(
            FindingClass.BIAS, sample, tolerance, indices[biased[binade] & (off != 0)], abs(worst), words, place
        )
        return
    share = np.count_nonzero(of_varying) / max(of_varying.size, 1)
    limit = NEAREST_SHARE_LIMIT if sample.cotangent is None else GRADIENT_SHARE_LIMIT
    if share > limit and of_varying.size >= BINADE_POINTS:
        words = (
            f"{share:.0%} of {number_of(of_varying.size, 'result')} are not the nearest number: allowed are {limit:.0%}"
        )
        size = float(np.abs(off).max())
        yield _located(FindingClass.SCALED_ERROR, sample, tolerance, indices[off != 0], size, words, place)


def _direction(mean: float) -> str:
    return "away from 0" if mean > 0 else "towards 0"


def _outliers(
    sample: Sample, tolerance: Tolerance, side: Mask, deviation: F64, place: tuple[str, str]
) -> Iterator[Located]:
    """Yield the finding of the elements that are off where those beside them are not."""
    indices = np.flatnonzero(side)
    ordered = indices[np.argsort(sample.x[indices], kind="stable")]
    off = deviation[ordered]
    candidates = np.flatnonzero(np.abs(off) > OUTLIER_LIMIT)
    if not candidates.size or off.size <= 2 * BESIDE:
        return
    offsets = np.array([step for step in range(-BESIDE, BESIDE + 1) if step])
    beside = off[np.clip(candidates[:, None] + offsets, 0, off.size - 1)]
    lone = np.abs(off[candidates] - np.median(beside, axis=1)) - np.ptp(beside, axis=1) > OUTLIER_LIMIT
    if lone.any():
        chosen = ordered[candidates[lone]]
        size = float(np.abs(off[candidates[lone]]).max())
        words = f"{size:.2g} units off the nearest number, where the {2 * BESIDE} inputs beside it are not"
        yield _located(FindingClass.SCALED_ERROR, sample, tolerance, chosen, size, words, place)


def _located(
    class_: FindingClass,
    sample: Sample,
    tolerance: Tolerance,
    elements: NDArray[np.int64],
    magnitude: float,
    evidence: str,
    place: tuple[str, str],
) -> Located:
    fmt, part = tolerance.fmt, sample.part(elements)
    got = part.got.astype(np.float64)
    with np.errstate(all="ignore"):
        ulps = ulp_of(part.truth, fmt)
        error = np.abs(got - part.truth)
        scaled = error / np.maximum(units(part, tolerance, ulps)[0], ulps)
    worst = int(np.argmax(scaled))
    finding = Finding(
        class_=class_,
        count=int(elements.size),
        regime=place[0],
        tensor=place[1],
        interval=Interval(to_hex(float(part.x.min()), fmt), to_hex(float(part.x.max()), fmt)),
        worst=Worst(
            input_hex=to_hex(float(part.x[worst]), fmt),
            index=int(elements[worst]),
            truth=float(part.truth[worst]),
            got=float(got[worst]),
            ulp=float(error[worst] / ulps[worst]),
            scaled=float(scaled[worst]),
        ),
        magnitude=magnitude,
        evidence=evidence,
    )
    return Located(finding, elements)
