"""The arithmetic encloses what rounding does in every order of summation, and by not much more than it must."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from actconform.tolerance.running_error import Bounded, constant_number, exact_inputs, widest
from actconform.types.dtypes import DTYPES

F32, F16 = DTYPES["f32"], DTYPES["f16"]
STORAGE = {"f32": np.float32, "f16": np.float16}
LARGEST = 100.0  # of operands: squares and sums of four products do not overflow in f16, which is not in the account
NUMBERS = st.floats(-1e3, 1e3, width=16)


class Both:
    """An expression evaluated twice: in the format, each step rounded and sums shuffled, and in Bounded arithmetic."""

    def __init__(self, got, bounded, rng):
        self.got, self.bounded, self.rng = got, bounded, rng

    def of(self, got, bounded):
        return Both(got.astype(self.got.dtype), bounded, self.rng)

    def matmul(self, other):
        products = self.got[..., :, None] * other.got[..., None, :, :]
        return self.of(shuffled(products, -2, self.rng)[..., 0, :], self.bounded @ other.bounded)

    def ratio(self):
        error = np.abs(self.got.astype(float) - self.bounded.value)
        with np.errstate(all="ignore"):
            return np.max(np.where(error == 0, 0, error / self.bounded.error))


def shuffled(terms, axis, rng):
    """Return the sum along an axis in a random order, one term after another, in float32, the axis kept."""
    terms = np.moveaxis(terms, axis, -1)[..., rng.permutation(terms.shape[axis])].astype(np.float32)
    return np.moveaxis(np.cumsum(terms, axis=-1, dtype=np.float32)[..., -1:], -1, axis)


UNARY = {
    "negative": lambda a: a.of(-a.got, -a.bounded),
    "size": lambda a: a.of(np.abs(a.got), abs(a.bounded)),
    "sum": lambda a: a.of(shuffled(a.got, -1, a.rng) + np.zeros_like(a.got), a.bounded.sum(-1) + 0.0 * a.bounded),
    "mean": lambda a: a.of(shuffled(a.got, -1, a.rng) / a.got.dtype.type(a.got.shape[-1]) + 0 * a.got,
                           a.bounded.mean(-1) + 0.0 * a.bounded),
    "exp": lambda a: a.of(np.exp(-np.abs(a.got)), (-abs(a.bounded)).exp()),
    "log": lambda a: a.of(np.log(np.abs(a.got) + 1), (abs(a.bounded) + 1.0).log()),
    "root": lambda a: a.of(1 / np.sqrt(a.got * a.got + 1), (a.bounded * a.bounded + 1.0).inverse_root(least=1.0)),
    "square root": lambda a: a.of(np.sqrt(np.abs(a.got)), abs(a.bounded) ** 0.5),
    "power": lambda a: a.of((np.abs(a.got) + 1) ** a.got.dtype.type(2.5), (abs(a.bounded) + 1.0) ** 2.5),
    "reciprocal": lambda a: a.of(1 / (np.abs(a.got) + 1), 1.0 / (abs(a.bounded) + 1.0)),
    "clip": lambda a: a.of(np.clip(a.got, -0.1, 0.7), a.bounded.clip(-0.1, 0.7)),
    "constant": lambda a: a.of(0.1 * a.got + 0.3, 0.1 * a.bounded + 0.3),
}  # fmt: skip
BINARY = {
    "add": lambda a, b: a.of(a.got + b.got, a.bounded + b.bounded),
    "subtract": lambda a, b: a.of(a.got - b.got, a.bounded - b.bounded),
    "multiply": lambda a, b: a.of(a.got * b.got, a.bounded * b.bounded),
    "divide": lambda a, b: a.of(a.got / (np.abs(b.got) + 1), a.bounded / (abs(b.bounded) + 1.0)),
    "matmul": lambda a, b: a.matmul(b),
}


def leaf(values, rng, dtype):
    got = np.asarray(values).astype(STORAGE[dtype])
    return Both(got, exact_inputs(got.astype(float), DTYPES[dtype]), rng)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@settings(max_examples=150, deadline=None)
@over(
    scale=st.sampled_from([1e-3, 1.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(
        st.tuples(st.sampled_from(sorted(UNARY) + sorted(BINARY)), st.integers(0, 9), st.integers(0, 9)), max_size=8
    ),
)
def test_expressions_in_the_format_stay_within_the_error(dtype, scale, seed, steps):
    rng = np.random.default_rng(seed)
    known = [leaf(rng.normal(0, scale, (4, 4)), rng, dtype) for _ in range(3)]
    with np.errstate(all="ignore"):
        for name, first, second in steps:
            a, b = (known[place % len(known)] for place in (first, second))
            made = UNARY[name](a) if name in UNARY else BINARY[name](a, b)
            assert made.ratio() <= 1, (name, steps)
            assert (made.bounded.error >= 0).all()
            if made.bounded.reach.max() < LARGEST:
                known.append(made)


@over(a=NUMBERS, b=NUMBERS)
def test_single_operations_of_exact_numbers_err_by_half_an_ulp_at_most_and_are_allowed_little_more(a, b):
    x, y = (exact_inputs(np.array(v), F32) for v in (a, b))
    for made in (x + y, x - y, x * y):
        assert made.error <= 1.001 * F32.unit_roundoff * abs(made.value) + F32.smallest_normal
    assert (x + y).value == a + b


@pytest.mark.parametrize("k", [3, 64, 1000])
def test_long_sums_use_a_fair_part_of_what_they_are_allowed(k):
    """All of one sign and in one running sum: the least favourable order."""
    rng = np.random.default_rng(k)
    worst = max(UNARY["sum"](leaf(rng.uniform(0, 1, (50, k)), rng, "f32")).ratio() for _ in range(5))
    assert 0.02 < worst <= 1


def test_errors_pass_on_through_each_operation():
    """The derivative's bound for small errors: |b| e_a + |a| e_b, e / |b| + |q| e_b / |b|, y e, e / x, e / (2 x sqrt x)."""
    a, b = (Bounded(np.array(v), np.array(1e-4), F32) for v in (3.0, -2.0))
    cases = [
        (a + b, 2e-4),
        (a * b, 5e-4),
        (a / b, 0.5e-4 + 0.75e-4),
        (b.exp(), np.exp(-2.0) * 1e-4),
        (a.log(), 1e-4 / 3),
        (a.inverse_root(), 1e-4 / (6 * np.sqrt(3.0))),
        (abs(b), 1e-4),
        (a**0.5, 1e-4 / (2 * np.sqrt(3.0))),
        (a**5, 5 * 3.0**4 * 1e-4),
        (1.0 / a, 1e-4 / 9),
    ]
    for number, (made, expected) in enumerate(cases):
        assert made.error == pytest.approx(expected, rel=2e-2), number


