"""Error bounds of operators that read an image between its pixels: Resize, Upsample, GridSample, AffineGrid.

Places in the image are computed in float32, whatever the format of the pixels: each may be a few roundings off, except where its
arithmetic is exact, as in scaling by powers of two. What that does to a pixel is told by moving the places both ways, so that
a place next to a tie, or to the image's edge, may fall on either side, and no other.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import errors, lost
from actconform.onnx.evaluate.resizing import ResizedAxis, resized_along, resized_axes, samples_of, spread_along

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.onnx.evaluate.computation import Array
    from actconform.onnx.evaluate.elementwise import OperatorNode
    from actconform.oracle.rounding import F64

PLACE_UNIT = 2.0**-24  # places are computed in float32
PLACE_ROUNDINGS = 8.0
CUBIC_ROUNDINGS = 16.0  # of a weight, a polynomial of third degree whose terms are up to 6 times as large
CUBIC_SIZE = 1.5  # the weights' sizes add up to no more, along one axis


@error_bound("Resize", "Upsample", arithmetic=False)
def _resize(context: BoundContext, x: Approximation, *sizing: Approximation | None) -> Approximation:
    value = context.values((x, *sizing))[0]
    if any(each is not None and each.error is not None and np.any(each.error) for each in sizing):
        return Approximation(value, np.full(value.shape, np.inf))
    node, axes = resized_axes(context.node, x.value.shape, *(None if each is None else each.value for each in sizing))
    if node.attributes["mode"] == "nearest":
        return Approximation(value, _nearest_errors(node, x, value, axes))
    if context.fmt is None:  # runtimes truncate or round
        fractional = value != np.rint(value)
        doubt = 1.0 if x.error is None else 1.0 + _weighted(node, errors(x), axes)
        return Approximation(value, np.where(fractional, doubt, 0.0 if x.error is None else doubt))
    roundings = sum(2.0 + len(samples_of(node, axis.places[:1], axis.length, axis.scale)) for axis in axes)
    if node.attributes.get("antialias") or node.attributes["exclude_outside"]:  # weights are divided by their sum
        roundings *= 2.0
    cubic = node.attributes["mode"] == "cubic"
    plain = not cubic and x.error is None and np.min(x.value, initial=0.0) >= 0.0
    reach = np.abs(value) if plain else _weighted(node, x.size, axes)
    error = roundings * context.fmt.unit_roundoff * reach + np.where(reach > 0.0, 4.0 * lost(context.fmt), 0.0)
    if cubic:  # weights are as far off near their zeros as elsewhere, whichever pixels a place next to one reads
        windows = itertools.product(*(_moved_places(node, axis) or (axis,) for axis in axes))
        reaches = [_weighted(node, x.size, window, off_weights=True) for window in windows]
        error += CUBIC_ROUNDINGS * len(axes) * PLACE_UNIT * np.maximum.reduce(reaches)
    if x.error is not None:
        error += _weighted(node, errors(x), axes)
    for i, axis in enumerate(axes):
        ends = _moved_places(node, axis)
        if ends:
            moved = [_resized(node, x.value, [*axes[:i], end, *axes[i + 1 :]]) for end in ends]
            error += np.maximum(*(np.abs(each - value) for each in moved))
    return Approximation(value, error)


def _resized(node: OperatorNode, x: F64, axes: Sequence[ResizedAxis]) -> F64:
    for axis in axes:
        x = resized_along(node, x, axis)
    return x


def _weighted(node: OperatorNode, sizes: F64, axes: Sequence[ResizedAxis], *, off_weights: bool = False) -> F64:
    """Return what sizes of pixels add up to with the sizes of their weights, or with what these may be off, and more."""
    for axis in axes:
        samples = samples_of(node, axis.places, axis.length, axis.scale)
        added, factor = (1.0, _normalization(node, axis)) if off_weights else (0.0, np.ones(1))
        terms = [
            spread_along((np.abs(weight) + added) * factor, sizes.ndim, axis.axis)
            * sizes.take(at.clip(0, axis.length - 1), axis.axis)
            for at, weight in samples
        ]
        sizes = np.add.reduce(terms)
    return sizes


def _normalization(node: OperatorNode, axis: ResizedAxis) -> F64:
    """Return by how much the errors of weights grow where these are divided by the sum of those inside the image."""
    if not node.attributes["exclude_outside"]:
        return np.ones(len(axis.places))
    undivided = node._replace(attributes={**node.attributes, "exclude_outside": 0})
    samples = samples_of(undivided, axis.places, axis.length, axis.scale)
    inside = [np.where((at >= 0) & (at < axis.length), weight, 0.0) for at, weight in samples]
    factor: F64 = 3.0 / np.abs(np.add.reduce(inside))
    return factor


def _moved_places(node: OperatorNode, axis: ResizedAxis) -> tuple[ResizedAxis, ...]:
    """Return an axis with its places as far to either side as rounding may have moved them; none where they are exact."""
    if _exact_places(node, axis):
        return ()
    sizes = np.abs(axis.places) + 1.0
    if axis.cropped:  # where the crop begins at the image's edge the first place is exact
        sizes = np.abs(axis.places - axis.places[:1]) + np.abs(axis.places[:1])
    elif node.attributes["coordinate_transformation_mode"] == "half_pixel_symmetric":  # which moves by half the image
        sizes += axis.length
    off = PLACE_ROUNDINGS * PLACE_UNIT * sizes
    return axis._replace(places=axis.places - off), axis._replace(places=axis.places + off)


def _exact_places(node: OperatorNode, axis: ResizedAxis) -> bool:
    """Tell whether places come out exact however they are computed: an axis is scaled by a power of two, or goes as it is."""
    if axis.cropped:
        return np.array_equal(axis.places, np.arange(axis.length))
    count, scale = len(axis.places), axis.scale
    match node.attributes["coordinate_transformation_mode"]:
        case "align_corners":
            scale = max(count - 1, 1) / max(axis.length - 1, 1)
        case "half_pixel_symmetric" if count != scale * axis.length:
            return False
    return bool(np.frexp(scale)[0] == 0.5)


def _nearest_errors(node: OperatorNode, x: Approximation, value: Array, axes: list[ResizedAxis]) -> F64 | None:
    """Return how far apart the pixels are that places next to a tie may take; None where every pixel is certain."""
    choices = []
    for axis in axes:
        nearest = _nearest_pixels(node, axis)
        ends = [end for end in _moved_places(node, axis) if not np.array_equal(_nearest_pixels(node, end), nearest)]
        choices.append([axis, *ends])
    if x.error is None and all(len(each) == 1 for each in choices):
        return None
    error: F64 = np.zeros(value.shape)
    wide, doubt = x.value.astype(np.float64), errors(x)
    for choice in itertools.product(*choices):
        moved = np.abs(_resized(node, wide, choice) - value)
        error = np.maximum(error, moved if x.error is None else moved + _resized(node, doubt, choice))
    return error if error.any() else None


def _nearest_pixels(node: OperatorNode, axis: ResizedAxis) -> Array:
    """Return the index of the pixel that each place takes."""
    ((index, _),) = samples_of(node, axis.places, axis.length, axis.scale)
    return index.clip(0, axis.length - 1)


@error_bound("GridSample")
def _grid_sample(context: BoundContext, x: Approximation, grid: Approximation) -> Approximation:
    """Interpolation at places that the grid gives in units of half the image.

    Errors of the grid pass on as far as the image changes from pixel to pixel, and no further than from its least to its largest number.
    """
    fmt, value = context.float_format, context.values((x, grid))[0]
    rank = x.value.ndim - 2
    mode = context.node.attributes["mode"].removeprefix("bi")
    sizes = context.compute((x.size, grid.value))[0]
    if mode == "cubic":
        sizes = np.broadcast_to(CUBIC_SIZE**rank * _over_image(np.max, x.size, value.ndim), value.shape)
    unit = 0.0 if mode == "nearest" else 4.0 * rank * fmt.unit_roundoff
    error = (unit + (CUBIC_ROUNDINGS * rank * PLACE_UNIT if mode == "cubic" else 0.0)) * sizes
    if mode != "nearest":
        error += np.where(sizes > 0.0, 4.0 * lost(fmt), 0.0)
    if x.error is not None:
        error += _passed_on(context, x, grid, value, mode)
    error += _errors_of_places(context, x.value, grid.value, value)
    if grid.error is not None and np.any(grid.error):
        error += _errors_of_grid(x, grid, mode, value)
    return Approximation(value, error)


def _over_image(combine: Callable[..., F64], x: F64, rank: int) -> F64:
    """Return what `combine`, a reduction, makes of each channel of an image, to broadcast over results of that rank."""
    combined = combine(x.reshape(*x.shape[:2], -1), axis=-1)
    return combined.reshape(*combined.shape, *[1] * (rank - 2))


def _passed_on(context: BoundContext, x: Approximation, grid: Approximation, value: F64, mode: str) -> F64:
    doubt = np.array(errors(x))
    if mode == "cubic":
        most = CUBIC_SIZE ** (x.value.ndim - 2) * _over_image(np.max, doubt, value.ndim)
        return np.broadcast_to(most, value.shape)
    moved: F64 = context.compute((doubt, grid.value))[0]
    return moved


def _errors_of_places(context: BoundContext, x: F64, grid: F64, value: F64) -> F64:
    """Return what rounding of the places does, each coordinate moved to either side."""
    lengths = np.array(x.shape[2:][::-1], np.float64)
    # in units of half the image: of the coordinate, and of the pixel that it becomes
    off = PLACE_ROUNDINGS * PLACE_UNIT * (np.abs(grid) + 1.0 + 1.0 / lengths)
    if context.node.attributes["mode"] == "nearest":
        error = np.zeros(value.shape)
        for signs in itertools.product((-1.0, 0.0, 1.0), repeat=grid.shape[-1]):
            error = np.maximum(error, np.abs(context.compute((x, grid + np.array(signs) * off))[0] - value))
        return error
    error = np.zeros(value.shape)
    for axis in range(grid.shape[-1]):
        along = off * (np.arange(grid.shape[-1]) == axis)
        ends = (np.abs(context.compute((x, grid + sign * along))[0] - value) for sign in (-1.0, 1.0))
        error += np.maximum(*ends)
    return error


def _errors_of_grid(x: Approximation, grid: Approximation, mode: str, value: F64) -> F64:
    rank = x.value.ndim - 2
    low = np.minimum(_over_image(np.min, x.value, value.ndim), 0.0)
    high = np.maximum(_over_image(np.max, x.value, value.ndim), 0.0)
    span = (high - low) * (2.0 * CUBIC_SIZE**rank if mode == "cubic" else 1.0)
    pixels = errors(grid) * (np.array(x.value.shape[2:][::-1]) / 2.0)
    moved = np.sum(pixels, axis=-1)[:, None]
    if mode == "nearest":
        return np.where(moved > 0.0, span, 0.0)
    steepest = 3.0 * CUBIC_SIZE**rank if mode == "cubic" else 1.0
    passed_on: F64 = np.minimum(moved * steepest, 1.0) * span
    return passed_on


@error_bound("AffineGrid")
def _affine_grid(context: BoundContext, theta: Approximation, size: Approximation) -> Approximation:
    """Sums of products of theta with coordinates of at most 1, each of which is a few roundings off."""
    value = context.values((theta, size))[0]
    terms, unit = theta.value.shape[-1], context.float_format.unit_roundoff
    rank = value.ndim - 2

    def over_places(sums: F64) -> F64:
        return sums.reshape(len(sums), *[1] * rank, -1)

    reach = over_places(np.sum(theta.size, axis=-1))
    error = (terms + PLACE_ROUNDINGS) * unit * reach + terms * lost(context.float_format)
    if theta.error is not None:
        error = error + over_places(np.sum(errors(theta), axis=-1))
    return Approximation(value, np.broadcast_to(error, value.shape))
