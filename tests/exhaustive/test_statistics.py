"""Parts add up to the whole."""

from __future__ import annotations

import numpy as np

from actconform.exhaustive.statistics import (
    BINS,
    BinadeErrors,
    SweepStatistics,
    WorstError,
    added_up,
    error_histogram,
)


def test_the_histogram_counts_errors_by_powers_of_two():
    counts = error_histogram(np.array([0.0, 2.0**-31, 2.0**-30, 0.49, 0.5, 0.99, 1.0, 7.9, 8.0, 2.0**31, np.inf]))
    assert counts.size == BINS
    assert {int(place): int(counts[place]) for place in np.flatnonzero(counts)} == {
        0: 1, 1: 1, 2: 1, 30: 1, 31: 2, 32: 1, 34: 1, 35: 1, 63: 2,
    }  # fmt: skip
    statistics = SweepStatistics(histogram=tuple(counts.tolist()))
    assert [statistics.below(ulp) for ulp in (1, 2, 4, 8, 16)] == [6, 7, 7, 8, 9]


def test_parts_add_up():
    parts = [
        SweepStatistics(
            inputs=4,
            binades=(BinadeErrors(binade, WorstError(error, f"0x{binade:08x}"), WorstError(2 * error, "0x1")),),
            histogram=(4, *(0,) * (BINS - 1)),
            signed_sum=1.0,
            within=2,
            correctly_rounded=3,
            hard=(f"0x{binade}",),
        )
        for binade, error in ((5, 0.5), (3, 0.75))
    ]
    whole = added_up(parts)
    assert (whole.inputs, whole.within, whole.correctly_rounded, whole.bias) == (8, 4, 6, 0.5)
    assert whole.histogram[0] == 8
    assert [each.binade for each in whole.binades] == [3, 5]
    assert (whole.ulp, whole.scaled.error) == (WorstError(0.75, "0x00000003"), 1.5)
    assert added_up([whole]) == whole
    assert added_up([]).ulp.error == -1.0
