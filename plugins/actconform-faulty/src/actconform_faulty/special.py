"""Faults at special values: NaN, infinities, signed zeros, subnormals, and the vector's tail where they are met."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform_faulty.changed import with_y
from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from actconform import Kernel, Program
    from actconform_faulty.changed import Array

FAMILY = "special values"
LARGEST = np.finfo(np.float32).max
NAN_LOST = {"findings": "nan-lost", "blames": "framework"}
NAN_MADE = {"findings": "nan-made", "blames": "framework"}
INF = {"findings": "inf", "blames": "framework"}
FLUSHED = {"findings": "subnormal-flush", "blames": "framework"}
ZERO_SIGN = {"findings": "zero-sign", "blames": "convention"}  # whoever gives it


@fault("torch", "relu-nan-to-zero", FAMILY, "NaN becomes 0", "relu/value/f32", "relu/value/bf16", **NAN_LOST)
def relu_nan_to_zero(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: np.where(np.isnan(y), 0, y))


@fault("torch", "elu-nan-to-floor", FAMILY, "NaN becomes -1, as x < 0 would", "elu/value/f32", **NAN_LOST)
def elu_nan_to_floor(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(np.isnan(x), -1, y))


@fault("torch", "max-skips-nan", FAMILY, "the maximum of the others", "max/value/f32", **NAN_LOST)
def max_skips_nan(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: np.fmax.reduce(x, axis=-1))


@fault("torch", "clip-nan-to-bound", FAMILY, "NaN becomes the upper bound", "hard-tanh/value/f16", **NAN_LOST)
def clip_nan_to_bound(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: np.clip(np.where(np.isnan(x), np.inf, x), -1, 1))


@fault(
    "torch",
    "argmax-skips-nan",
    FAMILY,
    "the index of the maximum of the others",
    "argmax/value/f32",
    findings="scaled-error",
    blames="framework",
)
def argmax_skips_nan(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: np.argmax(np.where(np.isnan(x), -np.inf, x), axis=-1))


@fault("torch", "softsign-nan-at-zero", FAMILY, "the sign is x / |x|: 0 / 0", "softsign/value/f32", **NAN_MADE)
def softsign_nan_at_zero(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.abs(y) * np.where(np.isinf(x), np.sign(x), x / np.abs(x)))


@fault("torch", "sigmoid-inf-by-inf", FAMILY, "exp(x) / (1 + exp(x)): NaN for large x", "sigmoid/value/f32", **NAN_MADE)
def sigmoid_inf_by_inf(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(x > 0, np.exp(x) / (1 + np.exp(x)), y))


@fault("torch", "relu-by-mask", FAMILY, "x (x > 0): NaN at -inf", "relu/value/f32", **NAN_MADE)
def relu_by_mask(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: x * (x > 0))


@fault(
    "torch", "exponential-capped", FAMILY, "no more than the largest number, inf never", "exponential/value/f32", **INF
)
def exponential_capped(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: np.minimum(y, LARGEST))


@fault("torch", "softplus-inf-lost", FAMILY, "the largest number at inf", "softplus/value/f32", **INF)
def softplus_inf_lost(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(np.isposinf(x), LARGEST, y))


@fault("torch", "relu-squared-overflows-early", FAMILY, "inf from half the range", "relu-squared/value/f32", **INF)
def relu_squared_overflows_early(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: np.where(y > LARGEST / 2, np.inf, y))


@fault("torch", "linear-inf-sign", FAMILY, "-inf becomes inf", "linear/value/f32", **INF)
def linear_inf_sign(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: np.where(np.isinf(y), np.inf, y))


@fault("torch", "max-starts-at-lowest", FAMILY, "a row of -inf gives the lowest number", "max/value/f32", **INF)
def max_starts_at_lowest(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: np.maximum(y, -LARGEST))


@fault("torch", "tanh-zero-to-plus", FAMILY, "-0 becomes +0", "tanh/value/f32", **ZERO_SIGN)
def tanh_zero_to_plus(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: y + 0)


@fault(
    "torch", "hard-shrink-zero-to-minus", FAMILY, "-0 in the dead zone below 0", "hard-shrink/value/f32", **ZERO_SIGN
)
def hard_shrink_zero_to_minus(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(y == 0, np.copysign(0, x), y))


def flushed(_x: Array, y: Array) -> Array:
    return np.where(np.abs(y) < np.finfo(y.dtype).tiny, np.copysign(0, y), y)


@fault("torch", "relu-flushes", FAMILY, "subnormal results become 0", "relu/value/f32", **FLUSHED)
def relu_flushes(program: Program, _: Kernel) -> Program:
    return with_y(program, flushed)


@fault("torch", "leaky-relu-flushes-f16", FAMILY, "subnormal results become 0", "leaky-relu/value/f16", **FLUSHED)
def leaky_relu_flushes_f16(program: Program, _: Kernel) -> Program:
    return with_y(program, flushed)


@fault("torch", "silu-flushes", FAMILY, "subnormal inputs count as 0", "silu/value/f32", **FLUSHED)
def silu_flushes(program: Program, _: Kernel) -> Program:
    def flushed_before(x: Array, y: Array) -> Array:
        return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(0, x), y)

    return with_y(program, flushed_before)


@fault("torch", "softmax-masked-row", FAMILY, "NaN in a row that masks some with -inf", "softmax/value/f32", **NAN_MADE)
def softmax_masked_row(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: y + 0 * np.where(np.isneginf(x), x, 0).sum(axis=-1, keepdims=True))


def nan_to_zero_at_the_end(_x: Array, y: Array) -> Array:
    tail = np.arange(y.size) >= y.size // 8 * 8
    return np.where(tail & np.isnan(y), 0, y)


@fault(
    "torch",
    "relu-tail-loses-nan",
    FAMILY,
    "NaN becomes 0 where the array's length leaves a rest of 8",
    "relu/value/f32",
    findings="position-dependent",
    blames="framework",
)
def relu_tail_loses_nan(program: Program, _: Kernel) -> Program:
    return with_y(program, nan_to_zero_at_the_end)


@fault("torch", "sigmoid-nan-spreads", FAMILY, "one NaN makes its vector of 8 NaN", "sigmoid/value/f32", **NAN_MADE)
def sigmoid_nan_spreads(program: Program, _: Kernel) -> Program:
    def spread(_x: Array, y: Array) -> Array:
        lane = np.arange(y.size) // 8
        return np.where(np.isin(lane, lane[np.isnan(y)]), np.nan, y)

    return with_y(program, spread)
