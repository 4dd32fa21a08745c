"""Normalization, dropout, activation and arithmetic against complex steps, torch in float64 and worked values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.normalization  # noqa: F401  registers its kinds
from actconform.errors import Unsupported
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import Layer

EPSILONS = (1e-5, 1e-3)


def read(kind, *inputs, parameters=None, training=False, **setting):
    names = tuple("abc"[: len(inputs)])
    return Reading(Layer(name="it", kind=kind, inputs=names, settings=setting), inputs, parameters or {}, training)


def value(reading):
    return formula_of(reading.layer).forward(reading)


def pulled(reading, g):
    return formula_of(reading.layer).vjp(reading, value(reading), g)


def slope(reading, g, index, where):
    """Return d (g . value) / d one element, input `index` or the parameter of that name, by a complex step."""
    inputs, parameters = list(reading.inputs), dict(reading.parameters)
    changed = parameters if isinstance(index, str) else inputs
    changed[index] = changed[index].astype(complex)
    changed[index][where] += 1e-30j
    stepped = reading._replace(inputs=inputs, parameters=parameters)
    return np.sum(g * value(stepped).imag) / 1e-30


def agree(reading, rng, rtol=1e-11):
    """Hold every cotangent that is given, element by element, to complex steps; return the cotangent and all that."""
    g = rng.normal(size=value(reading).shape)
    inputs, parameters = pulled(reading, g)
    given = {**{i: d for i, d in enumerate(inputs) if d is not None}, **parameters}
    for key, ours in given.items():
        stands = reading.parameters[key] if isinstance(key, str) else reading.inputs[key]
        assert ours.shape == stands.shape, key
        stepped = [slope(reading, g, key, where) for where in np.ndindex(stands.shape)]
        assert_allclose(ours.ravel(), stepped, rtol=rtol, atol=rtol, err_msg=str(key))
    return g, given


def norm(kind, x, rng, *, training=False, epsilon=1e-3):
    width = x.shape[-1]
    parameters = {"gamma": rng.uniform(0.5, 1.5, width), "beta": rng.normal(size=width)}
    if kind == "batch-norm":
        parameters |= {"mean": rng.normal(size=width), "variance": rng.uniform(0.1, 2, width)}
    return read(kind, x, parameters=parameters, training=training, epsilon=epsilon, momentum=0.99)


@st.composite
def arrays(draw):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    scale, offset = draw(st.sampled_from([(1.0, 0.0), (1e-2, 0.0), (30.0, 5.0)]))
    return rng, rng.normal(offset, scale, (2, *shape))


def held_to_torch(reading, y, leaves, rng):
    """Compare value and gradients with torch's `y` and what its backward pass leaves at `leaves`, by our keys."""
    import torch

    assert_allclose(value(reading), y.detach().numpy(), rtol=1e-12, atol=1e-12)
    g, ours = agree(reading, rng)
    y.backward(torch.tensor(g))
    assert set(ours) == set(leaves)
    for key, leaf in leaves.items():
        size = np.abs(ours[key]).max()
        assert_allclose(ours[key], leaf.grad.numpy(), rtol=1e-11, atol=1e-11 * max(size, 1), err_msg=str(key))


@settings(max_examples=30, deadline=None)
@given(arrays(), st.sampled_from(EPSILONS))
def test_layer_norm_agrees_with_torch_and_complex_steps(array, epsilon):
    torch = pytest.importorskip("torch")
    rng, x = array
    reading = norm("layer-norm", x, rng, epsilon=epsilon)
    leaves = {
        key: torch.tensor(tensor, requires_grad=True)
        for key, tensor in {0: x, "gamma": reading.parameters["gamma"], "beta": reading.parameters["beta"]}.items()
    }
    y = torch.nn.functional.layer_norm(leaves[0], x.shape[-1:], leaves["gamma"], leaves["beta"], epsilon)
    held_to_torch(reading, y, leaves, rng)


@settings(max_examples=30, deadline=None)
@given(arrays(), st.sampled_from(EPSILONS), st.booleans())
def test_batch_norm_agrees_with_torch_and_complex_steps(array, epsilon, training):
    """Mean and variance have no gradient: neither is among what is given."""
    torch = pytest.importorskip("torch")
    rng, x = array
    reading = norm("batch-norm", x, rng, epsilon=epsilon, training=training)
    leaves = {
        key: torch.tensor(tensor, requires_grad=True)
        for key, tensor in {0: x, "gamma": reading.parameters["gamma"], "beta": reading.parameters["beta"]}.items()
    }
    mean, variance = (torch.tensor(reading.parameters[name]) for name in ("mean", "variance"))
    y = torch.nn.functional.batch_norm(
        leaves[0].movedim(-1, 1), mean, variance, leaves["gamma"], leaves["beta"], training=training, eps=epsilon
    ).movedim(1, -1)
    held_to_torch(reading, y, leaves, rng)