def test_what_may_be_zero_has_no_finite_quotient_logarithm_or_root():
    near = Bounded(np.array(1e-5), np.array(2e-5), F32)
    with np.errstate(all="ignore"):
        assert np.isinf(near.log().error)
        assert np.isinf((1e-5 * near / near).error)
        assert np.isinf(near.inverse_root().error)
    assert np.isfinite((near + 1e-3).inverse_root(least=1e-3).error)
    assert near.inverse_root(least=1e-6).error == pytest.approx(1e3 - 1e5**0.5, rel=1e-3)


def test_a_constant_may_be_computed_with_as_it_is_written_or_as_the_nearest_number_of_the_format():
    kept = constant_number(0.999, F32)
    assert kept.value == 0.999
    assert kept.error == pytest.approx(abs(float(np.float32(0.999)) - 0.999), rel=1e-9)
    for beta in (0.999, float(np.float32(0.999))):
        for step in (1, 7, 300):
            bounded = 1.0 - kept**step
            assert abs((1.0 - beta**step) - bounded.value) <= bounded.error
    assert constant_number(0.5, F32).error == 0.0


def test_a_power_of_exactly_0_is_0_and_leaves_what_is_made_of_it_finite():
    """As beta1 = 0 of Adam is."""
    power = constant_number(0.0, F32) ** 3
    assert (power.value, power.error) == (0.0, 0.0)
    assert np.isfinite((1.0 / (1.0 - power)).error)


def test_exact_zeros_stay_exact_and_small_results_may_be_flushed():
    zero, two = (exact_inputs(np.array(v), F32) for v in (0.0, 2.0))
    for made in (zero * two, zero + zero, (two * zero).sum(()), zero / two):
        assert made.error == 0
    tiny = exact_inputs(np.array(2.0**-130), F32)
    assert tiny.error == 2.0**-130
    assert (tiny + tiny).error >= 2.0**-129  # 0 + 0, where subnormal numbers are read as zero
    assert (two * two).error == 4 * F32.unit_roundoff
    assert exact_inputs(np.array(2.0**-20), F16).error == 0
    assert (exact_inputs(np.array(2.0**-13), F16) * 2.0**-9).error >= 2.0**-25  # gradual, and yet rounded


def test_constants_that_the_format_does_not_hold_are_rounded():
    zero = exact_inputs(np.zeros(()), F16)
    assert (zero + 0.1).error == pytest.approx(abs(float(np.float16(0.1)) - 0.1) + 0.1 * F16.unit_roundoff, rel=1e-2)
    assert (zero + 0.5).error == 0.5 * F16.unit_roundoff


def test_a_clip_takes_the_error_away_where_it_is_flat():
    x = Bounded(np.array([0.2, 0.95, 1.05, 2.0, np.nan]), np.full(5, 0.1), F32)
    error = x.clip(0.0, 1.0).error
    np.testing.assert_allclose(error[:4], [0.1, 0.1, 0.05, 0.0], atol=1e-12)


def test_the_widest_of_several_ways_has_the_largest_error_of_each_element():
    first, second = (Bounded(np.ones(2), np.array(error), F32) for error in ([1.0, 0.0], [0.5, 2.0]))
    assert_array_equal(widest(first, second).error, [1.0, 2.0])


def test_shapes_broadcast_and_elements_move_with_their_errors():
    x = exact_inputs(np.arange(6.0).reshape(2, 3), F32) * 0.1
    assert (x + x[:, :1]).error.shape == (2, 3)
    assert x.sum(0).value.shape == (1, 3)
    assert x.mean((0, 1)).value.shape == (1, 1)
    assert_array_equal(x.moved(np.transpose).error, x.error.T)
    assert_array_equal((np.float64(2.0) * x).value, 2 * x.value)


def test_a_mean_of_more_numbers_than_the_format_counts_has_a_bound_that_means_something():
    x = np.full(70_000, 1.5)
    mean = exact_inputs(x, F16).mean(0)
    assert mean.value == 1.5
    assert mean.error < 40 * F16.unit_roundoff * 1.5  # 17 levels of pairwise sums, and the division
