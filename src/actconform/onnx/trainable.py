"""Which tensors of an exported model a training may change, which loss it has, and what it is refused for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

import actconform.onnx.author.layers  # noqa: F401  registers the losses
from actconform.catalog.models.layer_kinds import LOSSES
from actconform.errors import UsageError, near
from actconform.onnx.constants import FLOATS
from actconform.onnx.gates import deep
from actconform.onnx.nested_graphs import fresh_prefix, own_names, reads, rename_tensors
from actconform.onnx.nodes import LAYER_GRAPHS, Nodes, Wiring
from actconform.text import number_of
from actconform.types.model import LOSS, Layer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from actconform.types.training import Optimizer

TARGET = "target"

# Inputs of operators that hold no weights: running statistics and sizes. Numbers such as an epsilon are scalars.
_NO_WEIGHTS = {"BatchNormalization": (3, 4), "Resize": (1, 2), "Upsample": (1,)}
# What reads single numbers, such as the 1 / sqrt(width) of attention, a clip's bound or an exponent, in whatever shape they are written.
_OF_NUMBERS = frozenset(("Mul", "Div", "Sub", "Pow", "Min", "Max", "Clip", "Where"))
_QUANTIZED = ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


def expect_float_model(graph: onnx.GraphProto) -> None:
    """Raise UsageError where a model computes with quantized numbers, whose rounding has no gradient."""
    for node in deep(graph.node):
        if node.op_type in _QUANTIZED or node.op_type.startswith(("QLinear", "MatMulNBits")):
            label = f"node {node.name or node.output[0]} ({node.op_type})"
            raise UsageError(
                f"the model is quantized: {label} has no gradient; train the model before its quantization"
            )


def output_for_loss(graph: onnx.GraphProto, name: str | None) -> onnx.ValueInfoProto:
    """Return the output that a loss is of: the one of that name, by default the only one. Raises UsageError where it is no such."""
    outputs = {value.name: value for value in graph.output}
    if name is None and len(outputs) > 1:
        raise UsageError(
            f"the model has {number_of(len(outputs), 'output')}, {', '.join(outputs)}: choose which one has a loss with output="
        )
    if not outputs:
        raise UsageError("the model has no outputs, so that there is nothing to have a loss")
    value: onnx.ValueInfoProto | None = outputs.get(next(iter(outputs)) if name is None else name)
    if value is None:
        raise UsageError(f"output: the model has no output {name!r}{near(str(name), list(outputs))}")
    if value.type.tensor_type.elem_type != TensorProto.FLOAT:
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise UsageError(f"output {value.name!r} is of {kind}: a loss is of FLOAT; train the model in float32")
    return value


def append_loss(model: onnx.ModelProto, kind: str, of: onnx.ValueInfoProto) -> None:
    """Add an input "target", of the shape of the output `of`, and the output "loss", a scalar, after the formulas of layer_kinds.

    Raises UsageError for a kind that there is not, or where a name is taken.
    """
    expect_loss(kind)
    graph = model.graph
    names = set(own_names(graph))
    expect_free(names, (TARGET, LOSS))
    nodes = Nodes("f32")
    result = LAYER_GRAPHS[kind](
        nodes, Wiring(Layer(name=LOSS, kind=kind, inputs=()), [of.name, TARGET], [], training=True)
    )
    prefix = fresh_prefix("loss_", names)
    fixed = {of.name: of.name, TARGET: TARGET, result: LOSS}
    rename_tensors(nodes.nodes, lambda name: fixed.get(name, prefix + name))
    for tensor in nodes.initializers:
        tensor.name = prefix + tensor.name
    for node in nodes.nodes:
        node.name = prefix + node.name
    graph.node.extend(nodes.nodes)
    graph.initializer.extend(nodes.initializers)
    target = graph.input.add()
    target.CopyFrom(of)
    target.name = TARGET
    graph.output.append(onnx.helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, ()))


def expect_loss(kind: str) -> None:
    """Raise UsageError for a loss that there is not."""
    if kind not in LOSSES:
        raise UsageError(f"there is no loss {kind!r}{near(kind, list(LOSSES))}")


def expect_optimizer(optimizer: Optimizer) -> None:
    """Raise UsageError where a number of an optimizer cannot be, or is of another kind."""
    ranges = {
        "learning_rate": (0.0, float("inf")),
        "momentum": (0.0, 1.0),
        "beta1": (0.0, 1.0),
        "beta2": (0.0, 1.0),
        "epsilon": (0.0, float("inf")),
        "weight_decay": (0.0, float("inf")),
    }
    for name, (least, below) in ranges.items():
        value = getattr(optimizer, name)
        if not least <= value < below:
            raise UsageError(f"optimizer: {name} = {value:g} is expected to be {least:g} or more, and below {below:g}")
    if optimizer.kind != "sgd" and (optimizer.momentum or optimizer.nesterov):
        raise UsageError(f"optimizer: momentum and nesterov are of sgd, not of {optimizer.kind}")


def expect_free(taken: Collection[str], names: Sequence[str]) -> None:
    """Raise UsageError where one of the names that a graph of a step gives its tensors is taken by the model's."""
    if clash := next((name for name in names if name in taken), None):
        raise UsageError(
            f"the model has a tensor {clash!r}, as the graph of a step calls one of its own: rename the model's"
        )


