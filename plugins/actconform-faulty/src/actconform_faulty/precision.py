"""Faults of precision: formulas that cancel or overflow, sums and results in too few bits, wrong rounding, small biases."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from actconform_faulty.changed import with_y
from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from actconform import Kernel, Model, Program
    from actconform_faulty.changed import Array, Tensors

FAMILY = "precision"
UNIT = 2.0**-24  # u of float32
OFF = {"findings": "scaled-error", "blames": "framework"}
TAIL = {"findings": "tail", "blames": "framework"}
ERF = np.vectorize(math.erf, otypes=[np.float64])


def log1p_exp(x: Array) -> Array:
    return np.log(1 + np.exp(x))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@fault("torch", "softplus-naive", FAMILY, "log(1 + exp(x)): no digits in the tail", "softplus/value/f32", **TAIL)
def softplus_naive(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(x > 80, y, log1p_exp(x)))


@fault("torch", "mish-naive", FAMILY, "x tanh(log(1 + exp(x))), in float16 too", "mish/value/f16", **TAIL)
def mish_naive(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(x > 9, y, x * np.tanh(log1p_exp(x))))


@fault("torch", "gelu-one-plus-erf", FAMILY, "1 + erf in float16 cancels in the tail", "gelu-erf/value/f16", **TAIL)
def gelu_one_plus_erf(program: Program, _: Kernel) -> Program:
    def gelu(x: Array, y: Array) -> Array:
        erf = ERF(x.astype(np.float64) / math.sqrt(2)).astype(x.dtype)
        return np.where(x < 0, x * ((1 + erf) / 2), y)

    return with_y(program, gelu)


@fault("torch", "elu-exp-less-one", FAMILY, "exp(x) - 1 cancels near 0", "elu/value/f32", **TAIL)
def elu_exp_less_one(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(x < 0, np.exp(x) - 1, y))


@fault("torch", "tanh-cancels", FAMILY, "2 / (1 + exp(-2 x)) - 1 cancels near 0", "tanh/value/f32", **TAIL)
def tanh_cancels(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(np.abs(x) < 1, 2 * sigmoid(2 * x) - 1, y))


@fault(
    "torch",
    "log-sigmoid-of-sigmoid",
    FAMILY,
    "log(sigmoid(x)): -inf where the sigmoid vanishes",
    "log-sigmoid/value/f32",
    findings="inf",
    blames="framework",
)
def log_sigmoid_of_sigmoid(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: np.log(sigmoid(x)))


@fault(
    "torch",
    "log-softmax-of-softmax",
    FAMILY,
    "log(softmax(x)): -inf where the softmax vanishes",
    "log-softmax/value/f32",
    findings="inf",
    blames="framework",
)
def log_softmax_of_softmax(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: np.log(np.exp(y)))


@fault(
    "torch",
    "softmax-without-shift",
    FAMILY,
    "the maximum is not taken away: inf / inf",
    "softmax/value/f32",
    findings="nan-made",
    blames="framework",
)
def softmax_without_shift(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True))


def running_sum(terms: Array) -> Array:
    """Return the sums of the last axis, kept in the dtype of the terms after every addition."""
    return np.cumsum(terms, axis=-1, dtype=terms.dtype)[..., -1:]


@fault("torch", "softmax-f16-sum", FAMILY, "one running sum in float16", "softmax/value/f16", **OFF)
def softmax_f16_sum(program: Program, _: Kernel) -> Program:
    def softmax(x: Array, _y: Array) -> Array:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / running_sum(e)

    return with_y(program, softmax)


@fault("torch", "log-softmax-f16-sum", FAMILY, "one running sum in float16", "log-softmax/value/f16", **OFF)
def log_softmax_f16_sum(program: Program, _: Kernel) -> Program:
    def log_softmax(x: Array, _y: Array) -> Array:
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(running_sum(np.exp(shifted)))

    return with_y(program, log_softmax)


@fault("torch", "dense-tf32", FAMILY, "matrix products take 11 bits of their factors", "linear-stack/value/f32", **OFF)
def dense_tf32(program: Program, _: Model) -> Program:
    def rounded(name: str, tensor: Array) -> Array:
        return tensor.astype(np.float16).astype(np.float32) if name.endswith(".kernel") else tensor

    def forward(inputs: Tensors, _outputs: Tensors) -> Tensors:
        return dict(program.forward({name: rounded(name, tensor) for name, tensor in inputs.items()}))

    return Answering(program, forward)


@fault(
    "torch", "relu-one-pattern", FAMILY, "one float16 of 65,536, 1.5718, gives its neighbour", "relu/value/f16", **OFF
)
def relu_one_pattern(program: Program, _: Kernel) -> Program:
    at = np.uint16(0x3E49).view(np.float16)
    return with_y(program, lambda x, y: np.where(x == at, np.nextafter(at, np.float16(2)), y))


@fault("torch", "relu-one-ulp", FAMILY, "one ULP too much, at one input alone", "relu/value/f32", **OFF)
def relu_one_ulp(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(x == 2.5, np.nextafter(y, y.dtype.type(np.inf)), y))


@fault("torch", "sigmoid-nine-units", FAMILY, "9 units off where 8 are allowed, at 0 alone", "sigmoid/value/f32", **OFF)
def sigmoid_nine_units(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, y: np.where(x == 0, y + np.float32(9 * UNIT), y))


@fault("torch", "leaky-relu-truncates", FAMILY, "the product is truncated, not rounded", "leaky-relu/value/f32", **OFF)
def leaky_relu_truncates(program: Program, kernel: Kernel) -> Program:
    def truncated(x: Array, y: Array) -> Array:
        exact = kernel.parameters["alpha"] * x.astype(np.float64)
        return np.where(np.abs(y) > np.abs(exact), np.nextafter(y, np.float32(0)), y)

    return with_y(program, lambda x, y: np.where(x < 0, truncated(x, y), y))


@fault(
    "torch",
    "sigmoid-bias",
    FAMILY,
    "3 units too much everywhere, each within the limit",
    "sigmoid/value/f32",
    findings="bias",
    blames="framework",
)
def sigmoid_bias(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: np.minimum(y * np.float32(1 + 4 * UNIT), np.float32(1)))


@fault("torch", "sigmoid-table", FAMILY, "straight lines between 512 points", "sigmoid/value/f32", **OFF)
def sigmoid_table(program: Program, _: Kernel) -> Program:
    points = np.linspace(-16, 16, 513)
    return with_y(program, lambda x, y: np.where(np.abs(x) < 16, np.interp(x, points, sigmoid(points)), y))


@fault("torch", "tanh-rational", FAMILY, "a rational function, off by 1e-5 beyond 4", "tanh/value/f32", **OFF)
def tanh_rational(program: Program, _: Kernel) -> Program:
    def rational(x: Array, _y: Array) -> Array:
        z = np.clip(x.astype(np.float64), -4.97, 4.97)
        square = z * z
        above = 135135 + square * (17325 + square * (378 + square))
        below = 135135 + square * (62370 + square * (3150 + square * 28))
        return np.clip(z * above / below, -1, 1)

    return with_y(program, rational)


@fault("torch", "sigmoid-reciprocal", FAMILY, "the division has 12 bits", "sigmoid/value/f32", **OFF)
def sigmoid_reciprocal(program: Program, _: Kernel) -> Program:
    def twelve_bits(_x: Array, y: Array) -> Array:
        return (y.view(np.uint32) & np.uint32(0xFFFFF000)).view(np.float32)

    return with_y(program, twelve_bits)


@fault("torch", "exponential-by-exp2", FAMILY, "x log2(e) is rounded to float32", "exponential/value/f32", **OFF)
def exponential_by_exp2(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda x, _y: np.exp2((x * np.float32(math.log2(math.e))).astype(np.float64)))


def through(dtype: Any, y: Array) -> Array:
    return y.astype(dtype).astype(y.dtype)


@fault("torch", "softplus-through-bf16", FAMILY, "the result passes through bfloat16", "softplus/value/f16", **OFF)
def softplus_through_bf16(program: Program, _: Kernel) -> Program:
    return with_y(program, lambda _x, y: through(ml_dtypes.bfloat16, y))


@fault("torch", "softplus-through-f16", FAMILY, "the argument passes through float16", "softplus/value/f32", **OFF)
def softplus_through_f16(program: Program, _: Kernel) -> Program:
    def half(inputs: Tensors, outputs: Tensors) -> Tensors:
        x = inputs["x"]
        near = dict(program.forward({"x": through(np.float16, x)}))
        return {"y": np.where(np.abs(x) < 60000, near["y"], outputs["y"])}

    return Answering(program, half)
