"""Running statistics of one output in two columns: sums, maxima and counts that each sample adds to, so that memory stays constant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.checking.agreement_result import OutputAgreement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    F64 = NDArray[np.float64]

SHORTEST_ROW, LONGEST_ROW = 2, 100_000
MOST_RANKED = 2**20  # elements of a sample whose order is compared
FIRST = 5  # of a ranking


class Mean:
    """A mean over values that come one after another, and the least of them."""

    def __init__(self) -> None:
        self.count = 0
        self.least: float | None = None
        self._sum = 0.0

    def add(self, values: F64) -> None:
        """Count some values, none of them NaN."""
        if values.size:
            self.add_sum(float(values.sum()), values.size)
            smallest = float(values.min())
            self.least = smallest if self.least is None else min(self.least, smallest)

    def add_sum(self, total: float, count: int) -> None:
        """Count `count` values by their sum."""
        self.count += count
        self._sum += total

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self._sum / self.count if self.count else None


class OutputTally:
    """What has been seen of one output."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._counts = dict.fromkeys(("samples", "elements", "unequal", "nonfinite", "reshaped", "absent"), 0)
        self._top_1, self._top_5, self._correlation, self._cosine = Mean(), Mean(), Mean(), Mean()
        self._error, self._magnitude = Mean(), Mean()
        self._largest_error, self._largest_magnitude = 0.0, 0.0
        self._worst: tuple[int, tuple[int, ...]] = (-1, ())

    def add(self, index: int, expected: Array | None, actual: Array | None) -> float:
        """Count one sample, and return its error as `WorstSample.error` has it; 0 where only one column gives the output."""
        if expected is None or actual is None:
            self._counts["absent"] += 1
            return 0.0
        if expected.shape != actual.shape:
            self._counts["reshaped"] += 1
            return math.inf
        self._counts["samples"] += 1
        self._counts["elements"] += expected.size
        if not _is_float(expected) and not _is_float(actual):
            unequal = int(np.count_nonzero(expected != actual))
            self._counts["unequal"] += unequal
            return unequal / max(expected.size, 1)
        wanted, got = expected.astype(np.float64), actual.astype(np.float64)
        with np.errstate(all="ignore"):
            error = self._add_errors(index, wanted, got)
            self._add_cosines(wanted, got)
            self._add_ranking(wanted, got)
        return error

    def result(self) -> OutputAgreement:
        """Return the statistics of all samples."""
        return OutputAgreement(
            name=self.name,
            **self._counts,
            rows=self._top_1.count,
            top_1=self._top_1.value,
            top_5=self._top_5.value,
            ranked=self._correlation.count,
            rank_correlation=self._correlation.value,
            least_rank_correlation=self._correlation.least,
            cosine=self._cosine.value,
            least_cosine=self._cosine.least,
            largest_error=self._largest_error,
            largest_error_at=self._worst[1],
            largest_error_sample=self._worst[0],
            mean_error=self._error.value or 0.0,
            magnitude=self._largest_magnitude,
            mean_magnitude=self._magnitude.value or 0.0,
        )

    def _add_errors(self, index: int, wanted: F64, got: F64) -> float:
        same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
        finite = np.isfinite(wanted) & np.isfinite(got)
        nonfinite = int(np.count_nonzero(~finite & ~same))
        self._counts["unequal"] += int(same.size - np.count_nonzero(same))
        self._counts["nonfinite"] += nonfinite
        error = np.where(finite, np.abs(wanted - got), 0.0)
        size = np.where(finite, np.abs(wanted), 0.0)
        count = int(np.count_nonzero(finite))
        self._error.add_sum(float(error.sum()), count)
        self._magnitude.add_sum(float(size.sum()), count)
        largest, magnitude = float(error.max(initial=0.0)), float(size.max(initial=0.0))
        self._largest_magnitude = max(self._largest_magnitude, magnitude)
        if largest > self._largest_error:
            self._largest_error = largest
            place = np.unravel_index(int(np.argmax(error)), error.shape)
            self._worst = (index, tuple(int(axis) for axis in place))
        return math.inf if nonfinite else largest / magnitude if magnitude else largest

    def _add_cosines(self, wanted: F64, got: F64) -> None:
        """Add the cosine of each item along the first axis; of two zero vectors it is 1, of one that is zero 0."""
        if not wanted.size:
            return
        items = (wanted.shape[0], -1) if wanted.ndim > 1 else (1, -1)
        finite = (np.isfinite(wanted) & np.isfinite(got)).reshape(items)
        a, b = (_unit_scale(np.where(finite, array.reshape(items), 0.0)) for array in (wanted, got))
        lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        both_zero = ~a.any(axis=1) & ~b.any(axis=1)
        cosines = np.where(lengths > 0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0), 0.0)
        self._cosine.add(np.clip(np.where(both_zero, 1.0, cosines), -1.0, 1.0)[finite.any(axis=1)])

    def _add_ranking(self, wanted: F64, got: F64) -> None:
        """Add what is said of rows; NaN in the actual ones counts as no agreement."""
        if wanted.ndim < 2 or not SHORTEST_ROW <= wanted.shape[-1] <= LONGEST_ROW:
            return
        n = wanted.shape[-1]
        rows = ~np.isnan(wanted).any(axis=-1).ravel()
        wanted, got = wanted.reshape(-1, n)[rows], got.reshape(-1, n)[rows]
        numbers = np.asarray(~np.isnan(got).any(axis=1))
        chosen = np.take_along_axis(wanted, np.argmax(got, axis=1)[:, None], axis=1)[:, 0]
        self._top_1.add(((chosen == wanted.max(axis=1, initial=-np.inf)) & numbers).astype(np.float64))
        if n > FIRST:
            first = np.argpartition(got, -FIRST, axis=1)[:, -FIRST:]
            fifth = np.partition(wanted, -FIRST, axis=1)[:, -FIRST, None]
            among: F64 = np.mean(np.take_along_axis(wanted, first, axis=1) >= fifth, axis=1)
            self._top_5.add(np.where(numbers, among, 0.0))
        step = -(-wanted.size // MOST_RANKED) or 1
        self._correlation.add(np.where(numbers[::step], rank_correlations(wanted[::step], got[::step]), 0.0))


def rank_correlations(a: F64, b: F64) -> F64:
    """Return Spearman's correlation of the rows of two arrays, shape (rows, n): Pearson's of their ranks, equal values sharing a mean rank.

    1 where both rows are of equal values throughout, 0 where one is. NaN make no sense here.
    """
    from scipy.stats import rankdata  # a second to import, which only a data set needs

    if not a.size:
        return np.zeros(a.shape[0])
    ranks = [rankdata(array, axis=1) for array in (a, b)]
    x, y = (rank - (a.shape[1] + 1) / 2.0 for rank in ranks)
    lengths = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    both_flat = ~x.any(axis=1) & ~y.any(axis=1)
    correlations = np.where(lengths > 0, (x * y).sum(axis=1) / np.where(lengths > 0, lengths, 1.0), 0.0)
    return np.where(both_flat, 1.0, correlations)


def _unit_scale(rows: F64) -> F64:
    """Return rows divided by their largest magnitudes, so that no square overflows or vanishes."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    return rows / np.where(largest > 0, largest, 1.0)


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or "float" in array.dtype.name
