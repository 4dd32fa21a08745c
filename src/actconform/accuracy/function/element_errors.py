"""The error of every element: in ULP, signed in its unit, and as a share of the limit that it is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.elements.elementwise import units
from actconform.oracle.rounding import round_to
from actconform.tolerance.ulp import contracted, ulp_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.elements.elementwise import Sample
    from actconform.tolerance.limits import Tolerance

    F64 = NDArray[np.float64]


class ElementErrors(NamedTuple):
    """Each of the shape of the sample. Equal NaNs and equal infinities have no error; NaN for a number, or against it, an infinite one."""

    ulp: F64
    signed: F64
    """In the tolerance's unit, positive where the output is farther up than the truth for a positive cotangent."""
    share: F64
    """Of the limit; from above 1 on it is broken, but where a convention, a kink or a flush accepts the answer."""


def element_errors(sample: Sample, tolerance: Tolerance) -> ElementErrors:
    """Return the errors of a sample, as the comparison counts them: in the unit and in the tail tier, whichever is the larger share."""
    fmt, limit = tolerance.fmt, tolerance.limit
    with np.errstate(all="ignore"):
        got, truth = sample.got.astype(np.float64), sample.truth
        ulps = ulp_of(truth, fmt)
        unit, scales = units(sample, tolerance, ulps)
        # an infinite output counts as the next power of two, or as the truth where that is beyond it
        beyond = np.maximum(2.0 ** (fmt.emax + 1), np.abs(truth))
        finite = np.where(np.isinf(got), np.copysign(beyond, got), got)
        difference = np.where(got == truth, 0.0, finite - truth)
        unequal = np.isnan(got) != np.isnan(truth)
        difference[np.isnan(got) & np.isnan(truth)] = 0.0
        difference[unequal] = np.inf
        error = np.abs(difference)
        ulp, scaled = error / ulps, error / unit
        share = scaled / limit if limit else np.where(error > 0, np.inf, 0.0)
        if tolerance.tail:
            steps = np.abs(contracted(finite, fmt) - contracted(truth, fmt)) / ulps / tolerance.tail_limit
            steps /= tolerance.tail_condition(sample.x)
            cotangent = 1.0 if sample.cotangent is None else np.abs(sample.cotangent)
            steps[error <= tolerance.tail_lost(sample.x) * cotangent] = 0.0
            tail = (np.abs(truth) < scales / 8) & ~tolerance.near_root(sample.x) & np.isfinite(steps)
            share = np.where(tail, np.maximum(share, steps), share)
        if sample.bound is not None and tolerance.exact:
            share = np.minimum(share, error / sample.bound)
        share[error == 0] = 0.0
        share[np.isnan(share)] = np.inf  # an infinite error at an infinite input, whose unit is infinite
        signed = difference / unit
        if sample.cotangent is not None:
            signed *= np.sign(sample.cotangent)
    return ElementErrors(ulp, signed, share)


def correctly_rounded(sample: Sample, tolerance: Tolerance) -> NDArray[np.bool_]:
    """Tell which outputs are the number of the format nearest to the truth; NaN where the truth is NaN is right.

    Midway between two numbers either is: below normal a truth in binary64 may lie there whose exact value is just beside.
    """
    with np.errstate(all="ignore"):
        got, truth = sample.got.astype(np.float64), sample.truth
        nearest = truth if sample.got.dtype.kind in "iu" else round_to(truth, tolerance.fmt)
        as_near = np.abs(got - truth) <= np.abs(nearest - truth)
        right: NDArray[np.bool_] = (
            (got == nearest) | (np.isfinite(nearest) & as_near) | (np.isnan(got) & np.isnan(truth))
        )
    return right
