"""What is said of layers that are no tensor of the graph, and which layer each node belongs to."""

from __future__ import annotations

import numpy as np
import pytest
from framework import Recorder, matched, partners
from small_models import made, numbers

from actconform.checking.trained.source_names import SCOPES
from actconform.types.trained import LayerRecord

X = numbers(0, 4, 16)
WIDE = X.astype(np.float64)
FACTOR = np.float32(1.5)


def scaled_twice(first="first", second="second"):
    """Return the run of two factors in a row and a tanh; the graph of `PRODUCT` has their product as one."""
    run = Recorder(WIDE)
    half = run.give(first, WIDE * FACTOR, WIDE)
    whole = run.give(second, half * FACTOR, half)
    return run.run(run.give("act", np.tanh(whole), whole))


PRODUCT = "(float[b, 16] x) => (float[b, 16] y) { m = Mul (x, f) y = Tanh (m) }"


def reasons(matching):
    return {gone.layer: gone.reason for gone in matching.unmatched}


def test_what_one_node_computes_is_folded():
    matching = matched(made(PRODUCT, {"f": FACTOR * FACTOR}), {"x": X}, scaled_twice())
    assert partners(matching) == {"second": "m", "act": "y"}
    assert reasons(matching) == {"first": "folded into second: the Mul Mul:m computes both"}
    assert matching.folded == ("first and second are one Mul",)


def test_what_several_nodes_compute_otherwise_is_not_folded():
    text = "(float[b, 16] x) => (float[b, 16] y) { a = Add (x, x) m = Mul (a, f) y = Tanh (m) }"
    matching = matched(made(text, {"f": FACTOR * FACTOR / 2}), {"x": X}, scaled_twice())
    assert reasons(matching) == {"first": "the graph computes second in another way, without it"}
    assert matching.folded == ()


def test_nodes_that_only_move_elements_are_no_other_way():
    text = (
        "(float[b, 16] x) => (float[b, 16] y) { t = Transpose <perm = [1, 0]> (x) m = Mul (t, f)"
        " u = Transpose <perm = [1, 0]> (m) y = Tanh (u) }"
    )
    matching = matched(made(text, {"f": FACTOR * FACTOR}), {"x": X}, scaled_twice())
    assert matching.folded == ("first and second are one Mul",)


@pytest.mark.parametrize(
    ("first", "second", "folded"),
    [
        (":mul", "second", ("the model's own and second are one Mul",)),
        ("norm:mul", "norm:mul_1", ()),  # both are functions of one layer
    ],
)
def test_functions_are_named_by_the_layer_that_calls_them(first, second, folded):
    matching = matched(made(PRODUCT, {"f": FACTOR * FACTOR}), {"x": X}, scaled_twice(first, second))
    assert matching.folded == folded


def test_layers_that_give_no_floats_are_told_as_that():
    run = scaled_twice()
    run.tensors.append(np.arange(64).reshape(4, 16))
    run.layers.append(LayerRecord("argmax", "ArgMax", (0,), (len(run.tensors) - 1,)))
    run.layers.append(LayerRecord("quiet", "Quiet", (0,), ()))  # gives nothing that could be missed
    matching = matched(made(PRODUCT, {"f": FACTOR * FACTOR}), {"x": X}, run)
    assert reasons(matching)["argmax"] == "it gives no floats, and others are not matched"
    assert "quiet" not in reasons(matching)


def test_a_layer_that_is_nowhere_is_told_as_that():
    run = scaled_twice()
    run.tensors.append(np.sin(WIDE))
    run.layers.append(LayerRecord("lost", "Sin", (0,), (len(run.tensors) - 1,)))
    matching = matched(made(PRODUCT, {"f": FACTOR * FACTOR}), {"x": X}, run)
    assert reasons(matching)["lost"].startswith("no tensor of the graph has its values")


def layers_of(text, constants, run, owners=None, scopes=None):
    model = made(text, constants)
    for node in model.graph.node:
        if scopes and node.output[0] in scopes:
            node.metadata_props.add(key=SCOPES, value=scopes[node.output[0]])
    return matched(model, {"x": X}, run, owners).layer_of


CHAIN = "(float[b, 16] x) => (float[b, 16] y) { a = Mul (x, w) b = Mul (a, c) y = Tanh (b) }"
CONSTANTS = {"w": np.float32([3.0]), "c": FACTOR * FACTOR / 3}


def test_a_node_belongs_to_the_layer_whose_tensor_it_gives_else_to_the_next():
    assert layers_of(CHAIN, CONSTANTS, scaled_twice()) == {"Mul:a": "second", "Mul:b": "second", "Tanh:y": "act"}


def test_the_name_that_an_exporter_wrote_goes_before_the_next_layer():
    scopes = {"a": "['', 'first', 'mul']", "b": "['', 'first', 'mul_1']"}
    layer_of = layers_of(CHAIN, CONSTANTS, scaled_twice(), scopes=scopes)
    assert layer_of == {"Mul:a": "first", "Mul:b": "second", "Tanh:y": "act"}


def test_the_weight_that_a_node_reads_goes_before_the_next_layer():
    run = scaled_twice()
    run.layers[0] = LayerRecord("first", "First", (0,), (1,), ("first.weight",))
    assert layers_of(CHAIN, CONSTANTS, run, {"w": "first.weight"})["Mul:a"] == "first"
    assert layers_of(CHAIN, CONSTANTS, run, {"w": "gone.weight"})["Mul:a"] == "second"


def test_a_constant_that_bears_the_name_of_a_weight_is_that_weight():
    run = scaled_twice()
    run.layers[0] = LayerRecord("first", "First", (0,), (1,), ("w",))
    assert layers_of(CHAIN, CONSTANTS, run)["Mul:a"] == "first"
