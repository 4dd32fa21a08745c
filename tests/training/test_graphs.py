"""The two graphs of a training: what is state, what is trained, and inference beside a model that was exported in training."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from own_models import save_model, save_two_layers

from actconform.checking.source import read_source
from actconform.errors import UsageError
from actconform.training.graphs import train_graphs
from actconform.types.training import Optimizer

ADAM = Optimizer(kind="adam", learning_rate=0.001)
NORMALIZED = """g (float[n, 2] x) => (float[n, 2] y)
{
    s, new_mean, new_variance = BatchNormalization <training_mode = 1> (x, scale, bias, mean, variance)
    y = MatMul (s, w)
}"""
ARRAYS = {
    "scale": np.array([1.0, 2.0], np.float32),
    "bias": np.array([0.0, 0.5], np.float32),
    "mean": np.array([0.25, 0.5], np.float32),
    "variance": np.array([4.0, 1.0], np.float32),
    "w": np.eye(2, dtype=np.float32),
}


def graphs_of(path, *, parameters=(), output=None, optimizer=ADAM):
    return train_graphs(
        read_source(path), loss="mean-squared-error", optimizer=optimizer, output=output, parameters=parameters
    )


def test_weights_are_trained_and_slots_begin_as_zeros(tmp_path):
    model = save_two_layers(tmp_path / "model.onnx")
    graphs = graphs_of(tmp_path / "model.onnx")
    assert graphs.parameters == ("fc1_w", "fc1_b", "fc2_w", "fc2_b")
    assert graphs.weights == graphs.parameters
    assert set(graphs.state) == {name + slot for name in graphs.parameters for slot in ("", "/m", "/v")}
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(graphs.state[tensor.name], onnx.numpy_helper.to_array(tensor))
        assert not graphs.state[f"{tensor.name}/m"].any()


def test_the_graphs_have_no_input_that_nothing_reads(tmp_path):
    text = "g (float[n, 2] x, float[n] unread) => (float[n, 2] y) { y = MatMul (x, w) }"
    save_model(tmp_path / "model.onnx", text, {"w": ARRAYS["w"]})
    graphs = graphs_of(tmp_path / "model.onnx", optimizer=Optimizer(kind="sgd", learning_rate=0.1))
    step, inference = (onnx.load_from_string(graph).graph for graph in (graphs.step, graphs.inference))
    assert {value.name for value in step.input} == {"x", "target", "w", "learning_rate"}
    assert {value.name for value in inference.input} == {"x", "target", "w"}


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [(["fc2_*"], ("fc2_w", "fc2_b")), (["*_b", "fc1_w"], ("fc1_b", "fc2_b", "fc1_w")), (["fc1_w"], ("fc1_w",))],
)
def test_patterns_choose_what_is_trained(tmp_path, patterns, chosen):
    save_two_layers(tmp_path / "model.onnx")
    assert graphs_of(tmp_path / "model.onnx", parameters=patterns).parameters == chosen


def test_a_pattern_of_nothing_is_refused(tmp_path):
    save_two_layers(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"model.onnx: --parameters: .*'fc3_\*'"):
        graphs_of(tmp_path / "model.onnx", parameters=["fc1_*", "fc3_*"])


def test_running_statistics_are_state_that_inference_reads(tmp_path):
    save_model(tmp_path / "model.onnx", NORMALIZED, ARRAYS)
    graphs = graphs_of(tmp_path / "model.onnx")
    assert set(graphs.parameters) == {"scale", "bias", "w"}
    assert set(graphs.weights) == set(ARRAYS)
    assert {name for name in graphs.state if "/" not in name} == set(ARRAYS)
    x = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
    target = np.zeros((2, 2), np.float32)
    feed = {name: graphs.state[name] for name in ARRAYS}
    loss, y = ReferenceEvaluator(graphs.inference).run(["loss", "y"], {"x": x, "target": target, **feed})
    wanted = (x - ARRAYS["mean"]) / np.sqrt(ARRAYS["variance"] + 1e-5) * ARRAYS["scale"] + ARRAYS["bias"]
    np.testing.assert_allclose(y, wanted, rtol=1e-5)
    np.testing.assert_allclose(loss, (wanted**2).mean(), rtol=1e-5)


def test_dropout_does_nothing_in_inference(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { d = Dropout (x, ratio, training) y = MatMul (d, w) }"
    arrays = {"w": ARRAYS["w"], "ratio": np.float32(0.5), "training": np.array(True)}
    save_model(tmp_path / "model.onnx", text, arrays)
    graphs = graphs_of(tmp_path / "model.onnx")
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    feed = {"x": x, "target": x, "w": graphs.state["w"]}
    loss, y = ReferenceEvaluator(graphs.inference).run(["loss", "y"], feed)
    np.testing.assert_array_equal(y, x)
    assert float(loss) == 0.0


IN_FUNCTIONS = """<ir_version: 9, opset_import: ["" : 18, "local" : 1]>
g (float[n, 2] x) => (float[n, 2] y)
{
    s = local.norm (x, scale, bias, mean, variance)
    d = local.drop (s)
    y = MatMul (d, w)
}
<domain: "local", opset_import: ["" : 18]>
norm (x, scale, bias, mean, variance) => (s) { s, m, v = BatchNormalization <training_mode = 1> (x, scale, bias, mean, variance) }
<domain: "local", opset_import: ["" : 18]>
drop (s) => (d)
{
    ratio = Constant <value_float = 0.5> ()
    training = Constant <value = bool {1}> ()
    d, mask = Dropout (s, ratio, training)
}"""


def test_nodes_of_functions_are_in_inference_too(tmp_path):
    model = onnx.parser.parse_model(IN_FUNCTIONS)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in ARRAYS.items())
    onnx.save(model, tmp_path / "model.onnx")
    graphs = graphs_of(tmp_path / "model.onnx")
    x = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
    feed = {"x": x, "target": x} | {name: graphs.state[name] for name in ARRAYS}
    (y,) = ReferenceEvaluator(graphs.inference).run(["y"], feed)
    wanted = (x - ARRAYS["mean"]) / np.sqrt(ARRAYS["variance"] + 1e-5) * ARRAYS["scale"] + ARRAYS["bias"]
    np.testing.assert_allclose(y, wanted, rtol=1e-5)


def test_a_loss_of_one_of_several_outputs(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y, float[n, 2] z) { y = MatMul (x, w) z = Tanh (y) }"
    save_model(tmp_path / "model.onnx", text, {"w": ARRAYS["w"]})
    with pytest.raises(UsageError, match=r"2 outputs, y, z.*--output"):
        graphs_of(tmp_path / "model.onnx")
    graphs = graphs_of(tmp_path / "model.onnx", output="z")
    x = np.ones((1, 2), np.float32)
    feed = {"x": x, "target": 0 * x, "w": graphs.state["w"]}
    (loss,) = ReferenceEvaluator(graphs.inference).run(["loss"], feed)
    np.testing.assert_allclose(loss, np.tanh(1.0) ** 2, rtol=1e-5)


def test_an_operator_without_a_gradient_is_named(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { h = MatMul (x, w) y = com.example.Odd (h) }"
    model = save_model(tmp_path / "model.onnx", text, {"w": ARRAYS["w"]})
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"model\.onnx: cannot be trained: .*Odd"):
        graphs_of(tmp_path / "model.onnx")


def test_data_beside_the_model_are_read(tmp_path):
    model = save_two_layers(tmp_path / "plain.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    plain, beside = (graphs_of(tmp_path / f"{name}.onnx") for name in ("plain", "model"))
    for name, array in plain.state.items():
        np.testing.assert_array_equal(beside.state[name], array)
