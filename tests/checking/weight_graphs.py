"""Graphs that hold the weights of a trained model, and what a comparison says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.flatten import FlatGraph, FlatNode
from actconform.checking.trained.weights import compare_weights
from actconform.types.trained import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.trained.weights import WeightCheck, WeightsComparison


GATES = {"LSTM": (4, [0, 3, 1, 2]), "GRU": (3, [1, 0, 2])}
"""How many gates a cell of torch has, and in which order ONNX has them."""


def onnx_gates(array: Any, cell: str, axis: int = 0) -> Any:
    """Return the blocks of torch's gates in ONNX's order."""
    count, order = GATES[cell]
    blocks = np.split(array, count, axis)
    return np.concatenate([blocks[i] for i in order], axis)


def numbers(seed: int, *shape: int, scale: float = 1.0) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def node(op_type: str, *inputs: str, name: str = "", **attributes: Any) -> FlatNode:
    """Return a node that gives one tensor, called as its inputs are with a mark behind."""
    proto = helper.make_node(
        op_type, list(inputs), ["+".join(inputs) + "'"], name=name or f"{op_type}:{inputs[-1]}", **attributes
    )
    return FlatNode(proto, (TensorProto.FLOAT,), None)


def graph(constants: Mapping[str, Any], nodes: Sequence[FlatNode] | None = None) -> FlatGraph:
    """Return a graph with these constants, all of them initializers; without nodes one that reads each."""
    flat = FlatGraph(onnx.ModelProto())
    for name, array in constants.items():
        tensor = numpy_helper.from_array(np.asarray(array), name)
        flat.model.graph.initializer.append(tensor)
        flat.constants[name] = numpy_helper.to_array(tensor)
    flat.nodes = list(nodes) if nodes is not None else [node("Add", "x", name) for name in constants]
    return flat


def compared(
    parameters: Mapping[str, Any],
    constants: Mapping[str, Any],
    nodes: Sequence[FlatNode] | None = None,
    layers: Sequence[LayerRecord] = (),
) -> tuple[dict[str, WeightCheck], WeightsComparison]:
    """Return the check of each weight by its name, and all of the comparison."""
    comparison = compare_weights(parameters, graph(constants, nodes), layers)
    assert [check.parameter for check in comparison.checks] == list(parameters)
    return {check.parameter: check for check in comparison.checks}, comparison


def layer(name: str, kind: str, *parameters: str, reads: int = 0, gives: int = 1) -> LayerRecord:
    return LayerRecord(name, kind, (reads,), (gives,), tuple(f"{name}.{parameter}" for parameter in parameters))
