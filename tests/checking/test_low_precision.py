"""A model with its float32 tensors in float16 or bfloat16: it is valid, a runtime runs it, and it is near the model."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from small_models import CONV, ENCODER, FLOW, IMAGES, LSTM, STEPS, TOKENS, flow, made, numbers

from actconform.checking.flatten import flatten
from actconform.checking.low_precision import lowered, lowered_sample, overflowing_weights
from actconform.checking.model_file import ModelFile
from actconform.errors import UsageError
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


@pytest.mark.parametrize("name", CASES)
def test_a_model_in_float16_is_valid_and_runs_and_is_near_the_model(name):
    model, inputs = CASES[name]
    half, _ = lowered(model)
    onnx.checker.check_model(half, full_check=True)
    for graph in graphs(half.graph):
        assert all(tensor.data_type != TensorProto.FLOAT for tensor in graph.initializer)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, lowered_sample(inputs))
    got = dict(zip([output.name for output in session.get_outputs()], results, strict=True))
    truth = flatten(model, inputs).truth
    assert got.keys() == truth.keys()
    for output, array in got.items():
        assert array.dtype == np.float16
        np.testing.assert_allclose(array, truth[output], rtol=0.1, atol=0.05)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("between_casts", [False, True], ids=["own", "between-casts"])
def test_a_model_in_bfloat16_is_valid_and_its_truth_is_near_the_model(name, between_casts):
    model, inputs = CASES[name]
    short, wide = lowered(model, "bf16", between_casts=between_casts)
    onnx.checker.check_model(short, full_check=True)
    assert ("Conv" in wide) == (name == "conv")
    graph = flatten(short, lowered_sample(inputs, "bf16"))
    for output, truth in flatten(model, inputs).truth.items():
        assert graph.types[output] == TensorProto.BFLOAT16
        np.testing.assert_allclose(graph.truth[output], truth, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("name", ["conv", "encoder", "lstm", "flow"])
def test_onnx_runtime_runs_bfloat16_between_casts(name, runtime):
    model, inputs = CASES[name]
    short, _ = lowered(model, "bf16", between_casts=True)
    sample = lowered_sample(inputs, "bf16")
    with ModelFile(short) as file:
        answer = runtime("ort-cpu").outputs(file, sample)
    assert answer.failure is None
    truth = flatten(model, inputs).truth
    for output, array in answer.outputs.items():
        assert array.dtype == ml_dtypes.bfloat16
        np.testing.assert_allclose(array.astype(np.float64), truth[output], rtol=0.1, atol=0.05)


def test_bfloat16_before_opset_13_is_refused():
    model = made("(float[n] x) => (float[n] y) { y = Neg (x) }", opset=12)
    with pytest.raises(
        UsageError, match=r"of opset 12, and there is no bfloat16 before opset 13: export it at a newer"
    ):
        lowered(model, "bf16")


def test_casts_stand_around_floats_alone():
    """OneHot and TopK lack bfloat16 at opset 17; integers that they read or give stay as they are, and so does a type attribute."""
    model = made(
        "(float[4] x, int64[1] k) => (float[1] y, int64[4] z, float[2] w) {"
        "  y, i = TopK (x, k)  z = ReverseSequence <batch_axis = 1, time_axis = 0> (m, lengths)"
        "  c = ConstantOfShape <value = float[1] {0.5}> (shape)  w = Neg (c) }",
        {"m": np.int64([[1, 2]]), "lengths": np.int64([1, 1]), "shape": np.int64([2])},
    )
    model.graph.output[1].CopyFrom(onnx.helper.make_tensor_value_info("z", TensorProto.INT64, [1, 2]))
    inputs = {"x": np.float32([3, 1, 2, 0]), "k": np.int64([1])}
    short, wide = lowered(model, "bf16")
    onnx.checker.check_model(short, full_check=True)
    assert wide == ("TopK", "ConstantOfShape")
    casts = [node.input[0] for node in short.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == ["c_float32", "x", "y_float32"]
    graph = flatten(short, lowered_sample(inputs, "bf16"))
    np.testing.assert_array_equal(graph.truth["w"], [-0.5, -0.5])
    np.testing.assert_array_equal(graph.truth["z"], [[1, 2]])


def test_operators_of_com_microsoft_compute_in_float32_where_the_format_is_bfloat16():
    model = made("(float[n] x) => (float[n] y) { y = com.microsoft.QuickGelu (x) }")
    short, wide = lowered(model, "bf16")
    assert wide == ("QuickGelu",)
    assert [node.op_type for node in short.graph.node] == ["Cast", "QuickGelu", "Cast"]
    assert lowered(model, "f16").wide == ()


def test_the_model_itself_stays_as_it_is():
    before = CONV.SerializeToString(deterministic=True)
    lowered(CONV)
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
    assert overflowing_weights(model, "bf16") == []


def test_inputs_are_rounded_and_integers_stay():
    sample = lowered_sample({"x": np.float32([1 / 3]), "i": np.int64([3]), "d": np.float64([0.1])}, "bf16")
    assert {name: array.dtype.name for name, array in sample.items()} == {
        "x": "bfloat16",
        "i": "int64",
        "d": "float64",
    }
    assert float(sample["x"][0]) == 0.333984375


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
