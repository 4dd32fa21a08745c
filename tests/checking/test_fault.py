"""Whose fault a difference is, from what runtimes showed: pure functions of their checks."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from onnx import helper
from small_models import checked, made, numbers

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.fault import attributed, by_levels, source_line
from actconform.checking.flatten import flatten
from actconform.checking.result import (
    LevelCheck,
    ModelFault,
    OutputCheck,
    RuntimeCheck,
    SampleFacts,
    TensorCheck,
    Unjudged,
)


def fault(got=1.5, wanted=1.0, node="Exp:y", place=(0,), blame="runtime"):
    tensor = TensorCheck(
        node=node,
        op_type="Exp",
        tensor="y",
        shape=(1,),
        ratio=9.0,
        error=0.5,
        bound=0.1,
        place=place,
        got=got,
        wanted=wanted,
    )
    return ModelFault(blame=blame, node=node, op_type="Exp", sample=0, tensor=tensor)


def run_of(name, fault=None, version=""):
    status = "explained" if fault is None else "not explained"
    return RuntimeCheck(name=name, status=status, fault=fault, facts={"onnxruntime": version} if version else {})


def blames(*runtimes):
    return [each.fault.blame if each.fault else None for each in attributed(runtimes)]


def test_two_runtimes_that_give_the_same_wrong_number_may_both_be_right():
    assert blames(run_of("ort-cpu", fault()), run_of("openvino", fault(got=1.51))) == ["undetermined"] * 2


@pytest.mark.parametrize(
    "other",
    [fault(got=0.5), fault(got=3.0), fault(node="Exp:z"), fault(place=(1,))],
    ids=["side", "size", "node", "element"],
)
def test_two_that_are_off_otherwise_are_each_at_fault(other):
    assert blames(run_of("ort-cpu", fault()), run_of("openvino", other)) == ["runtime", "runtime"]


def test_two_versions_of_one_runtime_that_are_off_alike_are_one_witness():
    assert blames(run_of("ort-cpu", fault()), run_of("ort-cpu@1.26", fault())) == ["runtime", "runtime"]


def test_a_version_that_is_right_makes_it_a_matter_of_the_version():
    wrong, right = attributed([run_of("ort-cpu", fault(), "1.31.1"), run_of("ort-cpu@1.26", version="1.26.0")])
    assert right.fault is None
    assert any(
        "ort-cpu 1.31.1" in sentence and "ort-cpu@1.26 1.26.0" in sentence and "version" in sentence
        for sentence in wrong.fault.evidence
    )


def test_a_failed_runtime_is_no_witness():
    failed = RuntimeCheck(name="openvino", status="failed")
    assert attributed([run_of("ort-cpu", fault()), failed])[0].fault.evidence == ()


def test_the_line_of_the_users_program_is_the_innermost_of_a_stack_trace():
    model = made("(float[n] x) => (float[n] y) { a = Exp (x)  b = Neg (a)  y = Tanh (b) }")
    trace = 'File "train.py", line 3, in main\n  net(x)\nFile "net.py", line 12, in forward\n  return torch.exp(x)'
    model.graph.node[0].metadata_props.append(
        helper.make_model(helper.make_graph([], "g", [], [])).metadata_props.add(
            key="pkg.torch.onnx.stack_trace", value=trace
        )
    )
    model.graph.node[1].doc_string = "net.py:13"
    graph = flatten(model, {"x": numbers(1, 3)})
    assert source_line(graph, "Exp:a") == 'File "net.py", line 12, in forward return torch.exp(x)'
    assert source_line(graph, "Neg:b") == "net.py:13"
    assert source_line(graph, "Tanh:y") == ""
    assert source_line(graph, "no such node") == ""


def test_an_output_that_every_node_explains_and_spreads_do_not_is_the_graphs(runtime):
    """Each sum is rounded up by 0.9 units in the last place, which its bound allows: 200 of them are far from what chance gives."""
    steps = "  ".join(f"t{i + 1} = Add (t{i}, c)" for i in range(400))
    model = made(
        f"(float[n] x) => (float[n] y) {{ t0 = Identity (x)  {steps}  y = Neg (t400) }}",
        {"c": np.float32(100.1 * 2.0**-23)},
    )
    answer = checked(model, {"x": np.float32([1.85, 1.9, 1.95])}, runtime("rounds-up")).runtimes[0]
    assert all(tensor.explained for level in answer.levels for tensor in level.tensors)
    assert not answer.outputs[0].explained
    assert answer.fault.blame == "graph"
    assert any("every node is within its bound" in sentence for sentence in answer.fault.evidence)


def test_an_ill_conditioned_graph_is_told(runtime):
    model = made("(float[n] x) => (float[n] y) { a = Add (x, big)  y = Sub (a, big) }", {"big": np.float32(1e6)})
    result = checked(model, {"x": numbers(1, 8)}, runtime("ort-cpu"))
    assert result.graph[0].ill_conditioned
    assert result.runtimes[0].status == "explained"


QUANTIZED = "q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z)"
RIGHT = TensorCheck(node="y", op_type="DequantizeLinear", tensor="y", shape=(2,), ratio=0.5, error=0.1, bound=0.2)
PLAIN, FUSED = (
    LevelCheck(name="none", sample=0, marks="all", tensors=[RIGHT]),
    LevelCheck(name="all", sample=0, marks="surviving", tensors=[RIGHT]),
)
OFF = OutputCheck(name="y", sample=0, shape=(2,), spreads=99.0, explained=False)


def judged_by_levels(*levels: LevelCheck, output: OutputCheck = OFF, nodes: str = QUANTIZED) -> OutputCheck:
    model = made(f"(float[2] x) => (float[2] y) {{ {nodes} }}", {"s": np.float32(0.5), "z": np.uint8(3)})
    sample = CheckedSample({"x": np.float32([0.75, 1.0])}, SampleFacts(origin="given", shapes={"x": (2,)}))
    sample.graph = flatten(model, sample.inputs)
    return by_levels([output], [sample], levels)[0]


def test_an_output_of_levels_is_explained_where_every_node_is_right():
    judged = judged_by_levels(PLAIN, FUSED)
    assert (judged.explained, judged.tied, judged.spreads) == (True, True, 99.0)


@pytest.mark.parametrize(
    ("levels", "more"),
    [
        ((PLAIN, FUSED), {"nodes": "y = Relu (x)"}),
        ((PLAIN, replace(FUSED, tensors=[replace(RIGHT, ratio=2.0)])), {}),
        ((PLAIN, replace(FUSED, unjudged=[Unjudged("q", "QuantizeLinear", "not shown")])), {}),
        ((PLAIN, replace(FUSED, moved=("y",))), {}),
        ((PLAIN, replace(FUSED, tensors=[])), {}),
        ((replace(PLAIN, sample=1),), {}),
        ((), {}),
        ((PLAIN, FUSED), {"output": replace(OFF, nonfinite=1)}),
        ((PLAIN, FUSED), {"output": replace(OFF, reason="it was not given")}),
    ],
    ids=["float", "wrong", "unjudged", "moved", "empty", "other sample", "no level", "nan", "missing"],
)
def test_other_outputs_that_are_off_stay_so(levels, more):
    judged = judged_by_levels(*levels, **more)
    assert (judged.explained, judged.tied) == (False, False)
