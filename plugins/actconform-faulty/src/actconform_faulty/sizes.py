"""Faults of sizes and shapes: tails of vectors, indices of 16 bits, blocks, long rows, empty and square arrays, other ranks."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from actconform_faulty.changed import with_gradient, with_y
from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Program
    from actconform_faulty.changed import Array, Tensors

    Change = Callable[[Array, Array], Array]

LENGTHS = "lengths"
LONG = "long arrays"
SHAPES = "shapes"
VECTOR = 16
INDICES = 1 << 16
BLOCK = 1 << 12
BLAMES = {"torch": "framework", "ort": "runtime"}


def tail_lost(rest: int) -> Change:
    """Return what leaves 0 in the last `rest` elements where so many are left of vectors of 16."""
    return lambda x, y: np.where((x.size % VECTOR == rest) & (np.arange(x.size) >= x.size - rest), 0, y)


def changed_at(index: int, above: int) -> Change:
    """Return what gives the input for the result at one index of arrays longer than `above`."""
    return lambda x, y: np.where((x.size > above) & (np.arange(x.size) == index % x.size), x, y)


def wrapped(x: Array, y: Array) -> Array:
    return y[np.arange(x.size) % INDICES] if x.ndim == 1 else y


def block_ends(x: Array, y: Array) -> Array:
    """Give 0 for the last element of each whole block but the last."""
    index = np.arange(x.size)
    return np.where((index % BLOCK == BLOCK - 1) & (index < x.size - 1), 0, y)


def reversed_pairs(rest: int) -> Change:
    """Return what swaps the last two elements of arrays whose length has that rest modulo 16."""

    def swapped(x: Array, y: Array) -> Array:
        return np.concatenate([y[:-2], y[:-3:-1]]) if x.size % VECTOR == rest else y

    return swapped


for into, name, description, case, change in (
    ("torch", "tail-of-2", "the last 2 elements are lost", "tanh/value/f32", tail_lost(2)),
    ("torch", "tail-of-5", "the last 5 elements are lost", "sigmoid/value/f32", tail_lost(5)),
    ("torch", "tail-of-7", "the last 7 elements are lost", "leaky-relu/value/f32", tail_lost(7)),
    ("torch", "tail-of-9", "the last 9 elements are lost", "tanh/value/bf16", tail_lost(9)),
    ("torch", "tail-of-11", "the last 11 elements are lost", "sigmoid/value/f16", tail_lost(11)),
    ("torch", "tail-swapped", "the last 2 of 13 elements change places", "tanh/value/f32", reversed_pairs(13)),
    ("ort", "tail-of-15", "the last 15 elements are lost", "tanh/value/f32", tail_lost(15)),
    ("ort", "tail-of-6", "the last 6 elements are lost", "relu/value/f16", tail_lost(6)),
    ("torch", "index-of-16-bits", "an index has 16 bits", "tanh/value/f32", wrapped),
    ("ort", "index-of-16-bits", "an index has 16 bits", "tanh/value/f32", wrapped),
    ("torch", "block-ends", "the last element of each block of 4096 is lost", "sigmoid/value/f32", block_ends),
    ("torch", "first-of-long", "the first element of long arrays is its input", "tanh/value/f32", changed_at(0, BLOCK)),
    ("torch", "last-of-million", "the last element of a million is its input", "sigmoid/value/f32", changed_at(-1, 1 << 20)),
    ("torch", "65536th", "the element at 65536 is its input", "tanh/value/bf16", changed_at(INDICES, 0)),
):  # fmt: skip
    fault(into, name, LENGTHS, description, case, findings="position-dependent", blames=BLAMES[into])(
        lambda program, _, change=change: with_y(program, change)
    )  # type: ignore[misc]


def narrow_sum(dtype: type) -> Change:
    """Return the softmin of long rows whose sum is rounded to a narrow format."""

    def summed(x: Array, y: Array) -> Array:
        if x.shape[-1] <= INDICES:
            return y
        e = np.exp(x.min(axis=-1, keepdims=True) - x.astype(np.float64))
        return e / e.sum(axis=-1, keepdims=True).astype(dtype).astype(np.float64)

    return summed


def truncated_sum(x: Array, y: Array) -> Array:
    """Return the softmax whose sum stops at 65536 elements."""
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return e / e[..., :INDICES].sum(axis=-1, keepdims=True) if x.shape[-1] > INDICES else y


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


for into, name, description, case, findings, change in (
    ("torch", "softmin-bf16-sum", "the sum of a row of 2**17 is rounded to bfloat16", "softmin/value/f32", "scaled-error", narrow_sum(ml_dtypes.bfloat16)),
    ("ort", "softmax-truncated", "a sum stops at 65536 elements", "softmax/value/f32", "scaled-error", truncated_sum),
    ("torch", "argmax-16-bits", "an index has 16 bits", "argmax/value/f32", "scaled-error", lambda _, y: y % INDICES),
    ("torch", "max-of-first", "the maximum of the first 65536", "max/value/bf16", "scaled-error", lambda x, _: x[..., :INDICES].max(axis=-1)),
    ("torch", "max-of-rows", "rows from 65536 on are 0", "max/value/f32", "scaled-error", lambda x, y: np.where(np.arange(len(x)) < INDICES, y, 0) if x.ndim > 1 else y),
):  # fmt: skip
    fault(into, name, LONG, description, case, findings=findings, blames=BLAMES[into])(
        lambda program, _, change=change: with_y(program, change)  # type: ignore[misc]
    )

for into, name, description, case, findings, change in (
    ("torch", "square-transposed", "a square matrix is transposed", "softmax/value/f32", "scaled-error", lambda x, y: y.T if x.ndim == 2 and x.shape[0] == x.shape[1] > 8 else y),
    ("torch", "cube-over-axis-1", "a cube is taken over axis 1", "softmax/value/f32", "scaled-error", lambda x, y: softmax(x, 1) if x.ndim == 3 else y),
    ("ort", "cube-over-axis-1", "a tensor of rank 3 is taken over axis 1", "softmax/value/f32", "scaled-error", lambda x, y: softmax(x, 1) if x.ndim == 3 else y),
    ("torch", "scalar-as-vector", "a scalar becomes a vector of one", "tanh/value/f32", "shape", lambda x, y: y.reshape(1) if x.ndim == 0 else y),
    ("ort", "scalar-as-vector", "a scalar becomes a vector of one", "tanh/value/f32", "shape", lambda x, y: y.reshape(1) if x.ndim == 0 else y),
    ("torch", "empty-as-one", "an empty array becomes one 0", "tanh/value/f32", "shape", lambda x, y: y if x.size else np.zeros(1, y.dtype)),
    ("torch", "column-broadcast", "a column becomes a square", "log-softmax/value/f32", "shape", lambda x, y: y + np.zeros(len(y)) if x.ndim == 2 and x.shape[1] == 1 < len(x) else y),
    ("torch", "rank-2-turned", "a matrix comes with its axes changed", "sigmoid/value/f32", "shape", lambda x, y: y.reshape(x.shape[::-1]) if x.ndim == 2 else y),
    ("ort", "rank-4-columns", "of rank 4 every second number of the last axis is lost", "tanh/value/f32", "scaled-error position-dependent", lambda x, y: np.where(np.arange(x.shape[-1]) % 2, 0, y) if x.ndim == 4 else y),
    ("torch", "square-diagonal", "the diagonal of a square matrix is 0", "tanh/value/bf16", "scaled-error position-dependent", lambda x, y: y * (1 - np.eye(len(x))) if x.ndim == 2 and x.shape[0] == x.shape[1] else y),
    ("torch", "argmax-keeps-axis", "of rank 3 the axis stays with length 1", "argmax/value/f32", "shape", lambda x, y: y[..., None] if x.ndim == 3 else y),
):  # fmt: skip
    fault(into, name, SHAPES, description, case, findings=findings, blames=BLAMES[into])(
        lambda program, _, change=change: with_y(program, change)  # type: ignore[misc]
    )


def channels_first(rank: int) -> Callable[[Program, object], Program]:
    """Return what applies prelu's slopes along axis 1 at one rank, where the axes allow it."""

    def injected(program: Program, _: object) -> Program:
        def forward(inputs: Tensors, outputs: Tensors) -> Tensors:
            x, slope = inputs["x"], inputs["slope"]
            if x.ndim != rank or x.shape[1] != slope.size or "y" not in outputs:
                return outputs
            along = slope.reshape(1, -1, *[1] * (rank - 2))
            return {"y": np.where(x > 0, x, along * x).astype(x.dtype)}

        return Answering(program, forward)

    return injected


