"""Libraries with injected inaccuracies are measured as having them, and what is stated holds at every input."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actconform.accuracy.measure import SHORT, Tally, measured, smallest_statement
from actconform.accuracy.points import inputs
from actconform.accuracy.primitives import PRIMITIVES
from actconform.oracle.rounding import round_to
from actconform.tolerance.ulp import ulp_of
from actconform.types.dtypes import DTYPES

NUMPY = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
F32 = DTYPES["f32"]
FEW = 30_000
NORMAL = F32.smallest_normal


def rounded(values, dtype="f32"):
    return round_to(values, DTYPES[dtype]).astype(NUMPY[dtype])


def library(name: str, dtype: str = "f32", before=None, after=None):
    """A correctly rounded primitive, with its operand changed by `before` and its result, with the operand, by `after`."""

    def compute(*operands):
        x = [operand.astype(np.float64) for operand in operands]
        with np.errstate(all="ignore"):
            result = np.asarray(PRIMITIVES[name].truth(*(map(before, x) if before else x)))
            return rounded(after(x[0], result) if after else result, dtype)

    return compute


def ask(name: str, dtype: str = "f32", points: int | None = FEW, **injected):
    return measured(PRIMITIVES[name], library(name, dtype, **injected), dtype, points)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erfc", "softplus", "reciprocal", "division"])
def test_a_correctly_rounded_library_is_off_by_half_a_step_and_has_nothing_else(name: str, dtype: str):
    row = ask(name, dtype)
    assert row.ulp == pytest.approx(0.5, abs=0.01)
    assert (row.stated_ulp, row.stated_absolute, row.underflow_steps) == (1, 0, 0)
    assert row.flush in ("", "kept")
    assert row.subnormal_error <= 0.501
    assert (row.early_count, row.wrong) == (0, {})
    assert row.points > FEW * 0.9 or dtype != "f32"


def test_an_error_of_three_steps_in_one_interval_is_found_and_stated():
    wrong = lambda x, y: np.where((x > 0.5) & (x < 0.6), y + 3.0 * ulp_of(y, F32), y)  # noqa: E731
    row = ask("tanh", after=wrong)
    assert 3.0 <= row.ulp <= 3.5
    assert 0.5 < np.uint32(int(row.ulp_at, 16)).view(np.float32) < 0.6
    assert (row.stated_ulp, row.stated_absolute) == (4, 0)


def test_an_absolute_error_is_stated_in_units():
    row = ask("sigmoid", after=lambda x, y: y + np.where(x < -5.0, 2.9 * F32.unit_roundoff, 0.0))
    assert row.ulp > 1e6
    assert (row.stated_ulp, row.stated_absolute) == (1, 3)
    assert row.unit == pytest.approx(3.5, abs=0.6)


def test_what_is_lost_only_near_underflow_is_stated_in_steps():
    row = ask(
        "tanh",
        after=lambda _, y: y + np.where(np.abs(y) < 2.0**-100, np.copysign(50.0 * F32.smallest_subnormal, y), 0.0),
    )
    assert 50 <= row.ulp <= 50.5
    assert row.stated_ulp in (50, 51)
    assert row.flush == "kept"
    assert (row.high_ulp, row.underflow_steps) == (1, 50)


def test_flushed_results_are_told_from_errors():
    row = ask("exp", after=lambda _, y: np.where(y < NORMAL, 0.0, y))
    assert (row.flush, row.stated_ulp, row.wrong) == ("always", 1, {})
    assert ask("exp", after=lambda x, y: np.where((y < NORMAL) & (x < -90.0), 0.0, y)).flush == "may"


@pytest.mark.parametrize("name", ["exp", "sqrt", "reciprocal", "division"])
def test_a_library_that_flushes_operands_and_results_does_it_always(name: str):
    flush = lambda x: np.where(np.abs(x) < NORMAL * (1.0 - F32.unit_roundoff), np.copysign(0.0, x), x)  # noqa: E731
    row = ask(name, before=flush, after=lambda _, y: flush(y))
    assert (row.flush, row.stated_ulp, row.early_count, row.wrong) == ("always", 1, 0, {})


@pytest.mark.parametrize("name", ["sqrt", "log", "reciprocal", "division"])
def test_operands_read_as_zero_are_told_from_errors(name: str):
    row = ask(name, before=lambda x: np.where(np.abs(x) < NORMAL, np.copysign(0.0, x), x))
    assert row.flush == ("always" if name in ("sqrt", "log") else "may")  # results below normal are kept
    assert (row.stated_ulp, row.early_count, row.wrong) == (1, 0, {})


def test_what_only_short_arrays_do_is_seen():
    right = library("exp")

    def compute(x):
        return np.where(x.size == SHORT, right(x) * np.float32(1.0 + 2.0**-20), right(x))

    row = measured(PRIMITIVES["exp"], compute, "f32", FEW)
    assert 4.0 < row.ulp < 17.0


def test_early_overflow_is_told_with_its_first_input():
    row = ask("exp", after=lambda x, y: np.where(x > 88.5, np.inf, y))
    assert np.uint32(int(row.early_overflow, 16)).view(np.float32) == pytest.approx(88.5, abs=0.2)
    assert row.early_count > 10
    assert row.stated_ulp == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x, y: np.where(np.isnan(x), np.inf, y), "inf for nan"),
        (lambda x, y: np.where(np.isinf(x), np.nan, y), "nan for 1.0"),
        (lambda x, y: np.where(x == 0, 0.0, y), "0 for -0"),
    ],
)
def test_wrong_kinds_of_numbers_are_told_with_an_input(wrong, words: str):
    row = ask("tanh", after=wrong)
    assert next(kind.replace("a number", "1.0") for kind in row.wrong) == words
    assert row.stated_ulp == 1


def test_infinity_for_minus_infinity_is_wrong():
    assert "inf for -inf" in ask("log", after=lambda x, y: np.where(x == 0, np.inf, y)).wrong


@np.errstate(invalid="ignore")  # of NaN, cast
def test_what_is_stated_holds_at_every_input_asked():
    rng = np.random.default_rng(3)
    name, x = "tanh", inputs("f32", FEW)
    truth = np.tanh(x.astype(np.float64))
    spread = rng.uniform(-40.0, 40.0, x.size) * ulp_of(truth, F32) + rng.uniform(-5.0, 5.0, x.size) * F32.unit_roundoff
    got = rounded(truth + spread)
    tally = Tally(PRIMITIVES[name], F32)
    tally.add([x], got)
    row = tally.accuracy()
    error = np.abs(got.astype(np.float64) - truth)
    allowed = row.stated_ulp * ulp_of(truth, F32) + row.stated_absolute * F32.unit_roundoff
    normal = np.abs(truth) >= NORMAL
    assert row.stated_absolute > 0
    assert np.all(error[normal] <= allowed[normal])


@given(st.lists(st.floats(0.0, 1e6), min_size=3, max_size=3), st.integers(1, 100))
def test_the_statement_bounds_the_errors_of_every_binade_and_is_the_smallest(errors: list[float], ulp: int):
    worst, units = np.array(errors), np.array([2.0**-3, 1.0, 2.0])
    relative, absolute = smallest_statement(worst, units)
    assert np.all(worst * units <= relative * units + absolute + 1e-9)
    if absolute:
        alternative = max(0.0, float(np.max((worst - ulp) * units)))
        assert 2 * relative + np.ceil(absolute) <= 2 * ulp + np.ceil(alternative)


def test_answers_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="exp gave shape"):
        measured(PRIMITIVES["exp"], lambda x: x[:-1], "f16", FEW)


def test_every_pattern_is_asked_where_no_number_of_points_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("actconform.accuracy.measure.everything", lambda dtype: iter([inputs(dtype, FEW)] * 3))
    assert ask("exp", points=None).points > 2.9 * FEW
    monkeypatch.setattr("actconform.accuracy.measure.POINTS", FEW)
    assert ask("division", points=None).points < 1.1 * FEW  # there is no "all" of two operands
