"""Changes of a graph's nodes, attributes, constants and names, as faults of exporters and of runtimes' rewriting need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnx import GraphProto, ModelProto, NodeProto

FAMILIES = {"export": "export", "ort": "graph optimization"}
BLAMES = {"export": "exporter", "ort": "runtime"}


def graph_fault(
    into: str, name: str, what: str, *cases: str, family: str = "", **expected: Any
) -> Callable[[Callable[[ModelProto], None]], Callable[[bytes], bytes]]:
    """Register the fault of an exporter or a runtime whose function changes a ModelProto in place; no node to change, no fault."""

    def register(change: Callable[[ModelProto], None]) -> Callable[[bytes], bytes]:
        def inject(model: bytes) -> bytes:
            proto = onnx.load_from_string(model)
            change(proto)
            return bytes(proto.SerializeToString())

        fault(into, name, family or FAMILIES[into], what, *cases, blames=BLAMES[into], on_graph=True, **expected)(
            inject
        )
        return inject

    return register


def nodes(model: ModelProto, operator: str) -> Iterator[NodeProto]:
    """Yield the nodes of one operator."""
    return (node for node in model.graph.node if node.op_type == operator)


def drop_attribute(node: NodeProto, name: str) -> None:
    """Leave an attribute to its default."""
    source = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(source)


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give an attribute another value."""
    drop_attribute(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def replace_operator(node: NodeProto, operator: str, **attributes: Any) -> None:
    """Make a node another operator of the same inputs and outputs."""
    node.op_type = operator
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())


def change_constants(graph: GraphProto, change: Callable[[Any], Any]) -> None:
    """Change the value of every floating-point initializer."""
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = np.asarray(change(numpy_helper.to_array(tensor)), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def parameter(model: ModelProto, layer: str, name: str) -> TensorProto | None:
    """Return the initializer that torch's exporter keeps for a layer's parameter, by torch's names; None where it has none."""
    ends = (f"layer-{layer}.{name}", f"layer-{layer}.0.{name}")
    return next((tensor for tensor in model.graph.initializer if tensor.name.endswith(ends)), None)


def change_parameter(model: ModelProto, layer: str, name: str, change: Callable[[Any], Any]) -> None:
    """Change the numbers of one initializer; shape and dtype stay."""
    tensor = parameter(model, layer, name)
    if tensor is not None:
        value = numpy_helper.to_array(tensor)
        fresh = np.asarray(change(value)).astype(value.dtype).reshape(value.shape)
        tensor.CopyFrom(numpy_helper.from_array(fresh, tensor.name))


def rename_output(model: ModelProto, old: str, new: str) -> None:
    """Call an output of the graph otherwise, wherever it is mentioned."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in (*model.graph.output, *model.graph.value_info):
        value.name = new if value.name == old else value.name


def bypass(model: ModelProto, node: NodeProto) -> None:
    """Take a node out: what read its output reads its first input."""
    source, gone = node.input[0], node.output[0]
    model.graph.node.remove(node)
    for reader in model.graph.node:
        reader.input[:] = [source if name == gone else name for name in reader.input]
    if gone in {value.name for value in model.graph.output}:
        model.graph.node.append(helper.make_node("Identity", [source], [gone]))
