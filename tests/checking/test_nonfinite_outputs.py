"""Outputs that are NaN or infinite by the graph itself: how many elements, in which samples, and the node that gives the first."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import made, sample_of

from actconform.checking.flatten import flatten
from actconform.checking.nonfinite_outputs import MOST_NOTES, nonfinite_notes

NAN, INF = np.nan, np.inf


def notes_of(nodes, *rows, outputs="float[n] y", **weights):
    model = made(f"(float[n] x) => ({outputs}) {{ {nodes} }}", weights)
    samples = []
    for row in rows:
        sample = sample_of({"x": np.float32(row)})
        sample.graph = flatten(model, sample.inputs)
        samples.append(sample)
    return nonfinite_notes(samples)


WRITTEN = "as the graph is written"


@pytest.mark.parametrize(
    ("nodes", "row", "notes"),
    [
        ("y = Exp (x)", [1, 2], []),
        (
            "h = Log (x)  y = Neg (h)",
            [1, -1, -2],
            [f"output y is NaN in 2 of 3 elements of sample 1, {WRITTEN}: Log:h (Log) gives NaN for finite operands"],
        ),
        (
            "h = Log (x)  y = Neg (h)",
            [1, 0],
            [
                f"output y is infinite in 1 of 2 elements of sample 1, {WRITTEN}: Log:h (Log) gives an infinity for operands that hold none"
            ],
        ),
        (
            "h = Log (x)  g = Sub (h, h)  y = Neg (g)",
            [1, 0],
            [
                f"output y is NaN in 1 of 2 elements of sample 1, {WRITTEN}: Sub:g (Sub) gives NaN for an infinity, and Log:h (Log) gives an infinity for operands that hold none"
            ],
        ),
        ("y = Neg (x)", [1, NAN], [f"output y is NaN in 1 of 2 elements of sample 1, {WRITTEN}: input x holds NaN"]),
        (
            "y = Add (x, w)",
            [1, 2],
            [f"output y is infinite in 1 of 2 elements of sample 1, {WRITTEN}: weight w holds infinities"],
        ),
    ],
)
def test_elements_are_counted_and_the_first_node_is_named(nodes, row, notes):
    assert notes_of(nodes, row, w=np.float32([0, -INF])) == notes


def test_nan_beside_the_way_to_an_output_is_not_named():
    (note,) = notes_of("a = Sqrt (x)  b = Log (x)  y = Neg (b)", [1, -1])
    assert "Log:b" in note


def test_nan_that_does_not_reach_an_output_is_no_note():
    assert notes_of("h = Log (x)  c = IsNaN (h)  y = Where (c, x, h)", [1, -1]) == []


def test_samples_are_counted_together():
    (note,) = notes_of("y = Log (x)", [1, 2, 3], [1, -1, 2], [-1, -2, 3])
    assert note.startswith(
        "output y is NaN in 1 of 3 elements of sample 2 and in 1 other sample, at most 2 of 3 in sample 3"
    )


def test_nan_in_a_loop_is_told_with_its_round():
    nodes = """n = Constant <value = int64 {3}> ()
        y = Loop (n, , x) <body = g (int64 i, bool go, float[k] s) => (bool on, float[k] next) { on = Identity (go)  next = Log (s) }>"""
    (note,) = notes_of(nodes, [2, 3])
    assert "Loop:y/2/Log:next (Log)" in note


def test_integers_that_are_made_of_nan_are_told():
    (note,) = notes_of(
        "h = Log (x)  y = ArgMax <keepdims = 0> (h)  c = IsNaN (h)", [1, -1], outputs="int64 y, bool[n] c"
    )
    assert note == (
        "ArgMax:y (ArgMax) reads NaN in sample 1, and what it gives for that means nothing: Log:h (Log) gives NaN for finite operands"
    )


def test_many_outputs_are_counted_behind_the_first():
    names = [f"y{i}" for i in range(MOST_NOTES + 2)]
    nodes = "  ".join(f"{name} = Log (x)" for name in names)
    notes = notes_of(nodes, [-1], outputs=", ".join(f"float[n] {name}" for name in names))
    assert len(notes) == MOST_NOTES + 1
    assert notes[-1] == "so it is with 2 further outputs and nodes"
