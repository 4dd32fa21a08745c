"""Whether a tensor is another one with its axes in another order, and how errors are measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actconform.checking.trained.layouts import laid_out, layout_in, orders, scale_of, worst_error

TIGHT = 1e-9


def numbers(*shape):
    return np.random.default_rng(3).standard_normal(shape)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_every_order_of_axes_is_recognized(shape, data):
    trained = numbers(*shape)
    values = trained.transpose(data.draw(st.permutations(range(len(shape)))))
    for given_values in (values, values.reshape(-1)):
        layout = layout_in(np.ascontiguousarray(given_values), trained, 1.0, TIGHT)
        np.testing.assert_array_equal(laid_out(trained, layout.permutation, given_values.shape), given_values)
        assert layout.error == 0


def test_the_order_that_it_has_comes_first_then_those_that_give_the_shape():
    assert next(orders((2, 3), (3, 2))) == (0, 1)
    assert list(orders((2, 3, 4), (4, 2, 3)))[:2] == [(0, 1, 2), (2, 0, 1)]
    assert len(set(orders((2, 3, 4), (24,)))) == 6
    assert list(orders((2, 1, 3), (3, 1, 2))) == [(0, 1, 2), (2, 1, 0)]  # an axis of size 1 stays
    assert list(orders((2, 3), (7,))) == [(0, 1)]
    assert list(orders((2,) * 7, (128,))) == [tuple(range(7))]  # too many orders to try


@pytest.mark.parametrize("size", [6, 4000])
def test_one_element_that_is_off_is_seen(size):
    trained = numbers(size)
    values = trained.copy()
    values[size // 2] += 1e-3
    assert layout_in(values, trained, 1.0, TIGHT) is None
    assert layout_in(values, trained, 1.0, 1e-2).error == pytest.approx(1e-3 / (1 + abs(trained[size // 2])), rel=1e-9)


def test_errors_are_relative_to_the_element_and_the_scale():
    assert worst_error(np.array([11.0]), np.array([10.0]), 0.0) == pytest.approx(0.1)
    assert worst_error(np.array([11.0]), np.array([10.0]), 10.0) == pytest.approx(0.05)
    assert worst_error(np.zeros(2), np.zeros(2), 0.0) == 0
    assert worst_error(np.zeros(0), np.zeros(0), 1.0) == 0


@pytest.mark.parametrize(
    ("got", "wanted", "error"),
    [
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.5], [np.inf, 1.0], 0.25),
        ([-np.inf, 1.0], [np.inf, 1.0], np.inf),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
    ],
)
def test_infinities_and_nan_must_be_the_same(got, wanted, error):
    assert worst_error(np.array(got), np.array(wanted), 1.0) == error


def test_a_few_elements_far_above_the_rest_are_not_the_scale():
    scores = numbers(1000)
    masked = scores.copy()
    masked[:100] = -1e6
    quarter = np.quantile(np.abs(masked), 0.25)
    assert scale_of(scores) == np.abs(scores).max()
    assert scale_of(masked) == pytest.approx(1000 * quarter)
    masked[:100] = np.inf
    assert scale_of(masked) == np.abs(scores[100:]).max()
    assert scale_of(np.zeros(4)) == 0
