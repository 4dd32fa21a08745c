"""Whole models: gradients against complex steps through independent activations, shapes, and what the models must show."""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

from actconform.catalog.models.builder import describe, layer
from actconform.catalog.models.feedforward import autoencoder
from actconform.catalog.models.layer_kinds import KINDS
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.errors import DescriptionError, Unsupported
from actconform.oracle.layers.model import gradients, layer_value, values
from actconform.oracle.layers.registry import LAYERS, layer_formula
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import LOSS, Input

MODELS = {model.name: model for model in networks()}
SMALL = [name for name in MODELS if PUBLISHED not in name]


def softmax(z):
    e = np.exp(z - z.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def maxout(z):
    pairs = z.reshape(*z.shape[:-1], -1, 2)
    return np.where(pairs[..., 0].real >= pairs[..., 1].real, pairs[..., 0], pairs[..., 1])


# Written as the text-books do, for complex numbers: nothing here is ours.
ACTIVATIONS = {
    "linear": lambda z: z,
    "relu": lambda z: np.where(z.real >= 0, z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "softplus": lambda z: np.log1p(np.exp(z)),
    "softsign": lambda z: z / (1 + np.where(z.real >= 0, z, -z)),
    "elu": lambda z: np.where(z.real >= 0, z, np.exp(z) - 1),
    "gelu-erf": lambda z: z / 2 * (1 + scipy.special.erf(z / math.sqrt(2))),
    "softmax": softmax,
    "maxout": maxout,
}


@pytest.fixture
def text_book_activations(monkeypatch):
    def forward(reading):
        return ACTIVATIONS[reading.layer.settings["kernel"]](reading.inputs[0])

    monkeypatch.setitem(LAYERS, "activation", LAYERS["activation"]._replace(forward=forward))


def tensors_of(model):
    drawn = {**draw_inputs(model), **draw_parameters(model)}
    return {name: array.astype(np.float64) for name, array in drawn.items()}


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_a_model_are_those_of_complex_steps(name, text_book_activations):
    """Along one random direction for each input and parameter: exact to rounding, and to nothing that the gradients use."""
    model, rng = MODELS[name], np.random.default_rng(1)
    tensors = tensors_of(model)
    d = gradients(model, tensors, values(model, tensors))
    assert tuple(d) == model.differentiable
    for key, ours in d.items():
        assert ours.shape == tensors[key].shape, key
        assert ours.dtype == np.float64
        direction = rng.normal(size=ours.shape)
        stepped = values(model, {**tensors, key: tensors[key] + 1e-30j * direction})[LOSS].imag / 1e-30
        # the bias of an attention's keys shifts all scores of a row alike: its gradient is 0, or what rounding leaves
        assert_allclose(np.sum(ours * direction), stepped, rtol=1e-10, atol=1e-14, err_msg=key)


@pytest.mark.parametrize("name", SMALL)
def test_gradients_of_a_model_are_those_of_central_differences(name):
    """Along one direction of all that is differentiable; between kinks, which a step this short seldom crosses."""
    model, rng = MODELS[name], np.random.default_rng(2)
    tensors = tensors_of(model)
    d = gradients(model, tensors, values(model, tensors))
    direction = {key: rng.normal(size=array.shape) for key, array in d.items()}

    def loss(step):
        return values(model, {**tensors, **{key: tensors[key] + step * direction[key] for key in d}})[LOSS]

    slope = sum(np.sum(d[key] * direction[key]) for key in d)
    assert_allclose(slope, (loss(1e-6) - loss(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", SMALL)
def test_values_of_a_model_have_the_shapes_that_its_description_works_out(name):
    model = MODELS[name]
    found = values(model, tensors_of(model))
    assert list(found) == [one.name for one in model.layers]
    for key, array in found.items():
        assert array.shape == (() if key == LOSS else (model.batch, *model.shapes[key])), key
        assert np.isfinite(array).all(), key


def test_float32_tensors_are_taken_as_the_numbers_they_are():
    model = MODELS["attention-block"]
    drawn = {**draw_inputs(model), **draw_parameters(model)}
    assert all(array.dtype == np.float32 for array in drawn.values())
    single, double = values(model, drawn), values(model, tensors_of(model))
    for key in single:
        assert single[key].dtype == np.float64
        assert_array_equal(single[key], double[key])


def test_one_layer_can_be_computed_from_what_it_reads():
    model = MODELS["blobs-mlp"]
    tensors = tensors_of(model)
    found = values(model, tensors)
    upstream = found["act1"].astype(np.float32)
    y = layer_value(model, model.layer("dense2"), {**tensors, "act1": upstream})
    assert_allclose(y, upstream @ tensors["dense2.kernel"] + tensors["dense2.bias"], rtol=1e-14)


def test_a_touched_value_is_what_later_layers_read():
    model = MODELS["linear-stack"]
    tensors = tensors_of(model)
    found = values(model, tensors, lambda name, value: value * (name != "dense2"))
    assert not found["dense2"].any()
    assert found["dense1"].any()
    assert_array_equal(found["dense3"], np.broadcast_to(tensors["dense3.bias"], (4, 3)))


def test_a_touched_cotangent_is_what_earlier_layers_get():
    model = MODELS["linear-stack"]
    tensors = tensors_of(model)
    d = gradients(model, tensors, values(model, tensors), lambda name, g: g * (name != "dense2"))
    assert {key for key, array in d.items() if not array.any()} == {
        *("x", "dense1.kernel", "dense1.bias", "dense2.kernel", "dense2.bias")
    }


def test_masks_noise_targets_and_running_statistics_have_no_gradient():
    trained = MODELS["regression-softmax-hidden@training"]
    d = gradients(trained, tensors_of(trained), values(trained, tensors_of(trained)))
    assert not {"mask1", "target"} & set(d)
    cnn = MODELS["image-cnn-softmax2"]
    assert not {"norm1.mean", "norm1.variance"} & set(gradients(cnn, tensors_of(cnn), values(cnn, tensors_of(cnn))))


def test_a_nan_is_first_seen_in_the_layer_that_makes_it():
    model = MODELS["autoencoder-relu"]
    tensors = tensors_of(model)
    tensors["conv3.kernel"][0, 0, 0, 0] = np.nan
    found = values(model, tensors)
    first = next(name for name, array in found.items() if np.isnan(array).any())
    assert first == "conv3"
    assert np.isnan(found[LOSS])


@pytest.mark.parametrize(
    ("name", "trained"),
    [("mlp-softmax", 438_017), ("mlp-relu", 438_017), ("regression-softmax-hidden", 487_221)],
)
def test_published_models_have_the_parameters_of_their_texts(name, trained):
    parameters = MODELS[name + PUBLISHED].parameters
    assert sum(math.prod(one.shape) for one in parameters) == trained


@pytest.mark.parametrize("head", ["sigmoid", "relu", "linear"])
def test_the_autoencoder_as_written_loses_four_columns_and_does_not_fit_its_input(head):
    model = autoencoder(head, published=True, as_written=True)
    assert model.shapes["head"] == (1, 196, 4)
    assert autoencoder(head, published=True).shapes["head"] == (1, 200, 4)
    wide = [msgspec.structs.replace(one, shape=(1, 200, 4)) for one in model.inputs]
    refused = (
        r"layer loss \(mean-absolute-error\).* \[1, 196, 4\], \[1, 200, 4\] .*expected prediction and target of one"
    )
    with pytest.raises(DescriptionError, match=refused):
        describe(model.name, model.source, wide, model.layers, output="head", batch=model.batch)


def test_a_softmax_of_one_unit_is_1_and_cannot_learn():
    model = MODELS["image-cnn-softmax1"]
    tensors = tensors_of(model)
    found = values(model, tensors)
    assert_array_equal(found["head"], np.ones((model.batch, 1)))
    assert not any(array.any() for array in gradients(model, tensors, found).values())


@pytest.mark.parametrize("head", ["sigmoid", "softmax2"])
def test_a_sigmoid_or_a_softmax_of_two_units_can_learn(head):
    model = MODELS[f"image-cnn-{head}"]
    tensors = tensors_of(model)
    assert all(array.any() for array in gradients(model, tensors, values(model, tensors)).values())


def test_a_stack_of_linear_layers_is_linear():
    model = MODELS["linear-stack"]
    tensors = tensors_of(model)
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, *tensors["x"].shape))

    def y(x):
        return values(model, {**tensors, "x": x})[model.output]

    assert_allclose(y(2 * a - 3 * b) - y(0 * a), 2 * (y(a) - y(0 * a)) - 3 * (y(b) - y(0 * b)), atol=1e-12)


def test_a_kind_without_formula_is_refused_and_a_second_formula_too():
    model = MODELS["linear-stack"]
    strange = msgspec.structs.replace(model.layers[0], kind="recurrent")
    with pytest.raises(
        Unsupported, match=r"layer dense1: kind recurrent has no float64 formula: .*layer_formula\('recur"
    ):
        layer_value(model, strange, tensors_of(model))
    with pytest.raises(ValueError, match="two formulas for layers of kind 'dense'"):
        layer_formula("dense", vjp=LAYERS["dense"].vjp)(LAYERS["dense"].forward)


def test_every_kind_is_named_in_a_test_of_its_formulas():
    texts = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    untested = [kind for kind in KINDS if not re.search(rf"(?<![\w-]){kind}(?![\w-])", texts)]
    assert not untested, f"no test in tests/oracle/layers holds {untested} to complex steps or another library"


def test_a_layer_read_twice_gets_both_cotangents():
    x = Input(name="x", shape=(3,), draw="normal")
    layers = [
        layer("twice", "affine", "x", scale=2.0),
        layer("square", "multiply", "twice", "twice"),
        layer("sum", "add", "square", "twice"),
        layer("loss", "mean-squared-error", "sum", "target"),
    ]
    target = Input(name="target", shape=(3,), draw="normal", role="target")
    model = describe("fork", "a test", [x, target], layers, output="sum", batch=1)
    tensors = {"x": np.array([[1.0, -2.0, 0.5]]), "target": np.zeros((1, 3))}
    # loss = mean (4 x^2 + 2 x)^2
    expected = 2 / 3 * (4 * tensors["x"] ** 2 + 2 * tensors["x"]) * (8 * tensors["x"] + 2)
    assert_allclose(gradients(model, tensors, values(model, tensors))["x"], expected, rtol=1e-14)
