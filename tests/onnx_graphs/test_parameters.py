"""The parameters that a graph holds as constants: bit for bit in whatever layout, or folded; each alteration is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actconform.catalog.models.zoo import networks
from actconform.onnx.author.model import author_model
from actconform.onnx.parameters import altered_parameters, near_epsilons
from actconform.onnx.subgraph import extract_subgraph
from actconform.testdata.model_tensors import draw_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.types.model import Model

    Array = NDArray[Any]

MODELS = {model.name: model for model in networks()}
STACK, CNN, BLOCK = (MODELS[name] for name in ("linear-stack", "image-cnn-softmax2", "attention-block"))
SMALL = [model for name, model in MODELS.items() if "@" not in name]


def shipped(model: Model) -> onnx.ModelProto:
    """Return the graph of y that holds the parameters as initializers, in their canonical shapes."""
    proto = onnx.load_from_string(extract_subgraph(author_model(model, "f32").model, ["y"]))
    parameters = draw_parameters(model)
    inputs = [value for value in proto.graph.input if value.name not in parameters]
    constants = [value.name for value in proto.graph.input if value.name in parameters]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    proto.graph.initializer.extend(numpy_helper.from_array(parameters[name], name) for name in constants)
    return proto


def with_value(proto: onnx.ModelProto, name: str, change: Callable[[Array], Array]) -> onnx.ModelProto:
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            value = change(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
    return proto


def altered(proto: onnx.ModelProto, model: Model = STACK) -> dict[str, Any]:
    blob = proto.SerializeToString()
    return {entry.parameter: entry for entry in altered_parameters(blob, model, draw_parameters(model), "f32")}


@pytest.mark.parametrize("model", SMALL, ids=lambda model: model.name)
def test_a_graph_that_holds_what_it_was_given_is_left_alone(model: Model) -> None:
    assert altered(shipped(model), model) == {}


@pytest.mark.parametrize(
    "layout",
    [
        np.transpose,
        np.ravel,
        lambda value: value[None, ..., None],
        lambda value: np.concatenate([value * 2, value], axis=0),
        lambda value: np.concatenate([value, value * 3], axis=1),
        lambda value: np.stack([value.T, value.T + 1]),
    ],
    ids=["transposed", "flat", "more axes", "behind another", "beside another", "stacked"],
)
def test_any_layout_of_the_same_numbers_holds_them(layout: Callable[[Array], Array]) -> None:
    assert altered(with_value(shipped(STACK), "dense2.kernel", layout)) == {}


def test_parts_hold_a_parameter_where_each_is_a_constant() -> None:
    proto = shipped(STACK)
    (whole,) = [tensor for tensor in proto.graph.initializer if tensor.name == "dense2.kernel"]
    parts = np.split(numpy_helper.to_array(whole), 3, axis=0)
    proto.graph.initializer.remove(whole)
    names = [f"part{number}" for number in range(3)]
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(part.T), name) for part, name in zip(parts, names, strict=True)
    )
    turned = [helper.make_node("Transpose", [name], [f"{name}.t"], perm=[1, 0]) for name in names]
    joined = helper.make_node("Concat", [f"{name}.t" for name in names], ["dense2.kernel"], axis=0)
    for node in (joined, *turned):
        proto.graph.node.insert(0, node)
    assert altered(proto) == {}
    assert set(altered(with_value(proto, "part1", lambda value: np.nextafter(value, 1)))) == {"dense2.kernel"}


def last_bit(value: Array) -> Array:
    moved = value.copy()
    moved[1, 2] = np.nextafter(moved[1, 2], np.float32(9))
    return moved


def test_one_element_in_its_last_bit_is_named_with_both_numbers() -> None:
    kernel = draw_parameters(STACK)["dense2.kernel"]
    entry = altered(with_value(shipped(STACK), "dense2.kernel", lambda value: last_bit(value).T))["dense2.kernel"]
    assert (entry.differing, entry.place) == (1, (1, 2))
    assert np.float32(entry.expected) == kernel[1, 2]
    assert np.float32(entry.got) == np.nextafter(kernel[1, 2], np.float32(9))


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (lambda value: value[[1, 0, *range(2, len(value))]], 24),
        (lambda value: np.where(np.arange(len(value))[:, None] == 3, 0, value), 12),
        (lambda value: (value.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32), None),
        (lambda value: value[..., ::-1], None),
    ],
    ids=["rows exchanged", "a row of 0", "bfloat16", "turned"],
)
def test_other_numbers_are_told(change: Callable[[Array], Array], differing: int | None) -> None:
    width = draw_parameters(STACK)["dense2.kernel"].shape[1]
    entry = altered(with_value(shipped(STACK), "dense2.kernel", change))["dense2.kernel"]
    assert differing is None or entry.differing == differing * width // 12


def test_what_no_constant_is_as_large_as_has_no_number_beside_it() -> None:
    entry = altered(with_value(shipped(BLOCK), "norm1.gamma", lambda value: value[:-1]), BLOCK)["norm1.gamma"]
    assert entry.differing == draw_parameters(BLOCK)["norm1.gamma"].size


def test_a_constant_that_nothing_reads_holds_nothing() -> None:
    proto = with_value(shipped(STACK), "dense1.kernel", last_bit)
    proto.graph.initializer.append(numpy_helper.from_array(draw_parameters(STACK)["dense1.kernel"], "beside"))
    assert set(altered(proto)) == {"dense1.kernel"}


def folded(epsilon: float) -> onnx.ModelProto:
    """Return the graph with both batch normalizations folded into the convolutions' place: a factor and a summand each."""
    proto, parameters = shipped(CNN), draw_parameters(CNN)
    for node in list(proto.graph.node):
        if node.op_type != "BatchNormalization":
            continue
        gamma, beta, mean, variance = (parameters[name] for name in node.input[1:5])
        factor = (gamma / np.sqrt(variance + np.float32(epsilon))).reshape(-1, 1, 1)
        summand = beta.reshape(-1, 1, 1) - mean.reshape(-1, 1, 1) * factor
        name, place = node.output[0], list(proto.graph.node).index(node)
        proto.graph.initializer.extend(
            [numpy_helper.from_array(factor, f"{name}.s"), numpy_helper.from_array(summand, f"{name}.t")]
        )
        proto.graph.node.remove(node)
        proto.graph.node.insert(place, helper.make_node("Add", [f"{name}.m", f"{name}.t"], [name]))
        proto.graph.node.insert(place, helper.make_node("Mul", [node.input[0], f"{name}.s"], [f"{name}.m"]))
    return proto


