"""The correctly rounded evaluator's Resize and Upsample: the real interpolation of an image, in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.elementwise import operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.onnx.evaluate.elementwise import Array, OperatorNode

RESIZE_WITH_ROI = 11  # before this opset Resize had a mode alone
OLDER = {
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "before opset 11",
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "extrapolation_value": 0.0,
}


class ResizedAxis(NamedTuple):
    """How one axis is resized: where in the image each pixel of the result lies, pixels of the image being at 0, 1, 2, ..."""

    axis: int
    length: int
    scale: float
    places: Array
    cropped: bool


@operation("Resize", "Upsample")
def _resize(node: OperatorNode, x: Array, *inputs: Array | None) -> Array:
    """Interpolate along one axis after the other; beyond its edges the image goes on as there, but where it was cropped."""
    node, axes = resized_axes(node, x.shape, *inputs)
    for resized_axis in axes:
        x = resized_along(node, x, resized_axis)
    return x


def resized_axes(
    node: OperatorNode, shape: Sequence[int], *inputs: Array | None
) -> tuple[OperatorNode, list[ResizedAxis]]:
    """Return a Resize or Upsample as that of opset 11, and its axes that change, from its inputs behind the image.

    Before opset 11 Resize takes scales alone; those of Upsample are an attribute before opset 9.
    """
    if node.op_type == "Upsample" or node.opset < RESIZE_WITH_ROI:
        scales = inputs[0] if inputs else np.asarray(node.attributes["scales"])
        inputs = (None, scales)
        node = node._replace(attributes={**OLDER, **node.attributes})
    roi, scales, sizes = (*inputs, None, None, None)[:3]
    axes = [int(axis) % len(shape) for axis in node.attributes.get("axes") or range(len(shape))]
    corners = np.reshape([0.0, 1.0] if roi is None or not roi.size else roi, (2, -1))
    corners = np.broadcast_to(corners, (2, len(axes)))
    lengths = [shape[axis] for axis in axes]
    cropped = node.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize"
    resized = []
    for axis, crop, scale, count in zip(axes, corners.T, *_targets(node, lengths, scales, sizes), strict=True):
        length = shape[axis]
        if scale != 1 or count != length or cropped:
            places = _crop_places(crop, length, count) if cropped else places_of(node, length, scale, count)
            resized.append(ResizedAxis(axis, length, scale, places, cropped))
    return node, resized


def resized_along(node: OperatorNode, x: Array, axis: ResizedAxis) -> Array:
    """Return the image resized along one axis."""
    at_most = axis.length - 1
    y: Array = np.add.reduce(
        [
            spread_along(weight, x.ndim, axis.axis) * x.take(at.clip(0, at_most), axis.axis)
            for at, weight in samples_of(node, axis.places, axis.length, axis.scale)
        ]
    )
    if not axis.cropped:
        return y
    outside = spread_along((axis.places < 0) | (axis.places > at_most), x.ndim, axis.axis)
    return np.where(outside, node.attributes["extrapolation_value"], y)


def _targets(
    node: OperatorNode, lengths: Sequence[int], scales: Array | None, sizes: Array | None
) -> tuple[list[float], list[int]]:
    """Return the scale and the new length of every axis that is resized."""
    if sizes is None or not len(sizes):
        assert scales is not None  # the standard asks for one of the two
        factors = [float(scale) for scale in scales]
        # as onnx infers it: in float32, where 10 x 2.3 is 23
        return factors, [
            math.floor(np.float32(length) * np.float32(scale)) for length, scale in zip(lengths, factors, strict=True)
        ]
    counts = [int(size) for size in sizes]
    ratios = [count / length for count, length in zip(counts, lengths, strict=True)]
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return ratios, counts
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [ratio] * len(lengths), [math.floor(ratio * length + 0.5) for length in lengths]


def _crop_places(crop: Array, length: int, count: int) -> Array:
    """Return where in the image each pixel lies of a part that begins and ends at these shares of it."""
    first, last = crop * (length - 1)
    return np.linspace(first, last, count) if count != 1 else np.array([(first + last) / 2])


def spread_along(weights: Array, rank: int, axis: int) -> Array:
    """Return weights of the places of an axis so that they broadcast."""
    return weights.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def places_of(node: OperatorNode, length: int, scale: float, count: int) -> Array:
    """Return where in the image each pixel of the result lies, pixels of the image being at 0, 1, 2, ..."""
    i, mode = np.arange(count, dtype=np.float64), node.attributes["coordinate_transformation_mode"]
    middle = (i + 0.5) / scale - 0.5
    match mode:
        case "half_pixel":
            return middle
        case "pytorch_half_pixel":
            return middle if count > 1 else np.zeros(1)
        case "half_pixel_symmetric":
            return length / 2 * (1 - count / (scale * length)) + middle
        case "asymmetric":
            return i / scale
        case "align_corners":
            return i * (length - 1) / max(count - 1, 1)
        case "tf_half_pixel_for_nn":  # of opset 11 alone, but tf2onnx writes it at any
            return middle + 0.5
    raise Unsupported(
        f"the correctly rounded evaluator does not know Resize with coordinate_transformation_mode = {mode}"
    )


ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda place: np.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: np.floor(place + 0.5),
}


def samples_of(node: OperatorNode, places: Array, length: int, scale: float) -> list[tuple[Array, Array]]:
    """Return the pixels that take part: for each place the index of one, and its weight.

    With `antialias` the weights of a smaller image reach further, as far as the distance of its pixels.
    """
    below, mode = np.floor(places), node.attributes["mode"]
    if mode == "nearest":
        rounding = node.attributes["nearest_mode"]
        if rounding == OLDER["nearest_mode"]:
            rounding = "floor" if scale >= 1 else "ceil"  # as runtimes have it: the standard was silent
        return [(ROUNDINGS[rounding](places).astype(np.int64), np.ones(len(places)))]
    smoothed = bool(node.attributes.get("antialias")) and scale < 1
    density = scale if smoothed else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / density)
    at = np.stack([below + step for step in range(1 - reach, reach + 1)])
    distance = np.abs(places - at) * density
    if mode == "linear":
        weights = np.maximum(1.0 - distance, 0.0)
    else:
        weights = np.where(distance < 2, _cubic(node.attributes["cubic_coeff_a"], distance), 0.0)
    if smoothed:
        weights = weights / weights.sum(axis=0)
    if node.attributes["exclude_outside"]:
        weights = np.where((at < 0) | (at >= length), 0.0, weights)
        weights /= weights.sum(axis=0)
    return list(zip(at.astype(np.int64), weights, strict=True))


def _cubic(a: float, distance: Array) -> Array:
    """Return the weight of a pixel at that distance, at most 2 (Keys 1981, equation 15 with -1/2 free)."""
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, inner, outer)
