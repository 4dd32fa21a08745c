"""actconform.compare: what conforms, the worst element, the kinds of differences, and the words."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import actconform
from actconform.accuracy.arrays.compare import compare
from actconform.errors import UsageError

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
ROW = arrays(np.float32, st.integers(1, 20), elements=FLOATS)


def kinds(tensor):
    return {difference.kind: (difference.count, difference.place) for difference in tensor.differences}


@settings(max_examples=100, deadline=None)
@given(ROW)
def test_an_array_conforms_to_itself_and_to_its_truth_in_float64(x):
    assert compare(x, x)
    assert compare(x, x.astype(np.float64))
    assert compare(x, x.copy()).worst.unequal == 0


@settings(max_examples=100, deadline=None)
@given(ROW, st.data())
def test_any_other_number_is_a_difference_with_its_place_and_its_ulp(x, data):
    place = data.draw(st.integers(0, x.size - 1))
    changed = x.copy()
    changed[place] = data.draw(FLOATS)
    equal = changed[place] == x[place] or (np.isnan(changed[place]) and np.isnan(x[place]))
    result = compare(changed, x)
    assert bool(result) == bool(equal)
    if not equal:
        worst = result.worst
        assert (worst.unequal, worst.place) == (1, (place,))
        np.testing.assert_equal((worst.got, worst.wanted), (float(changed[place]), float(x[place])))
        if np.isfinite([changed[place], x[place]]).all():
            gap = 2.0 ** (max(math.frexp(max(abs(float(x[place])), 2.0**-126))[1] - 1, -126) - 23)
            assert worst.ulp == pytest.approx(abs(float(changed[place]) - float(x[place])) / gap, rel=1e-6)


def test_ulp_is_that_of_numpy_in_float64_too():
    x = np.array([1.0, 1e-300, 5e-324, 1e300])
    for place in range(4):
        off = x.copy()
        off[place] = np.nextafter(np.nextafter(x[place], np.inf), np.inf)
        assert compare(off, x).worst.ulp == 2.0


def test_a_tolerance_counts_roundings_of_the_largest_value():
    x = np.float32([1000.0, 1.0])
    off = x + np.float32([0, 1000 * 2.0**-24 * 10])
    assert compare(off, x, tolerance=10.1)
    worst = compare(off, x, tolerance=9.9).worst
    assert not worst
    assert worst.scaled == pytest.approx(10, rel=0.01)
    assert "(limit 9.9)" in str(worst)


@pytest.mark.parametrize(
    ("dtype", "u"),
    [(np.float16, 2.0**-11), (ml_dtypes.bfloat16, 2.0**-8), (np.float32, 2.0**-24)],
    ids=["f16", "bf16", "f32"],
)
def test_a_format_has_its_own_rounding(dtype, u):
    one = np.ones(3, dtype)
    off = np.array([1, 1, 1 + 2 * u]).astype(dtype)
    worst = compare(off, one).worst
    assert (worst.ulp, worst.scaled, worst.place) == (1.0, 2.0, (2,))


def test_the_format_can_be_narrower_than_what_holds_it():
    held = np.float32([1 + 2.0**-7])
    assert compare(held, np.ones(1), dtype="bf16").worst.ulp == 1.0
    assert compare(np.ones(1, np.float32), np.array([1 + 2.0**-9]), dtype="bf16")


def test_what_is_not_finite_is_a_difference_whatever_the_tolerance():
    wanted = np.float32([1, np.nan, np.inf, 4, 5])
    got = np.float32([np.nan, 2, -np.inf, np.inf, 5])
    result = compare(got, wanted, tolerance=1e30)
    assert kinds(result.worst) == {"nan-made": (1, (0,)), "nan-lost": (1, (1,)), "inf": (2, (2,))}
    text = str(result)
    assert "NaN where a number is expected, as at [0]" in text
    assert math.isnan(result.worst.got)


def test_a_truth_beyond_the_format_is_infinite_in_it():
    assert compare(np.float16([np.inf, 65504]), np.array([1e5, 65510.0]))
    assert not compare(np.float16([65504]), np.array([1e5]))


PROBLEMS = {
    "transposed": (np.ones((2, 3)), np.ones((3, 2)), "its shape is [2, 3], and [3, 2] is expected: are its axes in another order?"),
    "flat": (np.ones((2, 3)), np.ones(6), "reshape one of both"),
    "size": (np.ones(2), np.ones(3), "its shape is [2], and [3] is expected"),
    "dtype": (np.float16([1]), np.float32([1]), "its dtype is float16, and float32 is expected"),
    "integers": (np.int32([1]), np.int64([1]), "its dtype is int32, and int64 is expected"),
    "integers-beside-floats": (np.int32([1]), np.float64([1]), "its dtype is int32, and float64 is expected"),
}  # fmt: skip


@pytest.mark.parametrize(("actual", "expected", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_shapes_and_dtypes_that_differ_are_told(actual, expected, words):
    result = compare(actual, expected)
    assert not result
    assert words in str(result)


def test_dicts_are_compared_by_name():
    x = np.ones(3, np.float32)
    result = compare({"a": x, "c": x, "logits_": x}, {"a": x, "b": x, "logits": x})
    assert [tensor.name for tensor in result.tensors if tensor] == ["a"]
    assert "logits: it is missing; did you mean logits_" in str(result)
    assert "c: it is not among what is expected" in str(result)
    assert compare({"a": x}, {"a": x})


def test_of_many_tensors_the_worst_are_shown():
    wanted = {f"t{k}": np.ones(3, np.float32) for k in range(20)}
    got = {name: array + np.float32(k == 13) for k, (name, array) in enumerate(wanted.items())}
    text = str(compare(got, wanted))
    assert text.startswith("t13: does NOT conform: 3 of 3 elements differ; worst at [0]: 2 where 1 is expected")
    assert "and 12 more, which conform" in text
    assert compare(got, wanted).worst.name == "t13"


def test_integers_booleans_and_strings_are_equal_or_not():
    assert compare(np.array([1, 2]), np.array([1, 2]))
    worst = compare(np.array([1, 2]), np.array([1, 3])).worst
    assert (worst.place, worst.got, worst.wanted, worst.unequal) == ((1,), 2.0, 3.0, 1)
    assert not compare(np.array(["a"]), np.array(["b"]))
    assert not compare(np.array([True]), np.array([False]))


def test_empty_arrays_and_scalars_conform():
    assert compare(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))
    assert compare(np.float32(2), np.float32(2))
    assert not compare(2.0, 3.0)


X = np.linspace(-6, 6, 1001).astype(np.float32)


def test_a_kernel_has_its_truth_and_limits():
    from scipy.special import erf

    wide = X.astype(np.float64)
    gelu = wide / 2 * (1 + erf(wide / np.sqrt(2)))
    assert compare(gelu.astype(np.float32), kernel="gelu-erf", inputs=X)
    assert compare(gelu.astype(np.float32), gelu, kernel="gelu-erf", inputs=X)
    tanh = wide / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    wrong = compare(tanh.astype(np.float32), kernel="gelu-erf", inputs=X)
    assert not wrong
    assert wrong.worst.scaled > 1000
    assert "units of the kernel's scale (limit 8)" in str(wrong)
    place = wrong.worst.place
    assert wrong.worst.wanted == pytest.approx(gelu[place])


def test_a_gradient_is_compared_with_the_derivative_times_the_cotangent():
    ones = np.ones(X.size, np.float32)
    slope = 1 / (1 + np.exp(-X.astype(np.float64)))
    assert compare(slope.astype(np.float32), kernel="softplus", inputs=X, cotangent=ones)
    assert not compare((slope * 1.001).astype(np.float32), kernel="softplus", inputs=X, cotangent=ones)


def test_a_kernel_of_rows_has_a_bound_from_its_data():
    x = np.random.default_rng(1).standard_normal((4, 9)).astype(np.float32)
    e = np.exp(x.astype(np.float64))
    y = e / e.sum(axis=-1, keepdims=True)
    assert compare(y.astype(np.float32), kernel="softmax", inputs=x)
    y[2, 3] *= 1 + 1e-4
    worst = compare(y.astype(np.float32), kernel="softmax", inputs=x).worst
    assert (worst.conforms, worst.place, worst.unit) == (False, (2, 3), "of its bound")


def test_a_convention_of_a_kernel_is_accepted_and_told():
    got = np.float32([-0.0, 1.0])
    result = compare(got, np.array([0.0, 1.0]), kernel="relu", inputs=np.float32([0.0, 1.0]))
    assert result


WRONG = {
    "kernel": ({"kernel": "gelu-erv", "inputs": X}, "there is no kernel 'gelu-erv'; did you mean gelu-erf"),
    "inputs": ({"kernel": "gelu-erf"}, "give inputs="),
    "further-input": ({"kernel": "prelu", "inputs": X}, "lacks slope"),
    "shape": ({"expected": X, "kernel": "gelu-erf", "inputs": X[:3]}, "inputs= has the shape [3]"),
    "both": ({"kernel": "gelu-erf", "inputs": X, "tolerance": 3}, "has limits of its own"),
    "dict": ({"expected": {"x": X}, "kernel": "gelu-erf", "inputs": X}, "one array"),
    "no-kernel": ({"expected": X, "inputs": X}, "name it with kernel="),
    "nothing": ({}, "needs what is expected"),
    "one-dict": ({"expected": {"x": X}}, "give two arrays, or two dicts"),
    "format": ({"expected": X, "dtype": "fp16"}, "dtype='fp16' is no format"),
    "tolerance": ({"expected": X, "tolerance": -1.0}, "expected a number of 0 or more"),
    "object": ({"expected": object()}, "expected is of type object"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_arguments_that_do_not_go_together_are_told(arguments, words):
    with pytest.raises(UsageError) as refusal:
        compare(X, **arguments)
    assert words in str(refusal.value)


def test_it_is_a_function_of_the_package():
    assert actconform.compare is compare


def test_a_stated_format_goes_before_that_of_the_array():
    x = np.float32([0.5, 0.25])
    narrow = np.tanh(x.astype(np.float64)).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert compare(narrow, kernel="tanh", inputs=x, dtype="bf16").worst.dtype == "bf16"
    assert not compare(narrow, kernel="tanh", inputs=x)


def test_two_formats_are_compared_in_a_stated_third():
    x = np.float32([0.5, 0.25])
    assert "convert one of both" in compare(x, x.astype(np.float16)).worst.problem
    assert compare(x, x.astype(np.float16), dtype="bf16")


def test_an_array_without_a_name_is_the_array():
    x = np.float32([0.5, 0.25])
    assert str(compare(x, x)).startswith("the array: equal")
    assert str(compare({"y": x}, {"y": x})).startswith("y: equal")


def test_the_largest_errors_are_told_where_the_worst_is_finite():
    x = np.float32([1.0, 2.0])
    assert "largest errors" in str(compare(x + np.float32(0.5), x))
    assert "largest errors" not in str(compare(np.float32([np.nan, 2.0]), x))
    assert "largest errors" not in str(compare(x, np.float32([1.0, np.inf])))


def test_the_ends_of_float64_conform_to_themselves():
    ends = np.array([5e-324, -2.3e-308, 1.7976931348623157e308, 1 / 3])
    assert compare(ends, ends.copy())
    assert not compare(ends, np.nextafter(ends, 0))
