"""Faults that are planted in a runtime: the smallest model and inputs that still show them."""

from __future__ import annotations

import numpy as np

from actconform.checking.minimize import minimize
from actconform.checking.result import ModelFault, OutputCheck


def smallest(checked, name):
    result, sample, runs = checked(name)
    return minimize(result.runtimes[0].fault, sample.graph, sample.inputs, runs)


def operators(minimal):
    return [node.op_type for node in minimal.part.model.graph.node]


def test_a_wrong_operator_is_cut_out_alone_on_one_row_of_simple_numbers(checked):
    minimal = smallest(checked, "epsilon")
    assert operators(minimal) == ["LayerNormalization"]
    (array,) = minimal.part.inputs.values()
    assert array.shape == (1, 8)
    assert np.count_nonzero(array) < 8
    assert all(len(str(number)) < 7 for number in array.ravel())
    assert minimal.ratio > 100
    assert (minimal.reproduced, minimal.is_whole_model, minimal.level) == (True, False, "disabled")


def test_a_fused_pair_is_kept_together(checked):
    minimal = smallest(checked, "pair")
    assert operators(minimal) == ["MatMul", "Add"]
    assert minimal.level == "all"
    assert [output.name for output in minimal.part.model.graph.output] == ["s"]


def test_nodes_before_are_added_until_it_differs_alone(checked):
    assert operators(smallest(checked, "three")) == ["Tanh", "MatMul", "Add"]


def test_another_operator_is_cut_out_to_a_single_number(checked):
    minimal = smallest(checked, "nan")
    assert operators(minimal) == ["Sqrt"]
    assert [array.shape for array in minimal.part.inputs.values()] == [(1, 1)]


def test_time_and_runs_are_bounds(checked):
    result, sample, runs = checked("epsilon")
    minimal = minimize(result.runtimes[0].fault, sample.graph, sample.inputs, runs, most_runs=1)
    assert (minimal.reproduced, minimal.runs) == (True, 1)
    assert minimal.part.inputs["r"].shape == (6, 8)


def of_output(name):
    """Return the fault of an output that no node explains."""
    return ModelFault(
        blame="undetermined", node="", op_type="", sample=0, output=OutputCheck(name=name, sample=0, shape=(6, 8))
    )


def test_a_wrong_output_without_a_node_is_traced_back(checked):
    _, sample, runs = checked("epsilon")
    minimal = minimize(of_output("z"), sample.graph, sample.inputs, runs)
    assert operators(minimal) == ["LayerNormalization", "Exp", "Sqrt", "Neg"]
    assert minimal.ratio > 1


def test_what_does_not_show_again_is_kept_whole_and_told_so(checked):
    _, sample, runs = checked("nan")
    minimal = minimize(of_output("y"), sample.graph, sample.inputs, runs)
    assert not minimal.reproduced
    assert len(operators(minimal)) == len(sample.graph.nodes)
