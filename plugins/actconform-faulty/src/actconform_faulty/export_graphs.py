"""Exported graphs that pass at the batch they are asked at: sizes that are baked in, numbers that are nearly right, training that stays."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from actconform_faulty import graphs
from actconform_faulty.graphs import change_parameter, nodes, set_attribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from onnx import ModelProto

    Array = NDArray[Any]
    Change = Callable[[Array], Array]

graph_fault = partial(graphs.graph_fault, family="baked sizes and near numbers")
BLOCK, CNN, STACK, MLP, REGRESSION = (
    "attention-block",
    "image-cnn-softmax2",
    "linear-stack",
    "mlp-relu",
    "regression-softmax-hidden",
)
CLOSED = (1, 3)  # channels of its fourth layer in which mlp-relu gives 0 for all samples
BATCH = 4  # of the models that the faults are in
SIZE = {"findings": "shape"}
NUMBER = {"constants": True, "findings": "scaled-error"}
RANDOM = {"constants": True, "findings": "nondeterministic"}


def constant(model: ModelProto, name: str, value: Array) -> str:
    """Add an initializer, and return its name."""
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def read_through(model: ModelProto, operator: str, *inputs: str, **attributes: Any) -> None:
    """Let all that reads x read an operator's output of it instead."""
    for node in model.graph.node:
        node.input[:] = ["between" if name == "x" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node(operator, ["x", *inputs], ["between"], **attributes))


@graph_fault(
    "export", "batch-in-reshape", "a Reshape has the batch of the sample among its sizes",
    f"{CNN}/value/f32", constants=True, **SIZE,
)  # fmt: skip
def batch_in_reshape(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT64 and list(tensor.dims) == [2]:
            sizes = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.where(sizes == -1, BATCH, sizes), tensor.name))


@graph_fault(
    "export", "batch-in-reshape-of-rest", "a Reshape has the batch of the sample, and takes what else there is for columns",
    f"{STACK}/value/f32", **SIZE,
)  # fmt: skip
def batch_in_reshape_of_rest(model: ModelProto) -> None:
    read_through(model, "Reshape", constant(model, "sizes", np.array([BATCH, -1])))


@graph_fault(
    "export", "batch-in-expand", "an Expand has the batch of the sample: one row becomes as many",
    f"{STACK}/value/f32", constants=True, **SIZE,
)  # fmt: skip
def batch_in_expand(model: ModelProto) -> None:
    read_through(model, "Expand", constant(model, "sizes", np.array([BATCH, 1])))


@graph_fault(
    "export", "batch-in-slice", "rows beyond the batch of the sample are cut off",
    f"{STACK}/value/f32", constants=True, **SIZE,
)  # fmt: skip
def batch_in_slice(model: ModelProto) -> None:
    ends = [constant(model, name, np.array([end])) for name, end in (("first", 0), ("behind", BATCH), ("axis", 0))]
    read_through(model, "Slice", *ends)


@graph_fault(
    "export", "batch-in-constant", "a constant of zeros has the batch of the sample",
    f"{REGRESSION}/value/f32", constants=True, **SIZE,
)  # fmt: skip
def batch_in_constant(model: ModelProto) -> None:
    read_through(model, "Add", constant(model, "zeros", np.zeros((BATCH, 1), np.float32)))


@graph_fault(
    "export", "batch-in-mean", "the mean of the loss divides by the batch of the sample",
    f"{STACK}/value/f32", findings="scaled-error", tensor="loss",
)  # fmt: skip
def batch_in_mean(model: ModelProto) -> None:
    for node in list(nodes(model, "ReduceMean")):
        node.op_type = "ReduceSum"
        mean, node.output[0] = node.output[0], "total"
        size = constant(model, "size", np.array(BATCH * 3, np.float32))
        model.graph.node.insert(
            list(model.graph.node).index(node) + 1, helper.make_node("Div", ["total", size], [mean])
        )


def last_bit(index: int) -> Change:
    """Return what moves one element by one unit in the last place."""

    def changed(value: Array) -> Array:
        moved = value.copy()
        moved.flat[index] = np.nextafter(moved.flat[index], np.float32(np.inf))
        return moved

    return changed


