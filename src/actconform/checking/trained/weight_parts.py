"""Arrays that are parts of larger ones: slices in a row, in the order of a recurrent layer's gates, or in any other."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_layouts import exact_layout
from actconform.checking.trained.weight_values import (
    Array,
    Bits,
    is_constant,
    slice_totals,
    weight_fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Arrays = Mapping[str, Callable[[], Array]]
    Unlike = Callable[[str, str], bool]

MOST_SLICES = 1 << 18
MOST_ENTRIES = 8  # of the first axis: directions of a recurrent layer, or query, key and value
MOST_CANDIDATES = 16  # places of one slice that are tried
# Of the gates of a layer as it was trained: the order in which ONNX has them.
GATES = {(0, 3, 1, 2): "i, f, c, o as ONNX's i, o, f, c", (1, 0, 2): "r, z, h as ONNX's z, r, h"}


class Slices(NamedTuple):
    """An array, or one entry along its first axis, seen as slices along an axis."""

    name: str
    entry: int | None
    """The entry that is seen alone, such as one direction of a recurrent layer; None for all."""
    axis: int
    totals: Bits
    """The fingerprint of each slice, whatever the order within it."""


class WeightPart(NamedTuple):
    """An array, `part`, whose slices along an axis are slices of another, `container`."""

    part: str
    axis: int | None
    """Of the part; None where all of it is one slice of the container."""
    container: str
    entry: int | None
    """The entry of the container along its first axis, and nothing outside it; None where that is not so."""
    container_axis: int
    """The axis, that entry apart."""
    places: tuple[int, ...]
    """Of each slice of the part: its place in the container."""
    gates: str
    """How gates were reordered, "" where they were not."""

    def runs(self) -> list[tuple[int, int]]:
        """Return the places in the container as ranges: start and end."""
        ranges: list[tuple[int, int]] = []
        for place in self.places:
            if ranges and ranges[-1][1] == place:
                ranges[-1] = ranges[-1][0], place + 1
            else:
                ranges.append((place, place + 1))
        return ranges


def find_parts(parts: Arrays, containers: Arrays, unlike: Unlike, gated: Callable[[str], bool]) -> list[WeightPart]:
    """Return for each array its places in the first other that has all of its slices, bit for bit.

    Both are given as functions that return canonical arrays, not all of which need be in memory at once; `unlike` tells of a part and
    a container of equal size whether their elements are known to be others, `gated` of a part whether its slices may be those of gates. Arrays of one value throughout are nowhere and everywhere: they are left out.
    """
    shapes = {name: fetch().shape for name, fetch in parts.items()}
    index: dict[tuple[int, int], list[Slices]] = defaultdict(list)
    for name, fetch in containers.items():
        container = fetch()
        sizes = _slice_sizes(name, container, shapes, unlike)
        if sizes and not is_constant(container):
            for slices in _slices(name, container, sizes):
                for total in np.unique(slices.totals).tolist():
                    index[container.size // _entries(container, slices) // len(slices.totals), total].append(slices)
    if not index:
        return []
    return [
        part for name, fetch in parts.items() if (part := _part(name, fetch(), containers, index, gated=gated(name)))
    ]


def _entries(container: Array, slices: Slices) -> int:
    return 1 if slices.entry is None else len(container)


def _slice_sizes(name: str, container: Array, shapes: Mapping[str, tuple[int, ...]], unlike: Unlike) -> set[int]:
    """Return how large the slices of arrays are that may lie in another: smaller ones, and those of equal size with the same elements."""
    if container.size < 2 or container.dtype.kind != "f":
        return set()
    sizes: set[int] = set()
    for part, shape in shapes.items():
        size = int(np.prod(shape, dtype=np.int64))
        if 1 < size < container.size or (size == container.size and not unlike(part, name)):
            sizes |= {size, *(size // length for length in shape if length > 1)}
    return sizes


def _slices(name: str, container: Array, sizes: set[int]) -> Iterator[Slices]:
    """Yield an array as slices of any of some sizes, and likewise each entry along its first axis."""
    entries: list[tuple[int | None, Array]] = [(None, container)]
    if container.ndim > 1 and len(container) <= MOST_ENTRIES:
        entries += enumerate(container)
    for entry, array in entries:
        for axis, length in enumerate(array.shape):
            if 1 < length <= MOST_SLICES and array.size // length in sizes:
                yield Slices(name, entry, axis, slice_totals(array, axis))


def _part(
    name: str, array: Array, containers: Arrays, index: Mapping[tuple[int, int], list[Slices]], *, gated: bool
) -> WeightPart | None:
    if array.size < 2 or array.dtype.kind != "f" or is_constant(array):
        return None
    for axis in (None, *(axis for axis in range(array.ndim) if array.shape[axis] > 1)):
        first = array if axis is None else np.take(array, 0, axis)
        for slices in index.get((first.size, weight_fingerprint(first).total), ())[:MOST_CANDIDATES]:
            totals = (
                np.array([weight_fingerprint(array).total], np.uint64) if axis is None else slice_totals(array, axis)
            )
            container = containers[slices.name]()
            container = container if slices.entry is None else container[slices.entry]
            for places, gates in _places(totals, slices.totals, gated=gated):
                if exact_layout(array, np.take(container, places, slices.axis)):
                    return WeightPart(name, axis, slices.name, slices.entry, slices.axis, tuple(places.tolist()), gates)
    return None


def _places(part: Bits, container: Bits, *, gated: bool) -> Iterator[tuple[Array, str]]:
    """Yield where the slices of a part may lie in a container: in a row, gates reordered, each where it is found first."""
    if len(part) > len(container):
        return
    orders: list[tuple[Array, str]] = [(np.arange(len(part)), "")]
    for gates, words in GATES.items() if gated else ():
        if len(part) % len(gates) == 0 and len(part) > 1:
            blocks = np.arange(len(part)).reshape(len(gates), -1)
            orders.append((blocks[list(gates)].reshape(-1), words))
    # Repeated slices, as in a bias of zeros and ones, lie in several places: only a recurrent layer has them in the order of its gates.
    repeated = len(np.unique(part)) < len(part)
    for order, words in orders[::-1] if repeated else orders:
        wanted = part[order]
        for start in np.flatnonzero(container == wanted[0])[:MOST_CANDIDATES].tolist():
            if np.array_equal(container[start : start + len(part)], wanted):
                places = np.empty(len(part), np.int64)
                places[order] = np.arange(start, start + len(part))
                yield places, words
    if np.isin(part, container).all():
        yield _scattered(part, container), ""


def _scattered(part: Bits, container: Bits) -> Array:
    """Return a place for each slice: next to the one before where that fits, else the first that is free."""
    free: dict[int, list[int]] = defaultdict(list)
    for place, total in reversed(list(enumerate(container.tolist()))):
        free[total].append(place)
    places: list[int] = []
    for total in part.tolist():
        following = places[-1] + 1 if places else -1
        choices = free[total]
        place = following if following in choices[-MOST_CANDIDATES:] else choices[-1]
        if len(choices) > 1:
            choices.remove(place)
        places.append(place)
    return np.array(places)
