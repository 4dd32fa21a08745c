"""What a graph of inference must not have: nodes that draw random numbers, or that are left in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from actconform.onnx.constant_folding import infer_constants
from actconform.onnx.gates import deep, standard_opset
from actconform.onnx.subgraph import extract_subgraph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DRAWING = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
TRAINING_IS_STATED = 14  # before this opset BatchNormalization trains where more than one output is asked for


def drawing_nodes(model: bytes, outputs: Sequence[str]) -> list[str]:
    """Return, in words, the nodes that `outputs` need and that draw random numbers, Dropout that trains among them.

    Dropout whose training mode only a run tells counts, one whose ratio is the constant 0 does not. Raises ValueError for an
    output that the graph does not have, and protobuf's DecodeError for bytes that are no model.
    """
    proto = onnx.load_from_string(extract_subgraph(model, outputs))
    nodes = list(deep(proto.graph.node))
    drawing = [_words(node) for node in nodes if node.op_type in DRAWING]
    dropouts = [node for node in nodes if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]]
    if dropouts:
        constants = _constants(proto)
        drawing += [f"{_words(node)} in training" for node in dropouts if _trains(node, constants)]
    return drawing


def training_norms(model: bytes, outputs: Sequence[str]) -> list[str]:
    """Return, in words, the nodes BatchNormalization that `outputs` need and that use the batch's own statistics. Raises as above."""
    proto = onnx.load_from_string(extract_subgraph(model, outputs))
    stated = standard_opset(proto) >= TRAINING_IS_STATED
    return [
        _words(node)
        for node in deep(proto.graph.node)
        if node.op_type == "BatchNormalization"
        and (
            any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
            if stated
            else len([name for name in node.output if name]) > 1
        )
    ]


def _constants(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in deep(proto.graph.node):
        if node.op_type == "Constant":
            constants.update((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
    try:
        return constants | infer_constants(proto)[1]
    except onnx.shape_inference.InferenceError:
        return constants


def _trains(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    ratio, training = (constants.get(name) for name in node.input[1:3])
    if ratio is not None and not np.any(numpy_helper.to_array(ratio)):
        return False
    return training is None or bool(np.any(numpy_helper.to_array(training)))


def _words(node: onnx.NodeProto) -> str:
    return f"{node.op_type} (node {node.name or node.output[0]})"
