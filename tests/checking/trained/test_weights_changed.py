"""One element of a trained weight changed in a graph, in every form in which exporters store weights: it is named, and no other weight is."""

from __future__ import annotations

import numpy as np
import pytest
from weight_graphs import GATES, compared, layer, node, numbers, onnx_gates

CHANGES = {
    "a thousandth": lambda value: value * np.float32(1.001),
    "the last bit": lambda value: np.nextafter(value, np.float32(np.inf)),
}


@pytest.fixture(params=CHANGES)
def change(request):
    return CHANGES[request.param]


def altered(array, place, change):
    """Return an array with one element changed."""
    array = array.copy()
    array[place] = change(array[place])
    return array


def assert_one_is_named(checks, parameter, place, value, change):
    """Assert that one weight alone is told to be another, at one place, and by how much."""
    others = {name: check for name, check in checks.items() if name != parameter}
    assert all(check.exact for check in others.values()), others
    check = checks[parameter]
    assert (check.state, check.kind, check.differing, check.place) == ("different", "one element", 1, place)
    assert check.largest_difference == abs(float(change(value)) - float(value))
    assert f"{value:.9g} was trained" in check.words


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("weight", ["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
def test_of_a_recurrent_layer(cell, directions, weight, change):
    size = GATES[cell][0] * 5
    shapes = {"weight_ih": (size, 6), "weight_hh": (size, 5), "bias_ih": (size,), "bias_hh": (size,)}
    suffixes = ("", "_reverse")[:directions]
    parameters = {
        f"rnn.{name}_l0{suffix}": numbers(10 * place + len(suffix), *shape)
        for suffix in suffixes
        for place, (name, shape) in enumerate(shapes.items())
    }
    stored = dict(parameters)
    name = f"rnn.{weight}_l0{suffixes[-1]}"
    place = (7, 2)[: parameters[name].ndim]
    stored[name] = altered(parameters[name], place, change)

    def stacked(part):
        return np.stack([onnx_gates(stored[f"rnn.{part}_l0{suffix}"], cell) for suffix in suffixes])

    constants = {
        "W": stacked("weight_ih"),
        "R": stacked("weight_hh"),
        "B": np.concatenate([stacked("bias_ih"), stacked("bias_hh")], 1),
    }
    checks, _ = compared(parameters, constants, [node(cell, "x", "W", "R", "B")])
    assert_one_is_named(checks, name, place, parameters[name][place], change)


@pytest.mark.parametrize("weight", ["kernel", "recurrent_kernel", "bias"])
def test_of_a_recurrent_layer_of_keras(weight, change):
    parameters = {
        "cell/kernel": numbers(1, 6, 20),
        "cell/recurrent_kernel": numbers(2, 5, 20),
        "cell/bias": numbers(3, 20),
    }
    name = f"cell/{weight}"
    place = (2, 7)[-parameters[name].ndim :]
    stored = parameters | {name: altered(parameters[name], place, change)}
    constants = {
        "W": onnx_gates(stored["cell/kernel"].T, "LSTM")[None],
        "R": onnx_gates(stored["cell/recurrent_kernel"].T, "LSTM")[None],
        "B": np.concatenate([onnx_gates(stored["cell/bias"], "LSTM"), np.zeros(20, np.float32)])[None],
    }
    checks, _ = compared(parameters, constants, [node("LSTM", "x", "W", "R", "B")])
    assert_one_is_named(checks, name, place, parameters[name][place], change)


def test_of_the_sum_of_two_biases(change):
    parameters = {f"rnn.bias_{name}_l0": numbers(i, 20) for i, name in enumerate(("ih", "hh"))}
    total = altered(sum(parameters.values()), 7, change)
    constants = {"B": np.concatenate([onnx_gates(total, "LSTM"), np.zeros(20, np.float32)])[None]}
    checks, _ = compared(parameters, constants, [node("LSTM", "x", "B")])
    for check in checks.values():
        assert (check.state, check.differing, check.place) == ("different", 1, (7,))
        assert "the sum of both biases" in check.words


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_of_a_merged_weight(axis, turned, change):
    parameters = {name: numbers(i, 6, 6) for i, name in enumerate("qkv")}
    stored = parameters | {"k": altered(parameters["k"], (4, 1), change)}
    merged = np.concatenate([array.T if turned else array for array in stored.values()], axis)
    checks, _ = compared(parameters, {"qkv": merged})
    assert_one_is_named(checks, "k", (4, 1), parameters["k"][4, 1], change)


@pytest.mark.parametrize("axis", [0, 1])
def test_of_a_weight_that_is_split(axis, change):
    weight = numbers(1, 24, 24)
    pieces = dict(zip("qkv", np.split(weight, 3, axis), strict=True))
    place = (18, 3) if axis == 0 else (3, 18)
    pieces["v"] = altered(pieces["v"], (2, 3) if axis == 0 else (3, 2), change)
    checks, _ = compared({"in_proj": weight, "other": numbers(2, 8, 24)}, {**pieces, "other": numbers(2, 8, 24)})
    assert_one_is_named(checks, "in_proj", place, weight[place], change)
    assert checks["in_proj"].initializers == ("q", "k", "v")


def test_of_the_second_copy_of_a_weight(change):
    weight = numbers(1, 11, 8)
    parameters = {"e.weight": weight, "l.weight": weight}
    constants = {"e.weight": weight, "turned": altered(weight, (3, 5), change).T}
    nodes = [node("Gather", "e.weight", "x"), node("MatMul", "y", "turned")]
    checks, _ = compared(parameters, constants, nodes)
    (check,) = [check for check in checks.values() if not check.exact]
    assert (check.state, check.differing, check.place) == ("different", 1, (3, 5))
    assert "second copy, turned" in check.words
    assert all(check.exact for check in compared(parameters, constants | {"turned": weight.T}, nodes)[0].values())


def test_of_a_weight_that_was_repeated(change):
    bias = numbers(1, 16)
    repeated = np.stack([bias, bias])[None]
    assert compared({"bias": bias}, {"repeated": repeated})[0]["bias"].exact
    checks, _ = compared({"bias": bias}, {"repeated": altered(repeated, (0, 1, 4), change)})
    assert_one_is_named(checks, "bias", (4,), bias[4], change)


def test_of_a_lone_number(change):
    parameters = {"last.bias": numbers(1, 1), "last.weight": numbers(2, 1, 8)}
    constants = {**parameters, "last.bias": altered(parameters["last.bias"], 0, change)}
    checks, _ = compared(parameters, constants)
    assert_one_is_named(checks, "last.bias", (0,), parameters["last.bias"][0], change)


@pytest.mark.parametrize("place", ["weight", "shift"])
@pytest.mark.parametrize("biased", [False, True])
def test_of_a_folded_batch_norm(place, biased):
    rng = np.random.default_rng(5)
    weight, bias = numbers(1, 6, 3, 3, 3), numbers(2, 6) if biased else np.zeros(6, np.float32)
    gamma, beta, mean = (rng.normal(1, 0.3, 6).astype(np.float32) for _ in range(3))
    variance = rng.uniform(0.1, 2, 6).astype(np.float32)
    norm = {"bn.weight": gamma, "bn.bias": beta, "bn.running_mean": mean, "bn.running_var": variance}
    parameters = {"conv.weight": weight} | ({"conv.bias": bias} if biased else {}) | norm
    factor = gamma / np.sqrt(variance + np.float32(1e-5))
    constants = {"W": weight * factor[:, None, None, None], "B": beta + (bias - mean) * factor}
    layers = [
        layer("conv", "Conv2d", "weight", *(["bias"] if biased else [])),
        layer("bn", "BatchNorm2d", "weight", "bias", "running_mean", "running_var", reads=1, gives=2),
    ]
    nodes = [node("Conv", "x", "W", "B")]
    assert {check.state for check in compared(parameters, constants, nodes, layers)[0].values()} == {"folded"}
    changed, at = ("W", (2, 1, 0, 2)) if place == "weight" else ("B", (4,))
    constants[changed] = altered(constants[changed], at, CHANGES["a thousandth"])
    checks, _ = compared(parameters, constants, nodes, layers)
    (check,) = [check for check in checks.values() if check.state != "folded"]
    owner = "conv.weight" if place == "weight" else "conv.bias" if biased else "bn.bias"
    assert (check.parameter, check.state, check.differing, check.place) == (owner, "different", 1, at)
    assert check.largest_difference == pytest.approx(1e-3 * abs(constants[changed][at]), rel=0.01)
