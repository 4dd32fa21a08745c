"""Nodes that read or give element types which the standard's schema of their operator does not allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx
from onnx import TensorProto

from actconform.checking.flatten import FLOW
from actconform.errors import Unsupported
from actconform.onnx.evaluate.element_types import STORAGE, element_type_name, output_types
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.onnx.gates import standard_opset
from actconform.onnx.inference import infer
from actconform.onnx.nested_graphs import reads, subgraphs
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_FEW = 5  # names in a message


class IllTyped(NamedTuple):
    """A node whose tensors its operator does not take together."""

    node: onnx.NodeProto
    words: str
    """What it reads or gives, and what its operator takes: "reads a of float32 and b of float16, which must be of one type"."""


def ill_typed_nodes(model: onnx.ModelProto) -> Iterator[IllTyped]:
    """Yield the ill-typed nodes of a model without functions, those in branches and loops among them, in order.

    Types are those that onnx infers and the model states. The result of an ill-typed node has none, nor has what follows from it; operators
    outside the standard are not judged.
    """
    try:
        inferred = infer(model)
    except onnx.shape_inference.InferenceError:  # sizes contradict each other: the types that the model states are left
        inferred = model.graph
    yield from _of_graph(model.graph, inferred, standard_opset(model), {})


def _of_graph(
    graph: onnx.GraphProto, inferred: onnx.GraphProto, opset: int, around: Mapping[str, int]
) -> Iterator[IllTyped]:
    types = {**around, **_stated_types(inferred)}
    doubtful: set[str] = set()
    for node, twin in zip(graph.node, inferred.node, strict=True):
        standard = node.domain in STANDARD and onnx.defs.has(node.op_type, opset, "")
        words = _misfit(node, opset, types) if standard and node.op_type not in FLOW else ""
        if words:
            yield IllTyped(node, words)
        for body, described in zip(subgraphs(node), subgraphs(twin), strict=True):
            yield from _of_graph(body, described, opset, types)
        if words or (node.op_type != "Cast" and not doubtful.isdisjoint(reads(node))):
            doubtful.update(node.output)
            types.update(dict.fromkeys(node.output, 0))


def _stated_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return by name the element types of the tensors of a graph; 0 for what is no tensor, or not known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    types: dict[str, int] = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _misfit(node: onnx.NodeProto, opset: int, types: Mapping[str, int]) -> str:
    """Return what does not fit; "" where all does, as far as the types are known."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    read = [types.get(name, 0) if name else 0 for name in node.input]
    first: dict[str, int] = {}
    for i, (name, kind) in enumerate(zip(node.input, read, strict=True)):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)] if schema.inputs else None
        if not kind or formal is None:
            continue
        if _spelled(kind) not in formal.types:
            return f"reads {_named(name, kind)}, and takes {_listed(formal.types)} there"
        before = first.setdefault(formal.type_str, i) if formal.is_homogeneous else i
        if read[before] != kind:
            return (
                f"reads {_named(node.input[before], read[before])} and {_named(name, kind)}, which must be of one type"
            )
    return _misstated_output(node, opset, read, types)


def _misstated_output(node: onnx.NodeProto, opset: int, read: Sequence[int], types: Mapping[str, int]) -> str:
    """Return which output the graph states to be of another type than its operator gives; "" where none is."""
    if any(name and not kind for name, kind in zip(node.input, read, strict=True)):
        return ""
    try:
        results = output_types(node, opset, read)
    except Unsupported:
        return ""
    for name, kind in zip(node.output, results, strict=True):
        if types.get(name) and kind != types[name]:
            return (
                f"gives {_shown(kind)}, and the graph states {_shown(types[name])} of its output {one_line(name, 80)}"
            )
    return ""


def _named(name: str, kind: int) -> str:
    return f"{one_line(name, 80)} of {_shown(kind)}"


def _shown(kind: int) -> str:
    return str(STORAGE.get(kind, element_type_name(kind).lower()))


def _spelled(kind: int) -> str:
    return f"tensor({TensorProto.DataType.Name(kind).lower()})"


def _listed(spelled: set[str]) -> str:
    """Return the types that a schema allows, as people call them."""
    names = sorted(_shown(kind) for kind in TensorProto.DataType.values() if kind and _spelled(kind) in spelled)
    if not names:
        return "no tensor"
    return ", ".join(names[:_FEW]) + (f" and {number_of(len(names) - _FEW, 'more type')}" if len(names) > _FEW else "")
