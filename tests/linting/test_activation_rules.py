"""Each rule on activations: a graph in which it finds its mistake and what it says, and one like it in which there is none."""

from __future__ import annotations

import numpy as np
import pytest
from linted import codes_of, findings_of
from small_models import made, numbers

WEIGHTS = {
    "w": numbers(1, 4, 8),
    "b": numbers(2, 8),
    "v": numbers(3, 8, 3),
    "c": numbers(4, 3),
    "one": numbers(5, 8, 1),
    "zero": np.float32(0),
    "six": np.float32(6),
}


def model(nodes: str, inputs: str = "float[n, 4] x", outputs: str = "float[n, m] y", opset: int = 17, **more):
    return made(f"({inputs}) => ({outputs}) {{ {nodes} }}", WEIGHTS | more, opset)


HIDDEN = "h = Gemm (x, w, b)  s = Softmax <axis = -1> (h)"
ATTENTION = """q = MatMul (x, w)  k = Transpose <perm = [0, 2, 1]> (q)  a = MatMul (q, k)  s = Softmax <axis = -1> (a)
    d = MatMul (s, q)  y = MatMul (d, v)"""


@pytest.mark.parametrize(
    ("code", "nodes", "words"),
    [
        ("AC101", "h = Gemm (x, w, b)  g = MatMul (h, one)  y = Softmax <axis = -1> (g)", "is 1 whatever the input"),
        ("AC101", "h = Gemm (x, w, b)  g = MatMul (h, one)  y = LogSoftmax <axis = -1> (g)", "is 0 whatever the input"),
        ("AC102", f"{HIDDEN}  y = Gemm (s, v, c)", "8 units, whose rank is 7"),
        ("AC102", f"{HIDDEN}  g = MatMul (s, v)  y = Relu (g)", "8 units, whose rank is 7"),
        ("AC102", f"{HIDDEN}  t = Mul (s, b)  g = MatMul (t, v)  y = Add (g, c)", "8 units"),
        *(
            (
                "AC102",
                f"{HIDDEN}  {between}  y = Gemm (t, v, c)",
                "softmax before the layer y (Gemm): 8 units, whose rank is 7",
            )
            for between in (
                "t = Relu (s)",
                "t = Tanh (s)",
                "e = Sigmoid (s)  t = Mul (s, e)",
                "t = Clip (s, zero, six)",
                "t = LayerNormalization <axis = -1> (s, b)",
                (
                    "m = ReduceMean <axes = [-1]> (s)  d = Sub (s, m)  p = Mul (d, d)  q = ReduceMean <axes = [-1]> (p)  "
                    "r = Sqrt (q)  t = Div (d, r)"
                ),
                "e = Relu (s)  f = Identity (e)  t = Mul (f, b)",
            )
        ),
        (
            "AC103",
            f"{HIDDEN}  t = Mul (s, six)  y = Softmax <axis = -1> (t)",
            "s times 6: no output is larger than e^6 / (e^6 + 7) = 0.983",
        ),
        (
            "AC103",
            f"{HIDDEN}  t = Div (s, six)  y = Softmax <axis = -1> (t)",
            "times 0.1667: no output is larger than e^0.1667 / (e^0.1667 + 7) = 0.144",
        ),
        (
            "AC103",
            f"{HIDDEN}  t = Mul (b, s)  y = Softmax <axis = -1> (t)",
            "softmax of the softmax s times a constant",
        ),
        (
            "AC103",
            "h = Gemm (x, w, b)  s = Sigmoid (h)  y = Softmax <axis = -1> (s)",
            "softmax of the sigmoid s: no output is larger than e / (e + 7) = 0.28",
        ),
        (
            "AC104",
            "h = Gemm (x, w, b)  s = Sigmoid (h)  t = Mul (s, six)  y = Sigmoid (t)",
            "s times 6: all outputs lie between 0.5 and 0.9975",
        ),
        ("AC103", f"{HIDDEN}  y = Softmax <axis = -1> (s)", "no output is larger than e / (e + 7) = 0.28"),
        ("AC103", f"{HIDDEN}  i = Identity (s)  y = LogSoftmax <axis = -1> (i)", "of the softmax s"),
        ("AC104", "h = Gemm (x, w, b)  s = Sigmoid (h)  y = Sigmoid (s)", "between 0.5 and 0.7311"),
        ("AC104", f"{HIDDEN}  y = Sigmoid (s)", "sigmoid of the softmax"),
        ("AC105", "h = Gemm (x, w, b)  r = Relu (h)  y = Softmax <axis = -1> (r)", "of the relu r"),
    ],
)
def test_a_mistake_is_found_at_its_node(code, nodes, words):
    (finding,) = [finding for finding in findings_of(model(nodes)) if finding.code == code]
    assert words in finding.message
    is_sharp = code == "AC103" and "0.983" in words  # it tells classes apart all the same
    assert finding.severity == ("warning" if code in {"AC102", "AC105"} or is_sharp else "error")
    assert finding.node == ("s" if code == "AC102" else "y")


