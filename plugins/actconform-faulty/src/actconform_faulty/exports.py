"""Export: the graph is not what was exported, by the exporter's hand."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from actconform_faulty.graphs import (
    change_constants,
    drop_attribute,
    graph_fault,
    nodes,
    rename_output,
    replace_operator,
    set_attribute,
)

if TYPE_CHECKING:
    from onnx import ModelProto

BLOCK, ENCODER = "attention-block", "autoencoder-sigmoid"


@graph_fault(
    "export", "constant-folded-wrong", "the slope of hard sigmoid, 0.2, is folded to 1/6",
    "hard-sigmoid-onnx/value/f32", findings="scaled-error",
)  # fmt: skip
def constant_folded_wrong(model: ModelProto) -> None:
    change_constants(model.graph, lambda value: np.where(value == np.float32(0.2), 1 / 6, value))


@graph_fault(
    "export", "constant-in-f16", "constants are stored with the precision of float16",
    "quick-gelu/value/f32", findings="scaled-error",
)  # fmt: skip
def constant_in_f16(model: ModelProto) -> None:
    change_constants(model.graph, np.float16)


@graph_fault(
    "export", "softmax-opset-12", "softmax has axis 1, the default up to opset 12",
    f"{BLOCK}/value/f32", findings="scaled-error", tensor="attention",
)  # fmt: skip
def softmax_opset_12(model: ModelProto) -> None:
    for node in nodes(model, "Softmax"):
        set_attribute(node, "axis", 1)


@graph_fault(
    "export", "softmax-axis-dropped", "softmax over axis 1 loses its attribute",
    "softmax-axis1/value/f32", findings="scaled-error",
)  # fmt: skip
def softmax_axis_dropped(model: ModelProto) -> None:
    for node in nodes(model, "Softmax"):
        drop_attribute(node, "axis")


@graph_fault(
    "export", "alpha-dropped", "leaky relu loses its slope of 0.2",
    "leaky-relu-0.2/value/f32", findings="scaled-error",
)  # fmt: skip
def alpha_dropped(model: ModelProto) -> None:
    for node in nodes(model, "LeakyRelu"):
        drop_attribute(node, "alpha")


@graph_fault(
    "export", "relu-as-leaky-relu", "relu is exported as leaky relu",
    "relu/value/f32", findings="range",
)  # fmt: skip
def relu_as_leaky_relu(model: ModelProto) -> None:
    for node in nodes(model, "Relu"):
        replace_operator(node, "LeakyRelu", alpha=0.01)


@graph_fault(
    "export", "gelu-as-tanh", "gelu is exported in its approximation by tanh",
    "gelu-erf/value/f32", findings="scaled-error",
)  # fmt: skip
def gelu_as_tanh(model: ModelProto) -> None:
    for node in nodes(model, "Gelu"):
        set_attribute(node, "approximate", "tanh")


@graph_fault(
    "export", "epsilon-lost", "layer normalization is exported with an epsilon of 1e-3",
    f"{BLOCK}/value/f32", findings="scaled-error", tensor="norm1",
)  # fmt: skip
def epsilon_lost(model: ModelProto) -> None:
    for node in nodes(model, "LayerNormalization"):
        set_attribute(node, "epsilon", 1e-3)


@graph_fault(
    "export", "resize-half-pixel", "nearest neighbours are rounded up at half pixels",
    f"{ENCODER}/value/f32", findings="scaled-error", tensor="up4",
)  # fmt: skip
def resize_half_pixel(model: ModelProto) -> None:
    for node in nodes(model, "Resize"):
        set_attribute(node, "nearest_mode", "ceil")


@graph_fault(
    "export", "batch-fixed", "the graph takes the batch alone that it was exported at",
    "softmax/value/f32", findings="shape",
)  # fmt: skip
def batch_fixed(model: ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5


@graph_fault(
    "export", "model-batch-fixed", "the model's graph takes the batch alone that it was exported at",
    "blobs-mlp/value/f32", findings="shape",
)  # fmt: skip
def model_batch_fixed(model: ModelProto) -> None:
    next(value for value in model.graph.input if value.name == "x").type.tensor_type.shape.dim[0].dim_value = 5


@graph_fault(
    "export", "output-misdeclared", "the output is declared float64 and is float32",
    "relu/value/f32", findings="invalid-model",
)  # fmt: skip
def output_misdeclared(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@graph_fault(
    "export", "output-cast", "the output is cast to float64",
    "relu/value/f32", findings="dtype",
)  # fmt: skip
def output_cast(model: ModelProto) -> None:
    output = model.graph.output[0]
    model.graph.node.append(helper.make_node("Cast", [output.name], ["wide"], to=TensorProto.DOUBLE))
    output.name, output.type.tensor_type.elem_type = "wide", TensorProto.DOUBLE


@graph_fault(
    "export", "foreign-operator", "a node of the framework's own is left in the graph",
    "softplus/value/f32", findings="invalid-model",
)  # fmt: skip
def foreign_operator(model: ModelProto) -> None:
    for node in nodes(model, "Softplus"):
        node.op_type, node.domain = "softplus", "aten"


@graph_fault(
    "export", "cycle", "the nodes stand in no order in which they could run",
    "silu/value/f32", findings="invalid-model",
)  # fmt: skip
def out_of_order(model: ModelProto) -> None:
    turned = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(turned)


@graph_fault(
    "export", "output-renamed", "the model's output is called output_0",
    "linear-stack/value/f32", findings="names",
)  # fmt: skip
def output_renamed(model: ModelProto) -> None:
    rename_output(model, "y", "output_0")


@graph_fault(
    "export", "outputs-exchanged", "y and loss are exchanged",
    "linear-stack/value/f32", findings="shape",
)  # fmt: skip
def outputs_exchanged(model: ModelProto) -> None:
    for old, new in (("y", "other"), ("loss", "y"), ("other", "loss")):
        rename_output(model, old, new)


@graph_fault(
    "export", "layers-exchanged", "two layers of one shape are exchanged among the outputs",
    "attention-softmax/value/f32", findings="scaled-error names",
)  # fmt: skip
def layers_exchanged(model: ModelProto) -> None:
    for old, new in (("layer.query", "other"), ("layer.key", "layer.query"), ("other", "layer.key")):
        rename_output(model, old, new)
