"""Statistics that each sample adds to are those of all samples at once, as NumPy and SciPy compute them."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from actconform.checking.output_tally import MOST_RANKED, OutputTally, rank_correlations

SEEDS = st.integers(0, 2**32 - 1)


def tallied(pairs):
    tally = OutputTally("y")
    errors = [tally.add(index, wanted, got) for index, (wanted, got) in enumerate(pairs)]
    return tally.result(), errors


def scores(generator, rows, n, *, ties):
    wanted = generator.standard_normal((rows, n)).astype(np.float32)
    got = wanted + generator.standard_normal((rows, n)).astype(np.float32) * np.float32(0.3)
    return (np.round(wanted, 1), np.round(got, 1)) if ties else (wanted, got)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(2, 12), st.booleans())
def test_samples_in_a_stream_have_the_statistics_of_all_rows_together(seed, lengths, n, ties):
    generator = np.random.default_rng(seed)
    pairs = [scores(generator, rows, n, ties=ties) for rows in lengths]
    result, errors = tallied(pairs)
    wanted, got = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*pairs, strict=True))
    error = np.abs(wanted - got)
    assert (result.samples, result.elements, result.rows) == (len(pairs), wanted.size, len(wanted))
    assert result.unequal == np.sum(wanted != got)
    assert result.largest_error == error.max()
    at = pairs[result.largest_error_sample]
    place = result.largest_error_at
    assert abs(float(at[0][place]) - float(at[1][place])) == error.max()
    assert result.mean_error == pytest.approx(error.mean(), rel=1e-12)
    assert result.magnitude == np.abs(wanted).max()
    assert result.mean_magnitude == pytest.approx(np.abs(wanted).mean(), rel=1e-12)
    assert errors == [pytest.approx(np.abs(a - b).max() / np.abs(a).max(), rel=1e-6) for a, b in pairs]
    chosen = wanted[np.arange(len(wanted)), got.argmax(axis=1)]
    assert result.top_1 == pytest.approx(np.mean(chosen == wanted.max(axis=1)))
    if n <= 5:
        assert result.top_5 is None
    elif not ties:
        overlap = [len({*a.argsort()[-5:]} & {*b.argsort()[-5:]}) / 5 for a, b in zip(wanted, got, strict=True)]
        assert result.top_5 == pytest.approx(np.mean(overlap))
    cosines = (wanted * got).sum(axis=1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    if np.isfinite(cosines).all():
        assert result.cosine == pytest.approx(cosines.mean(), abs=1e-12)
        assert result.least_cosine == pytest.approx(cosines.min(), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 6), st.integers(2, 40), st.booleans())
def test_rank_correlations_are_those_of_scipy(seed, rows, n, ties):
    generator = np.random.default_rng(seed)
    a, b = (array.astype(np.float64) for array in scores(generator, rows, n, ties=ties))
    flat = (a == a[:, :1]).all(axis=1) | (b == b[:, :1]).all(axis=1)
    ours = rank_correlations(a, b)
    for row in np.flatnonzero(~flat):
        assert ours[row] == pytest.approx(spearmanr(a[row], b[row]).statistic, abs=1e-12)


def test_rows_without_an_order_agree_with_each_other_alone():
    flat, rising = np.zeros((1, 3)), np.array([[1.0, 2.0, 3.0]])
    assert rank_correlations(flat, flat) == 1.0
    assert rank_correlations(flat, rising) == 0.0


def test_a_tie_in_what_is_expected_is_no_mistake_and_one_in_what_came_decides_as_argmax_does():
    tie, first, second = np.float32([[1, 1, 0]]), np.float32([[2, 1, 0]]), np.float32([[0.9, 1, 0]])
    assert tallied([(tie, first)])[0].top_1 == tallied([(tie, second)])[0].top_1 == 1.0
    assert tallied([(second, first)])[0].top_1 == 0.0
    assert tallied([(second, tie)])[0].top_1 == 0.0


def test_what_is_not_finite_is_counted_and_moves_no_mean():
    wanted = np.float32([[1, np.inf, np.nan, 4], [1, 2, 3, 4]])
    got = np.float32([[1, np.inf, np.nan, 4], [np.nan, 2, -np.inf, 5]])
    result, errors = tallied([(wanted, got)])
    assert (result.nonfinite, result.unequal) == (2, 3)
    assert errors == [math.inf]
    assert (result.largest_error, result.largest_error_at) == (1.0, (1, 3))
    assert result.mean_error == pytest.approx(1 / 4)
    assert (result.rows, result.top_1, result.rank_correlation) == (1, 0.0, 0.0)  # the row with NaN expected is none


def test_integers_are_counted_where_they_differ():
    result, errors = tallied([(np.int64([1, 2, 3, 4]), np.int64([1, 2, 3, 5]))])
    assert (result.elements, result.unequal, result.rows, result.cosine) == (4, 1, 0, None)
    assert errors == [0.25]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=["f16", "bf16", "f64"])
def test_other_formats_are_compared_as_what_they_are(dtype):
    wanted = np.array([[0.5, 2.0, 1.0]]).astype(dtype)
    result, _ = tallied([(wanted, wanted * np.array(2, dtype))])
    assert (result.top_1, result.largest_error, result.cosine) == (1.0, 2.0, pytest.approx(1.0))


def test_numbers_whose_squares_overflow_or_vanish_have_an_angle():
    for size in (1e300, 1e-300):
        result, _ = tallied([(np.array([[1.0, 2.0]]) * size, np.array([[2.0, 1.0]]) * size)])
        assert result.cosine == pytest.approx(0.8)


def test_a_zero_vector_has_the_direction_of_another_zero_vector_alone():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    assert tallied([(zero, zero)])[0].cosine == 1.0
    assert tallied([(zero, one)])[0].cosine == 0.0


def test_another_shape_and_an_output_of_one_column_alone_are_counted_and_nothing_else():
    result, errors = tallied([(np.ones((1, 2)), np.ones((2, 1))), (np.ones((1, 2)), None)])
    assert (result.samples, result.reshaped, result.absent, result.rows) == (0, 1, 1, 0)
    assert errors == [math.inf, 0.0]


def test_long_rows_are_no_ranking_and_of_many_rows_some_are_ordered():
    assert tallied([(np.zeros((1, 100_001)), np.zeros((1, 100_001)))])[0].rows == 0
    many = np.random.default_rng(1).standard_normal((2 * MOST_RANKED // 1024, 1024))
    result, _ = tallied([(many, many)])
    assert (result.rows, result.ranked, result.rank_correlation) == (len(many), len(many) // 2, pytest.approx(1.0))


def test_an_empty_output_says_nothing():
    result, errors = tallied([(np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32))])
    assert (result.samples, result.elements, result.top_1, result.cosine, errors) == (1, 0, None, None, [0.0])
