"""Element types of a node's outputs: against the declarations of onnx's own cases; and how tensors of a type are held."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, parser

from actconform import Unsupported
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, held, output_types
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from tests.onnx_graphs.evaluate.node_cases import cases_without_graphs, opset_of

FLOAT, HALF, DOUBLE, INT32, INT64, BOOL = (
    getattr(TensorProto, name) for name in ("FLOAT", "FLOAT16", "DOUBLE", "INT32", "INT64", "BOOL")
)
UNKNOWN = {"Bernoulli", "Multinomial", "OptionalGetElement", "RandomNormalLike", "RandomUniformLike"}
UINT8, INT8, INT4, FLOAT8 = (getattr(TensorProto, name) for name in ("UINT8", "INT8", "INT4", "FLOAT8E4M3FN"))


def test_they_are_those_that_onnxs_own_cases_declare() -> None:
    wrong = {}
    for case, node in cases_without_graphs():
        if node.op_type in UNKNOWN:
            continue
        graph = case.model.graph
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        inferred = output_types(node, opset_of(case.model), [types.get(name, 0) for name in node.input])
        declared = [types.get(name, 0) for name in node.output]
        if inferred != declared:
            wrong[case.name] = inferred, declared
    assert not wrong


BY_NODE = {
    "Add(x, y)": ([HALF, HALF], [HALF]),
    "Cast<to = 7>(x)": ([HALF], [INT64]),
    "Constant<value_floats = [1.0]>()": ([], [FLOAT]),
    "Constant<value = int32[1] {3}>()": ([], [INT32]),
    "ConstantOfShape(x)": ([INT64], [FLOAT]),
    "EyeLike(x)": ([INT32], [INT32]),
    "EyeLike<dtype = 1>(x)": ([INT32], [FLOAT]),
    "QuantizeLinear(x, s)": ([FLOAT, FLOAT], [UINT8]),
    "QuantizeLinear<output_dtype = 22>(x, s)": ([FLOAT, FLOAT], [INT4]),
    "QuantizeLinear(x, s, z)": ([FLOAT, FLOAT, INT8], [INT8]),
    "DequantizeLinear(x, s)": ([INT4, HALF], [HALF]),
    "NonMaxSuppression(x, y)": ([FLOAT, FLOAT], [INT64]),
    "Shape(x)": ([DOUBLE], [INT64]),
    "Equal(x, y)": ([DOUBLE, DOUBLE], [BOOL]),
    "Where(c, x, y)": ([BOOL, INT32, INT32], [INT32]),
    "Clip(x, , y)": ([HALF, 0, HALF], [HALF]),
    "ConvInteger(x, y)": ([UINT8, INT8], [INT32]),
    "com.microsoft.FusedMatMul(x, y)": ([HALF, HALF], [HALF]),
    "com.microsoft.EmbedLayerNormalization(i, , w)": ([INT32, 0, FLOAT], [FLOAT]),
    "com.microsoft.QuantizeLinear(x, s, z)": ([FLOAT, FLOAT, INT8], [INT8]),
    "com.microsoft.QLinearAdd(x, s, z, y, t, u, v)": ([INT8, FLOAT, INT8, INT8, FLOAT, INT8, FLOAT, INT8], [INT8]),
}


def node_of(text: str) -> NodeProto:
    names = f'<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]> g () => () {{ out = {text} }}'
    return parser.parse_model(names).graph.node[0]


@pytest.mark.parametrize("text", BY_NODE)
def test_a_type_comes_from_the_schema_an_input_or_an_attribute(text: str) -> None:
    input_types, expected = BY_NODE[text]
    assert output_types(node_of(text), 23, input_types) == expected


def test_an_output_that_is_left_out_has_no_type() -> None:
    node = helper.make_node("TopK", ["x", "k"], ["", "i"])
    assert output_types(node, 20, [FLOAT, INT64]) == [0, INT64]
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y", "mean"])
    assert output_types(node, 20, [HALF, HALF]) == [HALF, FLOAT]


def test_a_node_without_types_is_named() -> None:
    with pytest.raises(Unsupported, match=r"operator Gelu \(domain ai.onnx, opset 18\) at node -> out is not in the"):
        output_types(node_of("Gelu(x)"), 18, [FLOAT])
    with pytest.raises(Unsupported, match="element type of out cannot be told from the inputs of operator Fourier"):
        output_types(node_of("my.domain.Fourier(x)"), 18, [FLOAT])
    with pytest.raises(Unsupported, match="element type of out cannot be told"):
        output_types(node_of("com.microsoft.BeamSearch(x, y)"), 18, [INT32, INT32])


def test_floats_are_held_in_float64_and_integers_wrap() -> None:
    half = held(np.array([1.5, -0.0], np.float16), HALF)
    assert half.dtype == np.float64
    assert held(half, DOUBLE) is half
    assert held(np.array([0.1]), FLOAT)[0] == 0.1  # not rounded
    np.testing.assert_array_equal(held(np.array([257, -1]), UINT8), np.array([1, 255], np.uint8))
    np.testing.assert_array_equal(held(np.array([300.7, -1.9]), INT8), np.array([44, -1], np.int8))
    np.testing.assert_array_equal(held(np.array([0.0, np.nan, -0.5]), BOOL), [False, True, True])
    assert held(np.array([3.3]), FLOAT8).dtype == ml_dtypes.float8_e4m3fn
    assert held(np.array([-3, 7], np.int8), INT4).dtype == ml_dtypes.int4
    with pytest.raises(Unsupported, match="tensors of STRING are not evaluated"):
        held(np.array(["a"]), TensorProto.STRING)


def test_float64_has_a_format_and_is_not_rounded() -> None:
    assert FORMATS[DOUBLE].unit_roundoff == 2.0**-53
    assert FORMATS.keys() <= STORAGE.keys()
    text = '<ir_version: 10, opset_import: ["": 20]> g (double[n] x) => (double[n] y) { y = Reciprocal(x) }'
    runtime = CorrectlyRoundedEvaluator(parser.parse_model(text).SerializeToString())
    np.testing.assert_array_equal(runtime.forward({"x": np.array([3.0, 1e-310])})["y"], [1 / 3, np.inf])
