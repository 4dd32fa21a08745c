"""An ONNX file in the role of the trained model: its outputs, layers, gradients and weights against torch and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from small_models import CONV, ENCODER, FLOW, IMAGES, TOKENS, flow, made, numbers

from actconform.checking.low_precision import lowered
from actconform.checking.runs import RunFailure
from actconform.checking.source import read_source
from actconform.checking.trained.graph_runs import GraphRuns
from actconform.types.trained import RunMode

EXACT = RunMode("float64")
WEIGHTS = {tensor.name: numpy_helper.to_array(tensor) for tensor in ENCODER.graph.initializer}


@pytest.fixture
def runs_of(tmp_path):
    """Give the runs of a model, which is saved first."""

    def runs(model, runtime=None):
        onnx.save(model, tmp_path / "model.onnx")
        return GraphRuns(read_source(tmp_path / "model.onnx"), runtime)

    return runs


def encoder(x):
    """Return the tensors of ENCODER in float64 by torch, and its float64 weights."""
    weights = {name: torch.tensor(array.astype(np.float64), requires_grad=True) for name, array in WEIGHTS.items()}
    affine = x @ weights["w"] + weights["bias"]
    scaled = torch.nn.functional.layer_norm(affine, (8,), weights["scale"], eps=float(WEIGHTS["epsilon"][0]))
    gelu = 0.5 * scaled * (1 + torch.erf(scaled / weights["root"]))
    normal = torch.nn.functional.layer_norm(gelu, (8,), weights["scale"], weights["shift"], eps=float(np.float32(1e-5)))
    out = torch.tanh(normal) @ weights["o_w"] + weights["o_b"]
    return {"a": affine, "gelu": gelu, "l": normal, "out": out, "y": torch.softmax(out, -1)}, weights


def test_it_says_what_the_graph_is(runs_of):
    runs = runs_of(ENCODER)
    opened = runs.open()
    assert opened.framework == "onnx"
    assert opened.about == "model.onnx (ONNX, opset 17, 19 nodes), 128 weights"
    assert [(each.name, each.dtype, each.dims) for each in opened.inputs] == [("x", "float32", ("n", 8))]
    assert ("w", "float32", (8, 8)) in [(each.name, each.dtype, each.dims) for each in opened.parameters]
    assert runs.facts == {"onnx": onnx.__version__}
    assert runs.source.text.endswith("model.onnx")


def test_layers_in_float64_are_torchs(runs_of):
    run = runs_of(ENCODER).layers(TOKENS, EXACT)
    expected, _ = encoder(torch.tensor(TOKENS["x"].astype(np.float64)))
    by_name = {layer.name: layer for layer in run.layers}
    for tensor, node in {"a": "Add:a", "gelu": "Mul:gelu", "l": "LayerNormalization:l", "out": "Gemm:out"}.items():
        (place,) = by_name[node].outputs
        assert run.tensors[place].dtype == np.float64
        np.testing.assert_allclose(run.tensors[place], expected[tensor].detach(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(run.outputs["y"], expected["y"].detach(), rtol=1e-10)
    product = by_name["MatMul:p"]
    assert (product.kind, product.parameters, product.inputs) == ("MatMul", ("w",), (0,))
    np.testing.assert_array_equal(run.tensors[0], TOKENS["x"])
    assert by_name[""].inputs == (0,)
    np.testing.assert_array_equal(run.tensors[by_name[""].outputs[0]], run.outputs["y"])


def test_every_node_is_a_layer_and_only_floats_are_kept(runs_of):
    model = made(
        "(float[n, 8] x) => (int64[n] y) { t = Tanh (x)  i = ArgMax <axis = 1, keepdims = 0> (t)  y = Add (i, i) }"
    )
    run = runs_of(model).layers(TOKENS, EXACT)
    assert [layer.name for layer in run.layers] == ["Tanh:t", "ArgMax:i", "Add:y", ""]
    assert [layer.outputs for layer in run.layers] == [(1,), (), (), ()]
    assert len(run.tensors) == 2
    assert run.outputs["y"].dtype == np.int64


def test_a_graph_with_control_flow_has_the_nodes_that_ran(runs_of):
    run = runs_of(FLOW).layers(flow(rounds=2), EXACT)
    assert sum(layer.kind == "Exp" for layer in run.layers) == 2
    assert run.outputs["collected"].shape == (2, 4)


def test_native_rounds_each_node_once(runs_of):
    model = made("(float[n] x) => (float[n] y) { e = Exp (x)  y = Log (e) }")
    x = numbers(1, 50)
    run = runs_of(model).layers({"x": x})
    e = np.exp(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(run.tensors[1], e)
    np.testing.assert_array_equal(run.outputs["y"], np.log(e.astype(np.float64)).astype(np.float32))
    assert run.outputs["y"].dtype == run.tensors[1].dtype == np.float32


def test_native_of_a_float16_graph_is_in_float16_and_float64_takes_inputs_unrounded(runs_of):
    runs = runs_of(lowered(made("(float[n] x) => (float[n] y) { y = Neg (x) }")).model)
    x = numbers(1, 50)
    native = runs.run({"x": x}).run.outputs["y"]
    np.testing.assert_array_equal(native, -x.astype(np.float16))
    assert native.dtype == np.float16
    np.testing.assert_array_equal(runs.run({"x": x}, EXACT).run.outputs["y"], -x.astype(np.float64))


@pytest.mark.parametrize(("model", "inputs"), [(CONV, IMAGES), (ENCODER, TOKENS)], ids=["conv", "encoder"])
def test_native_by_a_runtime_is_what_the_runtime_gives(runs_of, runtime, model, inputs):
    runs = runs_of(model, runtime("ort-cpu"))
    assert runs.open().framework == runs.name == "ort-cpu"
    assert "onnxruntime" in runs.facts
    result = runs.run(inputs, layers=True, twice=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(result.run.outputs["y"], session.run(None, dict(inputs))[0], rtol=1e-5, atol=1e-6)
    assert result.unsteady == []
    exact = runs.layers(inputs, EXACT)
    shown = {layer.name: [result.run.tensors[place] for place in layer.outputs] for layer in result.run.layers}
    assert len(shown) == len(model.graph.node) + 1
    for layer in exact.layers:
        for array, truth in zip(shown[layer.name], [exact.tensors[i] for i in layer.outputs], strict=True):
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, truth, rtol=1e-4, atol=1e-5)


def test_gradients_of_inputs_and_weights_are_torchs(runs_of):
    runs = runs_of(ENCODER)
    x = torch.tensor(TOKENS["x"].astype(np.float64), requires_grad=True)
    tensors, weights = encoder(x)
    cotangent = numbers(3, 6, 4).astype(np.float64)
    tensors["y"].backward(torch.tensor(cotangent))
    gradients = runs.gradients(TOKENS, {"y": cotangent}, EXACT)
    for name, gradient in {"x": x.grad, **{name: weights[name].grad for name in ("w", "bias", "scale", "o_b")}}.items():
        rounding = 2.0**-23 * float(
            gradient.abs().max()
        )  # constants of the rules, as 2 / sqrt(pi), are float32 numbers
        np.testing.assert_allclose(gradients[f"d_{name}"], gradient, rtol=0, atol=rounding)
    native = runs.gradients(TOKENS, {"y": cotangent.astype(np.float32)})
    assert native["d_w"].dtype == np.float32
    np.testing.assert_allclose(native["d_w"], weights["w"].grad, rtol=1e-3, atol=1e-5)


def test_an_output_without_a_cotangent_counts_as_zeros(runs_of):
    model = made("(float[n] x) => (float[n] y, float[n] z) { y = Neg (x)  z = Exp (x) }")
    gradients = runs_of(model).gradients({"x": np.float32([1, 2])}, {"y": np.float32([1, 3])})
    np.testing.assert_array_equal(gradients["d_x"], np.float32([-1, -3]))


def test_parameters_are_the_initializers(runs_of):
    parameters = runs_of(lowered(ENCODER).model).parameters()
    assert parameters.keys() == WEIGHTS.keys()
    for name, array in parameters.items():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, WEIGHTS[name].astype(np.float16))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": TOKENS["x"]}, "input 'x' is missing; known: z"),
        ({**TOKENS, "z": TOKENS["x"]}, "there is no input 'z'; known: x"),
        ({"x": np.int64([[1] * 8])}, "an input is of int64, and the graph takes float32"),
        ({"x": numbers(1, 6, 7)}, "MatMul at node MatMul:p fails at these inputs"),
    ],
    ids=["missing", "unknown", "dtype", "shape"],
)
def test_wrong_inputs_are_the_users(runs_of, inputs, words):
    for mode in (EXACT, RunMode()):
        failure = runs_of(ENCODER).run(inputs, mode)
        assert isinstance(failure, RunFailure)
        assert failure.kind == "source"
        assert words in failure.message


def test_what_a_graph_cannot_do_is_refused(runs_of):
    runs = runs_of(ENCODER)
    for failure in (
        runs.export("torch-dynamo", TOKENS),
        runs.run(TOKENS, RunMode(training=True)),
        runs.run(TOKENS, RunMode("autocast-float16")),
        runs.gradients(TOKENS, {}, RunMode(training=True)),
        runs_of(made("(float[n] x) => (float[n] y) { y = local.Unheard (x) }", more="")).run({"x": numbers(1, 3)}),
    ):
        assert isinstance(failure, RunFailure)
        assert failure.kind == "refused"


def test_another_input_of_the_same_shape_is_not_answered_from_memory(runs_of):
    model = made("(float[n] x) => (float[n] y) { y = Neg (x) }")
    with runs_of(model) as runs:
        for x in (np.float32([1, 2]), np.float32([3, 4])):
            np.testing.assert_array_equal(runs.run({"x": x}, EXACT).run.outputs["y"], -x)
