"""ONNX Runtime's operators that move, cut and sample tensors, and those of linear algebra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from actconform.errors import Unsupported
from actconform.onnx.evaluate.contrib.registry import contrib

if TYPE_CHECKING:
    from actconform.onnx.evaluate.contrib.registry import Operators, Tensor
    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@contrib("Trilu", upper=1)
def _trilu(node: OperatorNode, op: Operators, x: Tensor, k: Tensor | None = None) -> Tensor:
    return op.Trilu(x, k, upper=node.attributes["upper"])


@contrib("GatherND")
def _gather_nd(_: OperatorNode, op: Operators, x: Tensor, indices: Tensor) -> Tensor:
    return op.GatherND(x, op.array(indices).astype(np.int64))


@contrib("ExpandDims")
def _expand_dims(_: OperatorNode, op: Operators, x: Tensor, axis: Tensor) -> Tensor:
    return op.Unsqueeze(x, op.array(axis).astype(np.int64).reshape(1))


@contrib("Pad", mode="constant")
def _pad(node: OperatorNode, op: Operators, x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
    value = None if value is None else op.reshape(value)
    return op.Pad(x, op.array(pads).ravel(), value, mode=node.attributes["mode"])


@contrib("Unique", types=(0, "INT64", "INT64"))
def _unique(_: OperatorNode, op: Operators, x: Tensor) -> tuple[Tensor, ...]:
    """Return the different values in the order in which they come, of each element its place among them, and their counts."""
    values = op.array(x).ravel()
    first, inverse, counts = np.unique(values, return_index=True, return_inverse=True, return_counts=True)[1:]
    order = np.argsort(first)
    places = np.argsort(order)[inverse.ravel()]
    return op.Gather(op.reshape(x, -1), np.sort(first), axis=0), places.astype(np.int64), counts[order].astype(np.int64)


@contrib("Range")
def _range(_: OperatorNode, op: Operators, start: Tensor, limit: Tensor, delta: Tensor | None = None) -> Tensor:
    step: Tensor = np.ones((), op.array(start).dtype) if delta is None else op.reshape(delta)
    return op.Range(op.reshape(start), op.reshape(limit), step)


@contrib("UnfoldTensor", dim=-1, step=1)
def _unfold(node: OperatorNode, op: Operators, x: Tensor) -> Tensor:
    """Return the slices of a size along an axis, which follow each other at a step, along a new last axis."""
    shape, size, step = op.shape(x), node.attributes["size"], node.attributes["step"]
    axis = node.attributes["dim"] % len(shape)
    places = sliding_window_view(np.arange(shape[axis]), size)[::step]
    slices = op.Gather(x, places, axis=axis)
    return op.Transpose(slices, perm=[i for i in range(len(shape) + 1) if i != axis + 1] + [axis + 1])


@contrib("IsAllFinite", types=("BOOL",), isinf_only=0, isnan_only=0)
def _is_all_finite(node: OperatorNode, op: Operators, *inputs: Tensor) -> Array:
    unwanted = [np.isinf, np.isnan]
    if node.attributes["isinf_only"]:
        unwanted = [np.isinf]
    elif node.attributes["isnan_only"]:
        unwanted = [np.isnan]
    return np.asarray(not any(test(op.array(each)).any() for each in inputs for test in unwanted))


@contrib("NGramRepeatBlock", types=(1,))
def _block_repeated_ngrams(node: OperatorNode, op: Operators, tokens: Tensor, scores: Tensor) -> Tensor:
    """Give -inf to each token that would end a sequence of `ngram_size` tokens which stands in its row already."""
    size, rows = int(node.attributes["ngram_size"]), op.array(tokens)
    blocked = np.zeros(op.shape(scores), np.bool_)
    for row, row_tokens in zip(blocked, rows.tolist(), strict=True):
        end = row_tokens[len(row_tokens) - size + 1 :]
        for i in range(len(row_tokens) - size + 1):
            if row_tokens[i : i + size - 1] == end:
                row[row_tokens[i + size - 1]] = True
    return op.Where(blocked, -np.inf, scores)


@contrib("GridSample", align_corners=0, mode="bilinear", padding_mode="zeros", types=(1,))
def _grid_sample(node: OperatorNode, op: Operators, x: Tensor, grid: Tensor) -> Tensor:
    mode, padding = node.attributes["mode"], node.attributes["padding_mode"]
    settings = {"mode": {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode), "padding_mode": padding}
    return op.GridSample(x, grid, align_corners=node.attributes["align_corners"], **settings)


@contrib("CropAndResize", mode="bilinear", extrapolation_value=0.0)
def _crop_and_resize(
    node: OperatorNode, op: Operators, x: Tensor, boxes: Tensor, images: Tensor, size: Tensor
) -> Tensor:
    """Return of each box, given by the shares of the image at which it begins and ends, the resized part of its image."""
    settings = {
        "mode": "nearest" if node.attributes["mode"] == "nearest" else "linear",
        "nearest_mode": "round_prefer_ceil",
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": node.attributes["extrapolation_value"],
    }
    channels = op.shape(x)[1]
    crops = []
    for box, image in zip(op.array(boxes), op.array(images).tolist(), strict=True):
        y1, x1, y2, x2 = box.tolist()
        sizes = np.array([1, channels, *op.array(size).tolist()], np.int64)
        roi = np.array([0.0, 0.0, y1, x1, 1.0, 1.0, y2, x2])
        crops.append(op.Resize(op.Gather(x, np.array([image]), axis=0), roi, None, sizes, **settings))
    return op.Concat(*crops, axis=0)


@contrib("CDist", metric="sqeuclidean")
def _distances(node: OperatorNode, op: Operators, a: Tensor, b: Tensor) -> Tensor:
    """Return the distances of all rows of a to all of b, as |a|^2 - 2 a b + |b|^2, which is how runtimes compute them.

    Where rows are near each other that formula cancels, and its error bound is large.
    """
    metric = node.attributes["metric"]
    if metric not in {"euclidean", "sqeuclidean"}:
        raise Unsupported(f"CDist with metric = {metric}; known are euclidean and sqeuclidean")
    squares = [op.ReduceSum(op.Mul(each, each), np.array([1]), keepdims=1) for each in (a, b)]
    doubled = op.Mul(op.MatMul(a, op.Transpose(b, perm=[1, 0])), 2.0)
    total = op.Add(op.Sub(squares[0], doubled), op.Transpose(squares[1], perm=[1, 0]))
    total = op.Max(total, 0.0)
    return op.Sqrt(total) if metric == "euclidean" else total


@contrib("Inverse")
def _inverse(_: OperatorNode, op: Operators, x: Tensor) -> Array:
    return np.asarray(np.linalg.inv(op.array(x)))


@contrib("Rfft", signal_ndim=1, onesided=1)
def _real_fourier_transform(node: OperatorNode, op: Operators, x: Tensor) -> Tensor:
    _expect_one_signal_axis(node)
    signal = op.Unsqueeze(x, np.array([-1]))
    return op.DFT(signal, None, np.array(-2), onesided=1)


@contrib("Irfft", onesided=1)
def _inverse_real_fourier_transform(node: OperatorNode, op: Operators, x: Tensor) -> Tensor:
    """Return the real signal of half a spectrum, whose other half are the conjugate numbers."""
    _expect_one_signal_axis(node)
    bins = op.shape(x)[-2]
    mirrored = op.Mul(op.Gather(x, np.arange(bins - 2, 0, -1), axis=-2), np.array([1.0, -1.0]))
    signal = op.DFT(op.Concat(x, mirrored, axis=-2), None, np.array(-2), inverse=1)
    return op.Gather(signal, np.array(0), axis=-1)


def _expect_one_signal_axis(node: OperatorNode) -> None:
    attributes = node.attributes
    if attributes["signal_ndim"] != 1 or attributes.get("normalized") or not attributes["onesided"]:
        raise Unsupported(f"{node.op_type} over several axes, normalized, or of the whole spectrum")
