"""Intervals of medians, held against scipy's binomial distribution and against samples of a known median."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from actconform.bench.intervals import LEAST_ROUNDS, ConfidenceInterval, bounding_rank, interval, ratios


@given(st.integers(LEAST_ROUNDS, 400), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_rank_is_the_largest_that_covers(n, confidence):
    if 2 * binom.cdf(0, n, 0.5) > 1 - confidence:
        with pytest.raises(ValueError, match="take more"):
            bounding_rank(n, confidence)
        return
    k = bounding_rank(n, confidence)
    assert 1 - 2 * binom.cdf(k - 1, n, 0.5) >= confidence - 1e-12
    assert 1 - 2 * binom.cdf(k, n, 0.5) < confidence


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6)])  # tables of the sign test
def test_ranks_as_tables_have_them(n, rank):
    assert bounding_rank(n) == rank


@pytest.mark.parametrize("n", range(1, LEAST_ROUNDS))
def test_too_few_samples_have_no_interval(n):
    with pytest.raises(ValueError, match=f"no interval of {n} samples"):
        interval([1.0] * n)


@given(st.lists(st.floats(1e-9, 1e3), min_size=LEAST_ROUNDS, max_size=60), st.randoms())
def test_an_interval_is_of_samples_in_any_order(samples, random):
    found = interval(samples)
    assert found.low <= found.median <= found.high
    assert {found.low, found.high} <= set(samples)
    assert found.median == pytest.approx(np.median(samples))
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert interval(shuffled) == found


def test_the_true_median_is_held_as_often_as_promised():
    rng = np.random.default_rng(7)
    held = sum(found.low <= 1.0 <= found.high for found in (interval(rng.lognormal(0, 1, 9)) for _ in range(4000)))
    assert held / 4000 == pytest.approx(1 - 2 * binom.cdf(1, 9, 0.5), abs=0.015)


def test_what_slows_a_whole_round_does_not_show_in_ratios():
    drift = [1.0, 1.1, 1.3, 0.9, 2.0, 5.0, 1.0]
    assert ratios([3.0 * d for d in drift], [2.0 * d for d in drift]) == ConfidenceInterval(1.5, 1.5, 1.5)


def test_ratios_are_of_equal_rounds():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ratios([1.0] * 7, [1.0] * 6)
