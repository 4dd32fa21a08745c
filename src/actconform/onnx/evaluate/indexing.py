"""The correctly rounded evaluator's operators that move, cut and add up elements, where onnx's own do less than the standard says.

As in elementwise: exact, but for sums in float64.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.onnx.evaluate.elementwise import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@operation("Pad")
def _pad(
    node: OperatorNode,
    x: Array,
    pads: Array | None = None,
    value: Array | None = None,
    axes: Sequence[int] | None = None,
) -> Array:
    """Cut where a pad is negative, then pad. Amounts and value are attributes before opset 11."""
    amounts = [int(pad) for pad in (node.attributes["pads"] if pads is None else pads)]
    fill = node.attributes.get("value", 0) if value is None else np.asarray(value).reshape(())
    cuts, widths = [slice(None)] * x.ndim, [(0, 0)] * x.ndim
    chosen = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
    half = len(amounts) // 2
    for axis, before, after in zip(chosen, amounts[:half], amounts[half:], strict=True):
        cuts[axis] = slice(max(-before, 0), max(x.shape[axis] + min(after, 0), 0))
        widths[axis] = max(before, 0), max(after, 0)
    cropped, mode = x[tuple(cuts)], node.attributes["mode"]
    padded: Array = (
        np.pad(cropped, widths, constant_values=fill) if mode == "constant" else np.pad(cropped, widths, mode=mode)
    )
    return padded


@operation("Shape", exact=True)
def _shape(node: OperatorNode, x: Array) -> Array:
    """Of the axes from `start` up to `end`, each counted from either end and clamped to those that there are."""
    ends = (node.attributes.get("start") or 0, node.attributes.get("end"))
    start, end = (x.ndim if end is None else min(max(end + x.ndim if end < 0 else end, 0), x.ndim) for end in ends)
    return np.array(x.shape[start:end], np.int64)


ACCUMULATED: dict[str, tuple[np.ufunc, int]] = {"CumSum": (np.add, 0), "CumProd": (np.multiply, 1)}


@operation(*ACCUMULATED)
def _cumulative(node: OperatorNode, x: Array, axis_input: Array) -> Array:
    """Sum or multiply along an axis, given as a number or as a list of one."""
    combine, empty = ACCUMULATED[node.op_type]
    axis = int(np.asarray(axis_input).reshape(()))
    turned = np.flip(x, axis) if node.attributes["reverse"] else x
    total = combine.accumulate(turned, axis=axis, dtype=x.dtype)
    if node.attributes["exclusive"]:
        length = x.shape[axis]
        first = np.full_like(np.take(total, range(min(length, 1)), axis), empty)
        total = np.concatenate([first, np.take(total, range(length - 1), axis)], axis) if length else total
    result: Array = np.flip(total, axis) if node.attributes["reverse"] else total
    return result


@operation("CenterCropPad")
def _center_crop_pad(node: OperatorNode, x: Array, shape: Array) -> Array:
    """Cut or pad each axis about its centre; of an odd number more goes, or is cut, behind."""
    for axis, wanted in zip(node.attributes.get("axes") or range(x.ndim), shape.tolist(), strict=True):
        spare = x.shape[axis] - wanted
        if spare >= 0:
            x = np.take(x, range(spare // 2, spare // 2 + wanted), axis)
        else:
            widths = [(0, 0)] * x.ndim
            widths[axis] = (-spare // 2, -spare - -spare // 2)
            x = np.pad(x, widths)
    return x


@operation("MaxUnpool")
def _max_unpool(node: OperatorNode, x: Array, places: Array, shape: Sequence[int] | None = None) -> Array:
    """Put each element at its place in the flat tensor of which it was the maximum, and that at the front of a larger one."""
    rank = x.ndim - 2
    strides, pads = node.attributes.get("strides") or [1] * rank, node.attributes.get("pads") or [0] * 2 * rank
    each = zip(x.shape[2:], strides, node.attributes["kernel_shape"], pads[:rank], pads[rank:], strict=True)
    before = [*x.shape[:2], *((n - 1) * stride + size - first - last for n, stride, size, first, last in each)]
    image = np.zeros(before, x.dtype)
    image.reshape(-1)[places.ravel()] = x.ravel()
    if shape is None:
        return image
    larger = np.zeros([int(length) for length in shape], x.dtype)
    larger[tuple(slice(0, length) for length in before)] = image
    return larger


@operation("Col2Im")
def _columns_to_image(node: OperatorNode, x: Array, image_shape: Array, block_shape: Array) -> Array:
    """Add up the windows (N, C kernel, L) where they lie in the image."""
    image, block = image_shape.tolist(), block_shape.tolist()
    rank = len(image)
    strides, dilations = (node.attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    pads = node.attributes.get("pads") or [0] * 2 * rank
    wide = [size + before + after for size, before, after in zip(image, pads[:rank], pads[rank:], strict=True)]
    each = zip(wide, block, strides, dilations, strict=True)
    counts = [(size - (n - 1) * dilation - 1) // stride + 1 for size, n, stride, dilation in each]
    columns = x.reshape(len(x), -1, *block, *counts)
    y = np.zeros((*columns.shape[:2], *wide), x.dtype)
    for at in np.ndindex(*block):
        places = [
            slice(i * dilation, i * dilation + (n - 1) * stride + 1, stride)
            for i, dilation, n, stride in zip(at, dilations, counts, strides, strict=True)
        ]
        y[(slice(None), slice(None), *places)] += columns[(slice(None), slice(None), *at)]
    return y[
        (slice(None), slice(None), *(slice(pad, pad + size) for pad, size in zip(pads[:rank], image, strict=True)))
    ]


REDUCED: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(node: OperatorNode, x: Array, place: tuple[Array, ...], updates: Array) -> Array:
    """Return x with the updates at their places, or combined with what is there."""
    y = x.copy()
    if (reduction := node.attributes.get("reduction", "none")) == "none":
        y[place] = updates
    else:
        REDUCED[reduction].at(y, place, updates)
    return y


@operation("ScatterElements", "Scatter", exact=True)
def _scatter_elements(node: OperatorNode, x: Array, index: Array, updates: Array) -> Array:
    place: list[Any] = list(np.indices(index.shape, sparse=True))
    place[node.attributes["axis"]] = index
    return _scatter(node, x, tuple(place), updates)


@operation("ScatterND", exact=True)
def _scatter_slices(node: OperatorNode, x: Array, index: Array, updates: Array) -> Array:
    return _scatter(node, x, tuple(np.moveaxis(index, -1, 0)), updates)


@operation("GatherND", exact=True)
def _gather_slices(node: OperatorNode, x: Array, index: Array) -> Array:
    batch = node.attributes.get("batch_dims", 0)
    rank = index.ndim - 1
    before = [np.arange(x.shape[i]).reshape([-1 if j == i else 1 for j in range(rank)]) for i in range(batch)]
    y: Array = x[(*before, *np.moveaxis(index, -1, 0))]
    return y


@operation("TensorScatter", exact=True)
def _scatter_into_cache(node: OperatorNode, past: Array, update: Array, write_indices: Array | None = None) -> Array:
    """Write each sample's update into its cache from an index on, or around its end."""
    present = past.copy()
    axis = node.attributes["axis"] % past.ndim
    into, updates = np.moveaxis(present, axis, 1), np.moveaxis(update, axis, 1)
    for item, first in enumerate(np.zeros(len(past), np.int64) if write_indices is None else write_indices):
        places = int(first) + np.arange(updates.shape[1])
        into[item, places % into.shape[1] if node.attributes["mode"] == "circular" else places] = updates[item]
    return present


