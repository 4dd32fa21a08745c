"""Error bounds of recurrent layers, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FLOAT = TensorProto.FLOAT


def _inputs(op_type, *, steps=5, batch=3, size=4, hidden=6, directions=1, lengths=None, peepholes=False, scale=1.0):
    rng = np.random.default_rng(0)
    gates = GATES[op_type] * hidden
    shapes = [(steps, batch, size), (directions, gates, size), (directions, gates, hidden), (directions, 2 * gates)]
    inputs = [(scale * rng.standard_normal(shape)).astype(np.float32) for shape in shapes]
    inputs.append(None if lengths is None else np.array(lengths, np.int32))
    states = 2 if op_type == "LSTM" else 1
    inputs += [rng.standard_normal((directions, batch, hidden)).astype(np.float32) for _ in range(states)]
    if peepholes:
        inputs.append(rng.standard_normal((directions, 3 * hidden)).astype(np.float32))
    return inputs


def _layer(node, op_type, inputs, **attributes):
    outputs = [FLOAT] * (3 if op_type == "LSTM" else 2)
    hidden = inputs[2].shape[-1]
    return node(op_type, output_types=outputs, hidden_size=hidden, **attributes)


LAYERS = [
    ("LSTM", {}),
    ("LSTM", {"input_forget": 1}),
    ("LSTM", {"clip": 0.5}),
    ("GRU", {}),
    ("GRU", {"linear_before_reset": 1}),
    ("GRU", {"clip": 0.7}),
    ("RNN", {}),
    ("RNN", {"clip": 0.5}),
]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op_type", "attributes"), LAYERS, ids=str)
def test_recurrent_layers(node, share, passes_on, op_type, attributes, direction):
    directions = 2 if direction == "bidirectional" else 1
    inputs = _inputs(op_type, directions=directions, lengths=[5, 2, 3], peepholes=op_type == "LSTM")
    layer = _layer(node, op_type, inputs, direction=direction, **attributes)
    results = layer.runtime(inputs)
    for bound, real in zip(layer.bounds(inputs), layer.real(inputs), strict=True):
        np.testing.assert_allclose(bound.value, real, rtol=1e-12, atol=1e-15)
    for observed in ((), results):
        for result, bound in zip(results, layer.bounds(inputs, observed=observed), strict=True):
            assert share(result, bound) <= 1
            assert np.isfinite(bound.error).all()
    passes_on(layer, inputs, relative=1e-5)


ACTIVATIONS = [
    ("Relu", {}),
    ("LeakyRelu", {"activation_alpha": [0.2]}),
    ("ThresholdedRelu", {"activation_alpha": [0.3]}),
    ("ScaledTanh", {"activation_alpha": [1.7], "activation_beta": [0.6]}),
    ("HardSigmoid", {"activation_alpha": [0.3], "activation_beta": [0.4]}),
    ("Elu", {"activation_alpha": [0.7]}),
    ("Affine", {"activation_alpha": [0.5], "activation_beta": [0.25]}),
    ("Softsign", {}),
    ("Softplus", {}),
    ("Sigmoid", {}),
]


@pytest.mark.parametrize(("activation", "parameters"), ACTIVATIONS, ids=str)
def test_activations_against_onnx_runtime(node, share, activation, parameters):
    inputs = _inputs("RNN", scale=0.5)
    layer = _layer(node, "RNN", inputs, activations=[activation], **parameters)
    results = layer.runtime(inputs)
    for observed in ((), results):
        for result, bound in zip(results, layer.bounds(inputs, observed=observed), strict=True):
            assert share(result, bound) <= 1


def test_parameters_of_activations_are_taken_in_order(node, share):
    inputs = _inputs("GRU", directions=2, scale=0.5)
    names = ["HardSigmoid", "Tanh", "Sigmoid", "LeakyRelu"]
    layer = _layer(
        node,
        "GRU",
        inputs,
        direction="bidirectional",
        activations=names,
        activation_alpha=[0.3, 0.1],
        activation_beta=[0.4],
    )
    for result, bound in zip(layer.runtime(inputs), layer.bounds(inputs), strict=True):
        assert share(result, bound) <= 1
    clamped = _inputs("RNN", scale=50)
    layer = _layer(node, "RNN", clamped, activations=["HardSigmoid"])
    (bound, _) = layer.bounds(clamped)
    saturated = (bound.value == 0) | (bound.value == 1)
    assert saturated.mean() > 0.3
    assert (bound.error[saturated] == 0).mean() > 0.9


@pytest.mark.parametrize("op_type", GATES)
def test_errors_do_not_pile_up_where_hidden_states_are_seen(node, share, op_type):
    inputs = _inputs(op_type, steps=60, batch=1, hidden=16, scale=2.0)
    layer = _layer(node, op_type, inputs)
    results = layer.runtime(inputs)
    unseen, seen = layer.bounds(inputs)[0], layer.bounds(inputs, observed=results)[0]
    assert share(results[0], seen) <= 1
    assert seen.error.max() < 1e-3
    assert unseen.error.max() > 100 * seen.error.max()


@pytest.mark.parametrize("op_type", GATES)
def test_layers_in_16_bits_round_once_or_keep_wide_states(node, share, op_type):
    halves = [None if each is None else each.astype(np.float16) for each in _inputs(op_type, scale=0.5)]
    layer = _layer(node, op_type, halves)._replace(output_types=[TensorProto.FLOAT16] * (3 if op_type == "LSTM" else 2))
    wide = [each.astype(np.float16) for each in layer.real(halves)]
    for observed in ((), wide):
        for result, bound in zip(wide, layer.bounds(halves, observed=observed), strict=True):
            assert share(result, bound) <= 1


def _needed(layer, faulty, inputs, faulty_inputs, share):
    results = faulty.runtime(faulty_inputs)
    return max(
        share(result, bound) for result, bound in zip(results, layer.bounds(inputs, observed=results), strict=True)
    )


@pytest.mark.parametrize("op_type", GATES)
def test_faults_of_layers_exceed_the_bound(node, share, op_type):
    inputs = _inputs(op_type, steps=12, scale=0.5)
    layer = _layer(node, op_type, inputs)
    x, w, r, b, *more = inputs
    assert _needed(layer, layer, inputs, [x, w.astype(np.float16).astype(np.float32), r, b, *more], share) > 2
    assert (
        _needed(
            layer,
            layer,
            inputs,
            [x, w, r, np.concatenate([b[:, : b.shape[1] // 2], 0 * b[:, b.shape[1] // 2 :]], 1), *more],
            share,
        )
        > 1e3
    )
    if op_type != "RNN":
        swapped = np.concatenate([r[:, 6:12], r[:, :6], r[:, 12:]], 1)
        assert _needed(layer, layer, inputs, [x, w, swapped, b, *more], share) > 1e3
    if op_type == "GRU":
        before = _layer(node, op_type, inputs, linear_before_reset=1)
        assert _needed(layer, before, inputs, inputs, share) > 1e3
    backward = _layer(node, op_type, inputs, direction="reverse")
    assert _needed(layer, backward, inputs, inputs, share) > 1e3


def test_a_layer_with_the_batch_first(node, share):
    inputs = _inputs("LSTM", directions=2)
    turned = [
        each if each is None or each.ndim != 3 or i in {1, 2} else each.swapaxes(0, 1) for i, each in enumerate(inputs)
    ]
    layer = _layer(node, "LSTM", inputs, direction="bidirectional")
    first = _layer(node, "LSTM", turned, direction="bidirectional", layout=1)
    results = layer.runtime(inputs)
    observed = [results[0].transpose(2, 0, 1, 3), *(each.swapaxes(0, 1) for each in results[1:])]
    for result, bound in zip(observed, first.bounds(turned, observed=observed), strict=True):
        assert share(result, bound) <= 1
