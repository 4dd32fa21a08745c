"""What becomes of trained weights in the graphs that tf2onnx writes."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from actconform.checking.flatten import flatten
from actconform.checking.trained.weights import compare_weights
from actconform.types.trained import LayerRecord
from actconform_keras.keras_module import keras_on

tf2onnx = pytest.importorskip("tf2onnx")


@pytest.fixture(scope="module")
def keras() -> Any:
    tf = keras_on("tensorflow")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    del tf
    import keras

    return keras


def conv_net(keras):
    layers = keras.layers
    x = keras.Input((16, 16, 3))
    y = layers.BatchNormalization(name="bn")(layers.Conv2D(8, 3, name="conv")(x))
    y = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(layers.ReLU()(y))
    y = layers.BatchNormalization(name="bn2")(y)
    y = layers.BatchNormalization(name="bn3")(layers.Conv2DTranspose(4, 2, strides=2, name="up")(y))
    return keras.Model(x, layers.Dense(7, name="fc")(layers.Flatten()(y)))


def attention(keras):
    layers = keras.layers
    x = keras.Input((5, 8))
    y = layers.LayerNormalization(name="norm")(x)
    y = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="mha")(y, y)])
    return keras.Model(x, layers.Dense(8, activation="relu", name="fc")(y))


def recurrent(keras):
    layers = keras.layers
    x = keras.Input((7, 6))
    y = layers.Bidirectional(layers.LSTM(5, return_sequences=True, name="lstm"), name="both")(x)
    y = layers.GRU(4, return_sequences=True, name="gru")(y)
    return keras.Model(x, layers.Dense(3, name="fc")(y))


def trained(make, keras):
    """Return a model with weights drawn by chance, which no two layers share."""
    model, rng = make(keras), np.random.default_rng(3)
    for variable in model.weights:
        if variable.dtype == "float32":
            variable.assign(
                rng.uniform(0.1, 2, variable.shape)
                if "variance" in variable.path
                else rng.standard_normal(variable.shape)
            )
    return model


def weights_in(model, keras):
    import tensorflow as tf

    shape = (2, *model.input_shape[1:])
    signature = [tf.TensorSpec(shape)]
    function = tf.function(model, input_signature=signature)
    graph, _ = tf2onnx.convert.from_function(function, signature, opset=18)
    sample = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    layers = [
        LayerRecord(
            layer.path,
            f"{type(layer).__module__}.{type(layer).__qualname__}",
            (),
            (),
            tuple(v.path for v in layer.weights),
        )
        for layer in model.layers
    ]
    parameters = {variable.path: variable.numpy() for variable in model.weights}
    comparison = compare_weights(parameters, flatten(graph, {graph.graph.input[0].name: sample}), layers)
    return {check.parameter: check for check in comparison.checks}, comparison


def test_a_conv_net(keras):
    checks, comparison = weights_in(trained(conv_net, keras), keras)
    states = {name: check.state for name, check in checks.items()}
    for name in ("conv/kernel", "depthwise/kernel", "up/kernel"):
        assert (states[name], checks[name].exact) in {("transposed", True), ("folded", False)}
    assert {states[name] for name in states if name.startswith("bn")} == {"folded"}
    assert not {"missing", "different"} & set(states.values()), states
    assert {"conv/kernel", "fc/kernel", "fc/bias"} <= set(comparison.owners.values())


def test_attention_loses_no_bit(keras):
    checks, comparison = weights_in(trained(attention, keras), keras)
    assert all(check.exact for check in checks.values()), checks
    assert set(comparison.owners.values()) == {name for name, check in checks.items() if check.state != "unused"}


def test_recurrent_layers_lose_no_bit(keras):
    checks, _ = weights_in(trained(recurrent, keras), keras)
    weights = {name: check for name, check in checks.items() if check.state != "unused"}
    assert all(check.exact for check in weights.values()), weights
    assert weights["both/forward_lstm/lstm_cell/kernel"].state == "merged"
    assert "gates" in weights["both/backward_lstm/lstm_cell/bias"].words