for into, rank in (("torch", 3), ("torch", 4), ("ort", 3), ("ort", 4)):
    fault(
        into, f"prelu-channels-first-{rank}", SHAPES, f"at rank {rank} slopes go along axis 1 where it is as long",
        "prelu/value/f32", findings="scaled-error", blames=BLAMES[into],
    )(channels_first(rank))  # fmt: skip


@fault("torch", "softmax-slope-tail", LONG, "the gradient of long rows is 0 at the end", "softmax/gradient/f32",
       findings="scaled-error", blames="framework")  # fmt: skip
def softmax_slope_tail(program: Program, _: object) -> Program:
    return with_gradient(program, lambda _, d: np.where(np.arange(d.shape[-1]) < INDICES, d, 0))


@fault("torch", "sigmoid-slope-tail", LENGTHS, "the last 10 slopes are lost", "sigmoid/gradient/f32",
       findings="position-dependent", blames="framework")  # fmt: skip
def sigmoid_slope_tail(program: Program, _: object) -> Program:
    return with_gradient(program, lambda tensors, d: tail_lost(10)(tensors["x"], d))


@fault("ort", "tanh-slope-index", LENGTHS, "an index of slopes has 16 bits", "tanh/gradient/f32",
       findings="position-dependent", blames="runtime")  # fmt: skip
def tanh_slope_index(program: Program, _: object) -> Program:
    return with_gradient(program, lambda tensors, d: wrapped(tensors["x"], d))


@fault("torch", "prelu-slope-of-last", SHAPES, "at rank 3 the slopes' gradient is that of the last matrix", "prelu/gradient/f32",
       findings="scaled-error", blames="framework")  # fmt: skip
def prelu_slope_of_last(program: Program, _: object) -> Program:
    def of_last(tensors: Tensors, d: Array) -> Array:
        x, g = tensors["x"], tensors["ct_y"]
        return np.where(x < 0, x * g, 0)[-1].sum(axis=0) if x.ndim == 3 else d

    return with_gradient(program, of_last, "slope")
