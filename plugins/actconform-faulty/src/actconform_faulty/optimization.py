"""Graph optimization: the graph is right, and the runtime rewrites it wrongly as it loads it."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform_faulty.graphs import (
    bypass,
    change_constants,
    drop_attribute,
    graph_fault,
    nodes,
    replace_operator,
    set_attribute,
)

if TYPE_CHECKING:
    from onnx import ModelProto

BLOCK, CNN, ENCODER = "attention-block", "image-cnn-softmax2", "autoencoder-sigmoid"


@graph_fault(
    "ort", "fusion-drops-add", "a fusion of MatMul and Add loses the bias of the first layer",
    "linear-stack/value/f32", findings="scaled-error", tensor="dense1",
)  # fmt: skip
def fusion_drops_add(model: ModelProto) -> None:
    made = {name for node in nodes(model, "MatMul") for name in node.output}
    add = next((node for node in nodes(model, "Add") if node.input[0] in made and node.input[1] == "dense1.bias"), None)
    if add is not None:
        bypass(model, add)


@graph_fault(
    "ort", "softmax-axis", "softmax runs over axis 1",
    "attention-softmax/value/f32", findings="scaled-error", tensor="attention",
)  # fmt: skip
def runtime_softmax_axis(model: ModelProto) -> None:
    for node in nodes(model, "Softmax"):
        set_attribute(node, "axis", 1)


@graph_fault(
    "ort", "layer-norm-epsilon", "layer normalization has an epsilon of 1e-3",
    f"{BLOCK}/value/f32", findings="scaled-error", tensor="norm1",
)  # fmt: skip
def runtime_layer_norm_epsilon(model: ModelProto) -> None:
    for node in nodes(model, "LayerNormalization"):
        set_attribute(node, "epsilon", 1e-3)


@graph_fault(
    "ort", "batch-norm-epsilon", "batch normalization has the operator's default epsilon for the graph's",
    f"{CNN}/value/f32", findings="scaled-error", tensor="norm1",
)  # fmt: skip
def runtime_batch_norm_epsilon(model: ModelProto) -> None:
    for node in nodes(model, "BatchNormalization"):
        drop_attribute(node, "epsilon")


@graph_fault(
    "ort", "gelu-to-tanh", "a rewriting of Gelu takes the approximation by tanh",
    f"{BLOCK}/value/f32", findings="scaled-error", tensor="gelu",
)  # fmt: skip
def runtime_gelu_to_tanh(model: ModelProto) -> None:
    for node in nodes(model, "Gelu"):
        set_attribute(node, "approximate", "tanh")


@graph_fault(
    "ort", "clip-bounds", "clipping to [-1, 1] becomes clipping to [-2, 2]",
    "hard-tanh/value/f32", findings="range scaled-error",
)  # fmt: skip
def runtime_clip_bounds(model: ModelProto) -> None:
    change_constants(model.graph, lambda value: 2.0 * value)


@graph_fault(
    "ort", "conv-pads-shifted", "a convolution pads by 2 before and 0 after, not 1 and 1",
    f"{ENCODER}/value/f32", findings="scaled-error", tensor="conv1",
)  # fmt: skip
def runtime_conv_pads(model: ModelProto) -> None:
    for node in nodes(model, "Conv"):
        set_attribute(node, "pads", [0, 2, 0, 0])


@graph_fault(
    "ort", "pool-average", "max pooling becomes average pooling",
    f"{CNN}/value/f32", findings="scaled-error", tensor="pool1",
)  # fmt: skip
def runtime_pool_average(model: ModelProto) -> None:
    for node in nodes(model, "MaxPool"):
        replace_operator(node, "AveragePool", kernel_shape=[2, 2], strides=[2, 2])


@graph_fault(
    "ort", "sigmoid-to-hard-sigmoid", "a rewriting takes HardSigmoid for Sigmoid",
    f"{ENCODER}/value/f32", findings="scaled-error", tensor="head",
)  # fmt: skip
def runtime_hard_sigmoid(model: ModelProto) -> None:
    for node in nodes(model, "Sigmoid"):
        replace_operator(node, "HardSigmoid", alpha=1 / 6)


@graph_fault(
    "ort", "scale-dropped", "a fused attention leaves out the division by the root of the width",
    f"{BLOCK}/value/f32", findings="scaled-error", tensor="attention",
)  # fmt: skip
def runtime_scale_dropped(model: ModelProto) -> None:
    softmaxes = {node.input[0] for node in nodes(model, "Softmax")}
    for node in [node for node in nodes(model, "Div") if node.output[0] in softmaxes]:
        bypass(model, node)
