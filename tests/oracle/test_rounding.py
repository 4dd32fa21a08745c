"""Rounding to the smaller formats against exact fractions, against NumPy's float16 and against the pattern tables."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actconform.oracle.rounding import all_patterns, round_to, to_bits
from actconform.types.dtypes import DTYPES, FloatFormat

SIXTEEN = [DTYPES["f16"], DTYPES["bf16"]]
NATIVE = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def nearest(value: float, target: FloatFormat) -> float:
    """Round with fractions; Python's round() breaks ties to even."""
    exact = Fraction(value)
    if exact == 0:
        return value
    exponent = max(np.frexp(abs(value))[1] - 1, target.emin) - target.precision + 1
    rounded = round(exact / Fraction(2) ** int(exponent)) * Fraction(2) ** int(exponent)
    if abs(rounded) > Fraction(target.largest):
        return float(np.copysign(np.inf, value))
    return float(np.copysign(float(rounded), value))


def around_midpoints(target: FloatFormat) -> np.ndarray:
    """Midpoints of neighbouring numbers, with the binary64 numbers on both sides, both signs."""
    numbers = all_patterns(target)[: ((2 * target.emax + 1) << (target.precision - 1)) : 7]
    middle = numbers + np.maximum(np.spacing(numbers.astype(NATIVE[target.name])).astype(np.float64), 0) / 2
    middle = np.concatenate([middle, [target.overflow, target.smallest_subnormal / 2, target.smallest_normal]])
    near = np.concatenate([middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf)])
    return np.concatenate([near, -near])


@pytest.mark.parametrize("target", list(DTYPES.values()), ids=lambda target: target.name)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
@example(value=1 + 2**-8 + 2**-40)
@example(value=5e-324)
@example(value=2.0**-150)
@example(value=1.5 * 2.0**-149)
@example(value=65520.0)
def test_round_to_is_the_nearest_number(target: FloatFormat, value: float) -> None:
    got = float(round_to(np.array([value]), target)[0])
    assert got.hex() == nearest(value, target).hex()


@pytest.mark.parametrize("target", SIXTEEN, ids=lambda target: target.name)
def test_midpoints_and_their_neighbours(target: FloatFormat) -> None:
    values = around_midpoints(target)
    truth = np.array([nearest(value, target) for value in values.tolist()])
    got = round_to(values, target)
    np.testing.assert_array_equal(got, truth)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(truth))


def test_small_and_large_numbers_side_by_side_are_each_rounded_once_to_float32() -> None:
    target = DTYPES["f32"]
    significands = 1 + np.random.default_rng(7).integers(0, 2**30, (40, 300)) / 2.0**30
    values = significands * 2.0 ** np.arange(-155, 145)[None, :]
    values[::2] *= -1
    values[0] = 0.0
    truth = np.array([nearest(value, target) for value in values.ravel().tolist()]).reshape(values.shape)
    got = round_to(values, target)
    np.testing.assert_array_equal(got, truth)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(values))


def test_numpy_rounds_float64_to_float16_once_and_so_do_we() -> None:
    target = DTYPES["f16"]
    spread = np.random.default_rng(5).normal(size=100_000) * 2.0 ** np.random.default_rng(6).integers(-30, 20, 100_000)
    values = np.concatenate([around_midpoints(target), spread])
    with np.errstate(over="ignore", under="ignore"):
        native = values.astype(np.float16)
    np.testing.assert_array_equal(round_to(values, target), native.astype(np.float64))
    np.testing.assert_array_equal(to_bits(values, target), native.view(np.uint16))


def test_bfloat16_is_not_rounded_through_float32() -> None:
    trap = np.array([1 + 2**-8 + 2**-40])
    assert round_to(trap, DTYPES["bf16"])[0] == 1.0078125
    assert to_bits(trap, DTYPES["bf16"])[0] == 0x3F81
    assert np.float64(trap.astype(np.float32).astype(ml_dtypes.bfloat16)[0]) == 1.0, "the trap itself"


@pytest.mark.parametrize("target", list(DTYPES.values()), ids=lambda target: target.name)
def test_specials_stay(target: FloatFormat) -> None:
    got = round_to(np.array([[np.nan, np.inf], [-np.inf, -0.0]]), target)
    assert got.shape == (2, 2)
    assert np.isnan(got[0, 0])
    assert [got[0, 1], got[1, 0]] == [np.inf, -np.inf]
    assert got[1, 1] == 0
    assert np.signbit(got[1, 1])


@pytest.mark.parametrize(("value", "rounded"), [(1.1, 1.099609375), (1e6, np.inf), (-np.inf, -np.inf)])
def test_a_single_number_is_rounded_too(value: float, rounded: float) -> None:
    got = round_to(np.array(value), DTYPES["f16"])
    assert got.shape == ()
    assert got == rounded


@pytest.mark.parametrize("target", SIXTEEN, ids=lambda target: target.name)
def test_patterns_are_those_of_the_native_type(target: FloatFormat) -> None:
    with np.errstate(invalid="ignore"):  # signalling NaN
        native = np.arange(1 << 16, dtype=np.uint16).view(NATIVE[target.name]).astype(np.float64)
    values = all_patterns(target)
    np.testing.assert_array_equal(values, native)
    number = ~np.isnan(native)
    np.testing.assert_array_equal(np.signbit(values)[number], np.signbit(native)[number])
    np.testing.assert_array_equal(to_bits(values, target)[number], np.flatnonzero(number))


def test_every_nan_has_one_pattern() -> None:
    values = np.array([np.nan, -np.nan])
    assert to_bits(values, DTYPES["f16"]).tolist() == [0x7E00, 0x7E00]
    assert to_bits(values, DTYPES["bf16"]).tolist() == [0x7FC0, 0x7FC0]


def test_input_is_left_as_it_was() -> None:
    values = np.array([1.1, -0.0, np.inf])
    before = values.copy()
    to_bits(values, DTYPES["bf16"])
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("value", [1 / 3, 1e-50, 1e300, np.nan])
def test_an_array_without_axes_stays_an_array(value: float) -> None:
    rounded = round_to(np.array(value), DTYPES["f16"])
    assert isinstance(rounded, np.ndarray)
    assert rounded.shape == ()
