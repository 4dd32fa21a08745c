"""Embeddings, LSTM and GRU against torch's own in float64 and complex steps, and worked values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import actconform.oracle.layers.recurrent  # noqa: F401  registers its kinds
from actconform.oracle.layers.registry import Reading, formula_of
from actconform.types.model import Layer

BATCH, STEPS, WIDTH, UNITS = 2, 4, 3, 5
GATES = {"lstm": 4, "gru": 3}
each = pytest.mark.parametrize("kind", GATES)


def read(kind, x, **parameters):
    return Reading(Layer(name="it", kind=kind, inputs=("x",)), [x], parameters, False)


def drawn(kind, steps=STEPS, scale=1.0):
    rng = np.random.default_rng(steps)
    gates = GATES[kind] * UNITS
    kernel, recurrent = (rng.normal(0, scale, (rows, gates)) for rows in (WIDTH, UNITS))
    bias = rng.normal(0, scale, (gates,) if kind == "lstm" else (2, gates))
    x = rng.normal(0, 1, (BATCH, steps, WIDTH))
    return read(kind, x, kernel=kernel, recurrent=recurrent, bias=bias), rng.normal(0, 1, (BATCH, steps, UNITS))


def value(reading):
    return formula_of(reading.layer).forward(reading)


def pulled(reading, g):
    """Return the cotangents of x, called 0, and of the parameters."""
    inputs, parameters = formula_of(reading.layer).vjp(reading, value(reading), g)
    return {0: inputs[0], **parameters}


def by_torch(kind, reading, g):
    """Return the states and the gradients of torch's own layer, whose gates of a GRU stand as r, z, n."""
    torch = pytest.importorskip("torch")
    own = {name: torch.tensor(array, requires_grad=True) for name, array in reading.parameters.items()}
    x = torch.tensor(reading.inputs[0], requires_grad=True)

    def gates(tensor):
        parts = tensor.chunk(GATES[kind], dim=-1)
        return torch.cat(parts if kind == "lstm" else (parts[1], parts[0], parts[2]), dim=-1)

    biases = (own["bias"], torch.zeros_like(own["bias"])) if kind == "lstm" else own["bias"].unbind()
    layer = getattr(torch.nn, kind.upper())(WIDTH, UNITS, batch_first=True, dtype=torch.float64)
    state = {"weight_ih_l0": gates(own["kernel"]).T, "weight_hh_l0": gates(own["recurrent"]).T}
    state |= {"bias_ih_l0": gates(biases[0]), "bias_hh_l0": gates(biases[1])}
    y = torch.func.functional_call(layer, state, (x,))[0]
    found = torch.autograd.grad(y, [x, *own.values()], torch.tensor(g))
    return y.detach().numpy(), {key: part.numpy() for key, part in zip((0, *own), found, strict=True)}


@each
@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_states_and_gradients_of_all_steps_are_those_of_torch(kind, steps):
    reading, g = drawn(kind, steps)
    y, wanted = by_torch(kind, reading, g)
    assert_allclose(value(reading), y, rtol=1e-12, atol=1e-13)
    found = pulled(reading, g)
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        assert_allclose(found[key], gradient, rtol=1e-11, atol=1e-12, err_msg=str(key))


@each
def test_gradients_are_those_of_complex_steps(kind):
    reading, g = drawn(kind)
    for key, found in pulled(reading, g).items():
        wanted = np.empty(found.shape)
        for index in np.ndindex(wanted.shape):
            inputs, parameters = [reading.inputs[0].astype(complex)], dict(reading.parameters)
            changed = inputs if key == 0 else parameters
            changed[key] = changed[key].astype(complex)
            changed[key][index] += 1e-30j
            stepped = value(reading._replace(inputs=inputs, parameters=parameters))
            wanted[index] = np.sum(g * stepped.imag) / 1e-30
        assert_allclose(found, wanted, rtol=1e-11, atol=1e-12, err_msg=str(key))


@each
def test_a_state_depends_on_earlier_steps_alone_and_on_its_own_example(kind):
    reading, g = drawn(kind)
    x = reading.inputs[0].copy()
    x[0, 2] = np.nan
    y, changed = value(reading), value(reading._replace(inputs=[x]))
    assert_array_equal(changed[0, :2], y[0, :2])
    assert np.isnan(changed[0, 2:]).all()
    assert_array_equal(changed[1], y[1])
    late = g * (np.arange(STEPS) == 1)[:, None]
    assert_array_equal(pulled(reading, late)[0][:, 2:], 0.0)


def test_an_lstm_whose_gates_are_open_counts():
    """All gates at 1 but for rounding, tanh(g) = 1: the cell grows by 1 a step."""
    gates = np.array([50.0, 50.0, 50.0, 50.0])
    reading = read("lstm", np.zeros((1, 3, 1)), kernel=np.zeros((1, 4)), recurrent=np.zeros((1, 4)), bias=gates)
    assert_allclose(value(reading)[0, :, 0], np.tanh([1.0, 2.0, 3.0]), rtol=1e-15)


def test_a_gru_resets_after_its_product():
    """With z = 0 and r = 1/2, n = tanh(b + (h u + c) / 2); b = 0 and c = 2 give tanh(1), then tanh((3 tanh(1) + 2) / 2)."""
    bias = np.array([[-800.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    recurrent = np.array([[0.0, 0.0, 3.0]])
    reading = read("gru", np.zeros((1, 2, 1)), kernel=np.zeros((1, 3)), recurrent=recurrent, bias=bias)
    with np.errstate(over="ignore"):
        states = value(reading)[0, :, 0]
    assert_allclose(states, [np.tanh(1.0), np.tanh((3 * np.tanh(1.0) + 2) / 2)], rtol=1e-15)


def test_an_embedding_adds_the_cotangents_of_all_places_of_an_id():
    table = np.arange(8.0).reshape(4, 2)
    reading = read("embedding", np.array([[3.0, 1.0, 3.0], [0.0, 3.0, 1.0]]), table=table)
    assert_array_equal(value(reading), [[[6, 7], [2, 3], [6, 7]], [[0, 1], [6, 7], [2, 3]]])
    g = np.arange(1.0, 13.0).reshape(2, 3, 2)
    found = pulled(reading, g)
    assert found[0] is None
    assert_array_equal(found["table"], [[7, 8], [3 + 11, 4 + 12], [0, 0], [1 + 5 + 9, 2 + 6 + 10]])


def test_an_id_beyond_the_table_is_refused():
    with pytest.raises(IndexError):
        value(read("embedding", np.array([[4.0]]), table=np.zeros((4, 2))))
