"""Faults of exports and runtimes that `make architectures` injects, each with the layer and the culprit that a check must name.

A fault of an export is a change of the exported file: one of `actconform_faulty.model_faults`, or one of those below; or an export in
the wrong mode. A fault of a runtime is one of `actconform_faulty.model_faults` in ONNX Runtime, which gets a good file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from actconform.errors import UsageError
from actconform_faulty.model_faults import MODEL_FAULTS, inject_into

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from onnx import ModelProto

SCOPES = "pkg.torch.onnx.name_scopes"
DYNAMO, TRACED, TF2ONNX = "torch-dynamo", "torch-torchscript", "tf2onnx"


class Injection(NamedTuple):
    """A fault, where it is, and what must be said of it."""

    name: str
    architecture: str
    exporter: str
    operator: str
    """Of the node that is changed; empty where the export itself is made in another mode."""
    at: str
    """What a name of the node has in it: its own, that of a weight, or that of a layer in its metadata."""
    layers: tuple[str, ...]
    """Names of layers, one of which, or a function that it calls, must be told first; "" is the model itself, for its functions."""
    blame: str = "exporter"
    mode: str = "evaluation"
    length: int = 0
    """Another length of the sequences than the one that was exported with."""

    @property
    def in_runtime(self) -> bool:
        return self.blame.startswith("runtime")


def changed(model: ModelProto, injection: Injection) -> ModelProto:
    """Return a copy of an exported model with the fault in it; a fault of a runtime leaves it as it is.

    Raises UsageError where no node fits, or the node cannot have the fault.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    if injection.operator and not injection.in_runtime:
        node = node_at(copy, injection.operator, injection.at)
        done = (
            inject_into(copy, injection.name, node.output[0])
            if injection.name in MODEL_FAULTS
            else EDITS[injection.name](copy, node)
        )
        if not done:
            raise UsageError(
                f"{injection.name}: {node.name or node.output[0]} of {injection.architecture} cannot have it"
            )
    return copy


def node_at(model: ModelProto, operator: str, at: str) -> NodeProto:
    """Return the first node of an operator that has `at` in a name: its own, of an input, or of a layer in its metadata."""
    nodes: Iterable[NodeProto] = model.graph.node
    for node in nodes:
        scopes = [entry.value for entry in node.metadata_props if entry.key == SCOPES]
        if node.op_type == operator and any(at in name for name in (node.name, *node.input, *scopes)):
            return node
    raise UsageError(f"there is no {operator} at {at}")


EDITS: dict[str, Callable[[ModelProto, NodeProto], bool]] = {}


def _edit(name: str) -> Callable[[Callable[[ModelProto, NodeProto], bool]], Callable[[ModelProto, NodeProto], bool]]:
    def register(change: Callable[[ModelProto, NodeProto], bool]) -> Callable[[ModelProto, NodeProto], bool]:
        EDITS[name] = change
        return change

    return register