def leaves_of(x, reading):
    torch = pytest.importorskip("torch")
    return {key: torch.tensor(tensor, requires_grad=True) for key, tensor in {0: x, **reading.parameters}.items()}


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("shape", [(2, 3, 6, 3), (1, 1, 8, 2), (3, 2, 2, 1)])
def test_group_norm_and_instance_norm_agree_with_torch_and_complex_steps(shape, epsilon):
    """Each image has its own mean and variance: of groups of channels side by side, or of each channel."""
    F, rng = pytest.importorskip("torch").nn.functional, np.random.default_rng(1)
    *pixels, channels, groups = shape
    x = rng.normal(0.5, 2.0, (2, *pixels, channels))
    parameters = {"gamma": rng.uniform(0.5, 1.5, channels), "beta": rng.normal(size=channels)}
    reading = read("group-norm", x, parameters=parameters, groups=groups, epsilon=epsilon)
    leaves = leaves_of(x, reading)
    y = F.group_norm(leaves[0].movedim(-1, 1), groups, leaves["gamma"], leaves["beta"], epsilon)
    held_to_torch(reading, y.movedim(1, -1), leaves, rng)
    if pixels != [1, 1]:  # torch refuses to normalize one number
        reading = read("instance-norm", x, parameters=parameters, epsilon=epsilon)
        leaves = leaves_of(x, reading)
        y = F.instance_norm(leaves[0].movedim(-1, 1), weight=leaves["gamma"], bias=leaves["beta"], eps=epsilon)
        held_to_torch(reading, y.movedim(1, -1), leaves, rng)


@settings(max_examples=20, deadline=None)
@given(arrays(), st.sampled_from(EPSILONS))
def test_rms_norm_agrees_with_torch_and_complex_steps(array, epsilon):
    rng, x = array
    reading = read("rms-norm", x, parameters={"gamma": rng.uniform(0.5, 1.5, x.shape[-1])}, epsilon=epsilon)
    leaves = leaves_of(x, reading)
    y = pytest.importorskip("torch").nn.functional.rms_norm(leaves[0], x.shape[-1:], leaves["gamma"], epsilon)
    held_to_torch(reading, y, leaves, rng)


@settings(max_examples=20, deadline=None)
@given(arrays(), st.sampled_from([1e-12, 1e9]))
def test_l2_normalize_agrees_with_torch_and_complex_steps(array, epsilon):
    """Where epsilon stands for the length, it is a constant."""
    rng, x = array
    reading = read("l2-normalize", x, epsilon=epsilon)
    leaves = leaves_of(x, reading)
    y = pytest.importorskip("torch").nn.functional.normalize(leaves[0], dim=-1, eps=epsilon)
    held_to_torch(reading, y, leaves, rng)


def test_a_row_of_zeros_has_no_direction_and_nan_stays_in_its_row():
    x = np.array([[0.0, 0.0], [3.0, np.nan], [3.0, 4.0]])
    y = value(read("l2-normalize", x, epsilon=1e-12))
    assert_array_equal(y[0], 0.0)
    assert np.isnan(y[1]).all()
    assert_allclose(y[2], [0.6, 0.8], rtol=1e-15)


def test_training_uses_the_biased_variance_of_the_whole_batch():
    x = np.array([1.0, 3.0, 5.0, 7.0]).reshape(2, 2, 1)
    parameters = {"gamma": np.ones(1), "beta": np.zeros(1), "mean": np.full(1, 100.0), "variance": np.full(1, 4.0)}
    trained = read("batch-norm", x, parameters=parameters, training=True, epsilon=0.0)
    assert_allclose(value(trained).ravel(), (x.ravel() - 4) / np.sqrt(5), rtol=1e-15)
    asked = trained._replace(training=False)
    assert_allclose(value(asked).ravel(), (x.ravel() - 100) / 2, rtol=1e-15)


def test_a_constant_row_is_normalized_to_beta_and_has_a_gradient():
    reading = norm("layer-norm", np.full((1, 4), 7.0), np.random.default_rng(0))
    assert_array_equal(value(reading)[0], reading.parameters["beta"])
    agree(reading, np.random.default_rng(1))


def test_what_is_normalized_in_training_ignores_a_shift_of_its_input():
    """So the gradient sums to zero over what the mean was taken of, and nearly so along the input."""
    rng = np.random.default_rng(2)
    x, g = rng.normal(size=(5, 3, 4)), rng.normal(size=(5, 3, 4))
    for kind, axes in (("batch-norm", (0, 1)), ("layer-norm", (2,))):
        d = pulled(norm(kind, x, rng, training=True), g).inputs[0]
        assert_allclose(d.sum(axis=axes), 0, atol=1e-13)


