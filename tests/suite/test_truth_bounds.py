"""Outputs against the truth: numbers by their bound, special values and structure by class, what has no rule not at all."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from small_cases import X, small_case

from actconform.suite.truth_bounds import CaseTruth

EXP = "(float[3] x) => (float[3] y) { y = Exp(x) }"
IDENTITY = "(float[3] x) => (float[3] y) { y = Identity(x) }"
LOG = "(float[3] x) => (float[3] y) { y = Log(x) }"
TWO = "(float[3] x) => (float[3] y, float[3] z) { y = Relu(x) z = Exp(x) }"


def verdict_on(case, **outputs):
    return CaseTruth(case).verdict([outputs])


def test_the_nearest_numbers_are_within_and_a_thousand_ulp_are_not():
    case = small_case("exp", EXP)
    nearest = np.exp(X.astype(np.float64)).astype(np.float32)
    right = verdict_on(case, y=nearest)
    assert (right.state, right.worst.difference) == ("within", "")
    assert 0.0 <= right.worst.ratio <= 1.0
    far = nearest.copy()
    far[1] *= np.float32(1 + 1000 * 2.0**-23)
    wrong = verdict_on(case, y=far)
    assert (wrong.state, wrong.worst.difference, wrong.worst.place) == ("outside", "value", (1,))
    assert wrong.worst.wanted == 1.0
    assert wrong.worst.ratio > 1.0
    assert wrong.worst.error == pytest.approx(1000 * 2.0**-23)


def test_special_values_go_by_their_class():
    x = np.array([-1.0, 0.0, np.inf], np.float32)
    case = small_case("log", LOG, {"x": x})
    right = np.array([np.nan, -np.inf, np.inf], np.float32)
    assert verdict_on(case, y=right).state == "within"
    for place, other, difference in ((0, 0.0, "NaN lost"), (1, np.nan, "NaN made"), (2, 3e38, "infinity")):
        got = right.copy()
        got[place] = other
        verdict = verdict_on(case, y=got)
        assert (verdict.state, verdict.worst.difference, verdict.worst.place) == ("outside", difference, (place,))


def test_what_moves_numbers_keeps_the_sign_of_a_zero():
    case = small_case("identity", IDENTITY, {"x": np.array([1.0, -0.0, 2.0], np.float32)})
    assert verdict_on(case, y=np.array([1.0, -0.0, 2.0], np.float32)).state == "within"
    verdict = verdict_on(case, y=np.array([1.0, 0.0, 2.0], np.float32))
    assert (verdict.state, verdict.worst.difference) == ("outside", "zero sign")


@pytest.mark.parametrize(
    ("value", "difference"),
    [
        (np.zeros((3, 1), np.float32), "shape"),
        (np.zeros(3, np.float64), "dtype"),
        ([np.zeros(3, np.float32)], "type"),
        (None, "type"),
    ],
)
def test_an_output_of_another_kind_is_outside(value, difference):
    verdict = verdict_on(small_case("relu"), y=value)
    assert (verdict.state, verdict.worst.difference, verdict.worst.ratio) == ("outside", difference, np.inf)


def test_a_missing_output_is_outside():
    verdict = verdict_on(small_case("two", TWO), y=np.maximum(X, 0))
    assert (verdict.state, verdict.worst.difference, verdict.worst.output) == ("outside", "number of outputs", "z")


def test_numbers_of_small_formats_are_judged_in_their_own():
    case = small_case(
        "f8",
        "(float8e4m3fn[2] x) => (float8e4m3fn[2] y) { y = Identity(x) }",
        {"x": np.array([1.5, -2.0], ml_dtypes.float8_e4m3fn)},
    )
    assert verdict_on(case, y=np.array([1.5, -2.0], ml_dtypes.float8_e4m3fn)).state == "within"
    assert verdict_on(case, y=np.array([1.5, -1.0], ml_dtypes.float8_e4m3fn)).state == "outside"


@pytest.mark.parametrize(
    ("text", "inputs", "words"),
    [
        ("(string[1] x) => (string[1] y) { y = Identity(x) }", {"x": np.array(["a"], object)}, "tensor of strings"),
        ("(seq(float[3]) x) => (float[3] y) { y = SequenceAt(x, i) }", {"x": [X]}, "a sequence"),
        ("(float[3] x) => (seq(float[3]) y) { y = SequenceConstruct(x) }", {"x": X}, "it gives a sequence"),
        ("(float[3] x) => (float[3] y) { y = Bernoulli(x) }", {"x": np.abs(X) / 3}, "Bernoulli"),
    ],
)
def test_what_has_no_rule_is_not_judged_and_says_why(text, inputs, words):
    verdict = CaseTruth(small_case("unknown", text, inputs)).verdict([{"y": np.zeros(3, np.float32)}])
    assert verdict.state == "not judged"
    assert words in verdict.reason


def test_an_output_without_a_rule_makes_no_case_pass_and_hides_no_fault():
    text = "(float[3] x, float[3] p) => (float[3] y, float[3] z) { y = Relu(x) z = Bernoulli(p) }"
    case = small_case("mixed", text, {"x": X, "p": np.abs(X) / 3})
    z = np.zeros(3, np.float32)
    right = verdict_on(case, y=np.maximum(X, 0), z=z)
    assert right.state == "not judged"
    assert "Bernoulli" in right.reason
    assert verdict_on(case, y=X, z=z).state == "outside"


def test_recurrent_layers_are_judged_by_the_states_that_an_answer_shows():
    text = "(float[2,1,2] x, float[1,8,2] w, float[1,8,2] r) => (float[2,1,1,2] y, float[1,1,2] h) { y, h = LSTM <hidden_size: int = 2> (x, w, r) }"
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("x", (2, 1, 2)), ("w", (1, 8, 2)), ("r", (1, 8, 2)))
    }
    case = small_case("lstm", text, inputs, opset=14)
    y, h = lstm(**inputs)
    assert verdict_on(case, y=y, h=h).state == "within"
    y[1, 0, 0, 1] += np.float32(0.01)
    assert verdict_on(case, y=y, h=h).state == "outside"


def lstm(x, w, r):
    """Compute an LSTM's states with its formulas, in float64."""
    h = c = np.zeros(2)
    states = []
    for step in x[:, 0].astype(np.float64):
        i, o, f, g = np.split(w[0].astype(np.float64) @ step + r[0].astype(np.float64) @ h, 4)
        i, o, f = (1 / (1 + np.exp(-gate)) for gate in (i, o, f))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        states.append(h)
    return np.array(states, np.float32)[:, None, None], h.astype(np.float32)[None, None]
