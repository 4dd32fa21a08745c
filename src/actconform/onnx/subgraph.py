"""Subgraphs: the part of a graph that some of its tensors need, to see a layer's value without the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

from actconform.errors import near
from actconform.onnx.gates import deep
from actconform.onnx.inference import infer
from actconform.onnx.nested_graphs import subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FIELDS = ("node", "input", "output", "initializer", "sparse_initializer", "value_info", "quantization_annotation")


def extract_subgraph(model_bytes: bytes, outputs: Sequence[str]) -> bytes:
    """Return the same graph cut down to what the tensors `outputs` need, which become its outputs, in this order.

    Nodes stay as they are, in order; nodes, inputs, initializers, noted types and functions that nothing needs any more are
    gone. Any tensor of the main graph can be an output: one that was none is typed as the graph notes or onnx infers, and
    stays untyped where neither says. Raises ValueError for a tensor that the graph does not have, with those of near names,
    and protobuf's DecodeError for bytes that are no model.
    """
    model = onnx.load_from_string(model_bytes)
    types = _types(model, outputs)
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed |= _reads(node)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = part.graph
    for field in FIELDS:
        graph.ClearField(field)
    graph.node.extend(reversed(nodes))
    graph.input.extend(value for value in model.graph.input if value.name in needed)
    graph.output.extend(types[name] for name in dict.fromkeys(outputs))
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    graph.sparse_initializer.extend(tensor for tensor in model.graph.sparse_initializer if tensor.values.name in needed)
    inner = needed.union(*(node.output for node in nodes)) - set(outputs)
    graph.value_info.extend(value for value in model.graph.value_info if value.name in inner)
    annotations = model.graph.quantization_annotation
    graph.quantization_annotation.extend(annotation for annotation in annotations if annotation.tensor_name in needed)
    part.ClearField("functions")
    part.functions.extend(_called(model, nodes))
    blob: bytes = part.SerializeToString(deterministic=True)
    return blob


def _types(model: onnx.ModelProto, outputs: Sequence[str]) -> dict[str, onnx.ValueInfoProto]:
    """Return what is known of the type of each of `outputs`; raise ValueError for one that is nowhere."""
    graph = model.graph
    dense = [*graph.initializer, *(tensor.values for tensor in graph.sparse_initializer)]
    types = {tensor.name: helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in dense}
    everywhere = {
        *types,
        *(value.name for value in graph.input),
        *(name for node in graph.node for name in node.output),
    }
    for name in outputs:
        if not name or name not in everywhere:
            raise ValueError(f"the graph has no tensor {name!r}{near(name, sorted(everywhere - {''}))}")
    types |= {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    if not types.keys() >= set(outputs):
        inferred = infer(model).value_info
        types = {value.name: value for value in inferred} | types
    return {name: types.get(name, onnx.ValueInfoProto(name=name)) for name in outputs}


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, and those outside that its subgraphs capture."""
    return {name for name in node.input if name}.union(*(_captured(graph) for graph in subgraphs(node)))


def _captured(graph: onnx.GraphProto) -> set[str]:
    dense = (*graph.initializer, *(tensor.values for tensor in graph.sparse_initializer))
    inside = {value.name for value in (*graph.input, *dense)}.union(*(node.output for node in graph.node))
    return {value.name for value in graph.output}.union(*(_reads(node) for node in graph.node)) - inside


def _called(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> list[onnx.FunctionProto]:
    """Return the model's functions that `nodes` call, and those that these call, in the model's order."""
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    called, waiting = set(), list(deep(nodes))
    while waiting:
        node = waiting.pop()
        key = (node.domain, node.op_type, node.overload)
        if key in functions and key not in called:
            called.add(key)
            waiting += deep(functions[key].node)
    return [function for key, function in functions.items() if key in called]
