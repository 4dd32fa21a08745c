"""A graph that is wrong as it is written: what a check says of it, and whose fault it calls it."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import made, sample_of

from actconform.checking.flatten import flatten
from actconform.checking.graph_fault import ill_typed_graph, weights_of_graph
from actconform.checking.source import source_of_model

X = {"x": np.ones((2, 4), np.float32)}


def weighted(nodes: str, kind: str = "float", **weights):
    return source_of_model(made(f"({kind}[n, 4] x) => ({kind}[n, m] y) {{ {nodes} }}", weights), "model.onnx")


def fault_of(source, inputs=X):
    sample = sample_of(inputs)
    sample.graph = flatten(source.model, inputs)
    column = weights_of_graph(source, [sample])
    return column and column.fault


def test_a_nan_weight_is_the_graphs_fault_and_the_outputs_that_it_spoils_are_counted():
    weights = np.ones((4, 3), np.float32)
    weights[2, 1] = np.nan
    fault = fault_of(weighted("h = Relu (x)  y = MatMul (h, w)", w=weights))
    assert (fault.blame, fault.node, fault.op_type) == ("graph", "MatMul:y", "MatMul")
    assert fault.words == "weight w has 1 NaN among 12 numbers, the first at [2, 1]"
    assert "output y is NaN or infinite in 2 of 6 elements of sample 1, as the graph is written" in fault.evidence
    assert "trained weights" in fault.evidence[-1]


def test_a_row_that_no_input_reaches_is_told_with_that():
    table = np.ones((4, 4), np.float32)
    table[3] = np.nan
    fault = fault_of(weighted("i = Cast <to = 7> (x)  r = Gather (w, i)  y = Add (r, r)", w=table))
    assert (fault.node, fault.words) == ("Gather:r", "weight w has 4 NaN among 16 numbers, the first at [3, 0]")
    assert "with these inputs no output is NaN or infinite" in fault.evidence
    assert any("Add:y" in sentence for sentence in fault.evidence)


def test_a_float16_weight_that_overflowed_is_told_with_the_end_of_the_format():
    with np.errstate(over="ignore"):
        weights = np.full((4, 4), 1e5).astype(np.float16)
    fault = fault_of(weighted("y = MatMul (x, w)", "float16", w=weights), {"x": np.ones((2, 4), np.float16)})
    assert fault.words == "weight w has 16 infinities among 16 numbers, the first at [0, 0]"
    assert "float16 ends at 65,504" in fault.evidence[-1]


def test_further_weights_are_named():
    wrong = np.float32([np.nan, 0, 0, 0])
    fault = fault_of(weighted("a = Add (x, u)  b = Add (a, v)  y = Mul (b, w)", w=wrong, v=wrong, u=wrong))
    assert "weight u" in fault.words
    assert "so is it in v, w" in fault.evidence


def test_a_mask_is_no_fault():
    assert fault_of(weighted("h = Add (x, w)  y = Softmax <axis = -1> (h)", w=np.float32([0, 0, -np.inf, 0]))) is None


@pytest.mark.parametrize(("exporter", "blame"), [("", "graph"), ("torch-dynamo", "exporter")])
def test_an_ill_typed_graph_is_its_exporters_fault_where_one_has_just_made_it(exporter, blame):
    source = weighted("h = Relu (x)  y = MatMul (h, w)", w=np.ones((4, 3), np.float16))
    fault = ill_typed_graph(source, exporter).fault
    assert (fault.blame, fault.node, fault.op_type) == (blame, "MatMul:y", "MatMul")
    assert fault.words == "reads h of float32 and w of float16, which must be of one type"
    assert ill_typed_graph(weighted("y = Relu (x)")) is None