def named_weights(model: onnx.ModelProto, names: Sequence[str]) -> list[str]:
    """Return the names, each once, of float32 initializers to train. Raises UsageError where one is none, or there are none."""
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for name in names:
        if name not in kinds:
            raise UsageError(f"parameters: the model has no initializer {name!r}{near(name, list(kinds))}")
        if kinds[name] != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(kinds[name])
            raise UsageError(f"parameters: {name!r} is of {kind}: only FLOAT is trained")
    if not names:
        raise UsageError(
            "parameters is empty: name initializers of the model, or leave it out for all that can be trained"
        )
    return list(dict.fromkeys(names))


def likely_weights(model: onnx.ModelProto) -> list[str]:
    """Return the float32 initializers that may be weights: of one dimension or more, all numbers finite, read where weights are.

    One that holds a single number is a bias or a slope where something else than arithmetic with it reads it, such as Add or PRelu.

    Raises UsageError where there are none, and says what there is instead.
    """
    no_weights = {*_read_as_no_weights(model.graph), *_single_numbers(model.graph)}
    floats = [
        tensor for tensor in model.graph.initializer if tensor.data_type in FLOATS and tensor.name not in no_weights
    ]
    arrays = [tensor for tensor in floats if len(tensor.dims) and tensor.data_type == TensorProto.FLOAT]
    chosen = [tensor.name for tensor in arrays if np.isfinite(numpy_helper.to_array(tensor)).all()]
    if not chosen:
        kinds = sorted({TensorProto.DataType.Name(tensor.data_type) for tensor in floats if len(tensor.dims)})
        instead = (
            f"its initializers are of {', '.join(kinds)}" if kinds else "it has no initializers of floats but numbers"
        )
        raise UsageError(
            f"the model has nothing to train, float32 weights as initializers: {instead}; export it with its weights"
        )
    return chosen


def statistics_given(graph: onnx.GraphProto, names: Collection[str]) -> dict[str, tuple[onnx.NodeProto, int]]:
    """Return by running statistic the node BatchNormalization in training that gives its next value, and as which output."""
    return {
        node.input[3 + place]: (node, 1 + place)
        for node in graph.node
        if node.op_type == "BatchNormalization"
        and any(each.name == "training_mode" and each.i for each in node.attribute)
        for place in range(2)
        if node.input[3 + place] in names
    }


def with_inputs(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Make inputs of initializers."""
    stated = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in names and tensor.name not in stated:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    constants = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def depends_on(graph: onnx.GraphProto, start: str) -> set[str]:
    """Return the tensors that are computed from `start`, at any number of steps."""
    reached = {start}
    for node in graph.node:
        if not reached.isdisjoint(reads(node)):
            reached.update(name for name in node.output if name)
    return reached


def _read_as_no_weights(graph: onnx.GraphProto) -> Iterator[str]:
    for node in deep(graph.node):
        for place in _NO_WEIGHTS.get(node.op_type, ()):
            yield from node.input[place : place + 1]


def _single_numbers(graph: onnx.GraphProto) -> set[str]:
    """Return the initializers of a single number that arithmetic alone reads."""
    single = {tensor.name for tensor in graph.initializer if math.prod(tensor.dims) == 1}
    return single - {name for node in deep(graph.node) if node.op_type not in _OF_NUMBERS for name in node.input}
