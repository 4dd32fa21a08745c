"""The float32 nearest to the truth: by its float64 formula, and by Arb where that lies too near to midway between two float32 to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.oracle.arb.correctly_rounded import exactly_rounded
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.types import Aspect, Kernel

    F64 = NDArray[np.float64]

F32 = DTYPES["f32"]
# A formula of float64 errs by at most 1,024 of its last places, which `golden verify` holds it to.
FORMULA_PLACES = 1 << 10
DROPPED = 53 - F32.precision  # bits that rounding to float32 drops
HALF, MASK = 1 << (DROPPED - 1), (1 << DROPPED) - 1
MANY_TIES = 64
SUBNORMAL_GAP = 2.0**-19  # the same error as a share of float32's smallest gap, of the largest subnormal number


def undecided(truth: F64) -> NDArray[np.int64]:
    """Return the indices at which a float64 truth lies so near to midway between two float32 that its error could change the rounding.

    What lies around the overflow threshold is among them; NaN and infinities never are.
    """
    last_bits = truth.view(np.int64) & MASK
    last_bits -= HALF - FORMULA_PLACES
    near = last_bits.view(np.uint64) <= 2 * FORMULA_PLACES
    size = np.abs(truth)
    small = size < F32.smallest_normal
    if small.any():
        units = size * (1.0 / F32.smallest_subnormal)
        near = np.where(small, np.abs(units - np.floor(units) - 0.5) <= SUBNORMAL_GAP, near)
    return np.flatnonzero(near & np.isfinite(truth)) if near.any() else np.empty(0, np.int64)


def from_midpoint(truth: F64) -> F64:
    """Return how far normal numbers lie from midway between two float32, in gaps, 0 to 0.5; 1 for subnormal ones, which are no hard cases."""
    distance = np.abs((truth.view(np.int64) & MASK) - HALF) / (2.0 * HALF)
    return np.where(np.abs(truth) < F32.smallest_normal, 1.0, distance)


def nearest_float32(kernel: Kernel, aspect: Aspect, x: F64, truth: F64) -> tuple[F64, bool]:
    """Return the float32 nearest to f(x), or f'(x), as float64, at inputs where the float64 `truth` does not decide, and whether it is proven.

    Without python-flint, or a definition in Arb, that is what float64 says, and not proven. Where a block has many exact ties, as x/2 of
    subnormal x, Arb decides the first, the middle and the last: they lie on one line through 0, from which f bends to one side.
    """
    ties = np.flatnonzero(_is_tie(truth))
    if ties.size > MANY_TIES:
        chosen = ties[[0, ties.size // 2, -1]]
        rounded, proven = nearest_float32(kernel, aspect, x[chosen], truth[chosen])
        sides = np.sign(rounded - truth[chosen]) * np.sign(truth[chosen])
        if proven and (sides == sides[0]).all():
            rest = np.setdiff1d(np.arange(x.size), ties)
            nearest = np.nextafter(truth, np.copysign(np.inf if sides[0] > 0 else 0.0, truth)).astype(np.float32)
            result = nearest.astype(np.float64)
            result[rest], proven = nearest_float32(kernel, aspect, x[rest], truth[rest])
            return result, proven
    try:
        return exactly_rounded(kernel, aspect, x, F32.name), True
    except (ImportError, KeyError):
        return truth.astype(np.float32).astype(np.float64), False


def _is_tie(truth: F64) -> NDArray[np.bool_]:
    """Tell which subnormal numbers lie exactly midway between two float32."""
    units = np.abs(truth) * (1.0 / F32.smallest_subnormal)
    tie: NDArray[np.bool_] = (np.abs(truth) < F32.smallest_normal) & (units - np.floor(units) == 0.5)
    return tie
