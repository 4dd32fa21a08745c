"""The gates: one injected breach each, and every authored graph let through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from actconform import Artifact, Kernel
from actconform.catalog.kernels import ROWS, UNARY
from actconform.catalog.models.zoo import networks
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.onnx.gates import facts, inspect, inspect_model, io_names, operators
from actconform.onnx.subgraph import extract_subgraph

if TYPE_CHECKING:
    from collections.abc import Callable

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
RELU = KERNELS["relu"]
MODELS = {model.name: model for model in networks()}
STACK = MODELS["linear-stack"]  # x (20) through dense1, dense2, dense3 to the loss


def artifact_of(model: onnx.ModelProto) -> Artifact:
    return Artifact(model=model.SerializeToString(), opset=0, path="injected")


def parsed(body: str, header: str = '<ir_version: 8, opset_import: ["": 18]>') -> onnx.ModelProto:
    return parser.parse_model(f"{header} g {body}")


def only_breach(model: onnx.ModelProto, kernel: Kernel = RELU, dtype: str = "f32") -> tuple[str, str]:
    (breach,) = inspect(artifact_of(model), kernel, dtype)
    return breach


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_an_authored_graph_passes(kernel: Kernel, dtype: str) -> None:
    assert inspect(author(kernel, dtype), kernel, dtype) == []


def test_bytes_that_are_no_model() -> None:
    ((class_, evidence),) = inspect(Artifact(model=b"not a model", opset=0, path=""), RELU, "f32")
    assert class_ == "invalid-model"
    assert "11 bytes that are no ONNX model" in evidence


def test_nothing_at_all_is_no_valid_model() -> None:
    assert inspect(Artifact(model=b"", opset=0, path=""), RELU, "f32")[0][0] == "invalid-model"


def test_a_raw_node_of_tensorflow_in_the_standards_domain() -> None:
    model = parsed("(float[n] x) => (float[n] y) { a = Neg(x) b = Erfc(a) c = Expm1(b) y = Erfc(c) }")
    model.graph.node[2].name = "Gelu/Expm1"
    assert only_breach(model) == (
        "invalid-model",
        "no such operator: Erfc (opset 18, node y), Expm1 (opset 18, node Gelu/Expm1)",
    )


@pytest.mark.parametrize(
    ("node", "kernel", "evidence"),
    [
        ("Conv <group = 3> (x, w)", "6,2,1,1", ""),
        ("Conv (x, w)", "6,2,1,1", "Conv y: a kernel of shape [6, 2, 1, 1] in 1 group for 6 channels"),
        ("Conv <group = 3> (x, w)", "4,2,1,1", "Conv y: a kernel of shape [4, 2, 1, 1] in 3 groups for 6 channels"),
        ("ConvTranspose <group = 3> (x, w)", "6,2,1,1", ""),
        (
            "ConvTranspose (x, w)",
            "3,6,1,1",
            "ConvTranspose y: a kernel of shape [3, 6, 1, 1] in 1 group for 6 channels",
        ),
    ],
)
def test_a_kernel_that_does_not_fit_channels_and_groups(node: str, kernel: str, evidence: str) -> None:
    """onnx's checker passes all of these."""
    body = f"(float[n,6,4,4] x, float[{kernel}] w) => (float[n,c,h,k] y) {{ y = {node} }}"
    breaches = [text for class_, text in inspect(artifact_of(parsed(body)), RELU, "f32") if class_ == "invalid-model"]
    assert len(breaches) == bool(evidence)
    assert all(text.startswith(evidence) for text in breaches)


def test_an_operator_newer_than_the_stated_opset() -> None:
    model = parsed("(float[n] x) => (float[n] y) { y = Gelu(x) }")
    assert only_breach(model) == ("invalid-model", "no such operator: Gelu (opset 18, node y)")
    newer = parsed("(float[n] x) => (float[n] y) { y = Gelu(x) }", '<ir_version: 9, opset_import: ["": 20]>')
    assert inspect(artifact_of(newer), RELU, "f32") == []