@operation("OneHot", exact=True)
def _one_hot(node: OperatorNode, indices: Array, depth: Array, values: Array) -> Array:
    """Return the second value at each index along a new axis, the first elsewhere; indices count from the end where negative."""
    n = int(np.ravel(depth)[0])
    axis = node.attributes["axis"] % (indices.ndim + 1)
    at = np.where(indices < 0, indices + n, indices).astype(np.int64)
    chosen = np.expand_dims(at, axis) == np.arange(n).reshape([-1 if i == axis else 1 for i in range(indices.ndim + 1)])
    y: Array = np.where(chosen, values[1], values[0])
    return y


@operation("TopK", exact=True)
def _top(node: OperatorNode, x: Array, k: Array | None = None) -> tuple[Array, Array]:
    """Return the largest, or the least, in order, of equal ones the first; and their indices. `k` is an attribute before opset 10."""
    axis = node.attributes["axis"]
    count = int(node.attributes["k"] if k is None else np.ravel(k)[0])
    if node.attributes.get("largest", 1):
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    first = np.take(order, np.arange(count), axis)
    return np.take_along_axis(x, first, axis), first


@operation("Unique", exact=True)
def _unique(node: OperatorNode, x: Array) -> tuple[Array, Array, Array, Array]:
    """Return the values, or slices, that differ, where each stands first, which each element is, and how often each occurs."""
    axis = node.attributes.get("axis")
    y, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not node.attributes["sorted"]:
        order = np.argsort(first)
        y, first, counts = np.take(y, order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return y, first, inverse, counts


@operation("TfIdfVectorizer")
def _count_ngrams(node: OperatorNode, x: Array) -> Array:
    """Return how often each n-gram of a pool occurs in each row of integers, or whether it does, times its weight."""
    attributes = node.attributes
    pool, starts = attributes["pool_int64s"], [*attributes["ngram_counts"], len(attributes["pool_int64s"])]
    grams = [
        tuple(pool[i : i + n]) for n, (first, last) in enumerate(pairwise(starts), 1) for i in range(first, last, n)
    ]
    column = dict(zip(grams, attributes["ngram_indexes"], strict=True))
    rows = x.reshape(-1, x.shape[-1]).tolist()
    counts = np.zeros((len(rows), max(attributes["ngram_indexes"]) + 1))
    for row, counted in zip(rows, counts, strict=True):
        for n in range(attributes["min_gram_length"], attributes["max_gram_length"] + 1):
            for skip in range(1, 2 if n == 1 else attributes["max_skip_count"] + 2):
                for i in range(len(row) - (n - 1) * skip):
                    at = column.get(tuple(row[i : i + (n - 1) * skip + 1 : skip]))
                    if at is not None:
                        counted[at] += 1
    weights = np.ones(counts.shape[1])
    if "weights" in attributes:
        weights[attributes["ngram_indexes"]] = attributes["weights"]
    scored: dict[str, Array] = {"TF": counts, "IDF": (counts > 0) * weights, "TFIDF": counts * weights}
    return scored[attributes["mode"]].reshape(*x.shape[:-1], -1)
