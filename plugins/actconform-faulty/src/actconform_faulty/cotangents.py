"""Faults of gradients that cotangents of one size do not show: narrowed, clipped, flushed, or cleaned of what is no number."""
# ruff: noqa: D103  small changes of results; what each does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from actconform_faulty.changed import with_gradient
from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform_faulty.changed import Array

FAMILY = "cotangents"


def replaced(change: Callable[[Array], Array]) -> Callable[[dict[str, Array], Array], Array]:
    """Return what gives the gradient that another cotangent in place of each would have had."""

    def rescaled(tensors: dict[str, Array], d: Array) -> Array:
        cotangent = tensors["ct_y"].astype(np.float64)
        other = change(tensors["ct_y"]).astype(np.float64)
        same = (other == cotangent) | (np.isnan(other) & np.isnan(cotangent))
        return np.where(same, d, d.astype(np.float64) * (other / cotangent))

    return rescaled


def through(dtype: type) -> Callable[[Array], Array]:
    return lambda cotangent: cotangent.astype(dtype).astype(cotangent.dtype)


def cleaned(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(np.isfinite(tensors["ct_y"]), d, 0.0)


def nan_cleaned(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(np.isnan(tensors["ct_y"]), 0.0, d)


def saturated(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(np.isinf(tensors["ct_y"]), np.sign(tensors["ct_y"]) * 3e38, d)


def never_zero(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(tensors["ct_y"] == 0, d + d.dtype.type(1e-7), d)


for into, name, what, case, findings, change in (
    ("torch", "tanh-bf16-cotangent", "the cotangent passes through bfloat16", "tanh/gradient/f32", "scaled-error tail", replaced(through(ml_dtypes.bfloat16))),
    ("torch", "softplus-f16-cotangent", "the cotangent passes through float16", "softplus/gradient/f32", "scaled-error tail", replaced(through(np.float16))),
    ("torch", "sigmoid-clipped-cotangent", "cotangents are clipped to 8", "sigmoid/gradient/f32", "scaled-error tail", replaced(lambda ct: np.clip(ct, -8, 8))),
    ("torch", "elu-small-cotangent", "cotangents below 2**-16 are 0", "elu/gradient/f32", "scaled-error tail", replaced(lambda ct: np.where(np.abs(ct) < 2.0**-16, 0, ct))),
    ("torch", "tanh-cleaned-cotangent", "a cotangent that is no number gives 0", "tanh/gradient/f32", "nan-lost inf", cleaned),
    ("torch", "leaky-relu-cleaned-cotangent", "NaN as a cotangent gives 0", "leaky-relu/gradient/f32", "nan-lost", nan_cleaned),
    ("torch", "softplus-saturated-cotangent", "an infinite cotangent gives a large number", "softplus/gradient/f32", "inf", saturated),
    ("torch", "sigmoid-no-zero-cotangent", "1e-7 is added where the cotangent is 0", "sigmoid/gradient/f32", "scaled-error tail", never_zero),
    ("ort", "softplus-bf16-cotangent", "the cotangent passes through bfloat16", "softplus/gradient/f32", "scaled-error tail", replaced(through(ml_dtypes.bfloat16))),
):  # fmt: skip
    fault(into, name, FAMILY, what, case, findings=findings, blames="framework" if into == "torch" else "runtime")(
        lambda program, _, change=change: with_gradient(program, change)  # type: ignore[misc]
    )
