"""What a step of training makes of running statistics, where the graph of the forward pass does not give it itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from onnx import TensorProto, helper

from actconform.onnx.constants import constant_tensor, operator_node
from actconform.onnx.gates import standard_opset
from actconform.onnx.nested_graphs import fresh_prefix, own_names
from actconform.onnx.trainable import statistics_given
from actconform.types.training_run import NEXT

if TYPE_CHECKING:
    import onnx

    from actconform.types.model import Layer, Model

_AXES_AS_INPUT = 18  # since when ReduceMean takes its axes as an input


def append_statistics(graph_of_model: onnx.ModelProto, model: Model) -> list[str]:
    """Add to a forward graph in training what its batch normalizations make of their running statistics; return their names.

    Frameworks update these beside the computation that they export, so that no output needs them and exporters leave them out. Those that a
    node BatchNormalization gives are left alone. The others are computed of what the layer reads, channels last: momentum times the old plus
    1 - momentum times the batch's mean, or biased variance, all float32.
    """
    graph = graph_of_model.graph
    stated = {value.name for value in graph.input}
    shapes = {value.name: value.shape for value in model.inputs} | model.shapes
    wanted = {
        f"{layer.name}.{short}": layer
        for layer in model.layers
        if layer.kind == "batch-norm" and model.training
        for short in ("mean", "variance")
    }
    missing = [name for name in wanted if name not in statistics_given(graph, wanted)]
    writer = _Statistics(graph_of_model)
    for name in missing:
        if name not in stated:
            shape = next(parameter.shape for parameter in model.parameters if parameter.name == name)
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        layer = wanted[name]
        x = layer.inputs[0]
        tensor = f"layer.{x}" if x in model.shapes else x
        writer.write(name, layer, tensor, len(shapes[x]))
    return missing


class _Statistics:
    """The nodes that are added to one graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph, self._opset = model.graph, standard_opset(model)
        self._prefix = fresh_prefix("statistics_", set(own_names(model.graph)))

    def write(self, name: str, layer: Layer, x: str, rank: int) -> None:
        """Write the next value of a running statistic of a layer that reads `x`, of so many dimensions beside the batch."""
        axes = list(range(rank))
        statistic = self._mean(x, axes)
        if name.endswith(".variance"):
            error = self._node("Sub", x, statistic)
            statistic = self._mean(self._node("Mul", error, error), axes)
        momentum = float(cast("float", layer.settings["momentum"]))
        old = self._node("Mul", name, self._number(momentum))
        new = self._node("Mul", statistic, self._number(1.0 - momentum))
        self._node("Add", old, new, result=NEXT + name)

    def _mean(self, x: str, axes: list[int]) -> str:
        if self._opset < _AXES_AS_INPUT:
            return self._node("ReduceMean", x, axes=axes, keepdims=0)
        return self._node("ReduceMean", x, self._initializer(np.array(axes), TensorProto.INT64), keepdims=0)

    def _number(self, value: float) -> str:
        return self._initializer(np.float64(value), TensorProto.FLOAT)

    def _initializer(self, value: Any, element_type: int) -> str:
        name = f"{self._prefix}constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(constant_tensor(value, element_type, name))
        return name

    def _node(self, operator: str, *operands: str, result: str = "", **attributes: Any) -> str:
        name = f"{self._prefix}{operator}_{len(self._graph.node)}"
        self._graph.node.append(operator_node(operator, operands, [result or name], name=name, **attributes))
        return result or name
