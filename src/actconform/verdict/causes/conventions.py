"""A kernel's conventions: answers that are defensible at an input, on every backend; shown, never a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.elements.elementwise import Sample
    from actconform.types import Aspect, Kernel
    from actconform.types.dtypes import FloatFormat

SLOPE_ULP = 4.0  # roundings of a slope and its product with the cotangent


def accepted(kernel: Kernel, aspect: Aspect, fmt: FloatFormat, sample: Sample) -> NDArray[np.bool_]:
    """Tell for each element of a sample whether a convention of its kernel accepts the answer at its input.

    The sign of a zero is one for values, but of kernels whose definition has it. A convention of a gradient states slopes: they are multiplied by the cotangent, and
    may be rounded.
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN
        got, x, truth = sample.got.astype(np.float64), sample.x, sample.truth
    g = np.ones(got.shape) if sample.cotangent is None else sample.cotangent
    free = aspect == "value" and not kernel.signed_zero
    mask: NDArray[np.bool_] = (got == 0) & (np.abs(truth) <= fmt.smallest_subnormal / 2) & free
    for convention in kernel.conventions:
        if convention.aspect != aspect:
            continue
        at = np.zeros(got.shape, np.bool_)
        for point in convention.inputs:
            at |= np.isnan(x) if np.isnan(point) else x == point
        if not at.any():
            continue
        for answer in convention.answers:
            if np.isnan(answer):
                mask |= at & np.isnan(got)
                continue
            with np.errstate(invalid="ignore"):  # 0 times an infinite cotangent
                slack = SLOPE_ULP * fmt.unit_roundoff * np.abs(answer * g) if aspect == "gradient" else 0.0
                mask |= at & (np.abs(got - answer * g) <= slack)
    return mask
