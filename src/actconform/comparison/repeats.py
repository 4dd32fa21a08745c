"""The same input at many places and in arrays of many lengths: the answer furthest from the truth, and whether they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.elements.classify import Located
from actconform.elements.elementwise import units
from actconform.text import number_of
from actconform.tolerance.ulp import to_hex, ulp_of
from actconform.types import Finding, FindingClass, Interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from actconform.elements.elementwise import Sample
    from actconform.tolerance.limits import Tolerance

    F64 = NDArray[np.float64]

SMALLEST = 5e-324


def furthest(got: NDArray[Any], truth: F64) -> NDArray[Any]:
    """Return, in the shape of `truth`, the answer furthest from it among those that repeat it along the first axis.

    The last period may be cut off. NaN where the truth is none is furthest, as is a number where the truth is NaN; a zero of the
    wrong sign is further than one of the right sign.
    """
    period = len(truth)
    periods = len(got) // period
    body, rest = got[: periods * period].reshape(periods, *truth.shape), got[periods * period :]
    bits = np.dtype(f"u{got.dtype.itemsize}")
    differs = (body.view(bits) != body[0].view(bits)).any(axis=0)
    differs[: len(rest)] |= rest.view(bits) != body[0, : len(rest)].view(bits)
    answers: NDArray[Any] = body[0].copy()
    if differs.any():
        padded = body[0].copy()
        padded[: len(rest)] = rest
        candidates = np.concatenate([body[:, differs], padded[differs][None]])
        worst = np.argmax(distance_from_truth(candidates, truth[differs]), axis=0)
        answers[differs] = candidates[worst, np.arange(worst.size)]
    return answers


def distance_from_truth(got: NDArray[Any], truth: F64) -> F64:
    """Return how far numbers are from the truth: 0 for the same number or NaN, infinitely where one alone is NaN.

    A zero of the other sign is off by the smallest number.
    """
    with np.errstate(invalid="ignore"):
        numbers = got.astype(np.float64)
        off = np.nan_to_num(np.abs(numbers - truth), nan=np.inf)
    same = (numbers == truth) | (np.isnan(numbers) & np.isnan(truth))
    other_zero = (numbers == 0.0) & (np.signbit(numbers) != np.signbit(truth))
    result: F64 = np.where(same, 0.0, off) + SMALLEST * other_zero
    return result


def locate_moved(
    sample: Sample, tolerance: Tolerance, elsewhere: NDArray[np.uint64], regime: str, tensor: str
) -> Iterator[Located]:
    """Yield a `position-dependent` finding of all inputs of a unary kernel that give different results at different places.

    A vector loop and its scalar tail may round differently: results differ where they lie further apart than twice the limit, or
    where some are NaN. Inputs whose bits are in `elsewhere` are left out.
    """
    if not tolerance.unary or not sample.x.size:
        return
    order = np.argsort(sample.x.view(np.uint64), kind="stable")
    part = sample.part(order)
    patterns = part.x.view(np.uint64)
    starts = np.flatnonzero(np.diff(patterns, prepend=~patterns[:1]))
    with np.errstate(all="ignore"):
        size = np.ones(part.x.size) if part.cotangent is None else np.abs(part.cotangent)
        sign = 1.0 if part.cotangent is None else np.sign(part.cotangent)
        got = sign * part.got.astype(np.float64) / size
        nan = np.isnan(got)
        cap = 2.0 ** (tolerance.fmt.emax + 1)
        got = np.clip(np.where(nan, 0.0, got), -cap, cap)
        unit = units(part, tolerance, ulp_of(part.truth, tolerance.fmt))[0] / size
        unit = np.where(np.isfinite(unit), unit, np.finfo(np.float64).max)
        apart = np.maximum.reduceat(got, starts) - np.minimum.reduceat(got, starts)
        differs = apart > 2.0 * tolerance.limit * np.maximum.reduceat(unit, starts)
        differs |= np.logical_or.reduceat(nan, starts) & ~np.logical_and.reduceat(nan, starts)
    differs &= ~np.isin(patterns[starts], elsewhere)
    if not differs.any():
        return
    counts = np.diff(starts, append=patterns.size)
    elements = order[np.repeat(differs, counts)]
    first = int(np.flatnonzero(differs)[0])
    values = np.unique(part.got[starts[first] : starts[first] + counts[first]].astype(np.float64))
    x = part.x[starts[differs]]
    numbers = x if np.isnan(x).all() else x[~np.isnan(x)]
    finding = Finding(
        class_=FindingClass.POSITION_DEPENDENT,
        count=int(elements.size),
        regime=regime,
        tensor=tensor,
        interval=Interval(to_hex(float(numbers.min()), tolerance.fmt), to_hex(float(numbers.max()), tolerance.fmt)),
        worst=None,
        magnitude=0.0,
        evidence=f"{number_of(int(np.count_nonzero(differs)), 'input')} gave other results at other places, as {to_hex(float(x[0]), tolerance.fmt)}: "
        + ", ".join(f"{value:g}" for value in values[:4]),
    )
    yield Located(finding, elements)
