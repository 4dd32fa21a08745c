"""Arrays that are parts of larger ones: slices in a row, in the order of a recurrent layer's gates, or in any other."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_layouts import exact_layout
from actconform.checking.trained.weight_values import Array, Bits, is_constant, slice_totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Arrays = Mapping[str, Callable[[], Array]]

MOST_SLICES = 1 << 18
MOST_ENTRIES = 8  # of the first axis: directions of a recurrent layer, or query, key and value
MOST_CANDIDATES = 16  # places of one slice that are tried
# Of the gates of a layer as it was trained: the order in which ONNX has them.
GATES = {(0, 3, 1, 2): "i, f, c, o as ONNX's i, o, f, c", (1, 0, 2): "r, z, h as ONNX's z, r, h"}


class Slices(NamedTuple):
    """An array seen as slices along an axis, or as a single one."""

    name: str
    axis: int | None
    totals: Bits
    """The fingerprint of each, whatever the order within it."""
    size: int
    """Elements of a slice."""
    entry: int | None = None
    """The entry along the first axis that is seen alone, such as one direction of a recurrent layer; None for all."""


class Part(NamedTuple):
    """An array, `part`, whose slices along an axis are slices of another, `whole`."""

    part: str
    axis: int | None
    """Of the part; None where all of it is one slice of the whole."""
    whole: str
    entry: int | None
    """The entry of the whole along its first axis, and nothing outside it; None where that is not so."""
    whole_axis: int
    """The axis, that entry apart."""
    places: tuple[int, ...]
    """Of each slice of the part: its place in the whole."""
    gates: str
    """How gates were reordered, "" where they were not."""

    def runs(self) -> list[tuple[int, int]]:
        """Return the places in the whole as ranges: start and end."""
        ranges: list[tuple[int, int]] = []
        for place in self.places:
            if ranges and ranges[-1][1] == place:
                ranges[-1] = ranges[-1][0], place + 1
            else:
                ranges.append((place, place + 1))
        return ranges


def find_parts(parts: Arrays, wholes: Arrays) -> list[Part]:
    """Return for each array its places in the first other that has all of its slices, bit for bit.

    Both are given as functions that return canonical arrays. Arrays of one value throughout are nowhere and everywhere: they are left out.
    """
    index: dict[tuple[int, int], list[Slices]] = defaultdict(list)
    for name, fetch in wholes.items():
        for slices in (*_slices(name, fetch()), *_slices_of_entries(name, fetch())):
            if slices.axis is not None:
                for total in np.unique(slices.totals).tolist():
                    index[slices.size, total].append(slices)
    return [part for name, fetch in parts.items() if (part := _part(name, fetch, wholes, index))]


def _slices(name: str, array: Array) -> Iterator[Slices]:
    if array.size < 2 or array.dtype.kind != "f" or is_constant(array):
        return
    totals = slice_totals(array)
    yield Slices(name, None, totals[0].sum(keepdims=True), array.size)
    for axis, total in enumerate(totals):
        if 1 < len(total) <= MOST_SLICES:
            yield Slices(name, axis, total, array.size // len(total))


def _slices_of_entries(name: str, array: Array) -> Iterator[Slices]:
    if array.ndim > 1 and len(array) <= MOST_ENTRIES:
        for entry, inner in enumerate(array):
            for slices in _slices(name, inner):
                yield slices._replace(entry=entry)


def _part(
    name: str, fetch: Callable[[], Array], wholes: Arrays, index: Mapping[tuple[int, int], list[Slices]]
) -> Part | None:
    array = fetch()
    for slices in _slices(name, array):
        for whole in index.get((slices.size, int(slices.totals[0])), ())[:MOST_CANDIDATES]:
            if len(slices.totals) > len(whole.totals):
                continue
            for places, gates in _places(slices.totals, whole.totals):
                other = wholes[whole.name]()
                other = other if whole.entry is None else other[whole.entry]
                axis = whole.axis or 0
                if exact_layout(array, np.take(other, places, axis)):
                    return Part(name, slices.axis, whole.name, whole.entry, axis, tuple(places.tolist()), gates)
    return None


def _places(part: Bits, whole: Bits) -> Iterator[tuple[Array, str]]:
    """Yield where the slices of a part may lie in a whole: in a row, gates reordered, each where it is found first."""
    orders: list[tuple[Array, str]] = [(np.arange(len(part)), "")]
    for gates, words in GATES.items():
        if len(part) % len(gates) == 0 and len(part) > 1:
            blocks = np.arange(len(part)).reshape(len(gates), -1)
            orders.append((blocks[list(gates)].reshape(-1), words))
    # Repeated slices, as in a bias of zeros and ones, lie in several places: only a recurrent layer has them in the order of its gates.
    repeated = len(np.unique(part)) < len(part)
    for order, words in orders[::-1] if repeated else orders:
        wanted = part[order]
        for start in np.flatnonzero(whole == wanted[0])[:MOST_CANDIDATES].tolist():
            if np.array_equal(whole[start : start + len(part)], wanted):
                places = np.empty(len(part), np.int64)
                places[order] = np.arange(start, start + len(part))
                yield places, words
    if np.isin(part, whole).all():
        yield _scattered(part, whole), ""


def _scattered(part: Bits, whole: Bits) -> Array:
    """Return a place for each slice: next to the one before where that fits, else the first that is free."""
    free: dict[int, list[int]] = defaultdict(list)
    for place, total in reversed(list(enumerate(whole.tolist()))):
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
