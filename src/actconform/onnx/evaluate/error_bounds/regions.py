"""Error bounds of operators on regions of an image: RoiAlign, MaxRoiPool, NonMaxSuppression.

Corners and overlaps are computed in float32 or better. Where rounding may decide whether a sample lies in the image, how many
samples a bin has, or which box goes, either outcome is in the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost_in_sum
from actconform.tolerance.running_error import sum_factor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from actconform.onnx.evaluate.computation import Array
    from actconform.oracle.rounding import F64

PLACE_UNIT = 2.0**-24  # places are computed in float32
PLACE_ROUNDINGS = 8.0
OVERLAP_ROUNDINGS = 16.0


def _in_doubt(*inputs: Approximation | None) -> bool:
    return any(each is not None and each.error is not None and bool(np.any(each.error)) for each in inputs)


def _moved_corners(rois: F64, off: F64) -> Iterator[tuple[F64, F64]]:
    """Yield regions with each of their four corners as far to either side as `off` says."""
    for corner in range(rois.shape[-1] - 4, rois.shape[-1]):
        step = off * (np.arange(rois.shape[-1]) == corner)
        yield rois - step, rois + step


@error_bound("RoiAlign")
def _align_regions(context: BoundContext, x: Approximation, rois: Approximation, items: Approximation) -> Approximation:
    """Means, or the largest, of pixels interpolated at places that the corners of the regions give."""
    fmt, value = context.float_format, context.values((x, rois, items))[0]
    if _in_doubt(items):
        return Approximation(value, np.full(value.shape, np.inf))
    attributes = context.node.attributes
    lengths = x.value.shape[2:]
    scale = attributes["spatial_scale"]
    sizes = context.compute((x.size, rois.value, items.value))[0]
    samples = _samples_in_a_bin(context, rois.value * scale)
    roundings = sum_factor(4 * samples, fmt) + 6.0 * fmt.unit_roundoff
    error = roundings * sizes + np.where(sizes > 0.0, lost_in_sum(4 * samples, fmt), 0.0)
    if x.error is not None:
        error += context.compute((errors(x), rois.value, items.value))[0]
    off = PLACE_ROUNDINGS * PLACE_UNIT * (np.abs(rois.value) + max(lengths) / scale)
    if rois.error is not None:
        off = off + errors(rois)
    for ends in _moved_corners(rois.value, off):
        error += np.maximum(*(np.abs(context.compute((x.value, end, items.value))[0] - value) for end in ends))
    if _in_doubt(rois):  # between its ends a corner may pass a pixel
        error = np.maximum(error, np.where(error > 0.0, _span(x.value, value.ndim), 0.0))
    return Approximation(value, error)


def _samples_in_a_bin(context: BoundContext, rois: F64) -> int:
    attributes = context.node.attributes
    if attributes["sampling_ratio"] > 0:
        return int(attributes["sampling_ratio"]) ** 2
    extents = np.maximum(rois[:, 2:] - rois[:, :2], 1.0) if len(rois) else np.ones((1, 2))
    bins = np.array([attributes["output_width"], attributes["output_height"]])
    return int(np.max(np.prod(np.ceil(extents / bins), axis=-1), initial=1.0))


def _span(x: F64, rank: int) -> F64:
    """Return how far apart the numbers of an image are, 0 among them, to broadcast over results of that rank."""
    reach = max(float(np.max(x, initial=0.0)), 0.0) - min(float(np.min(x, initial=0.0)), 0.0)
    return np.full((1,) * rank, reach)


@error_bound("MaxRoiPool", arithmetic=False)
def _pool_regions(context: BoundContext, x: Approximation, rois: Approximation) -> Approximation:
    """Maxima over bins of whole pixels; a region's corner next to a tie, or a bin's end next to a pixel, may be on either side."""
    value = context.values((x, rois))[0]
    off = PLACE_ROUNDINGS * PLACE_UNIT * (np.abs(rois.value) + 1.0) * (np.arange(rois.value.shape[-1]) > 0)
    if rois.error is not None:
        off = off + errors(rois)
    undecided = _bins_in_doubt(context, rois.value)[:, None, None, None] & np.ones(value.shape, bool)
    for ends in _moved_corners(rois.value, off):
        for end in ends:
            undecided |= context.compute((x.value, end))[0] != value
    error = np.where(undecided, _span(x.value, value.ndim), 0.0)
    if x.error is not None:
        error = error + float(np.max(errors(x), initial=0.0))
    return Approximation(value, error if error.any() else None)


def _bins_in_doubt(context: BoundContext, rois: F64) -> NDArray[np.bool_]:
    """Tell of each region whether rounding may move an end of its bins over a pixel: where i pixels / bins is whole."""
    spread = rois[:, 1:] * context.node.attributes["spatial_scale"]
    pixels = np.copysign(np.floor(np.abs(spread) + 0.5), spread)
    doubt = np.zeros(len(rois), bool)
    for axis, bins in zip((1, 0), context.node.attributes["pooled_shape"], strict=True):
        extent = np.maximum(pixels[:, axis + 2] - pixels[:, axis] + 1.0, 1.0)[:, None]
        i = np.arange(bins + 1)
        exact = i * extent / bins
        for dtype in (np.float32, np.float64):
            wide, steps = extent.astype(dtype), i.astype(dtype)
            for size in (wide / dtype(bins), wide * (dtype(1) / dtype(bins))):
                ends = steps * size
                doubt |= ((np.floor(ends) != np.floor(exact)) | (np.ceil(ends) != np.ceil(exact))).any(axis=-1)
    return doubt


@error_bound("NonMaxSuppression", arithmetic=False)
def _suppress(
    context: BoundContext, boxes: Approximation, scores: Approximation, *limits: Approximation | None
) -> Approximation:
    """Exact, unless rounding decides: where an overlap lies next to the threshold, or equal scores in another order choose other boxes.

    Then anything is possible, another number of boxes too: as a run showed it, where it did.
    """
    value = context.values((boxes, scores, *limits))[0]
    if _in_doubt(scores, *limits) or not _same_choice(context, boxes, scores, limits, value):
        shown = next(iter(context.observed), None)
        result = value if shown is None else shown
        return Approximation(result, np.full(np.shape(result), np.inf))
    return Approximation(value)


def _same_choice(
    context: BoundContext,
    boxes: Approximation,
    scores: Approximation,
    limits: Sequence[Approximation | None],
    value: Array,
) -> bool:
    """Tell whether the same boxes are chosen with the threshold moved, and with the boxes in reverse order."""
    most, threshold, least = (None if each is None else each.value for each in (*limits, None, None, None)[:3])
    overlap = 0.0 if threshold is None else float(np.ravel(threshold)[0])
    off = _errors_of_overlaps(context, boxes) / max(overlap, 1e-2)
    for end in (-off, off) if overlap else ():
        moved = np.array([overlap * (1.0 + end)])
        if not np.array_equal(context.compute((boxes.value, scores.value, most, moved, least))[0], value):
            return False
    in_order = np.sort(scores.value, axis=-1)
    if not (in_order[..., 1:] == in_order[..., :-1]).any():
        return True
    back = context.compute((boxes.value[:, ::-1], scores.value[..., ::-1], most, threshold, least))[0]
    back = np.concatenate([back[:, :2], boxes.value.shape[1] - 1 - back[:, 2:]], axis=1)
    return bool(np.array_equal(back, value))


def _errors_of_overlaps(context: BoundContext, boxes: Approximation) -> float:
    """Return how far overlaps may be off, relatively: corners of boxes given by their centres are rounded, others exact."""
    centred = bool(context.node.attributes["center_point_box"])
    first, second = boxes.value[..., :2], boxes.value[..., 2:]
    size = np.abs(second if centred else second - first)
    corner = PLACE_UNIT * np.abs(first) if centred else 0.0
    doubt = np.max(errors(boxes), axis=-1, keepdims=True)
    relative = np.where(size > 0.0, (corner + doubt) / np.where(size > 0.0, size, 1.0), 0.0)
    return OVERLAP_ROUNDINGS * PLACE_UNIT + 8.0 * float(np.max(relative, initial=0.0))
