"""actconform.check on a torch module and a Keras model of this process, with an export and a runtime; the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest

import actconform

pytestmark = pytest.mark.end_to_end


def test_a_torch_module():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.LayerNorm(5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    weights = {name: weight.clone() for name, weight in module.state_dict().items()}
    checked = actconform.check(module, inputs=torch.randn(4, 6), exporters="torch-dynamo")
    assert checked, str(checked)
    assert [column.name for column in checked.result.runtimes] == ["torch", "ort-cpu"]
    assert checked.result.trained[0].source == "Sequential of this process"
    assert checked.result.exporter == "torch-dynamo"
    assert module.training
    assert all(torch.equal(weight, weights[name]) for name, weight in module.state_dict().items())
    onnx_beside = actconform.check(
        module, inputs=(torch.randn(2, 6),), exporters=["torch-torchscript"], runtimes="onnx-reference"
    )
    assert [column.name for column in onnx_beside.result.runtimes] == ["torch", "onnx-reference"]


def test_a_keras_model():
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)])
    weights = model.get_weights()
    x = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    checked = actconform.check(model, inputs=x, exporters="tf2onnx")
    assert checked, str(checked)
    assert [column.name for column in checked.result.runtimes] == ["keras", "ort-cpu"]
    assert all(np.array_equal(weight, before) for weight, before in zip(model.get_weights(), weights, strict=True))
