"""Keras models linted through their export: each mistake with a model like it that has none, files and the losses they state."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import actconform
from actconform.linting.registry import OWN_RULES
from actconform_keras.training_losses import losses_of_config, losses_of_model
from benchmarks import keras_architectures

DOCUMENT = Path(__file__).parents[3] / "docs" / "lint.md"
X = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)


def classifier(last, units: int = 3, hidden="relu", loss=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, hidden), layers.Dense(units, last, bias_initializer="ones")]
    )
    if loss is not None:
        model.compile(loss=loss)
    return model


def function(call, shape=(4,), dtype="float32"):
    keras.utils.set_random_seed(3)
    x = keras.Input(shape, dtype=dtype)
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


def weighted(weight: float, dtype: str = "float32"):
    model = function(layers.Dense(3, dtype=dtype), dtype=dtype)
    kernel, offset = model.layers[-1].get_weights()
    kernel[0, 0] = weight
    model.layers[-1].set_weights([kernel, offset])
    return model


def by_root_of_squares(epsilon: float):
    def call(x):
        return x / keras.ops.sqrt(keras.ops.mean(x * x, -1, keepdims=True) + np.float16(epsilon))

    return function(call, dtype="float16")


def slopes(*numbers: float):
    def call(x):
        for slope in numbers:
            x = layers.LeakyReLU(slope)(layers.Dense(4)(x))
        return x

    return function(call)


def normalized_softmax(activation: str):
    def call(x):
        x = layers.LayerNormalization()(layers.Activation("relu")(layers.Dense(8, activation)(x)))
        return layers.Dense(3, bias_initializer="ones")(x)

    return function(call)


LOGITS = keras.losses.CategoricalCrossentropy(from_logits=True)
CASES = {
    "AC101": (lambda: classifier("softmax", 1), lambda: classifier("sigmoid", 1)),
    "AC102": (lambda: normalized_softmax("softmax"), lambda: normalized_softmax("tanh")),
    "AC103": (
        lambda: function(lambda x: layers.Softmax()(2 * layers.Dense(3, "softmax")(x))),
        lambda: function(lambda x: layers.Softmax()(2 * layers.Dense(3, "tanh")(x))),
    ),
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
    "AC114": (lambda: classifier("sigmoid", 1), lambda: classifier(None, 1)),
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
    "AC206": (lambda: weighted(np.inf, "float16"), lambda: weighted(0.5, "float16")),
    "AC207": (lambda: by_root_of_squares(1e-9), lambda: by_root_of_squares(1e-3)),
    "AC208": (lambda: classifier("softmax"), lambda: classifier("softmax")),
    "AC209": (
        lambda: function(lambda x: layers.LeakyReLU(0.01)(layers.Dense(3)(x))),
        lambda: function(lambda x: layers.LeakyReLU()(layers.Dense(3)(x))),
    ),
    "AC210": (lambda: slopes(0.3, 0.3, 0.1, 0.3, 0.3), lambda: slopes(0.3, 0.3, 0.3, 0.3, 0.3)),
    "AC211": (lambda: weighted(np.nan), lambda: weighted(0.5)),
}
INPUTS = {"AC203": np.ones((40, 4, 2), np.float32), "AC206": X.astype(np.float16), "AC207": X.astype(np.float16)}


def options_for(code: str, folder: Path, *, mended: bool):
    """Return what else a lint is given: targets, or a runtime that refuses every graph, or takes every graph."""
    if code == "AC114":
        np.save(folder / "targets.npy", np.array([-0.5, 2.0]))
        return {"targets": folder / "targets.npy"}
    if code == "AC208":
        script = "cp $1/x.npy $2/y.npy" if mended else "echo this opset is too new; exit 1"
        command = f"sh -c '{script}' {{model}} {{inputs}} {{outputs}}"
        (folder / "runtime.toml").write_text(f'[backends.old]\ncommand = "{command}"\n')
        return {"runtimes": ["old"], "config": folder / "runtime.toml"}
    return {}


def test_the_table_has_every_rule_but_those_that_the_document_says_cannot_apply():
    (row,) = [line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith("| Keras model |")]
    assert all((rule.code in CASES) != (rule.code in row) for rule in OWN_RULES)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1 of a tensor of shape")
@pytest.mark.parametrize("code", CASES)
def test_a_mistake_is_found_and_its_mended_twin_is_not_accused(tmp_path, code):
    bad, good = (make() for make in CASES[code])
    inputs = INPUTS.get(code, X)
    assert code in codes_of(bad, inputs, **options_for(code, tmp_path, mended=False))
    assert code not in codes_of(good, inputs, **options_for(code, tmp_path, mended=True))


def test_a_layer_is_named_by_its_weights_whatever_the_exporter_calls_its_scope():
    model = classifier("softmax", hidden="softmax")
    (finding,) = [each for each in actconform.lint(model, inputs=X).findings if each.code == "AC102"]
    first, second = (layer.path for layer in model.layers)
    assert finding.layer == first
    assert f"before the layer {second} (" in finding.message


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
