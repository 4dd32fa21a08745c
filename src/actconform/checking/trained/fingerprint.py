"""Numbers that tell tensors apart in whatever order their elements lie: what has another fingerprint is another tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.checking.flatten import Array

HUGE = 1e30  # masks hold the lowest number of a format in place of -inf: such elements are counted, not averaged


class Fingerprint(NamedTuple):
    """What no permutation and no reshape of a tensor changes."""

    counts: tuple[int, int, int, int]
    """Of all elements, of NaN, of those above HUGE and below -HUGE, infinities among them."""
    statistics: tuple[float, float, float, float, float]
    """Of the others: least, greatest, mean, mean magnitude, root mean square."""

    @property
    def largest(self) -> float:
        """The largest magnitude of an ordinary element."""
        return max(abs(self.statistics[0]), abs(self.statistics[1]))

    @property
    def alike(self) -> bool:
        """Whether all ordinary elements are the same number, so that the tensor cannot be told from others like it."""
        return self.statistics[0] == self.statistics[1]


def fingerprint(array: Array) -> Fingerprint | None:
    """Return the fingerprint of a float tensor; None for one that is empty or holds no floats."""
    if array.dtype.kind != "f" or not array.size:
        return None
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        square = float(np.dot(flat, flat))
    counts = (flat.size, 0, 0, 0)
    if not square < HUGE:
        ordinary = np.abs(flat) < HUGE
        nans, above = int(np.isnan(flat).sum()), int((flat >= HUGE).sum())
        flat, below = flat[ordinary], int((flat <= -HUGE).sum())
        counts = (ordinary.size, nans, above, below)
        square = float(np.dot(flat, flat))
    if not flat.size:
        return Fingerprint(counts, (0.0, 0.0, 0.0, 0.0, 0.0))
    size = flat.size
    moments = float(flat.sum()) / size, float(np.abs(flat).sum()) / size, float(np.sqrt(square / size))
    return Fingerprint(counts, (float(flat.min()), float(flat.max()), *moments))


class Shelf:
    """Tensors by their fingerprints."""

    def __init__(self, fingerprints: Iterable[tuple[int, Fingerprint]]) -> None:
        places: dict[tuple[int, int, int, int], list[int]] = {}
        statistics: dict[tuple[int, int, int, int], list[tuple[float, ...]]] = {}
        for place, known in fingerprints:
            places.setdefault(known.counts, []).append(place)
            statistics.setdefault(known.counts, []).append(known.statistics)
        self._shelves = {counts: (places[counts], np.array(statistics[counts])) for counts in places}
        self._sizes = {counts[0] for counts in places}

    def has_size(self, size: int) -> bool:
        """Return whether any tensor has so many elements."""
        return size in self._sizes

    def near(self, wanted: Fingerprint, tolerance: float) -> list[int]:
        """Return the tensors that may be the wanted one, where no element is off by more than `tolerance` times the largest.

        Each statistic is off by no more than the worst element is, so that none is overlooked.
        """
        if wanted.counts not in self._shelves:
            return []
        places, statistics = self._shelves[wanted.counts]
        off = np.abs(statistics - np.array(wanted.statistics)).max(axis=1)
        return [places[i] for i in np.flatnonzero(off <= tolerance * wanted.largest + 1e-300)]
