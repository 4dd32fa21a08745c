"""Attention and masks against torch's own in float64, complex steps, and scores where a plain softmax overflows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.attention  # noqa: F401  registers the kinds
from actconform.catalog.models.layer_kinds import KINDS
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import Layer

B, T, S, D, M = 2, 3, 4, 6, 5  # examples, queries, keys, their width, the values' width
CASES = {
    "attention": ("attention", {}, [(T, D), (S, D), (S, M)]),
    "attention-one-key": ("attention", {}, [(T, D), (1, D), (1, M)]),
    "attention-masked": ("attention", {}, [(T, D), (S, D), (S, M), (S,)]),
    "masked-softmax": ("masked-softmax", {}, [(S,), (S,)]),
    "masked-softmax-of-rows": ("masked-softmax", {}, [(T, S), (T, S)]),
    "heads-1": ("multi-head-attention", {"heads": 1}, [(T, D)]),
    "heads-2": ("multi-head-attention", {"heads": 2}, [(T, D)]),
    "heads-6": ("multi-head-attention", {"heads": 6}, [(T, D)]),
}
each = pytest.mark.parametrize("case", CASES)


def reading_of(kind, settings, inputs, parameters):
    return Reading(Layer(name="one", kind=kind, inputs=(), settings=settings), inputs, parameters, False)


def drawn(case, scale=1.0):
    """Return a reading, and a cotangent of its value."""
    kind, settings, shapes = CASES[case]
    rng = np.random.default_rng(len(case))
    layer = Layer(name="one", kind=kind, inputs=(), settings=settings)
    own = KINDS[kind].parameters(layer, shapes)
    parameters = {one.name.removeprefix("one."): rng.normal(0, 0.5, one.shape) for one in own}
    inputs = [rng.normal(0, scale, (B, *shape)) for shape in shapes]
    if "masked" in case:
        inputs[-1] = (rng.permuted(np.broadcast_to(np.arange(S), inputs[-1].shape), axis=-1) % 3 > 0).astype(float)
    reading = reading_of(kind, settings, inputs, parameters)
    return reading, rng.normal(0, 1, (B, *KINDS[kind].shape(layer, shapes)))


def forward(reading):
    return formula_of(reading.layer).forward(reading)


def pulled(reading, g):
    """Return the cotangents of inputs, by number, and parameters, by name."""
    found = formula_of(reading.layer).vjp(reading, forward(reading), g)
    return {n: d for n, d in enumerate(found.inputs) if d is not None} | dict(found.parameters)


def torch_answer(torch, reading, g):
    """Return the value, and gradients as `pulled` gives them, of torch's own attention."""
    masks = {"attention": 3, "masked-softmax": 1}.get(reading.layer.kind, 1)
    tensors = [torch.tensor(x, requires_grad=True) for x in reading.inputs[:masks]]
    mask = [torch.tensor(x).bool() for x in reading.inputs[masks:]]
    if reading.layer.kind != "multi-head-attention":
        if reading.layer.kind == "attention":
            y = torch.nn.functional.scaled_dot_product_attention(*tensors, *(keys[:, None] for keys in mask))
        else:
            y = tensors[0].masked_fill(~mask[0], -torch.inf).softmax(-1)
        return y.detach().numpy(), dict(enumerate(part.numpy() for part in torch.autograd.grad(y, tensors, g)))
    own = {name: torch.tensor(array) for name, array in reading.parameters.items()}
    heads = torch.nn.MultiheadAttention(D, reading.layer.settings["heads"], batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        heads.in_proj_weight.copy_(torch.cat([own[f"{one}-kernel"].T for one in "qkv"]))
        heads.in_proj_bias.copy_(torch.cat([own[f"{one}-bias"] for one in "qkv"]))
        heads.out_proj.weight.copy_(own["o-kernel"].T)
        heads.out_proj.bias.copy_(own["o-bias"])
    y = heads(*tensors * 3, need_weights=False)[0]
    y.backward(g)
    found = {0: tensors[0].grad.numpy(), "o-kernel": heads.out_proj.weight.grad.T.numpy()}
    found["o-bias"] = heads.out_proj.bias.grad.numpy()
    for number, one in enumerate("qkv"):
        rows = slice(number * D, (number + 1) * D)
        found[f"{one}-kernel"] = heads.in_proj_weight.grad[rows].T.numpy()
        found[f"{one}-bias"] = heads.in_proj_bias.grad[rows].numpy()
    return y.detach().numpy(), found


@each
def test_values_and_gradients_are_those_of_torch(case: str):
    torch = pytest.importorskip("torch")
    reading, g = drawn(case)
    y, wanted = torch_answer(torch, reading, torch.tensor(g))
    assert_allclose(forward(reading), y, rtol=1e-12, atol=1e-13)
    found = pulled(reading, g)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_allclose(found[name], gradient, rtol=1e-12, atol=1e-13, err_msg=str(name))


@each
def test_gradients_are_those_of_complex_steps(case: str):
    reading, g = drawn(case)
    for name, found in pulled(reading, g).items():
        wanted = np.empty(found.shape)
        for index in np.ndindex(wanted.shape):
            inputs = [x.astype(complex) for x in reading.inputs]
            parameters = {key: array.astype(complex) for key, array in reading.parameters.items()}
            (inputs if isinstance(name, int) else parameters)[name][index] += 1e-30j
            stepped = reading._replace(inputs=inputs, parameters=parameters)
            wanted[index] = np.sum(g * forward(stepped).imag) / 1e-30
        assert_allclose(found, wanted, rtol=1e-12, atol=1e-13, err_msg=str(name))


@each
def test_a_value_has_the_shape_that_its_kind_promises_and_examples_do_not_meet(case: str):
    reading, g = drawn(case)
    alone = reading._replace(inputs=[x[1:] for x in reading.inputs])
    assert forward(reading).shape == g.shape
    assert_allclose(forward(reading)[1:], forward(alone), rtol=1e-13, atol=1e-14)
    for number in range(len(reading.inputs)):
        if number in pulled(reading, g):
            assert_allclose(pulled(reading, g)[number][1:], pulled(alone, g[1:])[number], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", ["attention", "attention-masked", "masked-softmax", "heads-2"])
def test_scores_of_any_size_give_finite_numbers(case: str):
    reading, g = drawn(case, scale=1e4)
    with np.errstate(over="raise", invalid="raise"):
        y, found = forward(reading), pulled(reading, g)
    assert np.isfinite(y).all()
    assert all(np.isfinite(part).all() for part in found.values())


def test_a_query_far_along_one_key_reads_its_value():
    keys, values = np.eye(3)[None] * 1e3, np.arange(6.0).reshape(1, 3, 2)
    reading = reading_of("attention", {}, [np.array([[[0, 1e3, 0]]]), keys, values], {})
    assert_array_equal(forward(reading), values[:, 1:2])


def test_a_saturated_row_keeps_the_digits_of_its_gradient():
    # scores 0 and -40: weights 1 and e = exp(-40); their cotangents are -0.4 e and 0.4 e, the first lost in 0.3 - 0.3
    e = np.exp(-40.0)
    q, k, v = np.array([[[1.0]]]), np.array([[[0.0], [-40.0]]]), np.array([[[0.3], [0.7]]])
    found = pulled(reading_of("attention", {}, [q, k, v], {}), np.ones((1, 1, 1)))
    assert_allclose(found[0], [[[-40.0 * 0.4 * e]]], rtol=1e-12)
    assert_allclose(found[1], [[[-0.4 * e], [0.4 * e]]], rtol=1e-12)


def test_what_is_masked_is_not_read_whatever_it_is():
    reading, g = drawn("attention-masked")
    q, k, v, mask = reading.inputs
    odd = reading._replace(inputs=[q, np.where(mask[..., None] > 0, k, 1e3), v, mask])
    assert_array_equal(forward(odd), forward(reading))
    for number in (1, 2):
        assert_array_equal(pulled(reading, g)[number][mask == 0], 0.0)
    p, _ = drawn("masked-softmax")
    assert_allclose(forward(p).sum(-1), 1.0, rtol=1e-15)
    assert_array_equal(forward(p)[p.inputs[1] == 0], 0.0)


def test_equal_keys_give_the_mean_of_the_values():
    values = np.array([[[1.0], [5.0], [9.0]]])
    reading = reading_of("attention", {}, [np.ones((1, 2, 4)), np.ones((1, 3, 4)), values], {})
    assert_allclose(forward(reading), np.full((1, 2, 1), 5.0), rtol=1e-15)


def test_the_bias_of_the_keys_changes_nothing():
    reading, g = drawn("heads-2")
    other = reading._replace(parameters={**reading.parameters, "k-bias": reading.parameters["k-bias"] + 3.0})
    assert_allclose(forward(other), forward(reading), rtol=1e-12, atol=1e-13)
    assert_array_equal(pulled(reading, g)["k-bias"], np.zeros(D))
