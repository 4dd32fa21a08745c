"""The correctly rounded evaluator's operators that move, cut and add up elements, where onnx's own do less than the standard says.

As in elementwise: exact, but for sums in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


@operation("CumSum")
def _cumulative_sum(node: OperatorNode, x: Array, axis_input: Array) -> Array:
    """Sum along an axis, given as a number or as a list of one."""
    axis = int(np.asarray(axis_input).reshape(()))
    turned = np.flip(x, axis) if node.attributes["reverse"] else x
    total = np.cumsum(turned, axis=axis, dtype=x.dtype)
    if node.attributes["exclusive"]:
        length = x.shape[axis]
        first = np.zeros_like(np.take(total, range(min(length, 1)), axis))
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
