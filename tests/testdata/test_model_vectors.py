"""A model's question: its truth is the golden, its limit lies above healthy float32 and below every injected fault."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

import actconform.testdata.model_vectors as room
from actconform.catalog.models.zoo import PUBLISHED, networks
from actconform.comparison.comparator import compare
from actconform.oracle.layers.model import gradients, values
from actconform.testdata.golden.model_goldens import VERIFIED, distance, rounding_scale
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.testdata.model_vectors import generate_model, perturbed
from actconform.types.model import LOSS, OUTPUT

if TYPE_CHECKING:
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types.model import Model

MODELS = {model.name: model for model in networks()}
SMALL = [name for name in MODELS if PUBLISHED not in name]
F32 = np.float32


@functools.cache
def exam_of(name: str, aspect: Any = "value", *, constants: bool = False) -> TestVectors:
    """Return the ordinary question alone."""
    return generate_model(MODELS[name], aspect, "f32", constants=constants, regimes=["ordinary"])


def tensors_of(model: Model) -> dict[str, Any]:
    return {**draw_inputs(model), **draw_parameters(model)}


def answer(model: Model, aspect: str, tensors: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a flawless implementation of `model` answers: float64, rounded once."""
    tensors = tensors or tensors_of(model)
    layers = values(model, tensors)
    found = {OUTPUT: layers[model.output], LOSS: layers[LOSS]}
    if aspect == "gradient":
        found = {f"d_{name}": array for name, array in gradients(model, tensors, layers).items()}
    return {name: np.asarray(array).astype(F32) for name, array in found.items()}


def findings(name: str, aspect: Any, got: dict[str, Any]) -> dict[str, set[str]]:
    """Return the classes of findings by tensor."""
    found: dict[str, set[str]] = {}
    for one in compare(exam_of(name, aspect), [got])[1]:
        found.setdefault(one.tensor, set()).add(one.class_)
    return found


def edited(model: Model, layer: str, **settings: Any) -> Model:
    layers = [
        msgspec.structs.replace(one, settings={**one.settings, **settings}) if one.name == layer else one
        for one in model.layers
    ]
    return msgspec.structs.replace(model, layers=tuple(layers))


# The question


@pytest.mark.parametrize("name", SMALL)
def test_the_truth_is_the_golden(name: str) -> None:
    model = MODELS[name]
    golden = load(golden_dir(), read_manifest(golden_dir()), name)
    stored = next(golden.split())[1]
    (value,), (gradient,) = exam_of(name).vectors, exam_of(name, "gradient").vectors
    wanted = {OUTPUT: stored[f"layer.{model.output}"], LOSS: stored[f"layer.{LOSS}"]}
    assert value.truth.keys() == wanted.keys()
    assert gradient.truth.keys() == {f"d_{one}" for one in model.differentiable}
    for tensor, truth in {**value.truth, **gradient.truth}.items():
        expected = wanted.get(tensor, stored.get(tensor))
        assert truth.shape == expected.shape
        assert distance(truth, expected, rounding_scale(tensor, stored)) <= VERIFIED, tensor
    for tensor, array in {**value.inputs, **gradient.inputs}.items():
        assert array.dtype == F32
        assert array.tobytes() == stored[tensor].tobytes()


def test_a_case_is_asked_of_every_input_and_parameter_and_gradients_begin_with_a_loss_of_1() -> None:
    model = MODELS["regression-softmax-hidden@training"]
    names = [one.name for one in (*model.inputs, *model.parameters)]
    (value,), (gradient,) = exam_of(model.name).vectors, exam_of(model.name, "gradient").vectors
    assert list(value.inputs) == list(gradient.inputs) == names
    assert (value.regime, value.cotangents) == ("ordinary", None)
    assert gradient.cotangents is not None
    assert {name: float(array) for name, array in gradient.cotangents.items()} == {LOSS: 1.0}
    assert gradient.cotangents[LOSS].dtype == F32