def test_a_foreign_operator_with_and_without_its_opset() -> None:
    body = "(float[n] x) => (float[n] y) { y = com.microsoft.QuickGelu(x) }"
    stated = parsed(body, '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]>')
    assert only_breach(stated)[1] == "no such operator: com.microsoft:QuickGelu (opset 1, node y)"
    evidence = only_breach(parsed(body))[1]
    assert evidence == "no such operator: com.microsoft:QuickGelu (of domain com.microsoft, whose opset is not stated)"


def test_an_operator_in_a_branch() -> None:
    branch = "g () => (float[n] {0}) {{ {0} = {1}(x) }}"
    body = f"c = IsNaN(x) d = ReduceMax(c) y = If(d) <then_branch = {branch.format('a', 'Identity')}, else_branch = {branch.format('b', 'Erfc')}>"
    assert (
        only_breach(parsed(f"(float[n] x) => (float[n] y) {{ {body} }}"))[1]
        == "no such operator: Erfc (opset 18, node b)"
    )


def test_functions_of_the_model_are_operators_and_their_bodies_are_read() -> None:
    header = '<ir_version: 8, opset_import: ["": 18, "mine": 1]>'
    text = '(float[n] x) => (float[n] y) {{ y = mine.twice(x) }} <domain: "mine", opset_import: ["": 18]> twice (a) => (b) {{ b = {}(a, a) }}'
    assert inspect(artifact_of(parsed(text.format("Add"), header)), RELU, "f32") == []
    assert only_breach(parsed(text.format("Plus"), header))[1] == "no such operator: Plus (opset 18, node b)"


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_data_beside_the_model(place: str) -> None:
    model = parsed("(float[n] x) => (float[n] y) { y = Add(x, w) }")
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    if place == "initializer":
        model.graph.initializer.append(tensor)
    else:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    assert only_breach(model) == ("invalid-model", "data in files beside the model, which do not come with it: w")


def test_what_the_checker_says_is_handed_on() -> None:
    twice = parsed("(float[n] x) => (float[n] y) { y = Relu(x) y = Neg(x) }")
    class_, evidence = only_breach(twice)
    assert class_ == "invalid-model"
    assert evidence.startswith("onnx.checker: ")
    assert "SSA" in evidence


def test_types_that_contradict_each_other() -> None:
    mixed = parsed("(float[n] x) => (float[n] y) { i = Cast<to = 7>(x) y = Add(x, i) }")
    class_, evidence = only_breach(mixed)
    assert class_ == "invalid-model"
    assert "(op_type:Add" in evidence


def test_bfloat16_that_became_float16() -> None:
    model = parsed("(float16[n] x) => (float16[n] y) { y = Relu(x) }")
    assert inspect(artifact_of(model), RELU, "bf16") == [
        ("dtype", "input x is declared FLOAT16, asked for BFLOAT16"),
        ("dtype", "output y is declared FLOAT16, asked for BFLOAT16"),
    ]


def test_an_index_of_another_width() -> None:
    model = parsed("(float[b, n] x) => (int32[b] y) { i = ArgMax<axis = -1, keepdims = 0>(x) y = Cast<to = 6>(i) }")
    assert only_breach(model, KERNELS["argmax"]) == ("dtype", "output y is declared INT32, asked for INT64")


def test_a_broken_model_can_be_of_the_wrong_type_too() -> None:
    model = parsed("(float16[n] x) => (float[n] y) { a = Cast<to = 1>(x) y = Erfc(a) }")
    assert [class_ for class_, _ in inspect(artifact_of(model), RELU, "f32")] == ["invalid-model", "dtype"]


@pytest.mark.parametrize(
    "body",
    [
        "(float[n] x, float[n] z) => (float[n] y) { y = Add(x, z) }",
        "(float[n] x) => (float[n] y, float[n] z) { y = Relu(x) z = Neg(x) }",
        "() => (float[n] y) { y = Constant<value_floats = [1.0]>() }",
    ],
)
def test_another_number_of_inputs_or_outputs(body: str) -> None:
    class_, evidence = only_breach(parsed(body))
    assert class_ == "names"
    assert evidence.endswith("expected 1 for ['x'], and one output")


