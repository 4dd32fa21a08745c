"""The unit of last place against exact fractions, NumPy's spacing and Python's own; patterns read back what was written."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actconform.oracle.rounding import all_patterns
from actconform.tolerance.ulp import contracted, to_hex, ulp_of
from actconform.types.dtypes import DTYPES, from_hex

FORMATS = list(DTYPES.values())
SIXTEEN = [DTYPES["f16"], DTYPES["bf16"]]
NATIVE = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
each_format = pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)


def gap(value, fmt):
    """Return 2**(clamp(floor(log2 |value|), emin, emax) - p + 1), the exponent found by comparing exact fractions."""
    size, exponent = abs(Fraction(value)), fmt.emin
    while exponent < fmt.emax and size >= Fraction(2) ** (exponent + 1):
        exponent += 1
    return Fraction(2) ** (exponent - fmt.precision + 1)


def one_ulp(value, fmt):
    return float(ulp_of(np.array([value]), fmt)[0])


@each_format
@given(value=st.floats(allow_nan=False, allow_infinity=False, min_value=-1e40, max_value=1e40))
@example(value=0.0)
@example(value=-0.0)
@example(value=5e-324)
@example(value=1e300)
@example(value=2.0**-126)
@example(value=math.nextafter(2.0**-14, 0))
@example(value=-(2.0**-14))
@example(value=65504.0)
@example(value=65536.0)
def test_ulp_is_the_gap_by_definition(fmt, value):
    assert Fraction(one_ulp(value, fmt)) == gap(value, fmt)


@each_format
@pytest.mark.parametrize("exponent", [-126, -15, -14, -13, -1, 0, 1, 14, 15, 127])
def test_a_power_of_two_opens_its_binade(fmt, exponent):
    power = 2.0**exponent
    for value in (power, math.nextafter(power, 0), math.nextafter(power, math.inf), -power):
        assert Fraction(one_ulp(value, fmt)) == gap(value, fmt)


@each_format
def test_below_the_normal_numbers_the_gap_stays(fmt):
    values = np.array([0.0, -0.0, 5e-324, fmt.smallest_subnormal, fmt.smallest_normal / 3, fmt.smallest_normal])
    assert set(ulp_of(values, fmt)) == {fmt.smallest_subnormal}


@each_format
def test_beyond_the_largest_number_the_gap_is_that_of_the_largest_binade(fmt):
    top = 2.0 ** (fmt.emax - fmt.precision + 1)
    values = np.array([fmt.largest, fmt.overflow, 2.0 ** (fmt.emax + 1), 1e308, math.inf, -math.inf, math.nan])
    assert set(ulp_of(values, fmt)) == {top}


@each_format
def test_ulp_agrees_with_the_spacing_of_numpy(fmt):
    if fmt.bits == 16:
        numbers = all_patterns(fmt)
    else:
        below_nan = np.random.default_rng(1).integers(0, 0x7F000000, 1 << 14, np.uint32)
        numbers = below_nan.view(np.float32).astype(np.float64)
    numbers = np.abs(numbers[np.abs(numbers) < 2.0**fmt.emax])  # NumPy's spacing of -2**k in float16 is that below it
    spacing = np.spacing(numbers.astype(NATIVE[fmt.name])).astype(np.float64)
    np.testing.assert_array_equal(ulp_of(numbers, fmt), spacing)
    np.testing.assert_array_equal(ulp_of(-numbers, fmt), spacing)


def test_the_truth_is_left_as_it_was():
    truth = np.array([1.5, -3e-39, np.nan])
    ulp_of(truth, DTYPES["f32"])
    np.testing.assert_array_equal(truth, [1.5, -3e-39, np.nan])


@each_format
@given(value=st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_contraction_takes_the_subnormal_range_out(fmt, value):
    got = float(contracted(np.array([value]), fmt)[0])
    lost = fmt.smallest_normal - fmt.smallest_subnormal
    if abs(value) < fmt.smallest_normal:
        assert got == 0.0
    elif abs(value) > 4 * fmt.smallest_normal:
        assert abs(abs(got) - (abs(value) - lost)) <= one_ulp(value, fmt) / 2
    assert math.copysign(1, got) == math.copysign(1, value)


@each_format
def test_contracted_neighbours_of_zero_are_one_gap_apart(fmt):
    around = np.array([-fmt.smallest_normal, 0.0, fmt.smallest_normal])
    np.testing.assert_array_equal(
        contracted(around, fmt), [-fmt.smallest_subnormal, 0.0, fmt.smallest_subnormal], strict=True
    )


@pytest.mark.parametrize("fmt", SIXTEEN, ids=lambda fmt: fmt.name)
def test_every_16_bit_pattern_reads_back(fmt):
    numbers = all_patterns(fmt)
    for pattern, number in enumerate(numbers.tolist()):
        text = f"0x{pattern:04x}"
        read = from_hex(text, fmt)
        if math.isnan(number):
            assert math.isnan(read)
            assert math.isnan(from_hex(to_hex(read, fmt), fmt))
        else:
            assert read.hex() == number.hex()
            assert to_hex(number, fmt) == text


@given(pattern=st.integers(0, (1 << 32) - 1))
@example(pattern=0x80000000)
@example(pattern=1)
@example(pattern=0x7F800000)
@example(pattern=0xFF800000)
def test_every_float32_pattern_reads_back(pattern):
    fmt, text = DTYPES["f32"], f"0x{pattern:08x}"
    read = from_hex(text, fmt)
    number = float(np.array([pattern], np.uint32).view(np.float32)[0])
    if math.isnan(number):
        assert math.isnan(read)
        assert math.isnan(from_hex(to_hex(read, fmt), fmt))
    else:
        assert read.hex() == number.hex()
        assert to_hex(number, fmt) == text


def test_patterns_are_those_of_the_standard():
    assert to_hex(1.0, DTYPES["f32"]) == "0x3f800000"
    assert to_hex(1.0, DTYPES["f16"]) == "0x3c00"
    assert to_hex(1.0, DTYPES["bf16"]) == "0x3f80"
    assert to_hex(-0.0, DTYPES["f32"]) == "0x80000000"
    assert to_hex(math.nan, DTYPES["f32"]) == "0x7fc00000"
