"""The values of a user's own definition are those of the proven kernels, and there are none where nothing is proven."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from missing_package import take_away

from actconform.catalog.kernels import KERNELS
from actconform.errors import UsageError
from actconform.oracle.arb.correctly_rounded import exact
from actconform.oracle.arb.own_function import derivative_by_series, own_values

flint = pytest.importorskip("flint")
arb = flint.arb

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
points = st.lists(finite, min_size=1, max_size=8).map(np.array)


@given(points)
def test_values_and_derivatives_are_those_of_the_kernel(x):
    values, decided = own_values(lambda x: x.exp(), x)
    assert decided.all()
    np.testing.assert_array_equal(values, exact(KERNELS["exponential"], "value", x))
    slopes, decided = own_values(derivative_by_series(lambda x: x.exp()), x)
    assert decided.all()
    np.testing.assert_array_equal(slopes, exact(KERNELS["exponential"], "gradient", x))


@given(st.floats(0.5, 2.0))
def test_a_cancellation_is_decided_with_more_bits(x):
    (value,), (decided,) = own_values(
        lambda x: ((x + arb(2) ** 400) - arb(2) ** 400) + x.exp() - x.exp(), np.array([x])
    )
    assert decided
    assert value == x


def test_special_inputs_are_evaluated_and_never_guessed():
    x = np.array([math.inf, -math.inf, math.nan, -0.0])
    for definition, wanted in (
        (lambda x: x.tanh(), [1.0, -1.0, math.nan, 0.0]),
        (lambda x: x.exp(), [math.inf, 0.0, math.nan, 1.0]),
        (lambda x: x.sin(), [None, None, math.nan, 0.0]),
        (lambda x: x.log(), [math.inf, None, math.nan, None]),
        (lambda x: 1 / x, [0.0, 0.0, math.nan, None]),
        (lambda x: x if x > 0 else arb(0), [math.inf, 0.0, None, 0.0]),
    ):
        values, decided = own_values(definition, x)
        np.testing.assert_array_equal(decided, [value is not None for value in wanted])
        np.testing.assert_array_equal(values[decided], [value for value in wanted if value is not None])
        assert np.isnan(values[~decided]).all()
        assert not np.signbit(values[values == 0]).any()


def test_a_result_that_vanishes_is_zero_and_what_no_precision_decides_has_no_truth():
    (value,), (decided,) = own_values(lambda x: x * (-x / arb(2).sqrt()).erfc(), np.array([-1e6]))
    assert (decided, value) == (True, 0.0)
    assert not own_values(lambda x: (arb.pi() * x).sin() - (arb.pi() * x).sin() + arb(2) ** -1075, np.array([1.0]))[1][
        0
    ]


def test_numbers_and_real_parts_are_taken_and_others_refused():
    x = np.array([2.0])
    assert own_values(lambda _: 1, x).values == [1.0]
    assert own_values(lambda x: flint.acb(x).sqrt(), x).values == [math.sqrt(2.0)]
    assert not own_values(lambda x: flint.acb(-x).sqrt(), x).decided
    for wrong in ("1", None, True, [1.0]):
        with pytest.raises(UsageError, match=r"wanted a flint\.arb"):
            own_values(lambda _, wrong=wrong: wrong, x)


def test_what_the_definition_raises_says_at_which_input():
    with pytest.raises(KeyError) as caught:
        own_values(lambda x: {}[x], np.array([2.5]))
    assert "truth= at x = 2.5" in caught.value.__notes__[0]


def test_a_branch_is_no_series():
    with pytest.raises(UsageError, match="truth_gradient="):
        own_values(derivative_by_series(lambda x: x if x > 1 else 0), np.array([1.0]))
    assert own_values(derivative_by_series(lambda _: 3), np.array([1.0])).values == [0.0]


def test_without_flint_it_says_what_to_install(monkeypatch):
    take_away(monkeypatch, "flint")
    with pytest.raises(UsageError, match=r"actconform\[golden\]"):
        own_values(lambda x: x, np.array([1.0]))


def test_the_precision_of_the_process_stays():
    flint.ctx.prec = 77
    try:
        own_values(lambda x: x.exp(), np.array([1.0, 2.0]))
        assert flint.ctx.prec == 77
    finally:
        flint.ctx.prec = 53