def test_a_size_that_was_fixed() -> None:
    model = parsed("(float[8] x) => (float[8] y) { y = Relu(x) }")
    assert only_breach(model) == ("shape", "input x, the kernel's x, takes n = 8 alone, not any size")
    model = parsed("(float[b, 6] in_0, float[c] in_1) => (float[b, 6] y) { y = PRelu(in_0, in_1) }")
    evidence = "input in_0, the kernel's x, takes n = 6 alone, not any size"
    assert only_breach(model, KERNELS["prelu"]) == ("shape", evidence)


def test_another_rank_and_none_stated() -> None:
    model = parsed("(float[b, n] x) => (float[b, n] y) { y = Relu(x) }")
    assert only_breach(model) == ("shape", "input x, the kernel's x, has 2 dimensions, not 1")
    unstated = parsed("(float[] x) => (float[] y) { y = Relu(x) }")
    unstated.graph.input[0].type.tensor_type.ClearField("shape")
    unstated.graph.output[0].type.tensor_type.ClearField("shape")
    assert not any(class_ == "shape" for class_, _ in inspect(artifact_of(unstated), RELU, "f32"))


def test_names_of_inputs_leave_out_initializers() -> None:
    model = parsed("(float[n] in_0, float[1] w) => (float[n] out_0) { out_0 = Add(in_0, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    assert io_names(model.SerializeToString()) == (["in_0"], ["out_0"])
    assert inspect(artifact_of(model), RELU, "f32") == []


def test_operators_and_facts_tell_what_the_graph_is() -> None:
    model = parsed(
        "(float[n] x) => (float[n] y) { a = Neg(x) b = com.microsoft.Gelu(a) y = Neg(b) }",
        '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1], producer_name: "tf2onnx", producer_version: "1.17.0">',
    )
    assert operators(model.SerializeToString()) == ["Neg", "com.microsoft:Gelu", "Neg"]
    assert facts(artifact_of(model)) == {
        "path": "injected",
        "warnings": "",
        "opset": "18, com.microsoft 1",
        "ir_version": "8",
        "producer": "tf2onnx 1.17.0",
        "operators": "Neg 2, com.microsoft:Gelu 1",
    }


def changed(change: Callable[[onnx.GraphProto], object], dtype: str = "f32") -> list[tuple[str, str]]:
    """Return the breaches of the authored graph of STACK after a change."""
    model = onnx.load_from_string(author_model(STACK, "f32").model)
    change(model.graph)
    return inspect_model(artifact_of(model), STACK, dtype, constants=False)


def named(graph: onnx.GraphProto, name: str) -> onnx.ValueInfoProto:
    return next(value for value in (*graph.input, *graph.output) if value.name == name)


def renamed(graph: onnx.GraphProto, old: str, new: str) -> None:
    named(graph, old).name = new
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def shipped(name: str, *, with_target: bool = False) -> onnx.ModelProto:
    """Return the authored graph as users ship one: "y" alone, parameters as initializers."""
    whole = onnx.load_from_string(author_model(MODELS[name], "f32").model)
    outputs = ["y", "loss"] if with_target else ["y"]
    model = onnx.load_from_string(extract_subgraph(whole.SerializeToString(), outputs))
    shapes = {one.name: one.shape for one in MODELS[name].parameters}
    kept = [value for value in model.graph.input if value.name not in shapes]
    for value in model.graph.input:
        if value.name in shapes:
            zeros = np.zeros(shapes[value.name], np.float32)
            model.graph.initializer.append(numpy_helper.from_array(zeros, value.name))
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def test_a_model_as_users_ship_it_passes() -> None:
    for name in ("linear-stack", "regression-softmax-hidden@training", "multinomial-latent"):
        assert inspect_model(artifact_of(shipped(name)), MODELS[name], "f32", constants=True) == []


def test_parameters_and_targets_are_unknown_to_a_model_as_users_ship_it() -> None:
    breaches = inspect_model(artifact_of(shipped("linear-stack", with_target=True)), STACK, "f32", constants=True)
    assert breaches == [
        ("names", "input target is none of the model's; known: x"),
        ("names", "outputs ['loss'] are none of the model's"),
    ]
    whole = inspect_model(author_model(STACK, "f32"), STACK, "f32", constants=True)
    assert ("names", "input dense1.kernel is none of the model's; known: x") in whole


def test_inputs_that_nothing_reads_may_be_missing() -> None:
    training = MODELS["image-cnn-softmax2@training"]
    model = author_model(training, "f32").model
    part = extract_subgraph(model, io_names(model)[1])
    assert len(io_names(part)[0]) == len(io_names(model)[0])  # the running statistics are read, if for nothing
    assert changed(lambda graph: graph.input.remove(named(graph, "target")))[0][0] == "invalid-model"
    untouched = author_model(MODELS["regression-softmax-hidden"], "f32").model
    assert (
        inspect_model(Artifact(untouched, 0, ""), MODELS["regression-softmax-hidden@training"], "f32", constants=False)
        == []
    )


def test_a_model_of_other_names() -> None:
    assert changed(lambda graph: renamed(graph, "dense1.kernel", "dense1.kernal")) == [
        (
            "names",
            "input dense1.kernal is none of the model's; did you mean dense1.kernel, dense3.kernel, dense2.kernel?",
        )
    ]
    ((class_, evidence),) = changed(lambda graph: graph.output.remove(named(graph, "layer.dense2")))
    assert class_ == "names"
    assert evidence.startswith("outputs ['layer.dense2'] are missing among ['y', 'loss', 'layer.dense1'")
    assert [class_ for class_, _ in changed(lambda graph: renamed(graph, "y", "out"))] == ["names", "names"]


def test_a_model_of_a_fixed_batch() -> None:
    def fix(graph: onnx.GraphProto) -> None:
        named(graph, "x").type.tensor_type.shape.dim[0].dim_value = 4

    assert changed(fix) == [("shape", "input x takes b = 4 alone, not any size")]


def test_a_model_whose_output_is_declared_otherwise() -> None:
    def fix(graph: onnx.GraphProto) -> None:
        named(graph, "y").type.tensor_type.shape.dim[0].dim_value = 4

    assert changed(fix) == [("shape", "output y takes b = 4 alone, not any size")]


def test_a_model_whose_inputs_or_outputs_stand_in_another_order() -> None:
    def turn(values: Any) -> None:
        turned = list(reversed(values))
        del values[:]
        values.extend(turned)

    for values_of in ("input", "output"):
        ((class_, evidence),) = changed(lambda graph, values_of=values_of: turn(getattr(graph, values_of)))
        assert class_ == "names"
        assert evidence.startswith(f"{values_of}s in the order [")

    def by_name(graph: onnx.GraphProto) -> None:
        ordered = sorted(graph.output, key=lambda value: value.name)
        del graph.output[:]
        graph.output.extend(ordered)

    assert changed(by_name) == []  # as frameworks lay out dicts


def test_a_model_of_other_sizes_or_ranks() -> None:
    def turn(graph: onnx.GraphProto) -> None:
        bias = named(graph, "dense3.bias").type.tensor_type.shape
        bias.dim[0].dim_value = 1

    assert changed(turn) == [("shape", "input dense3.bias has sizes [1], not [3]")]

    def widen(graph: onnx.GraphProto) -> None:
        named(graph, "dense3.bias").type.tensor_type.shape.dim.add().dim_value = 3

    assert ("shape", "input dense3.bias has 2 dimensions, not 1") in changed(widen)

    def open_(graph: onnx.GraphProto) -> None:
        named(graph, "dense3.bias").type.tensor_type.shape.dim[0].dim_param = "any"

    assert changed(open_) == []


def test_a_model_of_another_dtype() -> None:
    breaches = changed(lambda _: None, "bf16")
    assert {class_ for class_, _ in breaches} == {"dtype"}
    assert breaches[0] == ("dtype", "input x is declared FLOAT, asked for BFLOAT16")
    assert ("dtype", "output layer.dense1 is declared FLOAT, asked for BFLOAT16") in breaches


def test_a_model_of_no_valid_graph() -> None:
    assert inspect_model(Artifact(b"not a model", 0, ""), STACK, "f32", constants=False)[0][0] == "invalid-model"
    (breach, *_) = changed(lambda graph: setattr(graph.node[0], "op_type", "MatMull"))
    assert breach == ("invalid-model", "no such operator: MatMull (opset 16, node dense1/MatMul_0)")
