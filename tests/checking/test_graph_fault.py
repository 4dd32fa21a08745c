"""A graph that is wrong as it is written: what a check says of it, and whose fault it calls it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_models import made, sample_of

from actconform.checking.flatten import flatten
from actconform.checking.graph_fault import ill_typed_graph, malformed_graph, weights_of_graph
from actconform.checking.malformed import malformed_nodes
from actconform.checking.source import source_of_model

X = {"x": np.ones((2, 4), np.float32)}


def weighted(nodes: str, kind: str = "float", **weights):
    return source_of_model(made(f"({kind}[n, 4] x) => ({kind}[n, m] y) {{ {nodes} }}", weights), "model.onnx")


def report_on(source, *samples):
    evaluated = []
    for inputs in samples or (X,):
        sample = sample_of(inputs)
        sample.graph = flatten(source.model, inputs)
        evaluated.append(sample)
    return weights_of_graph(source, evaluated)


def fault_of(source, *samples):
    column, notes = report_on(source, *samples)
    assert notes == ()
    return column.fault


def notes_of(source, *samples):
    column, notes = report_on(source, *samples)
    assert column is None
    return notes


def test_a_nan_weight_is_the_graphs_fault_and_the_elements_that_it_spoils_are_counted():
    weights = np.ones((4, 3), np.float32)
    weights[2, 1] = np.nan
    fault = fault_of(weighted("h = Relu (x)  y = MatMul (h, w)", w=weights))
    assert (fault.blame, fault.node, fault.op_type) == ("graph", "MatMul:y", "MatMul")
    assert fault.words == "weight w has 1 NaN among 12 numbers, the first at [2, 1]"
    spoiled = "output y is NaN in 2 of 6 elements of sample 1; with 0.5 in place of what is not finite in the weights it is finite there"
    assert spoiled in fault.evidence
    assert "trained weights" in fault.evidence[-1]


def test_a_row_is_a_note_until_an_input_reaches_it():
    table = np.ones((4, 4), np.float32)
    table[3] = np.nan
    source = weighted("i = Cast <to = 7> (x)  r = Gather (w, i)  y = Add (r, r)", w=table)
    (note,) = notes_of(source)
    assert note.startswith("weight w has 4 NaN among 16 numbers, the first at [3, 0]; in float64 it spoils no output")
    assert "Add:y" in note
    fault = fault_of(source, X, {"x": np.full((2, 4), 3, np.float32)})
    assert (fault.node, fault.op_type) == ("Gather:r", "Gather")
    assert any("sample 2" in sentence for sentence in fault.evidence)


def test_an_infinite_weight_whose_products_are_bounded_is_a_note_until_one_is_nan():
    weights = np.ones((4, 3), np.float32)
    weights[0, 0] = np.inf
    source = weighted("h = MatMul (x, w)  y = Sigmoid (h)", w=weights)
    (note,) = notes_of(source)
    assert "weight w has 1 infinity" in note
    fault = fault_of(source, {"x": np.float32([[0, 1, 1, 1], [1, 1, 1, 1]])})
    assert any(sentence.startswith("output y is NaN in 1 of 6 elements of sample 1") for sentence in fault.evidence)


def test_outputs_that_are_nan_without_the_weight_are_not_its_fault():
    table = np.ones((4, 4), np.float32)
    table[3] = np.nan
    source = weighted(
        "i = Cast <to = 7> (x)  r = Gather (w, i)  t = ReduceSum <keepdims = 0> (x)  s = Sub (t, much)  g = Log (s)  y = Add (r, g)",
        w=table,
        much=np.float32(100),
    )
    (note,) = notes_of(source)
    assert "weight w" in note


def test_a_nan_that_an_argmax_reads_is_a_fault_though_its_integers_hold_none():
    weights = np.full((4, 3), np.nan, np.float32)
    model = made(
        "(float[n, 4] x) => (int64[n] y) { h = MatMul (x, w)  y = ArgMax <axis = 1, keepdims = 0> (h)  d = Exp (h) }",
        {"w": weights},
    )
    fault = fault_of(source_of_model(model, "model.onnx"))
    assert any(sentence.startswith("ArgMax:y (ArgMax) reads NaN in sample 1") for sentence in fault.evidence)


def test_the_first_weight_that_spoils_is_named_before_those_behind_it():
    infinite, nan = np.float32([np.inf, 1, 1, 1]), np.float32([np.nan, 0, 0, 0])
    source = weighted("t = Mul (x, m)  s = Sigmoid (t)  a = Add (s, u)  y = Mul (a, v)", m=infinite, u=nan, v=nan)
    column, notes = report_on(source)
    assert "weight u" in column.fault.words
    assert "not finite either: weight v" in column.fault.evidence
    (note,) = notes
    assert "weight m" in note


def test_an_attribute_is_a_fault_of_its_node():
    model = made("(float[n, 4] x) => (float[n, 4] y) { h = Neg (x)  y = LeakyRelu <alpha = 0.5> (h) }", {})
    model.graph.node[1].attribute[0].f = np.nan
    fault = fault_of(source_of_model(model, "model.onnx"))
    assert (fault.node, fault.words) == ("LeakyRelu:y", "attribute alpha is NaN")
    assert "arguments of that layer" in fault.evidence[-1]


BRANCHES = """then_branch = t () => (float[n, m] p) { k = Constant <value_float = nan> ()  p = Mul (x, k) },
    else_branch = e () => (float[n, m] q) { q = Identity (x) }"""


def test_a_weight_in_a_branch_is_a_fault_where_the_branch_is_taken():
    source = weighted(
        f"s = ReduceSum <keepdims = 0> (x)  b = Less (s, zero)  y = If (b) <{BRANCHES}>", zero=np.float32(0)
    )
    (note,) = notes_of(source)
    assert "weight k" in note
    assert fault_of(source, {"x": -X["x"]}).words == "weight k is NaN"


def test_a_weight_in_a_function_is_a_fault():
    model = made("(float[n, 4] x) => (float[n, 4] y) { h = own.shift (x)  y = Neg (h) }", {})
    text = '<opset_import: ["" : 17], domain: "own"> shift (a) => (b) { c = Constant <value_floats = [nan]> ()  b = Add (a, c) }'
    model.functions.append(onnx.parser.parse_function(text))
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    fault = fault_of(source_of_model(model, "model.onnx"))
    assert fault.op_type == "Add"
    assert fault.words.endswith(" is NaN")


def test_a_float16_weight_that_overflowed_is_told_with_the_end_of_the_format():
    with np.errstate(over="ignore"):
        weights = np.full((4, 4), 1e5).astype(np.float16)
    fault = fault_of(weighted("y = MatMul (x, w)", "float16", w=weights), {"x": np.ones((2, 4), np.float16)})
    assert fault.words == "weight w has 16 infinities among 16 numbers, the first at [0, 0]"
    assert "float16 ends at 65,504" in fault.evidence[-1]


def test_a_mask_is_no_fault():
    assert notes_of(weighted("h = Add (x, w)  y = Softmax <axis = -1> (h)", w=np.float32([0, 0, -np.inf, 0]))) == ()


@pytest.mark.parametrize(("exporter", "blame"), [("", "graph"), ("torch-dynamo", "exporter")])
def test_an_ill_typed_graph_is_its_exporters_fault_where_one_has_just_made_it(exporter, blame):
    source = weighted("h = Relu (x)  y = MatMul (h, w)", w=np.ones((4, 3), np.float16))
    fault = ill_typed_graph(source, exporter).fault
    assert (fault.blame, fault.node, fault.op_type) == (blame, "MatMul:y", "MatMul")
    assert fault.words == "reads h of float32 and w of float16, which must be of one type"
    assert ill_typed_graph(weighted("y = Relu (x)")) is None


@pytest.mark.parametrize(("exporter", "blame"), [("", "graph"), ("torch-dynamo", "exporter")])
def test_of_malformed_nodes_the_gravest_is_told_and_the_others_are_named(exporter, blame):
    source = weighted("a = Mish (x)  b = Div (a)  y = Relu <slope = 0.1> (b)")
    fault = malformed_graph(list(malformed_nodes(source.model)), exporter).fault
    assert (fault.blame, fault.node, fault.op_type) == (blame, "Div:b", "Div")
    assert fault.words == "has 1 input, and takes 2 at opset 17"
    assert "so it is at Relu:y (Relu), Mish:a (Mish)" in fault.evidence
    assert "export the model anew" in fault.evidence[-1]