def constants(model: ModelProto, node: NodeProto) -> Iterator[tuple[int, TensorProto]]:
    """Yield the float initializers that a node reads, with their places."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for position, name in enumerate(node.input):
        if name in initializers and initializers[name].data_type == TensorProto.FLOAT:
            yield position, initializers[name]


def _set(model: ModelProto, node: NodeProto, position: int, value: np.ndarray[Any, Any]) -> None:
    """Give this node alone another constant."""
    name = f"{node.output[0]}/edited-{position}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    node.input[position] = name


def _replace(node: NodeProto, operator: str, *inputs: str, **attributes: Any) -> None:
    fresh = helper.make_node(operator, inputs, list(node.output), node.name, **attributes)
    fresh.metadata_props.extend(node.metadata_props)
    node.CopyFrom(fresh)


@_edit("bias-dropped")
def _bias_dropped(model: ModelProto, node: NodeProto) -> bool:
    """Add, Conv or Gemm without the bias."""
    places = list(constants(model, node))
    if node.op_type == "Add":
        (kept,) = [name for i, name in enumerate(node.input) if i not in {place for place, _ in places}]
        _replace(node, "Identity", kept)
        return True
    del node.input[2:]
    return bool(places)


@_edit("queries-for-keys")
def _queries_for_keys(model: ModelProto, node: NodeProto) -> bool:
    """Exchange the weights of the MatMul with those of the MatMul behind it that reads the same."""
    others = [each for each in model.graph.node if each.op_type == node.op_type and each.input[0] == node.input[0]]
    partner = others[others.index(node) + 1]
    node.input[1], partner.input[1] = partner.input[1], node.input[1]
    return True


@_edit("other-checkpoint")
def _other_checkpoint(model: ModelProto, node: NodeProto) -> bool:
    """Weights of the same shape and size as the right ones, as after another training."""
    position, tensor = max(constants(model, node), key=lambda each: int(np.prod(each[1].dims)))
    weight = numpy_helper.to_array(tensor)
    fresh = np.random.default_rng(0).standard_normal(weight.shape, np.float32) * weight.std() + weight.mean()
    _set(model, node, position, fresh.astype(np.float32))
    return True


@_edit("relu6-unbounded")
def _relu6_unbounded(_: ModelProto, node: NodeProto) -> bool:
    _replace(node, "Relu", node.input[0])
    return True


@_edit("left-out")
def _left_out(model: ModelProto, node: NodeProto) -> bool:
    """The node gives what it reads: a subtraction, an addition that an exporter lost."""
    fixed = {place for place, _ in constants(model, node)}
    _replace(node, "Identity", *[name for i, name in enumerate(node.input) if i not in fixed][:1])
    return True


@_edit("reset-before")
def _reset_before(_: ModelProto, node: NodeProto) -> bool:
    """A GRU's reset gate on the other side of the product with R: Keras and torch have it behind, the standard's default is before."""
    (attribute,) = [each for each in node.attribute if each.name == "linear_before_reset"]
    attribute.i = 1 - attribute.i
    return True


@_edit("gates-of-torch")
def _gates_of_torch(model: ModelProto, node: NodeProto) -> bool:
    """Weights and biases of an LSTM in torch's order of gates, input, forget, cell, output; the standard's is input, output, forget, cell."""
    for position, tensor in list(constants(model, node)):
        if position not in (1, 2, 3):
            continue
        value = numpy_helper.to_array(tensor)
        parts = np.split(value, 4 if position < 3 else 8, axis=1)
        order = [0, 2, 3, 1]
        if position == 3:
            order += [4 + i for i in order]
        _set(model, node, position, np.concatenate([parts[i] for i in order], axis=1))
    return True


ENCODER = "encoder.layer"

INJECTIONS = (
    # the four that peers were tried on
    Injection("epsilon", "bert_small", DYNAMO, "LayerNormalization", f"{ENCODER}.6.output.LayerNorm", (f"{ENCODER}.6.output.LayerNorm",)),
    Injection("gelu-tanh", "bert_small", DYNAMO, "Gelu", f"{ENCODER}.3.", (f"{ENCODER}.3.intermediate.intermediate_act_fn",)),
    Injection("weight-f16", "bert_small", DYNAMO, "MatMul", f"{ENCODER}.9.attention.self.value", (f"{ENCODER}.9.attention.self.value",)),
    Injection("norm-in-training", "small_net", TF2ONNX, "", "", ("small_net/norm0", "norm0"), mode="training"),
    # the mode
    Injection("dropout-left-on", "depthwise", TRACED, "", "", ("dropout",), mode="dropout"),
    # weights
    Injection("bias-dropped", "vit", TRACED, "Add", "vit.layers.2.mlp.fc1.bias", ("vit.layers.2.mlp.fc1",)),
    Injection("queries-for-keys", "bert_small", DYNAMO, "MatMul", f"{ENCODER}.5.attention.self.query", (f"{ENCODER}.5.attention.self.query", f"{ENCODER}.5.attention.self.key")),
    Injection("weight-transposed", "bert_small", DYNAMO, "MatMul", f"{ENCODER}.4.attention.output.dense", (f"{ENCODER}.4.attention.output.dense",)),
    Injection("other-checkpoint", "unet", TRACED, "ConvTranspose", "up.0.weight", ("up.0",)),
    Injection("gates-of-torch", "lstm", TRACED, "LSTM", "/lstm/LSTM_1", ("lstm",)),
    Injection("weight-f16", "resnet", DYNAMO, "Conv", "layer2.1.conv1.weight", ("layer2.1.conv1", "layer2.1.bn1")),
    Injection("bias-element", "convnext", DYNAMO, "Add", "blocks.1.project.bias", ("blocks.1.project",)),
    # attributes
    Injection("axis", "whisper", DYNAMO, "Softmax", "layers.1.self_attn", ("layers.1.self_attn",)),
    Injection("pads-shifted", "resnet", TRACED, "Conv", "/layer2/layer2.1/conv2", ("layer2.1.conv2", "layer2.1.bn2")),
    Injection("pads-shifted", "small_net", TF2ONNX, "Conv", "/conv1_1/", ("small_net/conv1", "small_net/norm1", "conv1", "norm1")),
    Injection("alpha", "unet", TRACED, "LeakyRelu", "/merge.0/merge.0.2", ("merge.0.2",)),
    Injection("resize-linear", "pyramid", TRACED, "Resize", "/upsample/", ("upsample",)),
    Injection("reset-before", "gru", TRACED, "GRU", "/gru/GRU", ("gru",)),
    # operators and what was lost
    Injection("relu6-unbounded", "depthwise", TRACED, "Clip", "/blocks/blocks.1/blocks.1.0", ("blocks.1.0.2",)),
    Injection("left-out", "unet", TRACED, "Sub", "/Sub", ("",)),
    Injection("length-baked", "pooled", TRACED, "", "", ("",), length=17),
    # runtimes
    Injection("epsilon", "bert_small", DYNAMO, "LayerNormalization", f"{ENCODER}.8.attention", (f"{ENCODER}.8.attention.output.LayerNorm",), "runtime"),
    Injection("recurrent-bias", "gru", TRACED, "GRU", "/gru/GRU", ("gru",), "runtime"),
    Injection("resize-corners", "pyramid", TRACED, "Resize", "/upsample_1/", ("upsample",), "runtime"),
    Injection("relu-leaky", "small_net", TF2ONNX, "Relu", "/act1_1/", ("small_net/act1", "act1"), "runtime"),
    Injection("product-f16", "vit", TRACED, "MatMul", "/vit/layers.3/mlp/fc2", ("vit.layers.3.mlp.fc2",), "runtime"),
    Injection("weight-f16-optimized", "resnet", TRACED, "Conv", "/layer3/layer3.1/conv1", ("layer3.1.conv1", "layer3.1.bn1", "layer3.1.relu"), "runtime:optimizer"),
    Injection("gelu-tanh-optimized", "convnext", DYNAMO, "Gelu", "blocks.2", ("blocks.2",), "runtime:optimizer"),
    # a framework
    Injection("half", "half_conv", TRACED, "", "", ("conv2",), "framework"),
)  # fmt: skip
