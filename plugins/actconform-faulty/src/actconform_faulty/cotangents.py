"""Faults of gradients that cotangents of one size do not show: narrowed, clipped, flushed, or cleaned of what is no number."""
# ruff: noqa: D103  small changes of results; what each does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from actconform_faulty.changed import with_gradient
from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Program
    from actconform.types import Bundle
    from actconform_faulty.changed import Array

FAMILY = "cotangents"


class OtherCotangents(Answering):
    """A program that computes with other cotangents in place of its own, natively and in a graph."""

    def __init__(self, healthy: Program, change: Callable[[Array], Array]) -> None:
        super().__init__(healthy)
        self._change = change

    def forward(self, inputs: Bundle) -> Bundle:
        """A graph of gradients has its cotangents among its inputs."""
        return super().forward({name: self._changed(x) if name == "ct_y" else x for name, x in inputs.items()})

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        return super().vjp(inputs, {name: self._changed(array) for name, array in cotangents.items()})

    def _changed(self, cotangent: Array) -> Array:
        with np.errstate(all="ignore"):
            return self._change(cotangent).astype(cotangent.dtype)


def through(dtype: type) -> Callable[[Array], Array]:
    return lambda cotangent: cotangent.astype(dtype).astype(cotangent.dtype)


def clipped(cotangent: Array) -> Array:
    return np.clip(cotangent, -8, 8)


def clipped_far(cotangent: Array) -> Array:
    return np.clip(cotangent, -(2.0**24), 2.0**24)


def small_to_zero(cotangent: Array) -> Array:
    return np.where(np.abs(cotangent) < 2.0**-16, 0, cotangent)


def nan_to_zero(cotangent: Array) -> Array:
    return np.nan_to_num(cotangent, nan=0)


def cleaned(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(np.isfinite(tensors["ct_y"]), d, 0.0)


def nan_cleaned(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(np.isnan(tensors["ct_y"]), 0.0, d)


def saturated(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(np.isinf(tensors["ct_y"]), np.sign(tensors["ct_y"]) * 3e38, d)


def never_zero(tensors: dict[str, Array], d: Array) -> Array:
    return np.where(tensors["ct_y"] == 0, d + d.dtype.type(1e-7), d)


for into, name, description, case, findings, change in (
    ("torch", "tanh-bf16-cotangent", "the cotangent passes through bfloat16", "tanh/gradient/f32", "scaled-error tail", through(ml_dtypes.bfloat16)),
    ("torch", "softplus-f16-cotangent", "the cotangent passes through float16", "softplus/gradient/f32", "scaled-error tail", through(np.float16)),
    ("torch", "sigmoid-clipped-cotangent", "cotangents are clipped to 8", "sigmoid/gradient/f32", "scaled-error tail", clipped),
    ("torch", "elu-small-cotangent", "cotangents below 2**-16 are 0", "elu/gradient/f32", "scaled-error tail", small_to_zero),
    ("ort", "softplus-bf16-cotangent", "the cotangent passes through bfloat16", "softplus/gradient/f32", "scaled-error tail", through(ml_dtypes.bfloat16)),
    ("torch", "softmax-bf16-cotangent", "the cotangent passes through bfloat16", "softmax/gradient/f32", "scaled-error", through(ml_dtypes.bfloat16)),
    ("torch", "log-softmax-clipped-cotangent", "cotangents are clipped to 8", "log-softmax/gradient/f32", "scaled-error", clipped),
    ("torch", "glu-small-cotangent", "cotangents below 2**-16 are 0", "glu/gradient/f32", "scaled-error tail", small_to_zero),
    ("torch", "softmax-cleaned-cotangent", "NaN as a cotangent is 0", "softmax/gradient/f32", "nan-lost", nan_to_zero),
    ("torch", "max-integer-cotangent", "the cotangent is counted in steps of 1/32", "max/gradient/f32", "scaled-error", lambda ct: np.round(ct * 32) / 32),
    ("torch", "swiglu-half-cotangent", "the cotangent passes through float16 and overflows nowhere", "swiglu/gradient/f32", "scaled-error tail", through(np.float16)),
    ("torch", "silu-large-cotangent", "cotangents are clipped to 2**24", "silu/gradient/f32", "scaled-error tail", clipped_far),
    ("torch", "softmax-large-cotangent", "cotangents are clipped to 2**24", "softmax/gradient/bf16", "scaled-error", clipped_far),
    ("ort", "log-softmax-bf16-cotangent", "the cotangent passes through bfloat16", "log-softmax/gradient/f32", "scaled-error", through(ml_dtypes.bfloat16)),
):  # fmt: skip
    fault(
        into, name, FAMILY, description, case, findings=findings, blames="framework" if into == "torch" else "runtime"
    )(
        lambda program, _, change=change: OtherCotangents(program, change)  # type: ignore[misc]
    )

for name, description, case, findings, of_gradient in (
    ("tanh-cleaned-cotangent", "a cotangent that is no number gives 0", "tanh/gradient/f32", "nan-lost inf", cleaned),
    ("leaky-relu-cleaned-cotangent", "NaN as a cotangent gives 0", "leaky-relu/gradient/f32", "nan-lost", nan_cleaned),
    ("softplus-saturated-cotangent", "an infinite cotangent gives a large number", "softplus/gradient/f32", "inf", saturated),
    ("sigmoid-no-zero-cotangent", "1e-7 is added where the cotangent is 0", "sigmoid/gradient/f32", "scaled-error tail", never_zero),
):  # fmt: skip
    fault("torch", name, FAMILY, description, case, findings=findings, blames="framework")(
        lambda program, _, change=of_gradient: with_gradient(program, change)  # type: ignore[misc]
    )
