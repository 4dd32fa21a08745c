"""Prefix graphs: each layer's value as in the whole graph, and nothing left that it does not need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from actconform.catalog.models.zoo import networks
from actconform.onnx.author.model import author_model
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.gates import io_names
from actconform.onnx.subgraph import extract_subgraph
from actconform.testdata.model_tensors import draw_inputs, draw_parameters

if TYPE_CHECKING:
    from actconform.types.model import Model

MODELS = {model.name: model for model in networks() if "@published" not in model.name}


def parsed(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["": 20, "mine": 1]> {text}')


def cut(model: onnx.ModelProto, *outputs: str) -> onnx.ModelProto:
    return onnx.load_from_string(extract_subgraph(model.SerializeToString(), outputs))


def names(entries: Any) -> list[str]:
    return [entry.name for entry in entries]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_each_layer_alone_has_the_numbers_that_it_has_in_the_whole(model: Model) -> None:
    tensors = {**draw_inputs(model), **draw_parameters(model)}
    whole = author_model(model, "f32").model
    expected = CorrectlyRoundedEvaluator(whole).forward(tensors)
    nodes = [node.SerializeToString() for node in onnx.load_from_string(whole).graph.node]
    for layer in model.layers:
        name = f"layer.{layer.name}"
        part = extract_subgraph(whole, [name])
        onnx.checker.check_model(part, full_check=True)
        inputs, outputs = io_names(part)
        assert outputs == [name]
        graph = onnx.load_from_string(part).graph
        kept = [node.SerializeToString() for node in graph.node]
        assert kept == [node for node in nodes if node in set(kept)], "as they were, in their order"
        assert name in graph.node[-1].output
        read = {name for node in graph.node for name in node.input}
        assert {*inputs, *names(graph.initializer)} <= read
        y = CorrectlyRoundedEvaluator(part).forward({name: tensors[name] for name in inputs})[name]
        np.testing.assert_array_equal(y, expected[name])


def test_what_is_not_needed_is_gone_and_the_rest_stays() -> None:
    model = parsed(
        """g (float[n] x, float[n] z) => (float[n] y, float[n] w) <float[1] two = {2}, float[1] three = {3}, float[n] a, float[n] b> {
        a = Mul(x, two) b = Mul(z, three) y = Neg(a) w = Add(a, b) }"""
    )
    model.metadata_props.add(key="author", value="somebody")
    part = cut(model, "y")
    assert [node.op_type for node in part.graph.node] == ["Mul", "Neg"]
    assert names(part.graph.input) == ["x"]
    assert names(part.graph.initializer) == ["two"]
    assert names(part.graph.value_info) == ["a"]
    assert part.graph.output[0] == model.graph.output[0]
    assert part.graph.name == "g"
    assert part.opset_import == model.opset_import
    assert part.metadata_props == model.metadata_props
    assert cut(model, "w", "y").graph.node == model.graph.node
    assert names(cut(model, "w", "y").graph.output) == ["w", "y"]
    assert names(cut(model, "y", "y").graph.output) == ["y"]


def test_an_inner_tensor_is_typed_as_noted_or_inferred() -> None:
    model = parsed("g (float[n] x) => (float[n] y) { a = Neg(x) i = Shape(a) y = Relu(a) }")
    inferred = cut(model, "i", "a")
    assert [value.type.tensor_type.elem_type for value in inferred.graph.output] == [
        TensorProto.INT64,
        TensorProto.FLOAT,
    ]
    onnx.checker.check_model(inferred, full_check=True)
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["noted"]))
    noted = cut(model, "a")
    assert noted.graph.output[0] == model.graph.value_info[0]
    assert not noted.graph.value_info


def test_an_input_or_a_constant_may_be_an_output() -> None:
    model = parsed("g (float[n] x) => (float[n] y) <float[2] k = {1, 2}> { y = Relu(x) }")
    assert cut(model, "x").graph.output[0].name == "x"
    assert not cut(model, "x").graph.node
    part = cut(model, "k")
    assert names(part.graph.initializer) == ["k"]
    assert part.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_tensors_that_a_branch_captures_stay() -> None:
    model = parsed(
        """g (float[n] x, bool c, float[n] unread) => (float[n] y, float[n] z) {
        a = Neg(x) b = Abs(x) d = Exp(x)
        y = If (c) <then_branch = t () => (float[n] p) { p = Identity(a) },
                    else_branch = e () => (float[n] q) { inner = Identity(b) q = Add(inner, a) }>
        z = Add(d, unread) }"""
    )
    part = cut(model, "y")
    assert [node.op_type for node in part.graph.node] == ["Neg", "Abs", "If"]
    assert names(part.graph.input) == ["x", "c"]
    onnx.checker.check_model(part, full_check=True)
    x = np.array([1.0, -2.0], np.float32)
    for c in (True, False):
        (y,) = ReferenceEvaluator(part).run(None, {"x": x, "c": np.array(c)})
        np.testing.assert_array_equal(y, -x if c else np.abs(x) - x)


def test_names_of_a_branchs_own_are_not_captured() -> None:
    model = parsed(
        """g (float[n] x, bool c) => (float[n] y) {
        y = If (c) <then_branch = t () => (float[n] p) { s = Neg(x) p = Neg(s) },
                    else_branch = e () => (float[n] q) { q = Identity(x) }> }"""
    )
    model.graph.node.insert(0, helper.make_node("Abs", ["x"], ["p"]))
    assert [node.op_type for node in cut(model, "y").graph.node] == ["If"]


def test_functions_stay_as_far_as_they_are_called() -> None:
    model = parsed(
        """g (float[n] x) => (float[n] y, float[n] z) { y = mine.outer(x) z = mine.other(x) }
        <domain: "mine", opset_import: ["": 20]> other (a) => (b) { b = Neg(a) }
        <domain: "mine", opset_import: ["": 20]> inner (a) => (b) { b = Add(a, a) }
        <domain: "mine", opset_import: ["": 20, "mine": 1]> outer (a) => (b) { t = mine.inner(a) b = mine.inner(t) }"""
    )
    assert names(cut(model, "y").functions) == ["inner", "outer"]
    assert names(cut(model, "z").functions) == ["other"]
    y = CorrectlyRoundedEvaluator(cut(model, "y").SerializeToString()).forward({"x": np.ones(2, np.float32)})["y"]
    np.testing.assert_array_equal(y, [4.0, 4.0])


def test_outputs_and_inputs_that_were_left_out_connect_nothing() -> None:
    model = parsed("g (float[n] x, float high, int64[1] k) => (float[n] y) { v, i = TopK(x, k) y = Clip(x, , high) }")
    model.graph.node[0].output[0] = ""
    assert [node.op_type for node in cut(model, "y").graph.node] == ["Clip"]


def test_an_initializer_that_is_an_input_too_stays_both() -> None:
    model = parsed("g (float[n] x, float[1] w) => (float[n] y) { y = Add(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "w"))
    part = cut(model, "y")
    assert names(part.graph.input) == ["x", "w"]
    assert names(part.graph.initializer) == ["w"]


def test_the_whole_is_left_as_it_was() -> None:
    model = parsed("g (float[n] x) => (float[n] y, float[n] z) { y = Relu(x) z = Neg(x) }")
    before = model.SerializeToString()
    extract_subgraph(before, ["y"])
    assert onnx.load_from_string(before) == model


def test_a_missing_output_is_named_with_what_is_near() -> None:
    whole = author_model(MODELS["linear-stack"], "f32").model
    with pytest.raises(ValueError, match=r"the graph has no tensor 'layer\.dens2'; did you mean layer\.dense2"):
        extract_subgraph(whole, ["y", "layer.dens2"])
    with pytest.raises(ValueError, match="the graph has no tensor ''"):
        extract_subgraph(whole, [""])
    with pytest.raises(DecodeError):
        extract_subgraph(b"not a model", ["y"])