def test_dropout_scales_what_the_mask_keeps():
    x, mask = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.0, 1.0]])
    trained = read("dropout", x, mask, training=True, rate=0.25)
    assert_allclose(value(trained), [[4 / 3, 0, 4]], rtol=1e-15)
    d_x, d_mask = pulled(trained, np.array([[3.0, 5.0, 6.0]])).inputs
    assert_allclose(d_x, [[4, 0, 8]], rtol=1e-15)
    assert d_mask is None
    agree(trained, np.random.default_rng(0))


@pytest.mark.parametrize("masks", [0, 1])
def test_dropout_changes_nothing_at_inference(masks):
    x, g = np.array([[1.0, -2.0]]), np.array([[3.0, 5.0]])
    reading = read("dropout", x, *[np.zeros((1, 2))] * masks, rate=0.5)
    assert_array_equal(value(reading), x)
    vjp_artifact = pulled(reading, g).inputs
    assert_array_equal(vjp_artifact[0], g)
    assert [*vjp_artifact[1:]] == [None] * masks


def test_dropout_that_is_trained_without_a_mask_is_refused():
    with pytest.raises(ValueError, match=r"layer it \(dropout\) is trained and reads no mask: give it one"):
        value(read("dropout", np.ones((1, 2)), training=True, rate=0.5))


def test_activations_agree_with_torch():
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    functions = {
        "relu": F.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softplus": F.softplus,
        "softsign": F.softsign,
        "elu": F.elu,
        "gelu-erf": F.gelu,
        "softmax": lambda x: torch.softmax(x, -1),
        "log-softmax": lambda x: torch.log_softmax(x, -1),
        "maxout": lambda x: x.unflatten(-1, (-1, 2)).amax(-1),
        "glu": lambda x: F.glu(x, -1),
    }
    rng = np.random.default_rng(3)
    x = rng.normal(0, 2, (3, 5, 6))
    for kernel, function in functions.items():
        leaf = torch.tensor(x, requires_grad=True)
        y = function(leaf)
        reading = read("activation", x, kernel=kernel)
        assert_allclose(value(reading), y.detach().numpy(), rtol=1e-12, atol=1e-12, err_msg=kernel)
        g = rng.normal(size=y.shape)
        y.backward(torch.tensor(g))
        assert_allclose(pulled(reading, g).inputs[0], leaf.grad.numpy(), rtol=1e-12, atol=1e-12, err_msg=kernel)


def test_worked_softmax():
    reading = read("activation", np.array([[3.0, 2.0, 1.0, 0.1], [2.0, 4.3, 1.2, -3.1]]), kernel="softmax")
    expected = [
        [0.64175051, 0.23608682, 0.08685149, 0.03531118],
        [8.74920632e-02, 8.72661802e-01, 3.93127181e-02, 5.33416936e-04],
    ]
    assert_allclose(value(reading), expected, rtol=1e-8, atol=5e-9)


def test_a_sigmoid_is_a_softmax_of_two_units():
    z = np.linspace(-50, 50, 101)[:, np.newaxis]
    both = value(read("activation", np.concatenate([z, np.zeros_like(z)], axis=1), kernel="softmax"))
    assert_allclose(both[:, :1], value(read("activation", z, kernel="sigmoid")), rtol=1e-14)


def test_activations_that_cannot_be_are_refused():
    x = np.ones((1, 4))
    with pytest.raises(Unsupported, match=r"layer it: no built-in kernel is called 'sotfmax'; did you mean .*softmax"):
        value(read("activation", x, kernel="sotfmax"))
    with pytest.raises(Unsupported, match="layer it: kernel prelu has inputs beside x"):
        value(read("activation", x, kernel="prelu"))
    with pytest.raises(Unsupported, match="hardmax has no gradient"):
        pulled(read("activation", x, kernel="hardmax"), x)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (2, 1)), ((2, 1, 3), (2, 4, 1)), ((1, 1), (1, 3))])
@pytest.mark.parametrize(("kind", "function"), [("add", np.add), ("multiply", np.multiply)])
def test_sums_and_products_are_broadcast(kind, function, shapes):
    rng = np.random.default_rng(4)
    a, b = (rng.normal(size=shape) for shape in shapes)
    reading = read(kind, a, b)
    assert_array_equal(value(reading), function(a, b))
    agree(reading, rng)


def test_affine_scales_and_shifts():
    reading = read("affine", np.array([[1.0, -2.0]]), scale=2.5, shift=-1.0)
    assert_array_equal(value(reading), [[1.5, -6.0]])
    agree(reading, np.random.default_rng(5))
    assert_array_equal(pulled(reading, np.array([[1.0, 2.0]])).inputs[0], [[2.5, 5.0]])
