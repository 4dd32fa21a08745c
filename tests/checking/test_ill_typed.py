"""Nodes that ONNX's schemas do not allow for the types that they read or give, and what the words say."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import made

from actconform.checking.ill_typed import ill_typed_nodes
from actconform.onnx.nested_graphs import graphs

HALVES = np.ones((4, 4), np.float16)


def told(text: str, constants=None, opset: int = 17) -> list[tuple[str, str]]:
    return [(node.op_type, words) for node, words in ill_typed_nodes(made(text, constants, opset))]


BRANCHES = "then_branch = t () => (float[n, 4] p) { p = MatMul (x, w) }, else_branch = e () => (float[n, 4] q) { q = Identity (x) }"
CASES = {
    "a weight of another float": (
        "(float[n, 4] x) => (float[n, 4] y) { y = MatMul (x, w) }",
        ("MatMul", "reads x of float32 and w of float16, which must be of one type"),
    ),
    "integers and floats": (
        "(int64[n] i, float[n] x) => (float[n] y) { y = Add (i, x) }",
        ("Add", "reads i of int64 and x of float32, which must be of one type"),
    ),
    "a type that the operator does not take": (
        "(int64[n, 4] x) => (int64[n, 4] y) { y = Softmax <axis = -1> (x) }",
        ("Softmax", "reads x of int64, and takes bfloat16, float16, float32, float64 there"),
    ),
    "floats as indices": (
        "(float[n, 4] x) => (float16[n, 4, 4] y) { y = Gather (w, x) }",
        ("Gather", "reads x of float32, and takes int32, int64 there"),
    ),
    "an output that is stated otherwise": (
        "(float[n] x) => (double[n] y) { y = Relu (x) }",
        ("Relu", "gives float32, and the graph states float64 of its output y"),
    ),
    "a Cast that is stated otherwise": (
        "(float[n] x) => (int64[n] y) { y = Cast <to = 6> (x) }",
        ("Cast", "gives int32, and the graph states int64 of its output y"),
    ),
    "a node in a branch": (
        f"(float[n, 4] x, bool b) => (float[n, 4] y) {{ y = If (b) <{BRANCHES}> }}",
        ("MatMul", "reads x of float32 and w of float16, which must be of one type"),
    ),
}


HALVED = "w = Cast <to = 10> (x)"
FLOW_CASES = {
    "branches": (
        f"y = If (b) <then_branch = t () => (float[4] p) {{ p = Relu (x) }}, else_branch = e () => (float16[4] w) {{ {HALVED} }}>",
        ("If", "gives p of float32 in then_branch and w of float16 in else_branch, which must be of one type"),
    ),
    "a branch and the output": (
        "y = If (b) <then_branch = t () => (float16[4] w) { w = Cast <to = 10> (x) }, else_branch = e () => (float16[4] v) { v = Cast <to = 10> (x) }>",
        ("If", "gives float16, and the graph states float32 of its output y"),
    ),
    "a condition": (
        "y = If (x) <then_branch = t () => (float[4] p) { p = Relu (x) }, else_branch = e () => (float[4] q) { q = Neg (x) }>",
        ("If", "reads x of float32, and takes bool there"),
    ),
    "what a loop carries": (
        f"y = Loop (k, b, x) <body = g (int64 i, bool c, float[4] v) => (bool d, float16[4] w) {{ d = Identity (c)  {HALVED} }}>",
        ("Loop", "carries v of float32 from turn to turn, and its body gives w of float16 for it"),
    ),
    "what a loop passes": (
        "y = Loop (k, b, x) <body = g (int64 i, bool c, float16[4] v) => (bool d, float16[4] w) { d = Identity (c)  w = Neg (v) }>",
        ("Loop", "passes x of float32 to v of float16 in its body"),
    ),
    "a loop's iteration": (
        "y = Loop (k, b, x) <body = g (int32 i, bool c, float[4] v) => (bool d, float[4] w) { d = Identity (c)  w = Neg (v) }>",
        ("Loop", "passes the iteration of int64 to i of int32 in its body"),
    ),
    "what a scan carries": (
        f"y = Scan <num_scan_inputs = 1, body = g (float[4] v, float[4] r) => (float16[4] w) {{ {HALVED} }}> (x, m)",
        ("Scan", "carries v of float32 from turn to turn, and its body gives w of float16 for it"),
    ),
    "rows of a scan": (
        "y = Scan <num_scan_inputs = 1, body = g (float[4] v, float16[4] r) => (float[4] w) { w = Neg (v) }> (x, m)",
        ("Scan", "passes m of float32 to r of float16 in its body"),
    ),
    "a sequence and a tensor": (
        f"s = SequenceConstruct (x)  {HALVED}  t = SequenceInsert (s, w)  y = SequenceAt (t, k)",
        ("SequenceInsert", "reads s of sequence of float32 and w of float16, which must be of one type"),
    ),
    "an empty sequence": (
        "s = SequenceEmpty <dtype = 10> ()  t = SequenceInsert (s, x)  y = SequenceAt (t, k)",
        ("SequenceInsert", "reads s of sequence of float16 and x of float32, which must be of one type"),
    ),
    "what a sequence holds": (
        f"{HALVED}  s = SequenceConstruct (w)  y = SequenceAt (s, k)",
        ("SequenceAt", "gives float16, and the graph states float32 of its output y"),
    ),
    "a sequence where a tensor is taken": (
        "s = SequenceConstruct (x)  y = Not (s)",
        ("Not", "reads s of sequence of float32, and takes bool there"),
    ),
    "a mapped sequence": (
        "s = SequenceConstruct (x)  t = SequenceMap (s) <body = g (float16[4] v) => (float16[4] w) { w = Neg (v) }>  y = SequenceAt (t, k)",
        ("SequenceMap", "passes s of float32 to v of float16 in its body"),
    ),
}


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("case", FLOW_CASES)
def test_an_ill_typed_node_of_control_flow_or_sequences_is_told(case, stated):
    nodes, expected = FLOW_CASES[case]
    model = made(f"(float[4] x, float[3, 4] m, bool b, int64 k) => (float[4] y) {{ {nodes} }}")
    for body in list(graphs(model.graph))[1:]:
        for value in body.output:
            if not stated:
                value.ClearField("type")
    assert [(node.op_type, words) for node, words in ill_typed_nodes(model)] == [expected]


@pytest.mark.parametrize(
    "nodes",
    [
        "y = If (b) <then_branch = t () => (float[4] p) { p = Relu (x) }, else_branch = e () => (float[3] q) { q = Constant <value_floats = [1.0, 2.0, 3.0]> () }>",
        "y = Loop (k, , x) <body = g (int64 i, bool c, float[4] v) => (bool d, float[4] w) { d = Identity (c)  w = Neg (v) }>",
        "y, z = Scan <num_scan_inputs = 1, body = g (float[4] v, float[4] r) => (float[4] w, int64[4] u) { w = Neg (v)  u = Cast <to = 7> (r) }> (x, m)",
        "s = SequenceEmpty ()  t = SequenceInsert (s, x)  y = SequenceAt (t, k)",
        "o = Optional (x)  y = OptionalGetElement (o)",
    ],
)
def test_control_flow_and_sequences_that_the_standard_allows_are_not_told(nodes):
    assert told(f"(float[4] x, float[3, 4] m, bool b, int64 k) => (float[n] y) {{ {nodes} }}") == []


@pytest.mark.parametrize("case", CASES)
def test_an_ill_typed_node_is_told_with_types_and_what_is_taken(case):
    text, expected = CASES[case]
    assert told(text, {"w": HALVES}) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "(float[n, 4] x) => (float[n, 4] y) { v = Cast <to = 1> (w)  y = MatMul (x, v) }",
        "(float[n] x, int64[k] s) => (float[m] y) { y = Reshape (x, s) }",
        "(float[n, 4] x) => (float[n, 4] y, int64[m] z) { s = Shape (x)  z = Add (s, s)  c = IsNaN (x)  y = Where (c, x, x) }",
        "(float[n, 4] x) => (float[n, m] y) { a = com.acme.Own (x, w)  y = MatMul (a, x) }",
        "(uint8[n] x, float s, uint8 z) => (float[n] y) { y = DequantizeLinear (x, s, z) }",
    ],
)
def test_a_node_that_the_standard_allows_is_not_told(text):
    assert told(text, {"w": HALVES}) == []


def test_what_follows_from_an_ill_typed_node_is_not_told_again():
    chain = "(int64[n] i, float[n] x) => (float[n] y) { a = Add (i, x)  b = Mul (a, x)  y = Relu (b) }"
    assert [operator for operator, _ in told(chain)] == ["Add"]


def test_each_of_several_nodes_is_told():
    text = "(float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { y = MatMul (x, w)  z = Mul (x, w) }"
    assert [operator for operator, _ in told(text, {"w": HALVES})] == ["MatMul", "Mul"]


def test_of_a_graph_whose_sizes_contradict_each_other_the_types_that_it_states_are_judged():
    model = made(
        "(float[4] x, float[4, 4, 4] v) => (float[7, 7] y) { y = Add (x, w) }", {"w": np.float16([1, 1, 1, 1])}
    )
    assert [node.op_type for node, _ in ill_typed_nodes(model)] == ["Add"]
