"""The correctly rounded evaluator's operators that read an image between its pixels: GridSample, AffineGrid, DeformConv, RoiAlign.

As in elementwise: the real function of the inputs, in float64, channels first.
"""

from __future__ import annotations

import itertools
import math
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.errors import Unsupported
from actconform.onnx.evaluate.elementwise import operation
from actconform.onnx.evaluate.windows import per_channel, placings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.evaluate.elementwise import Array, OperatorNode


MOST_SAMPLES = 10_000  # along one axis of a region


class Tap(NamedTuple):
    """Pixels that take part along one axis: for each place the index of one, inside the image, its weight, and whether it counts."""

    pixel: Array
    weight: Array
    inside: Array


def _tap(pixel: Array, weight: Array, size: int) -> Tap:
    return Tap(pixel.clip(0, size - 1).astype(np.int64), weight, (pixel >= 0) & (pixel < size))


def linear_taps(places: Array, size: int) -> list[Tap]:
    """Return the two pixels about each place along an axis of that size; outside the image are zeros."""
    below = np.floor(places)
    return [_tap(below, 1 - (places - below), size), _tap(below + 1, places - below, size)]


def weighted_pixels(image: Array, taps: Sequence[Sequence[Tap]]) -> Array:
    """Return the image (c, *lengths) at places given by their taps along each axis, of one shape, as (c, *places)."""
    total = np.zeros((len(image), *taps[0][0].pixel.shape))
    for pixels in itertools.product(*taps):
        weight = math.prod(tap.weight for tap in pixels)
        inside = np.logical_and.reduce([tap.inside for tap in pixels])
        flat = np.ravel_multi_index([tap.pixel for tap in pixels], image.shape[1:])
        total += np.where(inside, image.reshape(len(image), -1)[:, flat], 0.0) * weight
    return total


@operation("GridSample")
def _grid_sample(node: OperatorNode, x: Array, grid: Array) -> Array:
    """Weighted pixels about each place; beyond the image zeros, the border, or the image mirrored."""
    results = []
    for image, places in zip(x, grid, strict=True):
        coordinates = np.moveaxis(places, -1, 0)[::-1]  # the last axis comes first in a grid
        taps = [_grid_taps(node, c, size) for c, size in zip(coordinates, image.shape[1:], strict=True)]
        results.append(weighted_pixels(image, taps))
    return np.stack(results) if results else np.zeros((0, x.shape[1], *grid.shape[1:-1]))


def _grid_taps(node: OperatorNode, coordinates: Array, size: int) -> list[Tap]:
    """Return the pixels along one axis that are read for coordinates of -1 to 1."""
    edges = (0.0, size - 1.0) if node.attributes["align_corners"] else (-0.5, size - 0.5)
    places = (coordinates + 1) / 2 * (edges[1] - edges[0]) + edges[0]
    mode, padding = node.attributes["mode"].removeprefix("bi"), node.attributes["padding_mode"]
    if mode != "cubic":
        places = _moved(padding, places, edges, size)
    if mode == "nearest":
        return [_tap(np.rint(places), np.ones(places.shape), size)]
    if mode == "linear":
        return linear_taps(places, size)
    below = np.floor(places)
    t = places - below
    return [
        _tap(_moved(padding, below + step, edges, size), _keys(np.abs(t - step)), size)
        for step in (-1.0, 0.0, 1.0, 2.0)
    ]


def _moved(padding: str, places: Array, edges: tuple[float, float], size: int) -> Array:
    """Return places, or pixels, moved into the image as the padding says."""
    if padding == "zeros":
        return places
    first, last = edges
    if padding == "reflection" and last > first:
        turns, rest = np.divmod(np.abs(places - first), last - first)
        places = first + np.where(turns % 2 == 1, last - first - rest, rest)
    return places.clip(0.0, size - 1.0)


def _keys(distance: Array, a: float = -0.75) -> Array:
    """Return the weights of pixels at these distances, at most 2 (Keys 1981)."""
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, inner, outer)


@operation("AffineGrid")
def _affine_grid(node: OperatorNode, theta: Array, size: Array) -> Array:
    """Return theta (x, y[, z], 1) at the pixels of an image that spans -1 to 1: at its corners' middles, or at its edges."""
    lengths = [int(length) for length in size[2:]]
    axes = [
        (np.linspace(-1.0, 1.0, n) if n > 1 else np.zeros(n))
        if node.attributes["align_corners"]
        else (2 * np.arange(n) + 1) / n - 1
        for n in lengths
    ]
    coordinates = np.meshgrid(*axes, indexing="ij")[::-1]
    homogeneous = np.stack([*coordinates, np.ones(lengths)], -1)
    grid: Array = np.einsum("nij,...j->n...i", theta, homogeneous)
    return grid


