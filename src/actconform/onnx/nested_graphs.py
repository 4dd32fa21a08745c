"""Graphs inside nodes of control flow: which there are, what they read from around them, and how they get other names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node of control flow holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(body: Any) -> Iterator[Any]:
    """Yield a graph, or the body of a function, and the graphs that its nodes hold, at any depth."""
    yield body
    for node in body.node:
        for graph in subgraphs(node):
            yield from graphs(graph)


def own_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of all tensors that a graph takes, holds or computes, those of graphs inside its nodes among them."""
    for value in (*graph.input, *graph.initializer):
        yield value.name
    for tensor in graph.sparse_initializer:
        yield tensor.values.name
    for node in graph.node:
        yield from node.output
        for body in subgraphs(node):
            yield from own_names(body)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its graphs take from around it among them; '' is one left out."""
    yield from node.input
    for body in subgraphs(node):
        yield from captured(body)


def captured(graph: onnx.GraphProto) -> list[str]:
    """Return the tensors that a graph takes from around it, each once, in order."""
    inside = {value.name for value in (*graph.input, *graph.initializer)}
    inside.update(tensor.values.name for tensor in graph.sparse_initializer)
    inside.update(name for node in graph.node for name in node.output)
    outside = [name for node in graph.node for name in reads(node)]
    outside += [value.name for value in graph.output]
    return [name for name in dict.fromkeys(outside) if name and name not in inside]


def renamed(graph: onnx.GraphProto, rename: Callable[[str], str]) -> onnx.GraphProto:
    """Return a copy of a graph in which every tensor, at any depth, is called `rename(name)`; nodes lose their names."""
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    _rename(copy, rename)
    return copy


def rename_tensors(nodes: Iterable[onnx.NodeProto], rename: Callable[[str], str]) -> None:
    """Call every tensor that nodes read or give, at any depth, `rename(name)`; nodes in graphs inside them lose their names."""
    for node in nodes:
        for names in (node.input, node.output):
            names[:] = [rename(name) if name else "" for name in names]
        for body in subgraphs(node):
            _rename(body, rename)


def _rename(graph: onnx.GraphProto, rename: Callable[[str], str]) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = rename(value.name)
    for tensor in graph.sparse_initializer:
        tensor.values.name = rename(tensor.values.name)
    for node in graph.node:
        node.ClearField("name")
    rename_tensors(graph.node, rename)


def fresh_prefix(prefix: str, names: Collection[str]) -> str:
    """Return `prefix`, lengthened until no name of `names` begins with it."""
    while any(name.startswith(prefix) for name in names):
        prefix = "v" + prefix
    return prefix


def needed(nodes: Sequence[onnx.NodeProto], names: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes on which the tensors `names` depend, in order."""
    wanted = set(names)
    required = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            wanted.update(reads(node))
            required.append(node)
    return required[::-1]
