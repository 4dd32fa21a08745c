"""The verdict end to end: an output against how far rounding moves the truth."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from actconform.checking.result import OutputCheck
from actconform.checking.spread import ill_conditioned, output_verdict, spread_units
from actconform.onnx.evaluate.element_types import FORMATS

FLOAT, HALF, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
TRUTH = np.array([1.0, -2.0, 4.0])


def verdict(got, truth=TRUTH, moves=(1e-6, -1e-6), element_type=FLOAT, draws=None):
    array = np.asarray(got)
    output = OutputCheck(name="y", sample=0, shape=array.shape)
    made = [{"y": truth + move} for move in moves] if draws is None else draws
    return output_verdict(output, array, truth, made, element_type)


def moved(*by):
    return TRUTH + np.array(by)


def test_the_error_is_counted_in_spreads():
    result = verdict(np.float32(moved(0, 3e-6, 0)))
    assert result.spreads == pytest.approx(3, rel=0.1)
    assert result.spread == pytest.approx(1e-6)
    assert (result.place, result.wanted, result.explained) == ((1,), -2.0, True)
    assert result.magnitude == 4


@pytest.mark.parametrize(("spreads", "explained"), [(15.9, True), (16.1, False)])
def test_the_limit(spreads, explained):
    assert verdict(moved(0, 0, spreads * 1e-6)).explained is explained


def test_an_element_that_no_draw_moved_has_the_mean_spread_of_its_tensor():
    draws = [{"y": moved(3e-6, 0, 0)}, {"y": moved(-3e-6, 0, 0)}]
    assert verdict(moved(0, 2e-6, 0), draws=draws).spreads == pytest.approx(2)


def test_an_output_that_nothing_moves_may_be_off_by_roundings_of_its_own():
    assert verdict(np.float32([1, -2, np.nextafter(np.float32(4), 5)]), moves=(0.0,)).spreads == pytest.approx(
        2, rel=0.01
    )
    assert not verdict(TRUTH * 1.001, moves=(0.0,)).explained
    assert verdict(np.array([0.0]), np.array([0.0]), moves=(0.0,)).explained
    assert not verdict(np.array([1e-20]), np.array([0.0]), moves=(0.0,)).explained


def test_another_shape_is_not_explained_and_says_so():
    result = verdict(np.float32([1, 2]))
    assert not result.explained
    assert result.reason == "its shape is [2], and should be [3]"


def test_a_shape_that_rounding_decides_is_not_judged():
    result = verdict(TRUTH, draws=[{"y": TRUTH}, {"y": TRUTH[:2]}])
    assert (result.explained, result.unjudged) == (True, "rounding decides its shape")
    assert verdict(TRUTH, draws=[{"y": TRUTH}, {}]).unjudged


def test_nan_and_infinities_are_right_where_the_truth_has_them():
    truth = np.array([np.nan, np.inf, 1.0])
    assert verdict(truth, truth).explained
    lost = verdict(np.array([0.0, np.inf, 1.0]), truth, moves=(0.0,))
    assert lost.nonfinite == 1
    wrong = verdict(np.array([np.nan, np.inf, np.nan]), truth)
    assert (wrong.explained, wrong.nonfinite, wrong.place) == (False, 1, (2,))


def test_an_overflow_of_the_format_is_told_and_not_explained():
    result = verdict(np.float16([np.inf, 1]), np.array([70_000.0, 1.0]), element_type=HALF)
    assert (result.overflowed, result.nonfinite, result.explained) == (1, 0, False)
    other = verdict(np.float16([-np.inf, 1]), np.array([70_000.0, 1.0]), element_type=HALF)
    assert (other.overflowed, other.nonfinite, other.explained) == (0, 1, False)


def test_integers_are_decisions_which_rounding_may_sway():
    truth = np.array([1, 2, 3])
    swayed = [{"y": np.array([1, 2, 4])}, {"y": truth}]
    assert verdict(np.array([1, 2, 4]), truth, draws=swayed, element_type=INT).explained
    result = verdict(np.array([1, 3, 3]), truth, draws=swayed, element_type=INT)
    assert (result.explained, result.place, result.spreads) == (False, (1,), np.inf)
    assert (result.decisions, result.decided_alike) == (3, 2)


def test_booleans_are_too():
    truth = np.array([True, False])
    result = verdict(~truth, truth, draws=[{"y": truth}], element_type=TensorProto.BOOL)
    assert (result.explained, result.decided_alike) == (False, 0)


def test_the_largest_element_of_each_row_is_compared():
    truth = np.array([[1.0, 2.0], [3.0, 2.9999999]])
    result = verdict(truth + np.array([[0, 0], [0, 3e-7]]), truth)
    assert (result.decisions, result.decided_alike) == (2, 1)
    assert result.explained


def test_units_are_infinite_where_rounding_leaves_nothing():
    unit, mean = spread_units(TRUTH, [moved(np.inf, 1e-6, 1e-6)], FLOAT)
    assert np.isinf(unit[0])
    assert mean == pytest.approx(1e-6)
    assert unit[1] == pytest.approx(1e-6)


def test_an_output_of_which_a_third_of_the_digits_is_left_is_ill_conditioned():
    fmt = FORMATS[FLOAT]
    assert not ill_conditioned(TRUTH, [TRUTH + 1e-5], fmt)["ill_conditioned"]
    assert ill_conditioned(TRUTH, [TRUTH + 0.1], fmt)["ill_conditioned"]
    assert ill_conditioned(TRUTH, [TRUTH + np.nan], fmt)["ill_conditioned"]
    assert not ill_conditioned(np.zeros(3), [np.zeros(3)], fmt)["ill_conditioned"]
    assert not ill_conditioned(TRUTH, [TRUTH + 0.01], FORMATS[HALF])["ill_conditioned"]


def test_an_empty_output_is_explained():
    assert verdict(np.zeros((0, 3), np.float32), np.zeros((0, 3))).explained


LEVEL = 0.25
LEVELS = LEVEL * np.arange(40.0, 140.0)


def of_levels(off: float, moved_by: float = LEVEL, *, quantized: bool = True):
    """Return the verdict on an element that is `off` where eight draws move another one, one draw by a level and all by a rounding."""
    draws = [{"y": LEVELS * (1 + 2.0**-24)} for _ in range(8)]
    draws[3]["y"][7] += moved_by
    got = LEVELS.copy()
    got[60] += off
    output = OutputCheck(name="y", sample=0, shape=got.shape)
    return output_verdict(output, got, LEVELS, draws, FLOAT, quantized=quantized)


def test_which_elements_of_a_quantized_output_rounding_moves_by_a_level_is_chance():
    assert of_levels(LEVEL).explained
    assert of_levels(-LEVEL).explained
    assert not of_levels(LEVEL, quantized=False).explained


def test_a_quantized_output_may_not_be_off_by_many_levels_or_where_rounding_moves_none():
    assert not of_levels(8 * LEVEL).explained
    assert not of_levels(LEVEL, moved_by=0.0).explained