def test_a_folded_batch_normalization_is_computed_anew() -> None:
    assert altered(folded(1e-3), CNN) == {}


def test_a_batch_normalization_folded_with_another_epsilon_is_told() -> None:
    assert {f"norm{number}.{name}" for number in (1, 2) for name in ("gamma", "variance")} <= set(
        altered(folded(1e-5), CNN)
    )


def test_parameters_of_the_loss_alone_are_not_needed() -> None:
    parameters = draw_parameters(STACK)
    assert altered_parameters(shipped(STACK).SerializeToString(), STACK, parameters, "f32") == []
    assert altered_parameters(shipped(STACK).SerializeToString(), STACK, {}, "f32") == []


def test_sixteen_bits_hold_what_was_rounded_to_them() -> None:
    parameters = draw_parameters(STACK)
    proto = shipped(STACK)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(parameters[tensor.name].astype(np.float16), tensor.name))
    assert altered_parameters(proto.SerializeToString(), STACK, parameters, "f16") == []
    assert len(altered_parameters(proto.SerializeToString(), STACK, parameters, "f32")) == len(parameters)


@pytest.mark.parametrize(("epsilon", "near"), [(1e-5, False), (1.1e-5, True), (1e-2, False)])
def test_an_epsilon_that_is_nearly_a_layers(epsilon: float, near: bool) -> None:
    proto = shipped(BLOCK)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = epsilon
    told = near_epsilons(proto.SerializeToString(), BLOCK, ["y"])
    assert [(layer, round(number, 7)) for layer, number, _ in told] == ([("norm1", 1.1e-5)] if near else [])


def test_an_epsilon_that_is_a_constant_counts_too() -> None:
    proto = shipped(BLOCK)
    proto.graph.initializer.append(helper.make_tensor("eps", TensorProto.FLOAT, [1], [1.2e-5]))
    proto.graph.node.append(helper.make_node("Add", ["y", "eps"], ["z"]))
    proto.graph.output[0].name = "z"
    assert [layer for layer, *_ in near_epsilons(proto.SerializeToString(), BLOCK, ["z"])] == ["norm1"]
    assert near_epsilons(proto.SerializeToString(), BLOCK, ["y"]) == []
