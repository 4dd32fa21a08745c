"""The names that a caller gives: which are taken, and in which words the others are refused."""

from __future__ import annotations

import re

import onnx
import pytest
from onnx import parser

from actconform.errors import GradientError
from actconform.onnx.grad.reverse_mode import add_gradients


def parsed(graph: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> agraph {graph}')


GOOD = "(double[2] x, int64[2] ids) => (double[2] hidden, int64[2] top) { hidden = Neg(x) top = Neg(ids) }"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"wrt": ["xx"]}, "no input or initializer 'xx'; did you mean x?"),
        ({"wrt": ["ids"]}, "wrt: 'ids' is of INT64; only tensors of floats have gradients"),
        ({"wrt": []}, "wrt is empty"),
        ({"wrt": ["x"], "outputs": ["hiden"]}, "no output 'hiden'; did you mean hidden?"),
        ({"wrt": ["x"], "outputs": ["top"]}, "output 'top' is of INT64"),
        ({"wrt": ["x"], "outputs": []}, "outputs is empty: name outputs of the model (hidden, top)"),
        ({"wrt": ["X"]}, "no input or initializer 'X'; did you mean x?"),
        ({"wrt": ["x"], "outputs": ["HIDDEN"]}, "no output 'HIDDEN'; did you mean hidden?"),
        ({"wrt": ["x"], "gradient": "", "cotangent": "c_"}, "the name 'x' is taken"),
        ({"wrt": ["x"], "cotangent": ""}, "the name 'hidden' is taken"),
    ],
)
def test_wrong_names_are_told(arguments, words):
    with pytest.raises(GradientError, match=re.escape(words)):
        add_gradients(parsed(GOOD), **arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"wrt": [1]}, "wrt: names of tensors are expected, not 1 of type int"),
        ({"wrt": 1}, "wrt: names of tensors are expected, not 1 of type int"),
        ({"wrt": "x", "outputs": [b"y"]}, "outputs: names of tensors are expected, not b'y' of type bytes"),
    ],
)
def test_names_are_strings(arguments, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        add_gradients(parsed(GOOD), **arguments)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ("(double[2] x) => () { y = Neg(x) }", "the model has no outputs"),
        ("(double[2] x) => (int64[1] y) { y = Shape(x) }", "no output of floats to start from; the model's outputs: y"),
    ],
)
def test_a_model_without_outputs_of_floats_is_told(graph, words):
    with pytest.raises(GradientError, match=words):
        add_gradients(parsed(graph), ["x"])


def test_strings_have_no_gradient():
    with pytest.raises(GradientError, match="'x' is of STRING"):
        add_gradients(parsed("(string[2] x, double[2] t) => (double[2] y) { y = Neg(t) }"), ["x"])
