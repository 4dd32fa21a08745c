"""The correctly rounded evaluator's operators on boxes: NonMaxSuppression and MaxRoiPool."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.elementwise import operation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


@operation("NonMaxSuppression", exact=True)
def _suppress(
    node: OperatorNode,
    boxes: Array,
    scores: Array,
    max_output: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
) -> Array:
    """Return (batch, class, box) of the boxes of highest score that overlap none before them by more than the threshold."""
    most, overlap = (0 if number is None else np.ravel(number)[0] for number in (max_output, iou_threshold))
    least = None if score_threshold is None else np.ravel(score_threshold)[0]
    corners = _corners(boxes, centred_boxes=bool(node.attributes["center_point_box"]))
    chosen = [
        (batch, class_, box)
        for batch, class_ in np.ndindex(*scores.shape[:2])
        for box in itertools.islice(
            _survivors(corners[batch], scores[batch, class_], overlap, least), max(int(most), 0)
        )
    ]
    return np.array(chosen, np.int64).reshape(-1, 3)


def _corners(boxes: Array, *, centred_boxes: bool) -> Array:
    """Return boxes as their lowest and highest corners, (..., 2, 2), of (y1, x1, y2, x2) or (x, y, width, height)."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centred_boxes:
        return np.stack([first - second / 2, first + second / 2], -2)
    return np.stack([np.minimum(first, second), np.maximum(first, second)], -2)


def _survivors(corners: Array, scores: Array, overlap: float, least: float | None) -> Iterator[int]:
    """Yield boxes by falling score, of equal ones the first, but those that a box before them covers."""
    areas = np.prod(corners[:, 1] - corners[:, 0], axis=-1)
    kept: list[int] = []
    for box in np.argsort(-scores, kind="stable").tolist():
        if least is not None and not scores[box] > least:
            continue
        shared = np.minimum(corners[box, 1], corners[kept, 1]) - np.maximum(corners[box, 0], corners[kept, 0])
        common = np.where((shared > 0).all(axis=-1), np.prod(shared, axis=-1), 0.0)
        union = areas[box] + areas[kept] - common
        counts = (common > 0) & (areas[box] > 0) & (areas[kept] > 0) & (union > 0)
        if not (counts & (common / np.where(counts, union, 1.0) > overlap)).any():
            kept.append(box)
            yield box


@operation("MaxRoiPool", exact=True)
def _pool_regions(node: OperatorNode, x: Array, rois: Array) -> Array:
    """Return the largest pixel of each bin of each region (batch, x1, y1, x2, y2), 0 where a bin is empty."""
    bins = node.attributes["pooled_shape"]
    y = np.zeros((len(rois), x.shape[1], *bins))
    for i, roi in enumerate(rois):
        image = x[int(roi[0])]
        spread = roi[1:] * node.attributes["spatial_scale"]
        pixels = np.copysign(np.floor(np.abs(spread) + 0.5), spread).astype(int)  # halves away from 0, as C's round
        rows, columns = (
            _bins(int(pixels[axis]), int(pixels[axis + 2]), n, length)
            for axis, n, length in zip((1, 0), bins, image.shape[1:], strict=True)
        )
        for (p, row), (q, column) in itertools.product(enumerate(rows), enumerate(columns)):
            part = image[:, row, column]
            y[i, :, p, q] = part.max(axis=(1, 2)) if part.size else 0.0
    return y


def _bins(first: int, last: int, n: int, length: int) -> list[slice]:
    """Return the pixels of each bin along one axis of a region that holds both its ends."""
    size = max(last - first + 1, 1) / n
    edges = [(np.floor(i * size) + first, np.ceil((i + 1) * size) + first) for i in range(n)]
    return [slice(int(np.clip(low, 0, length)), int(np.clip(high, 0, length))) for low, high in edges]
