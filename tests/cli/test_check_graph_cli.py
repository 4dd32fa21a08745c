"""`actconform check` on graphs that are wrong as they are written: the column of the graph, its place and blame, the exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

sys.path.append(str(Path(__file__).parents[1] / "checking"))

from small_models import made

from actconform.report.check.check_json import read_json
from actconform.report.ci.check_differences import check_differences, read_checks

MATRIX = np.ones((4, 3), np.float32)


@pytest.fixture
def check(cli, tmp_path, monkeypatch):
    """Return what checks a model with one sample, and gives what was printed and the result."""
    monkeypatch.chdir(tmp_path)

    def run(text: str, *options: str, opset: int = 17, **weights):
        onnx.save(made(text, weights, opset), "model.onnx")
        done = cli("check", "model.onnx", "--samples", "1", *options)
        return done, read_json(Path("actconform-check"))

    return run


def test_a_nan_weight_is_the_graphs_fault_though_the_runtime_agrees(check):
    weights = MATRIX.copy()
    weights[2, 1] = np.nan
    done, result = check("(float[n, 4] x) => (float[n, 3] y) { h = Relu (x)  y = MatMul (h, w) }", "--html", w=weights)
    runtime, graph = result.runtimes
    assert (done.code, result.explained) == (1, False), done.err
    assert (runtime.status, graph.name, graph.status, graph.fault.blame) == ("explained", "graph", "at fault", "graph")
    assert "FIRST    MatMul:y (MatMul)   weight w has 1 NaN among 12 numbers, the first at [2, 1]" in done.out
    assert "BLAME    graph: the graph as it is written, whatever computes it" in done.out
    assert "The graph is at fault at MatMul:y" in Path("actconform-check/index.html").read_text("utf-8")
    (difference,) = check_differences(read_checks(Path("actconform-check")))
    assert "weight w has 1 NaN" in difference.words


def test_an_infinite_weight_that_spoils_no_output_is_a_note(check):
    weights = MATRIX.copy()
    weights[2, 1] = np.inf
    done, result = check("(float[n, 4] x) => (float[n, 3] y) { h = MatMul (x, w)  y = Sigmoid (h) }", w=weights)
    assert (done.code, result.explained) == (0, True), done.out
    (note,) = result.notes
    assert note.startswith(
        "weight w has 1 infinity among 12 numbers, the first at [2, 1]; in float64 it spoils no output"
    )
    assert "weight w has 1 infinity" in done.out


def test_an_output_that_is_nan_in_part_is_noted_with_the_node_that_makes_it(check):
    done, result = check(
        "(float[4] x) => (float[4] y) { h = Sub (x, w)  r = Log (h)  y = Neg (r) }", w=np.float32([-9, 99, -9, -9])
    )
    assert (done.code, result.explained) == (0, True), done.out
    (note,) = result.notes
    assert note == (
        "output y is NaN in 1 of 4 elements of sample 1, as the graph is written: Log:r (Log) gives NaN for finite operands"
    )
    assert "output y is NaN in 1 of 4 elements of sample 1" in done.out


def test_a_mask_of_infinities_is_explained_and_not_noted(check):
    mask = np.float32([0, 0, -np.inf, 0])
    done, result = check("(float[n, 4] x) => (float[n, 4] y) { h = Add (x, w)  y = Softmax <axis = -1> (h) }", w=mask)
    assert done.code == 0, done.out
    assert not any("infinite" in note for note in result.notes)


def test_an_ill_typed_graph_is_blamed_and_not_the_runtime_that_refuses_it(check):
    weights = MATRIX.astype(np.float16)
    done, result = check("(float[n, 4] x) => (float[n, 3] y) { h = Relu (x)  y = MatMul (h, w) }", w=weights)
    runtime, graph = result.runtimes
    assert done.code == 1, done.err
    assert (runtime.status, runtime.fault, graph.status) == ("failed", None, "at fault")
    assert (graph.fault.blame, graph.fault.node) == ("graph", "MatMul:y")
    assert "FIRST    MatMul:y (MatMul)   reads h of float32 and w of float16, which must be of one" in done.out


def test_an_ill_typed_graph_that_cannot_be_evaluated_either_is_a_finding(check):
    text = '(float[n, 4] x) => (float[n, 4] y) { y = BitShift <direction = "LEFT"> (x, x) }'
    done, result = check(text)
    (graph,) = result.runtimes
    assert (done.code, graph.fault.op_type) == (1, "BitShift"), done.err
    assert "reads x of float32, and takes uint16, uint32, uint64, uint8 there" in done.out


def test_quantization_to_floats_of_8_bits_is_judged_node_by_node(check):
    nodes = "z = Constant <value = float8e4m3fn {0}> ()  q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z)"
    done, result = check(f"(float[n, 4] x) => (float[n, 4] y) {{ {nodes} }}", opset=19, s=np.float32(0.05))
    (runtime,) = result.runtimes
    assert (done.code, runtime.status, result.notes) == (0, "explained", ()), done.err
    assert all(not level.unjudged for level in runtime.levels)


def test_of_a_malformed_graph_nothing_is_run_and_the_graph_is_blamed(check):
    done, result = check("(float[4, 4] x) => (float[1, 4] y) { y = ReduceSum <axes = [0]> (x) }", "--html")
    (graph,) = result.runtimes
    assert (done.code, graph.status, graph.fault.blame, result.samples) == (1, "at fault", "graph", []), done.err
    assert "FIRST    ReduceSum:y (ReduceSum)   has the attribute axes, and takes it as an input at opset 17" in done.out
    assert "nothing was run" in done.out
    assert "The graph is at fault at ReduceSum:y" in Path("actconform-check/index.html").read_text("utf-8")


def test_a_call_with_too_many_inputs_is_the_graphs_fault(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = '<domain: "local", opset_import: ["" : 17]> f (a) => (c) { c = Relu (a) }'
    onnx.save(made("(float[4] x) => (float[4] y) { y = local.f (x, x) }", more=function), "model.onnx")
    done = cli("check", "model.onnx")
    assert done.code == 1, done.err
    assert "has 2 inputs, and takes at most 1 as a call of the model's function local.f" in " ".join(done.out.split())


def test_an_operator_that_the_opset_lacks_is_the_graphs_fault_where_a_runtime_refuses_it(check):
    done, result = check("(float[n, 4] x) => (float[n, 4] y) { y = Gelu (x) }", opset=18)
    runtime, graph = result.runtimes
    assert (done.code, runtime.status, graph.fault.node) == (1, "failed", "Gelu:y"), done.err
    assert "is not an operator of opset 18: the standard has it since opset 20" in done.out


def test_an_operator_that_the_opset_lacks_and_the_runtime_has_is_a_note(check):
    text = "(float[n, 4] x) => (float[n, 4] y) { y = LayerNormalization (x, w) }"
    done, result = check(text, opset=16, w=np.ones(4, np.float32))
    (runtime,) = result.runtimes
    assert (done.code, runtime.status) == (0, "explained"), done.out
    note = "LayerNormalization is not an operator of opset 16: the standard has it since opset 17"
    assert note in result.notes


def test_branches_of_two_types_are_the_graphs_fault_and_not_the_runtimes(check):
    then, other = "float[4] p) { p = Relu (x) }", "float16[4] q) { q = Cast <to = 10> (x) }"
    done, result = check(
        f"(float[4] x, bool b) => (float[4] y) {{ y = If (b) <then_branch = t () => ({then}, else_branch = e () => ({other}> }}"
    )
    runtime, graph = result.runtimes
    assert (done.code, runtime.status, runtime.fault, graph.fault.op_type) == (1, "failed", None, "If"), done.err


def test_a_weight_that_overflows_in_float16_is_told_where_the_graph_is_converted(check):
    weights = MATRIX.copy()
    weights[0, 0] = 1e5
    text = "(float[n, 4] x) => (float[n, 3] y) { y = MatMul (x, w) }"
    assert check(text, w=weights)[0].code == 0
    done, result = check(text, "--dtype", "f16", w=weights)
    assert done.code == 1, done.err
    assert "float16 ends at 65,504" in result.runtimes[-1].fault.evidence[-1]