@operation("DeformConv")
def _deformable_conv(
    node: OperatorNode,
    x: Array,
    kernel: Array,
    offset: Array,
    bias: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """Convolve pixels that are read beside their places: each group of channels at offsets of its own, times its mask."""
    groups, offset_groups = int(node.attributes["group"]), int(node.attributes["offset_group"])
    placings = placings_of(node, x.shape[2:], kernel.shape[2:])
    size, rank, counts = math.prod(kernel.shape[2:]), x.ndim - 2, offset.shape[2:]
    moves = offset.reshape(len(x), offset_groups, size, rank, *counts)
    masks = (
        np.ones((len(x), offset_groups, size, *counts))
        if mask is None
        else mask.reshape(len(x), offset_groups, size, *counts)
    )
    starts = [
        _along_axis(np.arange(count) * place.stride - place.before, axis, rank)
        for axis, (count, place) in enumerate(zip(counts, placings, strict=True))
    ]
    weights = kernel.reshape(groups, len(kernel) // groups, -1)
    y = np.empty((len(x), len(kernel), *counts))
    for item, image in enumerate(x):
        columns = np.empty((offset_groups, len(image) // offset_groups, size, *counts))
        for group, part in enumerate(image.reshape(offset_groups, -1, *image.shape[1:])):
            for k, at in enumerate(np.ndindex(*kernel.shape[2:])):
                places = [
                    start + i * place.dilation + move
                    for start, i, place, move in zip(starts, at, placings, moves[item, group, k], strict=True)
                ]
                taps = [linear_taps(each, length) for each, length in zip(places, image.shape[1:], strict=True)]
                columns[group, :, k] = weighted_pixels(part, taps) * masks[item, group, k]
        y[item] = (weights @ columns.reshape(groups, weights.shape[2], -1)).reshape(y.shape[1:])
    return y if bias is None else y + per_channel(bias, y)


def _along_axis(values: Array, axis: int, rank: int) -> Array:
    return values.reshape([-1 if i == axis else 1 for i in range(rank)]).astype(np.float64)


@operation("RoiAlign")
def _align_regions(node: OperatorNode, x: Array, rois: Array, batch_indices: Array) -> Array:
    """Return the mean of samples in each bin of each region (x1, y1, x2, y2).

    The largest is that of a sample's weighted pixels, not of their sum: so onnx's own cases have it, and runtimes.
    """
    attributes = node.attributes
    half = 0.5 if attributes.get("coordinate_transformation_mode", "output_half_pixel") == "half_pixel" else 0.0
    bins = attributes["output_height"], attributes["output_width"]
    y = np.zeros((len(rois), x.shape[1], *bins))
    for i, (roi, item) in enumerate(zip(rois * attributes["spatial_scale"] - half, batch_indices, strict=True)):
        spans = (roi[1], roi[3]), (roi[0], roi[2])
        rows, columns = (
            _bin_samples(span, n, length, int(attributes["sampling_ratio"]), malformed=not half)
            for span, n, length in zip(spans, bins, x.shape[2:], strict=True)
        )
        image = x[int(item)]
        parts = (row @ image @ column.T for row in rows for column in columns)
        samples = reduce(np.maximum if attributes["mode"] == "max" else np.add, parts)
        if samples.size:
            binned = samples.reshape(x.shape[1], bins[0], -1, bins[1], samples.shape[2] // bins[1])
            y[i] = binned.max(axis=(2, 4)) if attributes["mode"] == "max" else binned.mean(axis=(2, 4))
    return y


def _bin_samples(span: tuple[float, float], bins: int, length: int, ratio: int, *, malformed: bool) -> list[Array]:
    """Return the weights (samples, length) of the pixels before, and behind, all samples of all bins along an axis.

    Samples up to a pixel beyond the image are read at its edge, those further out are 0. A region is at least 1 long where it
    may be `malformed`.
    """
    first, last = span
    extent = max(last - first, 1.0) if malformed else last - first
    n = ratio if ratio > 0 else max(math.ceil(extent / bins), 0)
    if n * bins > MOST_SAMPLES:
        raise Unsupported(f"RoiAlign with {n * bins:,} samples along one axis; at most {MOST_SAMPLES:,} are taken")
    places = first + (np.arange(bins)[:, None] + (np.arange(n) + 0.5) / max(n, 1)).ravel() * extent / bins
    inside = (places >= -1.0) & (places <= length)
    pixels = np.arange(length)
    return [
        np.where((tap.pixel[:, None] == pixels) & (inside & tap.inside)[:, None], tap.weight[:, None], 0.0)
        for tap in linear_taps(places.clip(0.0, length - 1.0), length)
    ]
