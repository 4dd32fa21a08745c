"""Where rounding decides at a step function: ties are found, decided as correct rounding does, and excuse no fault."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from onnx import TensorProto
from small_models import made, numbers, sample_of

from actconform.checking.checked_sample import output_check
from actconform.checking.flatten import flatten
from actconform.checking.judge import Judge
from actconform.checking.truth import DRAWS, RoundingDraw, draws, evaluated

TABLE = numbers(3, 16, 4)
# T5's buckets of positions, as its exports have them: 8 + 8 log(n / 8) / log(16), which is 10 of 16.
BUCKETS = made(
    """(int64[n] position) => (float[n, 4] y)
    {
        p = Cast <to = 1> (position)
        e = Div (p, eight)
        l = Log (e)
        d = Div (l, log_16)
        m = Mul (d, eight)
        c = Cast <to = 7> (m)
        a = Add (c, eight_steps)
        few = Less (position, eight_steps)
        w = Where (few, position, a)
        b = Min (w, last)
        y = Gather (table, b)
    }""",
    {
        "eight": np.float32(8),
        "log_16": np.float32(np.log(16)),
        "eight_steps": np.int64(8),
        "last": np.int64(15),
        "table": TABLE,
    },
)
POSITIONS = {"position": np.arange(1, 40)}
ROOTS = {16: 10, 32: 12}  # the positions at a jump, and the buckets that begin there


def buckets(positions, *, late=()):
    """Return the bucket of each position; at those that are `late` the one before begins later."""
    inner = 8 + np.floor(8 * np.log2(np.maximum(positions, 8) / 8) / 4 + 1e-9).astype(int)
    return np.minimum(np.where(positions < 8, positions, inner - np.isin(positions, late)), 15)


def ties(graph):
    return {node.name: node.tie for node in graph.nodes if node.tie is not None}


def evaluated_sample(model, inputs):
    sample = sample_of(inputs)
    sample.graph = flatten(model, inputs)
    sample.draws = draws(sample.graph, inputs)
    return sample


def test_a_position_at_a_jump_is_in_the_bucket_in_which_correct_rounding_puts_it():
    graph = flatten(BUCKETS, POSITIONS)
    (tie,) = ties(graph).values()
    assert set(ROOTS) <= set(POSITIONS["position"][tie.close])
    np.testing.assert_array_equal(graph.truth["y"], TABLE[buckets(POSITIONS["position"])])
    # the same in float64 alone is 1.9999999945, as log_16 is rounded up
    assert 8 * np.log(2) / np.float64(np.float32(np.log(16))) < 2


def test_all_evaluations_of_the_sample_go_the_same_way_but_draws_that_are_swayed():
    graph = flatten(BUCKETS, POSITIONS)
    for outputs in (evaluated(graph, POSITIONS), evaluated(graph, POSITIONS, RoundingDraw(graph, 3))):
        np.testing.assert_allclose(outputs["y"], graph.truth["y"], rtol=1e-6)
    swayed = [draw["y"] for draw in draws(graph, POSITIONS, swayed=True)]
    for position, bucket in ROOTS.items():
        rows = [draw[list(POSITIONS["position"]).index(position)] for draw in swayed]
        before = sum(np.allclose(row, TABLE[bucket - 1], rtol=1e-6) for row in rows)
        at = sum(np.allclose(row, TABLE[bucket], rtol=1e-6) for row in rows)
        assert (before, at) == (DRAWS / 2, DRAWS / 2)


@pytest.mark.parametrize(("late", "tied"), [((), False), ((16,), True), ((32,), True), ((16, 32), True)])
def test_either_decision_at_a_jump_is_explained_and_told(late, tied):
    sample = evaluated_sample(BUCKETS, POSITIONS)
    verdict = output_check(sample, 0, "y", TABLE[buckets(POSITIONS["position"], late=late)])
    assert (verdict.explained, verdict.tied) == (True, tied)


@pytest.mark.parametrize("late", [(12,), (17,), (16, 23), (33,)])
def test_another_bucket_away_from_a_jump_is_a_fault(late):
    sample = evaluated_sample(BUCKETS, POSITIONS)
    verdict = output_check(sample, 0, "y", TABLE[buckets(POSITIONS["position"], late=late)])
    assert (verdict.explained, verdict.tied) == (False, False)


def test_a_small_fault_is_seen_beside_a_tie():
    sample = evaluated_sample(BUCKETS, POSITIONS)
    got = TABLE[buckets(POSITIONS["position"])]
    assert output_check(sample, 0, "y", got).spreads == 0
    got[20] *= np.float32(1 + 1e-4)
    assert not output_check(sample, 0, "y", got).explained


def test_a_cast_that_truncates_2_3_to_1_is_a_fault_at_the_cast_and_at_the_end():
    model = made("(float[n] x) => (int64[n] y) { m = Mul (x, ten)  y = Cast <to = 7> (m) }", {"ten": np.float32(10)})
    inputs = {"x": np.float32([0.23, 0.7, 0.49])}
    right = np.int64([2, 7, 4])  # 0.7 in float32 is below 0.7, its product rounds to 7
    sample = evaluated_sample(model, inputs)
    assert ties(sample.graph)["Cast:y"].close.tolist() == [False, True, False]
    for answer, explained in ((right, True), (right - [0, 1, 0], True), (right - [1, 0, 0], False)):
        assert output_check(sample, 0, "y", answer).explained is explained
        judge = Judge(sample.graph, inputs, ["m", "y"])
        m = inputs["x"] * np.float32(10)
        verdicts = list(judge.take({"m": m, "y": answer}))
        assert [tensor.explained for tensor in verdicts] == [True, bool((answer == right).all())]


def test_of_a_segment_only_the_elements_at_a_jump_may_be_anything():
    graph = flatten(BUCKETS, POSITIONS)
    for late, explained in (((), True), ((16,), True), ((12,), False), ((17,), False)):
        judge = Judge(graph, POSITIONS, ["y"])
        (tensor,) = judge.take({"y": TABLE[buckets(POSITIONS["position"], late=late)]})
        assert tensor.explained is explained
        assert len(tensor.segment) == len(graph.nodes)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@given(numerators=st.lists(st.integers(-300, 300), min_size=1, max_size=20), by=st.integers(1, 60))
def test_the_truth_goes_the_way_of_ieee_arithmetic(dtype, numerators, by):
    kind = {np.float32: "float", np.float16: "float16"}[dtype]
    model = made(
        f"({kind}[n] x) => ({kind}[n] f, int32[n] c, bool[n] g)"
        "{ q = Div (x, by)  m = Mul (q, ten)  f = Floor (m)  c = Cast <to = 6> (m)  g = GreaterOrEqual (m, one) }",
        {"by": dtype(by), "ten": dtype(10), "one": dtype(1)},
    )
    x = np.array(numerators, dtype)
    with np.errstate(all="ignore"):
        m = x / dtype(by) * dtype(10)
    truth = flatten(model, {"x": x}).truth
    np.testing.assert_array_equal(truth["f"], np.floor(m).astype(np.float64))
    np.testing.assert_array_equal(truth["c"], m.astype(np.int32))
    np.testing.assert_array_equal(truth["g"], m >= 1)


@pytest.mark.parametrize(
    "text",
    [
        "(float[n] x) => (int64[n] y) { m = Mul (x, two)  y = Cast <to = 7> (m) }",
        "(float[n] x) => (int64[n] y) { m = Div (x, two)  y = Cast <to = 7> (m) }",
        "(float[n] x) => (bool[n] y) { s = Sub (x, two)  y = Greater (s, two) }",
        "(float[n] x) => (float[n] y) { r = Sqrt (x)  y = Ceil (r) }",
        "(float[n] x) => (bool[n] y) { y = Cast <to = 9> (x) }",
        "(float[n] x) => (float[n] y) { y = Sign (x) }",
    ],
)
def test_what_is_exact_lies_at_no_jump(text):
    graph = flatten(made(text, {"two": np.float32(2)}), {"x": np.float32([0, 1, 4, 9, 16])})
    assert not ties(graph)


def test_numbers_that_are_nan_or_infinite_lie_at_no_jump():
    model = made("(float[n] x) => (float[n] y) { l = Log (x)  y = Floor (l) }")
    assert not ties(flatten(model, {"x": np.float32([0, -1, np.inf, np.nan, 5])}))


def test_numbers_of_which_rounding_leaves_nothing_are_left_to_the_draws():
    model = made(
        "(float[n] x) => (float[n] y) { l = Log (x)  s = Sub (l, log_2)  d = Div (x, s)  y = Floor (d) }",
        {"log_2": np.float32(np.log(2))},
    )
    graph = flatten(model, {"x": np.float32([2, 2.3])})
    assert abs(graph.truth["y"][0]) > 1e8  # a quotient by the error of a logarithm
    assert not ties(graph)


def test_behind_sums_decisions_are_left_to_the_draws():
    model = made(
        "(float[n, 8] x) => (int64[n, 8] y) { p = MatMul (x, w)  y = Cast <to = 7> (p) }",
        {"w": np.eye(8, dtype="f") / 3},
    )
    graph = flatten(model, {"x": np.float32(3 * np.arange(16).reshape(2, 8))})
    assert not ties(graph)


def test_a_branch_is_the_one_that_correct_rounding_takes():
    model = made(
        """(float x) => (float y)
        {
            m = Mul (x, ten)
            c = GreaterOrEqual (m, seven)
            y = If (c) <
                then_branch = yes () => (float a) { a = Identity (seven) },
                else_branch = no () => (float b) { b = Neg (seven) }
            >
        }""",
        {"ten": np.float32(10), "seven": np.float32(7)},
    )
    inputs = {"x": np.float32(0.7)}
    assert np.float64(inputs["x"]) * 10 < 7
    assert flatten(model, inputs).truth["y"] == 7


def test_a_tie_inside_a_loop_is_found_in_each_round():
    model = made(
        """(float[n] x, int64 rounds) => (float[n] y)
        {
            y = Loop (rounds, , x) <
                body = step (int64 i, bool going, float[n] carried) => (bool on, float[n] passed)
                { on = Identity (going)  m = Mul (carried, ten)  f = Floor (m)  passed = Div (f, ten) }
            >
        }""",
        {"ten": np.float32(10)},
    )
    x = np.float32([0.7, 0.3, 0.25])
    expected = x
    for _ in range(3):
        expected = np.floor(expected * np.float32(10)) / np.float32(10)
    graph = flatten(model, {"x": x, "rounds": np.array(3)})
    assert len(ties(graph)) == 3
    np.testing.assert_allclose(graph.truth["y"], expected, rtol=1e-6)


def test_of_a_narrower_format_more_lies_at_a_jump():
    counts = []
    for dtype, element_type in (
        (np.float32, TensorProto.FLOAT),
        (np.float16, TensorProto.FLOAT16),
        (bfloat16, TensorProto.BFLOAT16),
    ):
        text = f"(float[n] x) => (int64[n] y) {{ h = Cast <to = {element_type}> (x)  m = Mul (h, c)  y = Cast <to = 7> (m) }}"
        graph = flatten(made(text, {"c": np.array(100, dtype)}), {"x": numbers(5, 2000)})
        counts.append(sum(int(tie.close.sum()) for tie in ties(graph).values()))
    assert counts[0] < counts[1] < counts[2]
