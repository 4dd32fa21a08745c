"""Faults at patterns of NaN beside the usual one, and at special elements of long rows."""
# ruff: noqa: D103  small changes of results; what each does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform_faulty.changed import with_y
from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform_faulty.changed import Array

PATTERNS = "patterns of NaN"
LONG_ROWS = "special values in long rows"
USUAL = np.uint32(0x7FC00000)


def bits(x: Array) -> Array:
    return np.ascontiguousarray(x).view(np.uint32)


def negative(x: Array) -> Array:
    return np.isnan(x) & (bits(x) >> np.uint32(31) == 1)


def signalling(x: Array) -> Array:
    return np.isnan(x) & (bits(x) & np.uint32(0x00400000) == 0)


def unusual(x: Array) -> Array:
    return np.isnan(x) & (bits(x) & np.uint32(0x7FFFFFFF) != USUAL)


for into, name, description, case, where, answer in (
    ("torch", "relu-sign-bit", "the sign bit decides: a negative NaN is 0", "relu/value/f32", negative, 0.0),
    ("torch", "leaky-relu-sign-bit", "a negative NaN is taken for 0", "leaky-relu/value/f32", negative, 0.0),
    ("torch", "sigmoid-signalling", "a signalling NaN is taken for infinity", "sigmoid/value/f32", signalling, 1.0),
    ("torch", "tanh-payload", "NaN is what equals 0x7fc00000", "tanh/value/f32", unusual, 1.0),
    ("torch", "elu-negative-nan", "a negative NaN is far below 0", "elu/value/f32", negative, -1.0),
    ("torch", "hard-tanh-signalling", "a signalling NaN is above the bound", "hard-tanh/value/f32", signalling, 1.0),
    ("torch", "softsign-payload", "NaN is what equals 0x7fc00000", "softsign/value/f32", unusual, 0.0),
    ("ort", "softplus-negative-nan", "a negative NaN is far below 0", "softplus/value/f32", negative, 0.0),
):
    fault(
        into,
        name,
        PATTERNS,
        description,
        case,
        findings="nan-lost",
        blames="framework" if into == "torch" else "runtime",
    )(
        lambda program, _, where=where, answer=answer: with_y(  # type: ignore[misc]
            program, lambda x, y: np.where(where(x), answer, y)
        )
    )


def skipping(
    length: int, replace: Callable[[Array], Array], compute: Callable[[Array], Array]
) -> Callable[[Array, Array], Array]:
    """Return what computes rows from a length on with some of their elements replaced."""
    return lambda x, y: compute(replace(x.astype(np.float64))) if x.shape[-1] >= length else y


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    return np.log(softmax(x))


def without_nan(x: Array) -> Array:
    return np.where(np.isnan(x), -np.inf, x)


def finite_masks(x: Array) -> Array:
    return np.where(x == -np.inf, -1e30, x)


for into, name, description, case, findings, change in (
    ("torch", "softmax-long-nan", "NaN is no element of rows from 16 on", "softmax/value/f32", "nan-lost", skipping(16, without_nan, softmax)),
    ("torch", "log-softmax-long-nan", "NaN is no element of rows from 1000 on", "log-softmax/value/f32", "nan-lost", skipping(1000, without_nan, log_softmax)),
    ("torch", "max-long-nan", "rows from 16 on are searched eight at a time, and NaN is lost", "max/value/f32", "nan-lost", lambda x, y: np.fmax.reduce(x, axis=-1) if x.shape[-1] >= 16 else y),
    ("torch", "softmax-long-masks", "-inf of rows from 64 on is a large number: a row of masks is uniform", "softmax/value/f32", "nan-lost", skipping(64, finite_masks, softmax)),
    ("torch", "softmin-long-nan", "NaN is no element of rows from 16 on", "softmin/value/f32", "nan-lost", skipping(16, without_nan, lambda x: softmax(-np.where(x == -np.inf, np.inf, x)))),
    ("torch", "max-long-infinity", "rows from 1000 on saturate at the largest number", "max/value/f32", "inf", lambda x, y: np.clip(y, -3e38, 3e38) if x.shape[-1] >= 1000 else y),
    ("torch", "log-softmax-long-masks", "-inf of rows from 1000 on is -1e4", "log-softmax/value/f32", "inf nan-lost", lambda x, y: np.where(np.isneginf(y) | np.isnan(y), -1e4, y) if x.shape[-1] >= 1000 else y),
    ("torch", "log-softmax-tail-mask", "-inf as the last logit of a row that fills no vector is -87", "log-softmax/value/f32", "inf", lambda x, y: np.where(np.isneginf(y) & (np.arange(x.shape[-1]) == x.shape[-1] - 1) & (x.shape[-1] % 8 > 0) & (x.shape[-1] > 8), -87, y)),
    ("torch", "softmax-finite-start", "the running maximum of rows from 64 on starts at -1e30", "softmax/value/f32", "nan-made", lambda x, y: np.where((x.shape[-1] >= 64) & (x.max(axis=-1, keepdims=True) < -1e30), np.nan, y)),
    ("torch", "softmin-huge-long", "rows from 64 on are shifted by nothing above 1e3", "softmin/value/f32", "nan-made inf", lambda x, y: np.where((x.shape[-1] >= 64) & (-x.min(axis=-1, keepdims=True) > 1e3), np.nan, y)),
    ("torch", "argmax-long-nan", "NaN is no element of rows from 16 on", "argmax/value/f32", "scaled-error", lambda x, y: np.argmax(without_nan(x), axis=-1) if x.shape[-1] >= 16 else y),
):  # fmt: skip
    fault(into, name, LONG_ROWS, description, case, findings=findings, blames="framework")(
        lambda program, _, change=change: with_y(program, change)  # type: ignore[misc]
    )
