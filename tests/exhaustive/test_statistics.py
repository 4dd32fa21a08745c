"""Parts add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.exhaustive.statistics import (
    BINS,
    BinadeErrors,
    SweepStatistics,
    WorstError,
    added_up,
    error_histogram,
    joined_binades,
)
from actconform.types import Finding, FindingClass, Interval


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


def finding(first, last, *, count=1, class_=FindingClass.TAIL, magnitude=1.0, cause=None):
    return Finding(
        class_=class_,
        count=count,
        regime="sweep",
        tensor="y",
        interval=Interval(first, last),
        worst=None,
        magnitude=magnitude,
        deviation=cause,
    )


def test_findings_of_a_class_and_cause_in_neighbouring_binades_are_joined():
    low, high = finding("0x00800001", "0x00ffffff", count=2), finding("0x01000000", "0x010000ff", magnitude=3.0)
    apart = finding("0x02000000", "0x02000001")
    negative = [finding("0x80ffffff", "0x80800001", count=2), finding("0x81000009", "0x81000000", count=3)]
    joined = joined_binades([high, *negative[::-1], apart, low])
    assert joined == (
        finding("0x00800001", "0x010000ff", count=3, magnitude=3.0),
        apart,
        finding("0x81000009", "0x80800001", count=5),
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (finding("0x00800000", "0x00800001"), finding("0x01000000", "0x01000001", class_=FindingClass.INF)),
        (finding("0x00800000", "0x00800001"), finding("0x01000000", "0x01000001", cause="flush")),
        (finding("0x00000000", "0x00000000"), finding("0x00000001", "0x00000002")),
        (finding("0x7f000000", "0x7f7fffff"), finding("0x7f800000", "0x7f800000")),
        (finding("0x7fffffff", "0x7fffffff"), finding("0x80000000", "0x80000000")),
    ],
)
def test_other_classes_causes_signs_and_special_inputs_stay_apart(first, second):
    assert joined_binades([first, second]) == (first, second)