def test_a_graph_that_holds_its_parameters_is_asked_for_y_alone_and_given_no_target() -> None:
    (vector,) = exam_of("regression-softmax-hidden@training", constants=True).vectors
    assert list(vector.inputs) == ["x", "mask1", "mask2", "mask3", "mask4"]
    assert vector.truth.keys() == vector.bounds.keys() == vector.dtypes.keys() == {OUTPUT}
    whole = exam_of("regression-softmax-hidden@training").vectors[0]
    np.testing.assert_array_equal(vector.truth[OUTPUT], whole.truth[OUTPUT])
    np.testing.assert_array_equal(vector.bounds[OUTPUT], whole.bounds[OUTPUT])


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_the_limit_is_a_number_for_every_element_and_small(name: str, aspect: str) -> None:
    (vector,) = exam_of(name, aspect).vectors
    for tensor, bound in vector.bounds.items():
        assert bound.shape == vector.truth[tensor].shape
        assert np.isfinite(bound).all()
        assert (bound >= 0.0).all()
        # in float32, of what is left where numbers cancel: less than 1 in 10,000 of the layer's own scale
        layer = tensor.rpartition(".")[0]
        alike = [array for other, array in vector.truth.items() if other.rpartition(".")[0] == layer]
        assert bound.max() <= 1e-4 * max(np.abs(array).max() for array in alike), tensor


# What is healthy


