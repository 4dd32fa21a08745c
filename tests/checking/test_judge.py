"""Each node against its bound given what it read: what a run showed, what it hid, in what types."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import made, numbers

from actconform.checking.flatten import flatten
from actconform.checking.judge import BINS, Judge, read_as

CHAIN = made("(float[n] x) => (float[n] y) { a = Exp (x)  b = Neg (a)  y = Tanh (b) }")
X = np.float32([0.5, -1.0, 2.0])
A = np.exp(X.astype(np.float64)).astype(np.float32)
Y = np.tanh(-A.astype(np.float64)).astype(np.float32)


def judged(model, inputs, shown, *pieces, seen=None, doubt=True):
    """Return the verdicts by tensor, and the judge."""
    graph = flatten(model, inputs)
    judge = Judge(graph, inputs, shown.keys() if seen is None else seen, doubt=doubt)
    verdicts = []
    for piece in pieces or (shown,):
        verdicts += judge.take(piece)
    return {verdict.tensor: verdict for verdict in verdicts}, judge


def test_right_tensors_are_within_their_bounds_and_the_worst_element_is_told():
    verdicts, judge = judged(CHAIN, {"x": X}, {"a": A, "b": -A, "y": Y})
    assert list(verdicts) == ["a", "b", "y"]
    assert all(verdict.explained for verdict in verdicts.values())
    assert judge.place == 3
    a = verdicts["a"]
    assert (a.node, a.op_type, a.shape, a.segment) == ("Exp:a", "Exp", (3,), ("Exp:a",))
    assert a.error <= a.bound < 1e-5
    assert a.magnitude == np.exp(2.0)
    assert (a.lowest, a.highest) == (A.min(), A.max())
    assert sum(a.histogram) == 3
    assert len(a.histogram) == BINS


def test_a_wrong_tensor_is_no_fault_of_those_that_read_it():
    wrong = A * np.float32(1.01)
    downstream = np.tanh(-wrong.astype(np.float64)).astype(np.float32)
    verdicts, _ = judged(CHAIN, {"x": X}, {"a": wrong, "b": -wrong, "y": downstream})
    assert [name for name, verdict in verdicts.items() if not verdict.explained] == ["a"]
    assert verdicts["a"].ratio > 1000


def test_what_must_be_exact_is_off_by_an_infinite_ratio():
    verdicts, _ = judged(CHAIN, {"x": X}, {"a": A, "b": np.nextafter(-A, 0), "y": Y})
    assert verdicts["b"].bound == 0
    assert verdicts["b"].ratio == np.inf


def test_hidden_tensors_are_carried_and_judged_as_a_segment():
    verdicts, _ = judged(CHAIN, {"x": X}, {"y": Y})
    assert verdicts.keys() == {"y"}
    assert verdicts["y"].segment == ("Exp:a", "Neg:b", "Tanh:y")
    assert verdicts["y"].explained
    alone, _ = judged(CHAIN, {"x": X}, {"a": A, "b": -A, "y": Y})
    assert verdicts["y"].bound > alone["y"].bound
    wrong, _ = judged(CHAIN, {"x": X}, {"y": Y * np.float32(1.001)})
    assert not wrong["y"].explained


def test_a_segment_of_two_branches_names_the_nodes_of_both_once():
    model = made("(float[n] x) => (float[n] y) { a = Exp (x)  b = Neg (a)  c = Abs (a)  y = Add (b, c) }")
    verdicts, _ = judged(model, {"x": X}, {"y": np.zeros(3, np.float32)})
    assert verdicts["y"].segment == ("Exp:a", "Neg:b", "Abs:c", "Add:y")
    assert verdicts["y"].explained


def test_pieces_in_any_portions_give_the_same_verdicts():
    whole, _ = judged(CHAIN, {"x": X}, {"a": A, "b": -A, "y": Y})
    pieces, judge = judged(CHAIN, {"x": X}, {"a": A, "b": -A, "y": Y}, {"a": A}, {}, {"b": -A}, {"y": Y})
    assert pieces == whole
    assert judge.place == 3


def test_a_tensor_that_comes_to_be_hidden_is_carried():
    graph = flatten(CHAIN, {"x": X})
    judge = Judge(graph, {"x": X}, ["a", "b", "y"])
    assert [verdict.tensor for verdict in judge.take({"a": A})] == ["a"]
    judge.hide(["b"])
    (y,) = judge.take({"y": Y})
    assert y.segment == ("Neg:b", "Tanh:y")


def test_a_shape_that_is_not_the_right_one_is_told():
    verdicts, _ = judged(CHAIN, {"x": X}, {"a": A[:2], "b": -A, "y": Y})
    a = verdicts["a"]
    assert (a.shape, a.wanted_shape, a.ratio, a.explained) == ((2,), (3,), np.inf, False)


def test_a_node_that_cannot_take_what_was_shown_is_not_judged_and_says_so():
    model = made("(float[2, 3] x) => (float[2, 2] y) { a = Neg (x)  y = MatMul (a, w) }", {"w": numbers(1, 3, 2)})
    x = numbers(2, 2, 3)
    verdicts, judge = judged(model, {"x": x}, {"a": -x.T, "y": np.zeros((2, 2), np.float32)})
    assert not verdicts["a"].explained
    (unjudged,) = judge.unjudged
    assert unjudged.node == "MatMul:y"
    assert unjudged.reason.startswith("cannot be computed from what it read: ")


def test_nan_and_infinities_that_must_be_there_are_right_and_others_are_counted():
    model = made("(float[n] x) => (float[n] y) { y = Sqrt (x) }")
    x = np.float32([-1, 4, np.inf, 0])
    right, _ = judged(model, {"x": x}, {"y": np.float32([np.nan, 2, np.inf, 0])})
    assert right["y"].explained
    assert right["y"].nonfinite == 0
    lost, _ = judged(model, {"x": x}, {"y": np.float32([0, 2, np.inf, 0])})
    assert (lost["y"].explained, lost["y"].nonfinite, lost["y"].place) == (False, 1, (0,))
    gained, _ = judged(model, {"x": x}, {"y": np.float32([np.nan, np.nan, np.inf, 0])})
    assert (gained["y"].explained, gained["y"].nonfinite, gained["y"].place) == (False, 1, (1,))
    sign, _ = judged(model, {"x": x}, {"y": np.float32([np.nan, 2, -np.inf, 0])})
    assert (sign["y"].explained, sign["y"].place) == (False, (2,))


def test_a_nan_that_rounding_may_have_made_need_not_be_there():
    model = made("(float[n] x) => (float[n] y) { a = Sub (x, third)  y = Sqrt (a) }", {"third": np.float32(1 / 3)})
    x = np.nextafter(np.float32([1 / 3]), 0)
    verdicts, _ = judged(model, {"x": x}, {"y": np.float32([0])})
    assert verdicts["y"].explained
    shown, _ = judged(model, {"x": x}, {"a": x - np.float32(1 / 3), "y": np.float32([0])})
    assert not shown["y"].explained


def test_an_overflow_of_the_format_is_right_and_told():
    model = made("(float[n] x) => (float[n] y) { y = Exp (x) }")
    x = np.float32([100, 1])
    verdicts, _ = judged(model, {"x": x}, {"y": np.float32([np.inf, np.e])})
    assert (verdicts["y"].explained, verdicts["y"].overflowed) == (True, 1)
    other, _ = judged(model, {"x": x}, {"y": np.float32([-np.inf, np.e])})
    assert (other["y"].explained, other["y"].overflowed, other["y"].nonfinite) == (False, 0, 1)
    early, _ = judged(model, {"x": np.float32([80, 1])}, {"y": np.float32([np.inf, np.e])})
    assert (early["y"].explained, early["y"].overflowed, early["y"].nonfinite) == (False, 0, 1)


@pytest.mark.parametrize("y", [[np.nan, np.e], [np.inf, np.e], [2e43, np.e]])
def test_a_hidden_tensor_beyond_the_format_may_be_infinite_or_held_wider(y):
    model = made("(float[n] x, double[n] z) => (double[n] y) { a = Exp (x)  b = Cast <to = 11> (a)  y = Mul (b, z) }")
    x, z = np.float32([100, 1]), np.float64([0 if np.isnan(y[0]) else 1, 1])
    verdicts, _ = judged(model, {"x": x, "z": z}, {"y": np.float64(y)})
    assert verdicts["y"].explained
    other, _ = judged(model, {"x": x, "z": z}, {"y": np.float64([y[0], np.nan])})
    assert (other["y"].explained, other["y"].place) == (False, (1,))


def test_a_subnormal_result_may_be_flushed_and_a_normal_one_may_not():
    model = made("(float[n] x) => (float[n] y) { y = Mul (x, tiny) }", {"tiny": np.float32(1e-30)})
    flushed, _ = judged(model, {"x": np.float32([1e-10])}, {"y": np.float32([0])})
    assert flushed["y"].explained
    lost, _ = judged(model, {"x": np.float32([1e-5])}, {"y": np.float32([0])})
    assert not lost["y"].explained


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 11), ("bfloat16", 8)])
def test_a_16_bit_tensor_may_have_been_read_before_it_was_rounded(dtype, digits):
    import ml_dtypes  # noqa: F401  bfloat16

    x = np.array([1.5, 100.0, 0.0], np.dtype(dtype))
    read = read_as(x)
    assert (read.error >= np.abs(x.astype(float)) * 2.0**-digits).all()
    assert (read.error <= np.abs(x.astype(float)) * 2.0**-digits + 1e-7).all()
    assert read_as(x, doubt=False).error is None
    assert read_as(np.float32([1.5])).error is None


def test_doubt_excuses_a_reader_of_the_wider_number():
    model = made(
        "(float16[n] x) => (float16[n] y) { a = Mul (x, third)  y = Mul (a, big) }",
        {"third": np.float16(0.333), "big": np.float16(1000)},
    )
    x = np.float16(np.linspace(0.5, 1, 50))
    exact = x.astype(float) * float(np.float16(0.333))
    a = exact.astype(np.float16)
    y = (exact * 1000).astype(np.float16)
    assert (y != (a.astype(float) * 1000).astype(np.float16)).any()
    assert judged(model, {"x": x}, {"a": a, "y": y})[0]["y"].explained
    assert not judged(model, {"x": x}, {"a": a, "y": y}, doubt=False)[0]["y"].explained


def test_integers_and_booleans_must_be_exact():
    model = made(
        "(float[n] x) => (int64 y, bool[n] z) { y = ArgMax <axis = 0, keepdims = 0> (x)  z = Greater (x, half) }",
        {"half": np.float32(0.25)},
    )
    right, _ = judged(model, {"x": X}, {"y": np.array(2), "z": X > 0.25})
    assert all(verdict.explained for verdict in right.values())
    wrong, _ = judged(model, {"x": X}, {"y": np.array(1), "z": X < 0.25})
    assert (wrong["y"].got, wrong["y"].wanted) == (1, 2)
    assert not wrong["y"].explained
    assert not wrong["z"].explained


def test_empty_tensors_are_right():
    verdicts, _ = judged(CHAIN, {"x": X[:0]}, {"a": A[:0], "b": A[:0], "y": A[:0]})
    assert all(verdict.explained and verdict.shape == (0,) for verdict in verdicts.values())


def test_a_recurrent_layer_is_judged_step_by_step_from_the_states_it_showed():
    model = made(
        "(float[steps, 1, 2] x) => (float[steps, 1, 1, 3] y) { y = RNN <hidden_size = 3> (x, w, r) }",
        {"w": numbers(1, 1, 3, 2), "r": numbers(2, 1, 3, 3)},
    )
    inputs = {"x": numbers(3, 40, 1, 2)}
    graph = flatten(model, inputs)
    wrong = graph.truth["y"].astype(np.float32)
    state = wrong[19, 0, 0].astype(float) + 0.01  # one step off, and all after it right given that
    w, r = graph.constants["w"][0].astype(float), graph.constants["r"][0].astype(float)
    wrong[19, 0, 0] = state
    for step in range(20, 40):
        state = np.tanh(w @ inputs["x"][step, 0] + r @ wrong[step - 1, 0, 0].astype(float))
        wrong[step, 0, 0] = state
    verdict = judged(model, inputs, {"y": wrong})[0]["y"]
    assert not verdict.explained
    assert verdict.place[0] == 19
    assert judged(model, inputs, {"y": graph.truth["y"].astype(np.float32)})[0]["y"].explained
