"""Runtimes with planted faults are found wrong, each fault shrunk to the simplest graph; one that is right is not accused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from actconform.suite.drawn.drawn_report import chosen_strategies, examine

EXAMPLES = 40


@pytest.fixture
def examined(runtime):
    """Return what an operator comes to in a runtime, and the graphs that findings were shrunk to."""

    def examine_operator(name, op_type, examples=EXAMPLES):
        graphs = []
        (strategy,) = chosen_strategies([op_type])
        (tally,), findings = examine(
            strategy, [runtime(name)], examples, 0, lambda _, __, shrunk: graphs.append(shrunk.example) or "folder"
        )
        return tally, findings, graphs

    return examine_operator


def inputs_of(example):
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in example.part.model.graph.initializer}
    return constants | dict(example.part.inputs)


@pytest.mark.parametrize(
    "op_type", ["Relu", "ReduceSum", "Concat", "Shape", "Conv", "Softmax", "Gather", "Abs", "Cast"]
)
def test_a_right_runtime_is_not_accused(examined, op_type):
    tally, findings, _ = examined("drawn-right", op_type)
    assert findings == []
    assert tally.within + tally.refused + tally.unjudged == tally.examples == EXAMPLES
    assert tally.within >= EXAMPLES // 3
    assert tally.unjudged <= 3
    if tally.refused:
        assert tally.reasons["16-bit floats are not taken"] == tally.refused


def test_a_lost_nan_is_found_and_shrunk_to_a_nan_among_few_elements(examined):
    tally, findings, graphs = examined("drawn-wrong", "Relu", 120)
    assert tally.wrong >= 1
    assert "nan-lost" in {finding.kind for finding in findings}
    finding, graph = next((f, g) for f, g in zip(findings, graphs, strict=True) if f.kind == "nan-lost")
    (x,) = inputs_of(graph).values()
    assert x.size <= 4
    assert np.isnan(x).sum() == 1
    assert "wanted nan" in finding.words
    assert finding.folder == "folder"
    assert finding.digest == graph.digest


def test_a_wrong_shape_is_found_where_the_attribute_asks_for_it_alone(examined):
    _, findings, graphs = examined("drawn-wrong", "ReduceSum")
    assert {finding.kind for finding in findings} == {"shape"}
    node = graphs[0].part.model.graph.node[0]
    stated = {attribute.name: attribute.i for attribute in node.attribute if attribute.name != "axes"}
    assert stated["keepdims"] == 0
    assert inputs_of(graphs[0])["i0"].ndim <= 2


def test_a_wrong_tail_of_long_arrays_is_found(examined):
    _, findings, graphs = examined("drawn-wrong", "Abs")
    assert {finding.kind for finding in findings} == {"value"}
    assert all(64 < inputs_of(graph)["i0"].size <= 160 for graph in graphs)


def test_a_wrong_element_type_is_found(examined):
    _, findings, _ = examined("drawn-wrong", "Shape", 10)
    assert {finding.kind for finding in findings} == {"dtype"}
    assert "int32, wanted int64" in findings[0].words


def test_an_error_that_is_raised_at_inputs_of_the_standard_is_a_finding(examined):
    tally, findings, graphs = examined("drawn-wrong", "Gather", 20)
    assert tally.failed >= 1
    assert {finding.kind for finding in findings} == {"failed"}
    assert (inputs_of(graphs[0])["i1"] < 0).any()


def test_a_crash_costs_its_example_alone_and_is_shrunk(examined, monkeypatch):
    monkeypatch.setattr("actconform.suite.drawn.search.MOST_FATAL_RUNS", 4)  # each starts a process
    tally, findings, graphs = examined("drawn-wrong", "Concat", 8)
    assert tally.crash >= 1
    assert tally.within >= 1
    assert tally.crash + tally.within + tally.refused == tally.examples
    assert {finding.kind for finding in findings} == {"crash"}
    assert len(graphs[0].part.model.graph.node[0].input) == 3


def test_the_same_run_finds_the_same(examined):
    assert examined("drawn-wrong", "Abs", 20)[:2] == examined("drawn-wrong", "Abs", 20)[:2]
