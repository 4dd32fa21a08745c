"""onnx-reference and onnx-reference-float64: widened throughout, refusals in words."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

from actconform import Artifact, Unsupported
from actconform.onnx.widen import NARROW, widened
from actconform_reference import OnnxReference, OnnxReferenceFloat64

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def test_in_float64_a_sum_keeps_what_float32_would_lose() -> None:
    text = f"{HEAD} g (float[n] x) => (float[n] y) <float big = {{1e9}}> {{ a = Add(x, big) y = Sub(a, big) }}"
    artifact = Artifact(parser.parse_model(text).SerializeToString(), 20, "test")
    x = np.array([1.5, 3.0], np.float32)
    np.testing.assert_array_equal(OnnxReference().load(artifact, "f32").forward({"x": x})["y"], [0.0, 0.0])
    y = OnnxReferenceFloat64().load(artifact, "f32").forward({"x": x})["y"]
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, x)


def types_in(graph: onnx.GraphProto) -> set[int]:
    found = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    found |= {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            found |= {attribute.t.data_type} | ({attribute.i} if attribute.name == "to" else set())
            for inner in (attribute.g, *attribute.graphs):
                found |= types_in(inner)
    return found


def test_inputs_constants_casts_and_the_bodies_of_branches_are_widened() -> None:
    text = f"""{HEAD} g (float16[n] x, bool c) => (float16[n] y) <float half = {{0.5}}> {{
        a = Cast<to = 1>(x)
        k = Constant<value_float = 2.0>()
        b = Constant<value = float[2] {{1.0, 2.0}}>()
        z = If(c) <then_branch = t () => (float[n] s) {{ s = Mul(a, k) }},
                   else_branch = e () => (float[n] s) {{ w = Mul(a, half) s = Add(w, b) }}>
        y = Cast<to = 10>(z)
    }}"""
    model = parser.parse_model(text).SerializeToString()
    assert types_in(onnx.load_model_from_string(model).graph) & set(NARROW)
    wide = onnx.load_model_from_string(widened(model)).graph
    assert not types_in(wide) & set(NARROW)
    assert TensorProto.BOOL in types_in(wide), "what is no floating-point number stays"
    program = OnnxReferenceFloat64().load(Artifact(model, 20, "test"), "f16")
    x = np.array([1.0, 3.0], np.float16)
    for condition, wanted in ((True, [2.0, 6.0]), (False, [1.5, 3.5])):
        y = program.forward({"x": x, "c": np.array(condition)})["y"]
        assert y.dtype == np.float16
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("backend", [OnnxReference, OnnxReferenceFloat64])
def test_an_operator_that_it_lacks_is_refused_in_its_words(backend: type[OnnxReference]) -> None:
    text = '<ir_version: 10, opset_import: ["com.test" : 1]> g (float[n] x) => (float[n] y) { y = com.test.Odd(x) }'
    artifact = Artifact(parser.parse_model(text).SerializeToString(), 1, "test")
    with pytest.raises(Unsupported, match="Odd"):
        backend().load(artifact, "f32")


@pytest.mark.parametrize("backend", [OnnxReference, OnnxReferenceFloat64])
def test_an_operator_that_raises_when_it_runs_is_refused_too(backend: type[OnnxReference]) -> None:
    text = f"{HEAD} g (float[n] x, float[m] z) => (float[k] y) {{ y = Add(x, z) }}"
    program = backend().load(Artifact(parser.parse_model(text).SerializeToString(), 20, "test"), "f32")
    with pytest.raises(Unsupported, match=r"^the evaluator stops at TypeError: "):
        program.forward({"x": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)})


def test_facts_are_words() -> None:
    facts = OnnxReference().facts()
    assert facts["onnx"] == onnx.__version__
    assert facts["subnormals"] == "kept"
    assert all(type(word) is str for word in facts.values())
