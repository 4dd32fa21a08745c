"""Whether a tensor is another one with its axes in another order or reshaped, and how far apart they are."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.fingerprint import HUGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.checking.flatten import Array

PROBES = 192  # elements that are looked at before all are compared
MOST_AXES = 6  # longer than 1, of which every order is tried
OUTLIERS = 1000.0  # how far above a small element of a tensor its scale may lie


class Layout(NamedTuple):
    """How a tensor lies in another: `values = trained.transpose(permutation).reshape(values.shape)`."""

    permutation: tuple[int, ...]
    error: float
    """The worst element's error, over its own magnitude and the scale of the tensor."""


def laid_out(array: Array, permutation: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Return a tensor with its axes in that order, in that shape."""
    return array.transpose(permutation).reshape(shape)


def scale_of(array: Array) -> float:
    """Return the magnitude to which errors are compared: the largest one, unless a few elements lie far above the rest.

    A mask adds -10000 to scores of magnitude 1: an error of 1e-4 times that would not tell the scores of two layers apart.
    """
    flat = array.reshape(-1)
    magnitudes = np.abs(flat[:: max(1, flat.size // 8192)])
    magnitudes = magnitudes[(magnitudes > 0) & (magnitudes < HUGE)]
    largest = np.abs(flat)
    largest_ordinary = float(np.max(largest, where=largest < HUGE, initial=0.0))
    if not magnitudes.size:
        return largest_ordinary
    return min(largest_ordinary, OUTLIERS * float(np.quantile(magnitudes, 0.25)))


def worst_error(values: Array, wanted: Array, scale: float) -> float:
    """Return the largest error of `values`, each over |wanted| + scale; infinite where NaN or infinities differ."""
    with np.errstate(all="ignore"):
        error = np.abs(values - wanted)
        error /= np.abs(wanted) + (scale or 1e-300)
        worst = float(error.max(initial=0.0))
        if np.isfinite(worst):
            return worst
        error[(values == wanted) | (np.isnan(values) & np.isnan(wanted))] = 0.0
        return float(np.nan_to_num(error, nan=np.inf).max(initial=0.0))


def layout_in(values: Array, trained: Array, scale: float, tolerance: float) -> Layout | None:
    """Return how `trained` lies in `values`, which has as many elements; None where no order of its axes is within `tolerance`.

    The order that it has comes first, then those that give the shape of `values`, then all others.
    """
    generator = np.random.default_rng(values.size)
    places = generator.integers(0, values.size, PROBES)
    probes = values.reshape(-1)[places]
    for permutation in orders(trained.shape, values.shape):
        shape = tuple(trained.shape[axis] for axis in permutation)
        at = np.unravel_index(places, shape)
        sampled = trained[tuple(at[permutation.index(axis)] for axis in range(trained.ndim))]
        if worst_error(probes, sampled, scale) > tolerance:
            continue
        error = worst_error(values, laid_out(trained, permutation, values.shape), scale)
        if error <= tolerance:
            return Layout(permutation, error)
    return None


def orders(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the orders of the axes of a tensor that it may have in one of the shape `wanted`; axes of size 1 stay."""
    identity = tuple(range(len(shape)))
    yield identity
    long_axes = [axis for axis in identity if shape[axis] > 1]
    goal = [size for size in wanted if size > 1]
    if len(long_axes) > MOST_AXES or math.prod(shape) != math.prod(wanted):
        return
    others = []
    for order in permutations(long_axes):
        if list(order) == long_axes:
            continue
        permutation = list(identity)
        for axis, source in zip(long_axes, order, strict=True):
            permutation[axis] = source
        if [shape[axis] for axis in order] == goal:
            yield tuple(permutation)
        else:
            others.append(tuple(permutation))
    yield from others
