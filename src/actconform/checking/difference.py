"""How far two answers to the same inputs lie apart, output by output: in ULP, and relative to the largest number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.checking.flatten import wide
from actconform.onnx.evaluate.element_types import FORMATS
from actconform.tolerance.ulp import ulp_of

if TYPE_CHECKING:
    from actconform.checking.flatten import Array


class OutputDifference(msgspec.Struct, frozen=True, kw_only=True):
    """How far an output of one sample differs between two answers."""

    output: str
    sample: int
    elements: int = 0
    differing: int = 0
    """Elements that are other numbers; NaN is NaN, and -0 is 0."""
    nonfinite: int = 0
    """Those of them that are NaN or infinite in one answer."""
    ulp: float = 0.0
    """The largest difference of finite elements, in ULP of the larger of both; 0 where elements are no floats."""
    relative: float = 0.0
    """The largest difference of finite elements, over the largest finite magnitude in both answers."""
    reason: str = ""
    """Why elements are not compared."""


def output_difference(output: str, sample: int, first: Array, second: Array, element_type: int) -> OutputDifference:
    """Return how far two answers of one output lie apart, of onnx's `element_type`; a difference of shapes is its `reason`."""
    if first.shape != second.shape:
        reason = f"shape {list(second.shape)} in place of {list(first.shape)}"
        return OutputDifference(output=output, sample=sample, reason=reason)
    a, b = np.asarray(wide(first)), np.asarray(wide(second))
    differs = a != b
    if a.dtype.kind == "f":
        differs &= ~(np.isnan(a) & np.isnan(b))
    if a.dtype.kind in "SUO":
        return OutputDifference(output=output, sample=sample, elements=a.size, differing=int(np.count_nonzero(differs)))
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = differs & np.isfinite(a) & np.isfinite(b)
    largest = max(float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0)) for array in (a, b))
    with np.errstate(all="ignore"):
        apart = np.where(finite, np.abs(a - b), 0.0)
        farthest = float(np.max(apart, initial=0.0))
        fmt = FORMATS.get(element_type)
        ulp = apart / ulp_of(np.atleast_1d(np.maximum(np.abs(a), np.abs(b))), fmt) if fmt else np.zeros(1)
    return OutputDifference(
        output=output,
        sample=sample,
        elements=a.size,
        differing=int(np.count_nonzero(differs)),
        nonfinite=int(np.count_nonzero(differs & ~finite)),
        ulp=float(np.max(ulp, initial=0.0)),
        relative=farthest / largest if largest else 0.0,
    )