def in_bf16(value: Array) -> Array:
    """Keep the upper half of each number."""
    upper: Array = (value.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return upper


def first_in_f16(value: Array) -> Array:
    moved = value.copy()
    moved.flat[0] = np.float16(moved.flat[0])
    return moved


def row_zeroed(value: Array) -> Array:
    return np.where(np.arange(len(value))[:, None] == CLOSED[0], 0, value)


def rows_exchanged(value: Array) -> Array:
    order = np.arange(len(value))
    order[list(CLOSED)] = CLOSED[::-1]
    return value[order]


for name, words, subject, layer, of_layer, change in (
    ("last-bit", "one weight is off in its last bit", STACK, "dense2", "weight", last_bit(7)),
    ("last-bits", "all weights of a layer are off in their last bits", MLP, "dense3", "weight", lambda value: np.nextafter(value, np.float32(0))),
    ("seven-digits", "weights are written with seven decimals", STACK, "dense1", "weight", lambda value: np.round(value.astype(np.float64), 7)),
    ("one-in-f16", "one weight has the precision of float16", STACK, "dense2", "weight", first_in_f16),
    ("statistics-in-bf16", "the running means have the precision of bfloat16", CNN, "norm2", "running_mean", in_bf16),
    ("dead-channel", "the weights of a channel that relu closes are 0", MLP, "dense4", "weight", row_zeroed),
    ("dead-rows", "the weights of two channels that relu closes are exchanged", MLP, "dense4", "weight", rows_exchanged),
    ("bias-last-bit", "one bias is off in its last bit", REGRESSION, "dense3", "bias", last_bit(3)),
    ("variance-clipped", "running variances are raised to 0.7615", CNN, "norm1", "running_var", lambda value: np.maximum(value, np.float32(0.7615))),
    ("norm-last-bit", "one factor of a layer normalization is off in its last bit", BLOCK, "norm1", "weight", last_bit(2)),
):  # fmt: skip

    def alter(model: ModelProto, layer: str = layer, of_layer: str = of_layer, change: Change = change) -> None:
        change_parameter(model, layer, of_layer, change)

    graph_fault("export", f"weight-{name}", words, f"{subject}/value/f32", **NUMBER)(alter)


@graph_fault(
    "export", "layer-norm-epsilon-near", "layer normalization has an epsilon of 1.1e-5 for 1e-5",
    f"{BLOCK}/value/f32", **NUMBER,
)  # fmt: skip
def layer_norm_epsilon_near(model: ModelProto) -> None:
    for node in nodes(model, "LayerNormalization"):
        set_attribute(node, "epsilon", 1.1e-5)


@graph_fault(
    "export", "batch-norm-epsilon-near", "batch normalization has an epsilon of 1.0001e-3 for 1e-3",
    f"{CNN}/value/f32", **NUMBER,
)  # fmt: skip
def batch_norm_epsilon_near(model: ModelProto) -> None:
    for node in nodes(model, "BatchNormalization"):
        set_attribute(node, "epsilon", 1.0001e-3)


@graph_fault(
    "export", "batch-norm-trains", "batch normalization uses the batch's statistics in inference",
    f"{CNN}/value/f32", constants=True, findings="scaled-error",
)  # fmt: skip
def batch_norm_trains(model: ModelProto) -> None:
    for node in nodes(model, "BatchNormalization"):
        set_attribute(node, "training_mode", 1)
        mean, variance = node.input[3:5]
        node.output.extend([f"{mean}.running", f"{variance}.running"])


def with_dropout(model: ModelProto, ratio: float, *, training: bool = True) -> None:
    """Let all that reads x read it through a Dropout."""
    more = constant(model, "ratio", np.array(ratio, np.float32)), constant(model, "training", np.array(training))
    read_through(model, "Dropout", *more)


@graph_fault(
    "export", "dropout-trains", "dropout is left in training",
    f"{STACK}/value/f32", **RANDOM,
)  # fmt: skip
def dropout_trains(model: ModelProto) -> None:
    with_dropout(model, 0.3)


@graph_fault(
    "export", "dropout-trains-seldom", "dropout is left in training, and drops one number in a million",
    f"{STACK}/value/f32", **RANDOM,
)  # fmt: skip
def dropout_trains_seldom(model: ModelProto) -> None:
    with_dropout(model, 1e-6)


@graph_fault(
    "export", "noise-of-training", "noise of 1e-9 is added, as a layer does in training",
    f"{STACK}/value/f32", **RANDOM,
)  # fmt: skip
def noise_of_training(model: ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("RandomNormalLike", ["x"], ["noise"], scale=1e-9))
    for node in list(model.graph.node)[1:]:
        node.input[:] = ["between" if name == "x" else name for name in node.input]
    model.graph.node.insert(1, helper.make_node("Add", ["x", "noise"], ["between"]))


@graph_fault(
    "export", "outputs-reordered", "the loss stands before y among the outputs",
    f"{STACK}/value/f32", findings="names",
)  # fmt: skip
def outputs_reordered(model: ModelProto) -> None:
    turned = list(reversed(model.graph.output))
    del model.graph.output[:]
    model.graph.output.extend(turned)


@graph_fault(
    "export", "inputs-reordered", "the parameters stand before x among the inputs",
    f"{STACK}/value/f32", findings="names",
)  # fmt: skip
def inputs_reordered(model: ModelProto) -> None:
    turned = list(reversed(model.graph.input))
    del model.graph.input[:]
    model.graph.input.extend(turned)


@graph_fault(
    "export", "output-batch-declared", "the output is declared with the batch of the sample",
    f"{STACK}/value/f32", constants=True, findings="shape",
)  # fmt: skip
def output_batch_declared(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = BATCH


@graph_fault(
    "export", "opset-lies", "the graph states opset 6, and has nodes of a later one",
    f"{REGRESSION}/value/f32", constants=True, findings="invalid-model",
)  # fmt: skip
def opset_lies(model: ModelProto) -> None:
    for entry in model.opset_import:
        entry.version = 6 if not entry.domain else entry.version


@graph_fault(
    "export", "sizes-in-int32", "the sizes of a Reshape are int32",
    f"{CNN}/value/f32", constants=True, findings="invalid-model",
)  # fmt: skip
def sizes_in_int32(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT64:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int32), tensor.name))
