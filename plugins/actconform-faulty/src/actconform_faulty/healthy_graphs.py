"""Healthy but unusual: exported graphs that hold the same numbers otherwise, and take every batch."""
# ruff: noqa: D103  one function a way to write; what it is stands in its registration

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from actconform_faulty.export_graphs import constant, with_dropout
from actconform_faulty.graphs import on_model, parameter
from actconform_faulty.injected import healthy

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

STACK, CNN, BLOCK = "linear-stack/value/f32", "image-cnn-softmax2/value/f32", "attention-block/value/f32"


def graph(name: str, words: str, case: str) -> Callable[[Callable[[ModelProto], None]], Callable[[ModelProto], None]]:
    """Register a way to write the graph that users ship of a case."""

    def register(change: Callable[[ModelProto], None]) -> Callable[[ModelProto], None]:
        healthy("export", name, words, case, on_graph=True, constants=True)(partial(on_model, change))
        return change

    return register


def made_by(model: ModelProto, name: str, operator: str, *inputs: str, **attributes: object) -> None:
    """Give the tensor of an initializer by a node instead, ahead of all others."""
    for tensor in list(model.graph.initializer):
        if tensor.name == name:
            model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, helper.make_node(operator, list(inputs), [name], **attributes))


@graph("weights-transposed", "weights lie transposed, and a Transpose turns them", STACK)
def weights_transposed(model: ModelProto) -> None:
    for layer in ("dense1", "dense2"):
        tensor = parameter(model, layer, "weight")
        if tensor is not None:
            turned = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
            made_by(model, tensor.name, "Transpose", constant(model, f"{layer}.turned", turned), perm=[1, 0])


@graph("weights-in-parts", "weights lie in two parts, and a Concat joins them", STACK)
def weights_in_parts(model: ModelProto) -> None:
    tensor = parameter(model, "dense1", "weight")
    if tensor is not None:
        parts = np.split(numpy_helper.to_array(tensor), 2, axis=1)
        names = [constant(model, f"part{number}", np.ascontiguousarray(part)) for number, part in enumerate(parts)]
        made_by(model, tensor.name, "Concat", *names, axis=1)


@graph("weights-in-one", "the biases of all layers lie in one constant, of which Slice takes each", STACK)
def weights_in_one(model: ModelProto) -> None:
    tensors = [tensor for layer in ("dense1", "dense2") if (tensor := parameter(model, layer, "bias")) is not None]
    start = 0
    constant(model, "all", np.concatenate([numpy_helper.to_array(tensor) for tensor in tensors]))
    for tensor in tensors:
        size, name = tensor.dims[0], tensor.name
        ends = [constant(model, f"{name}.{end}", np.array([end])) for end in (start, start + size)]
        made_by(model, name, "Slice", "all", *ends)
        start += size


@graph("weights-flat", "weights lie flat, and a Reshape gives them their shape", CNN)
def weights_flat(model: ModelProto) -> None:
    tensor = parameter(model, "conv2", "weight")
    if tensor is not None:
        sizes = constant(model, "conv2.sizes", np.array(tensor.dims))
        made_by(model, tensor.name, "Reshape", constant(model, "flat", numpy_helper.to_array(tensor).ravel()), sizes)


@graph("weights-as-nodes", "every weight is a node Constant", BLOCK)
def weights_as_nodes(model: ModelProto) -> None:
    for tensor in list(model.graph.initializer):
        made_by(model, tensor.name, "Constant", value=tensor)


@graph("weights-in-float64", "weights are float64, and a Cast takes them back", STACK)
def weights_in_float64(model: ModelProto) -> None:
    tensor = parameter(model, "dense2", "weight")
    if tensor is not None:
        wide = constant(model, "wide", numpy_helper.to_array(tensor).astype(np.float64))
        made_by(model, tensor.name, "Cast", wide, to=TensorProto.FLOAT)


@graph("weights-as-numbers", "weights are written as a list of numbers, not as bytes", CNN)
def weights_as_numbers(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, value.shape, value.ravel()))


@graph("norm-folded", "batch normalization is a factor and a summand, computed at export", CNN)
def norm_folded(model: ModelProto) -> None:
    for node in list(model.graph.node):
        if node.op_type != "BatchNormalization":
            continue
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        gamma, beta, mean, variance = (tensors[name] for name in node.input[1:])
        factor = (gamma / np.sqrt(variance + np.float32(1e-3))).reshape(-1, 1, 1)
        name, place = node.output[0], list(model.graph.node).index(node)
        summand = constant(model, f"{name}.t", beta.reshape(-1, 1, 1) - mean.reshape(-1, 1, 1) * factor)
        nodes = [
            helper.make_node("Mul", [node.input[0], constant(model, f"{name}.s", factor)], [f"{name}.scaled"]),
            helper.make_node("Add", [f"{name}.scaled", summand], [name]),
        ]
        model.graph.node.remove(node)
        for number, each in enumerate(nodes):
            model.graph.node.insert(place + number, each)


@graph("dropout-kept", "dropout is left in the graph, in inference", STACK)
def dropout_kept(model: ModelProto) -> None:
    with_dropout(model, 0.3, training=False)


@graph("dropout-of-nothing", "dropout trains with a ratio of 0", STACK)
def dropout_of_nothing(model: ModelProto) -> None:
    with_dropout(model, 0.0)


@graph("weights-beside", "weights that nothing reads are left in the graph", STACK)
def weights_beside(model: ModelProto) -> None:
    tensor = parameter(model, "dense1", "weight")
    if tensor is not None:
        constant(model, "left", numpy_helper.to_array(tensor) * 2)


@graph("batch-computed", "a Reshape has its batch from Shape, at every call", CNN)
def batch_computed(model: ModelProto) -> None:
    for node in list(model.graph.node):
        if node.op_type == "Reshape":
            place = list(model.graph.node).index(node)
            rest = constant(model, "rest", np.array([-1]))
            model.graph.node.insert(place, helper.make_node("Concat", ["batch", rest], ["sizes"], axis=0))
            model.graph.node.insert(place, helper.make_node("Shape", [node.input[0]], ["batch"], start=0, end=1))
            node.input[1] = "sizes"
