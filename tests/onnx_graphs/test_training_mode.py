"""Nodes of training in graphs of inference: those that draw, and batch normalization by the batch's own statistics."""

from __future__ import annotations

import pytest
from onnx import parser

from actconform.onnx.training_mode import drawing_nodes, training_norms

NORM = "g, b, m, v"


def graph(body: str, opset: int = 18, inputs: str = "") -> bytes:
    text = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[n, 4] x{inputs}) => (float[n, 4] y) {{ {body} }}'
    return bytes(parser.parse_model(text).SerializeToString())


def dropout(ratio: str, training: str) -> str:
    return f"r = Constant <value = float {{{ratio}}}> () t = Constant <value = bool {{{training}}}> () y = Dropout (x, r, t)"


@pytest.mark.parametrize(
    "body",
    [
        "n = RandomNormalLike <scale = 0.001> (x) y = Add (x, n)",
        "n = RandomUniformLike (x) y = Add (x, n)",
        "y = Bernoulli (x)",
        dropout("0.5", "1"),
        "r = Constant <value = float {0.5}> () f = Constant <value = bool {0}> () t = Not (f) y = Dropout (x, r, t)",
    ],
    ids=["normal", "uniform", "bernoulli", "dropout", "dropout by Not"],
)
def test_what_draws_is_told(body: str) -> None:
    assert len(drawing_nodes(graph(body), ["y"])) == 1


def test_a_training_mode_that_only_a_run_tells_counts() -> None:
    body = "r = Constant <value = float {0.5}> () y = Dropout (x, r, t)"
    assert drawing_nodes(graph(body, inputs=", bool t"), ["y"]) == ["Dropout (node y) in training"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Dropout (x)",
        dropout("0.5", "0"),
        dropout("0.0", "1"),
        "n = RandomNormalLike (x) z = Add (x, n) y = Neg (x)",
        "y = Relu (x)",
    ],
    ids=["inference by default", "inference", "ratio 0", "nothing reads it", "none"],
)
def test_what_does_not_draw_is_left_alone(body: str) -> None:
    assert drawing_nodes(graph(body), ["y"]) == []


@pytest.mark.parametrize(
    ("opset", "body", "trains"),
    [
        (18, "y = BatchNormalization (x, g, b, m, v)", False),
        (18, "y, p, q = BatchNormalization <training_mode = 1> (x, g, b, m, v)", True),
        (13, "y, p, q, r, s = BatchNormalization (x, g, b, m, v)", True),
        (13, "y = BatchNormalization (x, g, b, m, v)", False),
    ],
)
def test_batch_normalization_that_trains(opset: int, body: str, trains: bool) -> None:
    statistics = "".join(f", float[4] {name}" for name in "gbmv")
    assert bool(training_norms(graph(body, opset, statistics), ["y"])) == trains
