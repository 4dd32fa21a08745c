"""Keras models linted through their export: each mistake with a model like it that has none, files and the losses they state."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import actconform
from actconform_keras.training_losses import losses_of_config, losses_of_model
from benchmarks import keras_architectures

X = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)


def classifier(last, units: int = 3, hidden="relu", loss=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, hidden), layers.Dense(units, last, bias_initializer="ones")]
    )
    if loss is not None:
        model.compile(loss=loss)
    return model


def function(call, shape=(4,)):
    keras.utils.set_random_seed(3)
    x = keras.Input(shape)
    return keras.Model(x, call(x))


def biased(activation: str, bias: float):
    model = classifier(None, hidden=activation)
    kernel, offset = model.layers[0].get_weights()
    offset[:2] = bias
    model.layers[0].set_weights([0.2 * kernel, offset])
    return model


def codes_of(model, inputs=X, **options):
    return {finding.code for finding in actconform.lint(model, inputs=inputs, **options).findings}


def twice(activation: str):
    return lambda x: layers.Activation(activation)(layers.Dense(3, activation)(x))


LOGITS = keras.losses.CategoricalCrossentropy(from_logits=True)
CASES = {
    "AC101": (lambda: classifier("softmax", 1), lambda: classifier("sigmoid", 1)),
    "AC102": (lambda: classifier("softmax", hidden="softmax"), lambda: classifier("softmax", hidden="tanh")),
    "AC103": (lambda: function(twice("softmax")), lambda: classifier("softmax")),
    "AC104": (lambda: function(twice("sigmoid")), lambda: classifier("sigmoid")),
    "AC105": (
        lambda: function(lambda x: layers.Softmax()(layers.Dense(3, "relu")(x))),
        lambda: function(lambda x: layers.Softmax()(layers.Dense(3, "elu")(x))),
    ),
    "AC111": (lambda: classifier("softmax", loss=LOGITS), lambda: classifier(None, loss=LOGITS)),
    "AC112": (
        lambda: classifier(None, loss="categorical_crossentropy"),
        lambda: classifier("softmax", loss="categorical_crossentropy"),
    ),
    "AC113": (
        lambda: classifier("softmax", loss="binary_crossentropy"),
        lambda: classifier("sigmoid", loss="binary_crossentropy"),
    ),
    "AC121": (lambda: biased("relu", -50.0), lambda: biased("relu", 0.0)),
    "AC122": (lambda: biased("tanh", 50.0), lambda: biased("tanh", 0.0)),
    "AC203": (
        lambda: function(lambda x: layers.Dense(3)(keras.ops.reshape(x, (40, 8))), (4, 2)),
        lambda: function(lambda x: layers.Dense(3)(layers.Flatten()(x)), (4, 2)),
    ),
    "AC204": (
        lambda: function(
            lambda x: keras.ops.cast(keras.ops.tanh(keras.ops.cast(layers.Dense(3)(x), "float64")), "float32")
        ),
        lambda: function(lambda x: keras.ops.tanh(layers.Dense(3)(x))),
    ),
    "AC209": (
        lambda: function(lambda x: layers.LeakyReLU(0.01)(layers.Dense(3)(x))),
        lambda: function(lambda x: layers.LeakyReLU()(layers.Dense(3)(x))),
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_a_mistake_is_found_and_its_mended_twin_is_not_accused(code):
    bad, good = (make() for make in CASES[code])
    inputs = np.ones((40, 4, 2), np.float32) if code == "AC203" else X
    assert code in codes_of(bad, inputs)
    assert code not in codes_of(good, inputs)


def test_a_layer_is_named_by_its_weights_whatever_the_exporter_calls_its_scope():
    model = classifier("softmax", hidden="softmax")
    (finding,) = [each for each in actconform.lint(model, inputs=X).findings if each.code == "AC102"]
    first, second = (layer.path for layer in model.layers)
    assert finding.layer == first
    assert f"before the layer {second} (" in finding.message


def test_targets_are_held_against_the_range_of_the_output(tmp_path):
    np.save(tmp_path / "targets.npy", np.array([-0.5, 2.0]))
    assert "AC114" in codes_of(classifier("sigmoid", 1), targets=tmp_path / "targets.npy")
    assert "AC114" not in codes_of(classifier(None, 1), targets=tmp_path / "targets.npy")


def test_a_file_states_the_loss_that_it_was_compiled_with(tmp_path):
    model = classifier("softmax", loss=LOGITS)
    model.save(tmp_path / "model.keras")
    (loss,) = losses_of_config({"compile_config": model.get_compile_config()})
    assert (loss.kind, loss.expects) == ("cross-entropy", "logits")
    assert losses_of_model(model) == (loss,)
    result = actconform.lint(tmp_path / "model.keras")
    assert (result.kind, [finding.code for finding in result.findings]) == ("keras", ["AC111"])


@pytest.mark.parametrize(
    "config",
    [None, {}, {"compile_config": None}, {"compile_config": {"loss": 7}}, {"compile_config": {"loss": "mine"}}],
)
def test_a_config_without_a_loss_that_is_known_states_none(config):
    assert losses_of_config(config) == ()


@pytest.mark.parametrize("make", [keras_architectures.small_net, keras_architectures.recurrent])
def test_a_well_formed_architecture_has_a_clean_bill(make):
    model, example = make()
    result = actconform.lint(model, inputs=example)
    assert [(finding.code, finding.message) for finding in result.findings if finding.severity != "note"] == []