@pytest.mark.parametrize(
    "nodes",
    [
        "h = Gemm (x, w, b)  r = Relu (h)  g = Gemm (r, v, c)  y = Softmax <axis = -1> (g)",
        "h = Gemm (x, w, b)  s = Sigmoid (h)  g = Gemm (s, v, c)  y = Sigmoid (g)",
        f"{HIDDEN}  y = MatMul (s, v)",  # an expectation: sum p_i v_i
        "h = Gemm (x, w, b)  s = Softmax <axis = -1> (h)  y = Mul (s, h)",  # a gate
        "h = Gemm (x, w, b)  s = Softmax <axis = -1> (h)  r = Relu (s)  t = Mul (r, six)  y = Mul (h, t)",
        "h = Gemm (x, w, b)  l = LogSoftmax <axis = -1> (h)  t = Div (l, six)  y = Softmax <axis = -1> (t)",  # a temperature
        "h = Gemm (x, w, b)  s = Sigmoid (h)  t = Softmax <axis = -1> (s)  y = Mul (t, h)",  # bounded scores of a gate
        "h = Gemm (x, w, b)  s = Softmax <axis = -1> (h)  m = ReduceMean <axes = [0]> (s)  y = Gemm (m, v, c)",  # a histogram
        "h = Gemm (x, w, b)  s = LeakyRelu (h)  y = Softmax <axis = -1> (s)",
    ],
)
def test_what_is_meant_so_is_left_alone(nodes):
    assert codes_of(model(nodes)) == []


@pytest.mark.parametrize(
    "between", ["p = Identity (s)", "p = Mul (s, six)", "p = Relu (s)", "g = ReduceSum (s, last)  p = Div (s, g)"]
)
def test_attention_is_no_hidden_softmax(between):
    nodes = ATTENTION.replace("MatMul (s, q)", "MatMul (p, q)").replace("d =", f"{between}  d =")
    assert codes_of(model(nodes, "float[n, t, 4] x", "float[n, t, 3] y", last=np.array([-1]))) == []


def test_attention_over_one_key_is_left_alone_and_a_classifier_of_one_is_not():
    assert codes_of(model(ATTENTION, "float[n, 1, 4] x", "float[n, 1, 3] y")) == []


def test_softmax_of_channels_before_a_convolution_is_found_through_transposes():
    weights = {"k": numbers(1, 5, 3, 1, 1), "kb": numbers(2, 5), "p": numbers(3, 6, 5, 1, 1), "pb": numbers(4, 6)}
    nodes = """h = Conv (x, k, kb)  t = Transpose <perm = [0, 2, 3, 1]> (h)  s = Softmax <axis = -1> (t)
        u = Transpose <perm = [0, 3, 1, 2]> (s)  y = Conv (u, p, pb)"""
    images = made(f"(float[n, 3, 8, 8] x) => (float[n, 6, 8, 8] y) {{ {nodes} }}", weights)
    assert codes_of(images) == ["AC102"]
    rows = made(
        f"(float[n, 3, 8, 8] x) => (float[n, 6, 8, 8] y) {{ {nodes.replace('axis = -1', 'axis = 2')} }}", weights
    )
    assert codes_of(rows) == [], "over a spatial axis it is a map of weights"


@pytest.mark.parametrize(
    "nodes",
    [
        "m = ReduceMax <axes = [-1]> (h)  d = Sub (h, m)  e = Exp (d)  t = ReduceSum (e, last)  s = Div (e, t)",
        "e = Exp (h)  t = ReduceSum (e, last)  s = Div (e, t)",
    ],
)
def test_a_softmax_written_out_is_one(nodes):
    graph = model(f"h = Gemm (x, w, b)  {nodes}  y = Gemm (s, v, c)", last=np.array([-1]))
    assert codes_of(graph) == ["AC102"]


def test_a_sigmoid_written_out_is_one():
    nodes = "h = Gemm (x, w, b)  g = Neg (h)  e = Exp (g)  a = Add (e, unit)  s = Reciprocal (a)  y = Sigmoid (s)"
    assert codes_of(model(nodes, unit=np.float32(1))) == ["AC104"]
    assert codes_of(model(nodes.replace("Reciprocal (a)", "Div (unit, a)"), unit=np.float32(1))) == ["AC104"]


def test_softmaxes_over_different_axes_are_not_one_twice():
    nodes = "s = Softmax <axis = 1> (x)  y = Softmax <axis = 2> (s)"
    assert codes_of(made(f"(float[n, 5, 6] x) => (float[n, 5, 6] y) {{ {nodes} }}")) == []
    assert codes_of(
        made(f"(float[n, 5, 6] x) => (float[n, 5, 6] y) {{ {nodes.replace('axis = 1', 'axis = 2')} }}")
    ) == ["AC103"]
    turned = (
        "s = Softmax <axis = 1> (x)  t = Transpose <perm = [0, 2, 1]> (s)  k = Mul (t, two)  y = Softmax <axis = 1> (k)"
    )
    for axis, codes in ((1, []), (2, ["AC103"])):
        nodes = turned.replace("axis = 1> (k)", f"axis = {axis}> (k)")
        assert (
            codes_of(made(f"(float[n, 5, 6] x) => (float[n, 6, 5] y) {{ {nodes} }}", {"two": np.float32(2)})) == codes
        )


def test_mistakes_inside_the_branches_of_an_if_are_found():
    text = """(float[n, 4] x, bool c) => (float[n, 1] y) {
        y = If (c) <
            then_branch = a () => (float[n, 1] p) { g = MatMul (x, w1)  p = Softmax <axis = -1> (g) },
            else_branch = b () => (float[n, 1] q) { q = MatMul (x, w1) }
        > }"""
    (finding,) = findings_of(made(text, {"w1": numbers(1, 4, 1)}))
    assert (finding.code, finding.node) == ("AC101", "p")
