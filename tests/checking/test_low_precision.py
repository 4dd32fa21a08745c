"""A model with its float32 tensors in float16: it is valid, and ONNX Runtime runs it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from small_models import CONV, ENCODER, FLOW, IMAGES, LSTM, STEPS, TOKENS, flow, made, numbers

from actconform.checking.flatten import flatten
from actconform.checking.low_precision import lowered, lowered_sample, overflowing_weights
from actconform.onnx.nested_graphs import graphs

CASES = {
    "conv": (CONV, IMAGES),
    "encoder": (ENCODER, TOKENS),
    "lstm": (LSTM, STEPS),
    "flow": (FLOW, flow()),
    "function": (
        made(
            "(float[n] x) => (float[n] y) { y = local.Twice (x) }",
            more='<domain: "local", opset_import: ["" : 17]> Twice (a) => (b) { c = Tanh (a)  b = Add (c, c) }',
        ),
        {"x": numbers(1, 4)},
    ),
    "constants": (
        made(
            "(float[n] x) => (float[n] y) { a = Constant <value_float = 2.5> ()  b = Constant <value_floats = [0.5]> ()"
            "  c = Cast <to = 1> (x)  d = Mul (c, a)  y = Add (d, b) }"
        ),
        {"x": numbers(1, 4)},
    ),
    "integers": (
        made("(float[n] x, int64[m] i) => (float[m] y) { e = Exp (x)  y = Gather (e, i) }"),
        {"x": numbers(1, 4), "i": np.int64([3, 0])},
    ),
}


def narrowed(inputs):
    return {name: array.astype(np.float16) if array.dtype == np.float32 else array for name, array in inputs.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_converted_model_is_valid_and_runs_and_is_near_the_model(name):
    model, inputs = CASES[name]
    half = lowered(model).model
    onnx.checker.check_model(half, full_check=True)
    for graph in graphs(half.graph):
        assert all(tensor.data_type != TensorProto.FLOAT for tensor in graph.initializer)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    got = dict(zip([output.name for output in session.get_outputs()], session.run(None, narrowed(inputs)), strict=True))
    truth = flatten(model, inputs).truth
    assert got.keys() == truth.keys()
    for output, array in got.items():
        assert array.dtype == np.float16
        np.testing.assert_allclose(array, truth[output], rtol=0.1, atol=0.05)


def test_the_model_itself_stays_as_it_is():
    before = CONV.SerializeToString(deterministic=True)
    lowered(CONV).model
    assert CONV.SerializeToString(deterministic=True) == before


def test_weights_are_rounded_to_nearest_and_those_beyond_the_format_are_named():
    values = np.float32([1 / 3, 65_519, 65_520, 1e-9, np.inf])
    model = made(
        "(float[5] x) => (float[5] y) { a = Mul (x, w)  y = Add (a, small) }", {"w": values, "small": np.float32(1)}
    )
    half = lowered(model).model
    weight = next(tensor for tensor in half.graph.initializer if tensor.name == "w")
    rounded = numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(rounded, values.astype(np.float16))
    assert rounded[1] == 65_504
    assert np.isinf(rounded[2])
    assert overflowing_weights(model) == ["w"]
    assert overflowing_weights(ENCODER) == []


def test_an_infinite_weight_is_no_overflow():
    assert (
        overflowing_weights(made("(float[1] x) => (float[1] y) { y = Add (x, w) }", {"w": np.float32([np.inf])})) == []
    )


def test_scales_of_a_resize_stay_float32_behind_a_cast():
    half = lowered(CONV).model
    resize = next(node for node in half.graph.node if node.op_type == "Resize")
    cast = next(node for node in half.graph.node if resize.input[2] in node.output)
    assert (cast.op_type, cast.attribute[0].i) == ("Cast", TensorProto.FLOAT)


def test_an_overflow_of_the_converted_model_is_told():
    model = made("(float[2] x) => (float[2] y) { s = Mul (x, x)  y = Sqrt (s) }")
    assert flatten(model, {"x": np.float32([300, 1])}).overflow is None
    graph = flatten(lowered(model).model, {"x": np.float16([300, 1])})
    assert graph.overflow.node == "Mul:s"
    assert graph.overflow.words == "Mul Mul:s gives 90,000, and f16 ends at 65,504"
