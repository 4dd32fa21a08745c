"""How a constant of a graph lays out the elements of a trained weight: transposed, reshaped, or both."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_values import Array, bits_of, equal_bits

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_AXES = 6  # longer than 1: 720 orders
SAMPLED = 64  # elements that are compared before all are


class WeightLayout(NamedTuple):
    """The axes of a trained weight in the order in which a constant has them; its shape is the constant's then."""

    permutation: tuple[int, ...]
    shape: tuple[int, ...]

    def apply(self, trained: Array) -> Array:
        """Return a trained weight as the constant lays it out."""
        return trained.transpose(self.permutation).reshape(self.shape)

    def pick(self, trained: Array, places: Array) -> Array:
        """Return the elements of a trained weight at places of the flattened constant."""
        turned = trained.transpose(self.permutation)
        picked: Array = turned[np.unravel_index(places, turned.shape)] if turned.ndim else turned.reshape(1)[places]
        return picked

    def restore(self, constant: Array, trained_shape: tuple[int, ...]) -> Array:
        """Return a constant as the trained weight lays it out."""
        turned = constant.reshape([trained_shape[axis] for axis in self.permutation])
        return turned.transpose(np.argsort(self.permutation))

    def place(self, index: int, trained_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return where an element of the flattened constant stands in the trained weight."""
        turned = np.unravel_index(index, [trained_shape[axis] for axis in self.permutation])
        places = dict(zip(self.permutation, turned, strict=True))
        return tuple(int(places[axis]) for axis in range(len(trained_shape)))

    def keeps_axes(self, trained_shape: tuple[int, ...]) -> bool:
        """Whether each axis longer than 1 is an axis of the constant."""
        sizes = [trained_shape[axis] for axis in self.permutation]
        return [size for size in sizes if size > 1] == [size for size in self.shape if size > 1]

    def in_order(self, trained_shape: tuple[int, ...]) -> bool:
        """Whether all elements stay in their order: axes of length 1 apart, none was moved."""
        long = [axis for axis in self.permutation if trained_shape[axis] > 1]
        return long == sorted(long)


def candidates(trained_shape: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[WeightLayout]:
    """Yield the layouts that a constant of this shape may have, likely ones first: in order, then those that need no reshaping.

    Axes of length 1 are nowhere. There is none where the sizes differ.
    """
    if np.prod(trained_shape, dtype=np.int64) != np.prod(shape, dtype=np.int64):
        return
    identity = tuple(range(len(trained_shape)))
    yield WeightLayout(identity, shape)
    long = [axis for axis in identity if trained_shape[axis] > 1]
    if not 1 < len(long) <= MOST_AXES:
        return
    short = tuple(axis for axis in identity if trained_shape[axis] <= 1)
    turned = [WeightLayout((*short, *order), shape) for order in permutations(long) if list(order) != long]
    yield from sorted(turned, key=lambda layout: not layout.keeps_axes(trained_shape))


def exact_layout(trained: Array, constant: Array) -> WeightLayout | None:
    """Return how a canonical constant lays out a canonical weight, bit for bit; None where it does not."""
    if trained.dtype != constant.dtype or trained.size != constant.size:
        return None
    places = np.unique(np.linspace(0, max(0, trained.size - 1), min(SAMPLED, trained.size)).astype(np.int64))
    wanted = bits_of(constant).reshape(-1)[places]
    bits = bits_of(trained)
    for layout in candidates(trained.shape, constant.shape):
        if np.array_equal(layout.pick(bits, places), wanted) and equal_bits(layout.apply(trained), constant):
            return layout
    return None