def straight(model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute a perceptron in float32 throughout, as a framework does, with nothing of the oracle's."""
    known = tensors_of(model)
    for one in model.layers[:-1]:
        x = known[one.inputs[0]]
        if one.kind == "dense":
            known[one.name] = x @ known[f"{one.name}.kernel"] + known[f"{one.name}.bias"]
        elif one.settings["kernel"] == "relu":
            known[one.name] = np.maximum(x, F32(0))
        else:
            raised = np.exp(x - x.max(axis=1, keepdims=True))
            known[one.name] = raised / raised.sum(axis=1, keepdims=True)
    y, target = known[model.output], known["target"]
    if model.layers[-1].kind == "mean-squared-error":
        loss, g = np.mean((y - target) ** 2), F32(2) * (y - target) / F32(y.size)
    else:
        loss, g = np.mean(np.abs(y - target)), np.sign(y - target) / F32(y.size)
    d = {}
    for one in reversed(model.layers[:-1]):
        if one.kind == "dense":
            d[f"d_{one.name}.kernel"], d[f"d_{one.name}.bias"] = known[one.inputs[0]].T @ g, g.sum(axis=0)
            g = g @ known[f"{one.name}.kernel"].T
        elif one.settings["kernel"] == "relu":
            g = g * (known[one.name] > 0)
        else:
            s = known[one.name]
            g = s * (g - (g * s).sum(axis=1, keepdims=True))
    assert y.dtype == loss.dtype == g.dtype == F32
    return {OUTPUT: y, LOSS: np.asarray(loss)}, {"d_x": g, **d}


@pytest.mark.parametrize("name", ["mlp-relu", "mlp-softmax", "linear-stack"])
def test_a_plain_float32_evaluation_is_within_the_limit(name: str) -> None:
    value, gradient = straight(MODELS[name])
    assert findings(name, "value", value) == {}
    assert findings(name, "gradient", gradient) == {}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("aspect", ["value", "gradient"])
def test_a_truth_that_is_rounded_once_is_within_the_limit(name: str, aspect: str) -> None:
    assert findings(name, aspect, answer(MODELS[name], aspect)) == {}


# What is not


def test_the_other_formula_of_gelu_is_beyond_the_limit() -> None:
    block = MODELS["attention-block"]
    tanh = edited(block, "gelu", kernel="gelu-tanh")
    assert findings(block.name, "value", answer(tanh, "value")).keys() == {OUTPUT, LOSS}
    off = findings(block.name, "gradient", answer(tanh, "gradient"))
    assert {"d_wide.kernel", "d_narrow.kernel", "d_x"} <= off.keys()


def test_another_epsilon_is_beyond_the_limit() -> None:
    for name in ("regression-softmax-hidden", "attention-block"):
        epsilon = edited(MODELS[name], "norm2", epsilon=1e-3)
        assert OUTPUT in findings(name, "value", answer(epsilon, "value"))


@pytest.mark.parametrize("name", ["mlp-relu", "image-cnn-softmax2", "ntm-addressing", "multinomial-latent"])
def test_a_gradient_scaled_by_the_batch_is_beyond_the_limit_for_every_tensor(name: str) -> None:
    right = answer(MODELS[name], "gradient")
    summed = {tensor: array * F32(MODELS[name].batch) for tensor, array in right.items()}
    assert findings(name, "gradient", summed).keys() == {name for name, array in right.items() if array.any()}


@pytest.mark.parametrize("name", ["regression-softmax-hidden", "image-cnn-sigmoid", "attention-softmax", "maxout-mlp"])
def test_a_bias_that_is_missing_is_beyond_the_limit(name: str) -> None:
    model = MODELS[name]
    biases = [one.name for one in model.parameters if one.name.endswith(".bias")]
    for bias in biases:
        if name == "attention-softmax" and bias == "key.bias":
            continue  # it shifts all scores of a row alike: softmax does not see it
        tensors = tensors_of(model)
        tensors[bias] = np.zeros_like(tensors[bias])
        assert OUTPUT in findings(name, "value", answer(model, "value", tensors)), bias


def test_published_sizes_have_four_times_the_limit_and_still_find_a_bias_that_is_off() -> None:
    name = "blobs-mlp@published"
    model = MODELS[name]
    tensors = tensors_of(model)
    tensors["dense1.bias"] = tensors["dense1.bias"] + F32(1e-3)
    assert findings(name, "value", answer(model, "value", tensors)).keys() == {OUTPUT, LOSS}
    small = msgspec.structs.replace(model, name="blobs-mlp-of-five")
    (large,), (own, *_) = exam_of(name).vectors, generate_model(small, "value", "f32", constants=False).vectors
    ratio = large.bounds[LOSS] / large.truth[LOSS] / (own.bounds[LOSS] / own.truth[LOSS])
    assert 2.0 < ratio < 8.0  # other names draw other numbers


def test_softmax_of_one_unit_demands_gradients_of_exactly_zero() -> None:
    name = "image-cnn-softmax1"
    (vector,) = exam_of(name, "gradient").vectors
    for tensor, bound in vector.bounds.items():
        assert not vector.truth[tensor].any()
        assert not bound.any(), tensor
    right = answer(MODELS[name], "gradient")
    assert findings(name, "gradient", right) == {}
    tiny = {tensor: array + F32(1e-30) for tensor, array in right.items()}
    assert findings(name, "gradient", tiny).keys() == right.keys()


def test_a_gradient_that_cancels_to_zero_is_judged_by_the_scale_of_its_layer() -> None:
    (vector,) = exam_of("attention-block", "gradient").vectors
    tensor = "d_attention.k-bias"
    largest = np.abs(vector.truth["d_attention.q-bias"]).max()
    assert np.abs(vector.truth[tensor]).max() < 1e-12 * largest
    right = answer(MODELS["attention-block"], "gradient")
    for error, found in ((1e-8, set()), (1e-2, {tensor})):
        off = {**right, tensor: right[tensor] + F32(error * largest)}
        assert findings("attention-block", "gradient", off).keys() == found


# The perturbation


@pytest.mark.parametrize(
    ("name", "still"),
    [
        ("regression-softmax-hidden@training", {"target", "mask1", "mask2", "mask3", "mask4"}),
        ("multinomial-latent", {"target", "noise"}),
        ("image-cnn-sigmoid", {"target"}),  # running statistics are off too, though nothing trains them
    ],
)
def test_every_number_but_targets_and_noise_is_off_by_one_rounding(
    name: str, still: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS[name]
    tensors = tensors_of(model)
    unit = 2.0**-24
    seen: list[Any] = []

    def values_(model: Model, moved: Any, touch: Any) -> Any:
        seen.append((moved, touch))
        return values(model, moved, touch)

    monkeypatch.setattr(room, "values", values_)
    found = perturbed(model, "value", tensors, unit, 3)
    moved, touch = seen[0]
    assert moved.keys() == tensors.keys()
    for tensor, array in tensors.items():
        wide = array.astype(np.float64)
        if tensor in still:
            np.testing.assert_array_equal(moved[tensor], wide)
            continue
        shares = (moved[tensor][wide != 0] / wide[wide != 0] - 1.0) / unit
        np.testing.assert_allclose(np.abs(shares), 1.0, rtol=1e-6)
        assert shares.size < 10 or {1, -1} == set(np.sign(shares))
    ones = touch("some-layer", np.ones((4, 24)))
    np.testing.assert_allclose(np.abs(ones - 1.0), np.full((4, 24), unit))
    again = perturbed(model, "value", tensors, unit, 3)
    assert all(again[name].tobytes() == array.tobytes() for name, array in found.items())
    other = perturbed(model, "value", tensors, unit, 4)
    assert any(other[name].tobytes() != array.tobytes() for name, array in found.items())


def test_the_limit_follows_the_rounding_of_the_format() -> None:
    model = MODELS["linear-stack"]
    for dtype, unit in (("f32", 2.0**-24), ("f16", 2.0**-11), ("bf16", 2.0**-8)):
        test_vectors = generate_model(model, "value", dtype, constants=False)
        vector = test_vectors.vectors[0]
        share = float(vector.bounds[LOSS] / vector.truth[LOSS])
        assert 1.0 < share / unit < 100.0
        assert {str(array.dtype) for array in vector.inputs.values()} == {str(vector.dtypes[OUTPUT])}
