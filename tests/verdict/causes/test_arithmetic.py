"""Running-error arithmetic: whatever an implementation that rounds every step gives lies within, specials are IEEE's."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.arithmetic import EXACT, Arithmetic, Number, admits, as_read
from actconform.verdict.causes.formula import Formula, Scope
from actconform.verdict.causes.primitives import primitive

F32, F16 = DTYPES["f32"], DTYPES["f16"]
STORAGE = {"f32": np.float32, "f16": np.float16}
INF, NAN = math.inf, math.nan


def numbers(values: Any, fmt: Any = F32, **fields: Any) -> Number:
    arithmetic = Arithmetic(fmt, **fields)
    return as_read(np.atleast_1d(np.asarray(values, np.float64)), arithmetic)


def quiet(compute: Any) -> Any:
    with np.errstate(all="ignore"):
        return compute()


# Any expression of + - * / maximum and where, evaluated by NumPy with one rounding a step, is admitted at every input.
LEAVES = st.sampled_from(["x", "y", "(x + 0.5)", "(y * 1.7)", "(3 - x)", "(y / 3)", "(2 / x)"])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("maximum({}, {})".format, inner, inner),
        st.builds("where({} > {}, {}, x + {})".format, inner, inner, inner, inner),
        st.builds("abs({})".format, inner),
        st.builds("(-{})".format, inner),
    ),
    max_leaves=8,
)
POINTS = [0.0, -0.0, 1.0, -1.0, 1.5, 1e-3, 3e-8, 6e4, 2e38, -3e38, 1e-38, 1e-45, -1e-40, INF, -INF, NAN, 0.1, -7.25]


def by_numpy(text: str, x: Any, y: Any) -> Any:
    dtype = x.dtype.type
    names = {
        "x": x,
        "y": y,
        "maximum": np.maximum,
        "where": lambda condition, yes, no: np.where(condition, dtype(yes), dtype(no)),
        "abs": np.abs,
    }

    typed = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)", r"c(\1)", text)
    return eval(typed, {"__builtins__": {}}, names | {"c": dtype})  # noqa: S307  built above from fixed parts


@settings(deadline=None, max_examples=150)
@examples(text=EXPRESSIONS, dtype=st.sampled_from(["f32", "f16"]), seed=st.integers(0, 2**32 - 1))
def test_what_numpy_gives_with_one_rounding_a_step_is_admitted(text: str, dtype: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    fmt, storage = DTYPES[dtype], STORAGE[dtype]

    def drawn() -> Any:
        size = np.exp2(random.uniform(fmt.emin - 4, fmt.emax, 32)) * random.choice([-1.0, 1.0], 32)
        ordinary = random.normal(size=32)
        return quiet(lambda: np.concatenate([ordinary, size, random.permutation(POINTS)]).astype(storage))

    x, y = drawn(), drawn()
    arithmetic = Arithmetic(fmt)
    names = {"x": as_read(x.astype(np.float64), arithmetic), "y": as_read(y.astype(np.float64), arithmetic)}
    number = quiet(lambda: Formula(text).evaluate(Scope(names, arithmetic, arithmetic)))
    got = quiet(lambda: by_numpy(text, x, y))
    allowed = admits(number, got.astype(np.float64), zero_sign=True)
    at = np.flatnonzero(~allowed)
    assert not at.size, (text, x[at[0]], y[at[0]], got[at[0]], number.value[at[0]], number.error[at[0]])


@pytest.mark.parametrize(
    ("compute", "wanted"),
    [
        (lambda x: x(INF) - x(INF), NAN),
        (lambda x: x(INF) * x(0.0), NAN),
        (lambda x: x(0.0) / x(0.0), NAN),
        (lambda x: x(INF) / x(-INF), NAN),
        (lambda x: x(1.0) / x(0.0), INF),
        (lambda x: x(1.0) / x(-0.0), -INF),
        (lambda x: x(3e38) * x(10.0), INF),
        (lambda x: x(-3e38) * x(10.0), -INF),
        (lambda x: x(3e38) + x(3e38), INF),
        (lambda x: x(1e-40) * x(1e-10), 0.0),
        (lambda x: x(-1e-40) * x(1e-10), -0.0),
        (lambda x: x(1.0) / x(INF), 0.0),
    ],
)
def test_specials_are_those_of_ieee_arithmetic_without_error(compute: Any, wanted: float) -> None:
    number = quiet(lambda: compute(numbers))
    assert float(number.error[0]) == 0.0
    assert number.value[0] == wanted or (math.isnan(wanted) and math.isnan(number.value[0]))
    assert math.copysign(1, number.value[0]) == math.copysign(1, wanted) or math.isnan(wanted)


def test_an_error_that_may_be_anything_stays_so_when_it_is_multiplied_by_zero() -> None:
    anything = Number(np.array([1.0]), np.array([NAN]), Arithmetic(F32))
    assert math.isnan(quiet(lambda: anything * numbers(0.0)).error[0])


def test_below_the_range_of_float64_a_result_is_unsure_and_times_infinity_may_be_anything() -> None:
    tiny = quiet(lambda: numbers(1e-200, EXACT) * numbers(1e-115, EXACT))
    assert tiny.value[0] != 0
    assert tiny.error[0] > tiny.value[0]
    assert math.isnan(quiet(lambda: tiny * numbers(INF, EXACT)).error[0])
    gone = quiet(lambda: numbers(1e-30) * numbers(1e-30) * numbers(INF))  # a number of float32 is surely 0 there
    assert (math.isnan(gone.value[0]), gone.error[0]) == (True, 0.0)


def test_sigmoid_is_not_0_where_only_its_exponential_overflows() -> None:
    value = quiet(lambda: primitive("sigmoid", numbers([-740.0, 740.0, NAN, -INF, 0.0], EXACT))).value
    assert 0 < value[0] < 1e-300
    assert value.tolist()[1] == 1.0
    assert np.isnan(value[2])
    assert value.tolist()[3:] == [0.0, 0.5]


def test_a_sum_that_only_looks_exact_in_float64_has_an_error() -> None:
    number = quiet(lambda: numbers(2.0**60) + 1.0)
    assert number.error[0] > 0
    assert admits(number, np.array([2.0**60]), zero_sign=True)[0]


def test_what_float32_holds_without_rounding_has_no_error() -> None:
    for compute in (lambda x: x * 0.5, lambda x: x + x, lambda x: x - x, lambda x: -x, abs, lambda x: x * 3.0 - x):
        assert quiet(lambda compute=compute: compute(numbers([1.5, -7.25, 1e-38]))).error[0] == 0.0


def test_one_rounding_is_half_an_ulp_and_no_more() -> None:
    number = quiet(lambda: numbers(1.0) / 3.0)
    assert number.error[0] == 2.0**-26
    third = float(np.float32(1) / np.float32(3))
    assert admits(number, np.array([third, third + 2.0**-25]), zero_sign=True).tolist() == [True, False]


def test_a_constant_is_a_number_of_the_format_with_the_error_of_its_rounding() -> None:
    constant = numbers(0.0).operand(0.1)
    assert float(constant.value) == float(np.float32(0.1))
    assert float(constant.error) == abs(float(np.float32(0.1)) - 0.1)
    assert float(Number(np.zeros(1), np.zeros(1), Arithmetic(EXACT)).operand(0.1).value) == 0.1
    infinite = quiet(lambda: numbers(0.0).operand(INF))
    assert (float(infinite.value), float(infinite.error)) == (INF, 0.0)


def test_what_may_overflow_admits_infinity_and_what_cannot_does_not() -> None:
    near = Number(np.array([3.4028e38]), np.array([1e34]), Arithmetic(F32))
    assert math.isinf(quiet(lambda: near * 1.0).error[0])
    sure = quiet(lambda: numbers(3.4028e38) * 1.0)
    assert not admits(sure, np.array([INF]), zero_sign=True)[0]


@pytest.mark.parametrize(
    ("flush", "zero", "itself"), [("kept", False, True), ("may", True, True), ("always", True, False)]
)
def test_subnormal_results_are_kept_lost_or_either(flush: Any, zero: bool, itself: bool) -> None:
    number = quiet(lambda: numbers(2.0**-126, flush=flush) * 0.25)
    assert admits(number, np.array([0.0, 2.0**-128]), zero_sign=True).tolist() == [zero, itself]


@pytest.mark.parametrize(
    ("flush", "zero", "itself"), [("kept", False, True), ("may", True, True), ("always", True, False)]
)
def test_subnormal_inputs_are_read_likewise(flush: Any, zero: bool, itself: bool) -> None:
    number = quiet(lambda: numbers(1e-40, flush=flush) * 2.0**60)
    got = np.array([0.0, float(np.float32(1e-40)) * 2.0**60])
    exact = quiet(lambda: numbers(float(np.float32(1e-40)), flush=flush) * 2.0**60)
    assert admits(exact, got, zero_sign=True).tolist() == [zero, itself]
    assert number.value.shape == (1,)


def test_subnormal_numbers_of_float16_are_kept_whatever_float32_does() -> None:
    number = quiet(lambda: numbers(2.0**-14, F16, flush="always") * 0.5)
    assert admits(number, np.array([2.0**-15, 0.0]), zero_sign=True).tolist() == [True, False]


def test_the_sign_of_a_zero_counts_where_it_is_asked_for() -> None:
    zero = quiet(lambda: numbers(0.0) * -1.0)
    assert admits(zero, np.array([0.0]), zero_sign=True).tolist() == [False]
    assert admits(zero, np.array([0.0]), zero_sign=False).tolist() == [True]
    assert admits(zero, np.array([-0.0]), zero_sign=True).tolist() == [True]


def test_nan_is_admitted_only_where_it_must_come_or_anything_may() -> None:
    assert not admits(numbers(1.0), np.array([NAN]), zero_sign=True)[0]
    assert admits(numbers(NAN), np.array([NAN]), zero_sign=True)[0]
    assert not admits(numbers(NAN), np.array([1.0]), zero_sign=True)[0]


def test_a_comparison_knows_where_rounding_may_turn_it() -> None:
    x = quiet(lambda: numbers([0.1, 0.1, 5.0]) * 3.0)
    at = quiet(lambda: x.compared(float(np.float32(0.1) * np.float32(3)), np.greater))
    assert at.unsure.tolist() == [True, True, False]
    assert at.holds[2]


def test_conversion_to_a_narrower_format_rounds_once() -> None:
    wide = numbers(1.0 + 2.0**-12)
    narrow = quiet(lambda: wide.rounded_to(Arithmetic(F16)))
    assert narrow.error[0] == 2.0**-11
    assert quiet(lambda: narrow.rounded_to(Arithmetic(F32))).error[0] == 2.0**-11


def test_what_is_computed_with_a_certain_nan_is_nan_without_doubt() -> None:
    inexact = Number(np.array([0.3]), np.array([1e-3]), numbers(0.0).arithmetic)
    for result in (numbers(NAN) * inexact, inexact * numbers(NAN), numbers(NAN) / inexact, inexact / numbers(NAN)):
        assert math.isnan(result.value[0])
        assert result.error[0] == 0.0
        assert not admits(result, np.array([0.3]), zero_sign=False).any()
