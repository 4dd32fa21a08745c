"""Nodes that read or give types which the standard does not allow: tensors, sequences, and what passes between a node and its bodies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import onnx
from onnx import TensorProto

from actconform.checking.flatten import FLOW
from actconform.errors import Unsupported
from actconform.onnx.evaluate.element_types import STORAGE, output_types
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.onnx.gates import standard_opset
from actconform.onnx.inference import infer
from actconform.onnx.nested_graphs import reads
from actconform.text import listed, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

_FEW = 5  # names in a message
_SCAN_OF_ROWS = 9  # the opset since which Scan has no batch, and no lengths of sequences as its first input
_BODIED = (*FLOW, "SequenceMap")
_OPTIONAL = re.compile(r"^optional\((.*)\)$")
_SPELLED = {f"tensor({name.lower()})": number for name, number in TensorProto.DataType.items() if number}
_TENSOR = {number: spelled for spelled, number in _SPELLED.items()}


class IllTyped(NamedTuple):
    """A node whose tensors its operator does not take together."""

    node: onnx.NodeProto
    words: str
    """What it reads or gives, and what its operator takes: "reads a of float32 and b of float16, which must be of one type"."""


def ill_typed_nodes(model: onnx.ModelProto) -> Iterator[IllTyped]:
    """Yield the ill-typed nodes of a model without functions whose nodes have the form of the standard, those in bodies among them, in order.

    Types are those that onnx infers and the model states. The result of an ill-typed node has none, nor has what follows from it; operators
    outside the standard are not judged.
    """
    try:
        inferred = infer(model)
    except onnx.shape_inference.InferenceError:  # sizes contradict each other: the types that the model states are left
        inferred = model.graph
    yield from _of_graph(model.graph, inferred, standard_opset(model), {})


# Types are spelled as schemas spell them, "tensor(float)", "seq(tensor(float))"; "" where one is not known.
_Types = dict[str, str]


class _Body(NamedTuple):
    """A graph inside a node, walked through."""

    inputs: Sequence[str]
    outputs: Sequence[str]
    types: Mapping[str, str]

    def named(self, name: str) -> str:
        return f"{one_line(name, 80)} of {_shown(self.types.get(name, ''))}"


def _of_graph(
    graph: onnx.GraphProto, inferred: onnx.GraphProto, opset: int, around: Mapping[str, str]
) -> Generator[IllTyped, None, _Types]:
    """Yield the ill-typed nodes of a graph, and return the types of all that it sees; `around` has those of the names around it."""
    types = {**around, **_stated_types(inferred)}
    doubtful: set[str] = set()
    for node, twin in zip(graph.node, inferred.node, strict=True):
        standard = node.domain in STANDARD and onnx.defs.has(node.op_type, opset, "")
        words = _misread(node, opset, types) if standard else ""
        bodies = yield from _bodies(node, twin, opset, types)
        if standard and not words:
            read = [types.get(name, "") if name else "" for name in node.input]
            results = _results(node, opset, read, bodies)
            words = _misfit_between(node, opset, read, bodies) or _misstated_output(node, results, types)
            for name, kind in zip(node.output, results, strict=False):
                types[name] = types.get(name) or kind
        if words:
            yield IllTyped(node, words)
        if words or (node.op_type != "Cast" and not doubtful.isdisjoint(reads(node))):
            doubtful.update(node.output)
            types.update(dict.fromkeys(node.output, ""))
    return types


def _bodies(
    node: onnx.NodeProto, twin: onnx.NodeProto, opset: int, types: Mapping[str, str]
) -> Generator[IllTyped, None, dict[str, _Body]]:
    """Yield the ill-typed nodes of the graphs inside a node, and return these by the attributes that hold them."""
    bodies = {}
    described = {attribute.name: attribute.g for attribute in twin.attribute if attribute.HasField("g")}
    for attribute in node.attribute:
        if not attribute.HasField("g"):
            continue
        graph = attribute.g
        inputs, outputs = [value.name for value in graph.input], [value.name for value in graph.output]
        read = [types.get(name, "") if name else "" for name in node.input]
        around = {**types, **dict(zip(inputs, _passed(node, opset, read), strict=False))}
        inside = yield from _of_graph(graph, described[attribute.name], opset, around)
        bodies[attribute.name] = _Body(inputs, outputs, inside)
    return bodies


def _passed(node: onnx.NodeProto, opset: int, read: Sequence[str]) -> Sequence[str]:
    """Return the types of what a node passes to its body, in order."""
    match node.op_type:
        case "Loop":
            return [_TENSOR[TensorProto.INT64], _TENSOR[TensorProto.BOOL], *read[2:]]
        case "Scan":
            return read[1:] if opset < _SCAN_OF_ROWS else read
        case "SequenceMap":
            return [_element(kind) or kind for kind in read]
    return []


def _stated_types(graph: onnx.GraphProto) -> _Types:
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: kind for value in values if (kind := _spelled(value.type))}
    return types | {tensor.name: _TENSOR.get(tensor.data_type, "") for tensor in graph.initializer}


def _spelled(kind: onnx.TypeProto) -> str:
    match kind.WhichOneof("value"):
        case "tensor_type":
            return _TENSOR.get(kind.tensor_type.elem_type, "")
        case "sparse_tensor_type":
            dense = _TENSOR.get(kind.sparse_tensor_type.elem_type, "")
            return f"sparse_{dense}" if dense else ""
        case "sequence_type":
            element = _spelled(kind.sequence_type.elem_type)
            return f"seq({element})" if element else ""
        case "optional_type":
            element = _spelled(kind.optional_type.elem_type)
            return f"optional({element})" if element else ""
    return ""


def _element(kind: str) -> str:
    """Return the type of what a sequence holds; "" for what is none."""
    return kind[4:-1] if kind.startswith("seq(") else ""


def _sequence(kind: str) -> str:
    return f"seq({kind})" if kind else ""


# What an operator on sequences gives, by the type of its first input.
_FROM_FIRST: Mapping[str, Callable[[str], str]] = {
    "SequenceConstruct": _sequence,
    "SplitToSequence": _sequence,
    "SequenceAt": _element,
    "ConcatFromSequence": _element,
    "SequenceInsert": str,
    "SequenceErase": str,
    "Identity": str,
}


def _misread(node: onnx.NodeProto, opset: int, types: Mapping[str, str]) -> str:
    """Return what an operator does not take, or not together; "" where it takes all, as far as the types are known."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    read = [types.get(name, "") if name else "" for name in node.input]
    first: dict[str, int] = {}
    for i, (name, kind) in enumerate(zip(node.input, read, strict=True)):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)] if schema.inputs else None
        if not kind or formal is None:
            continue
        if kind not in formal.types:
            return f"reads {_named(name, kind)}, and takes {_allowed(formal.types)} there"
        before = first.setdefault(formal.type_str, i) if formal.is_homogeneous else i
        if read[before] != kind:
            return (
                f"reads {_named(node.input[before], read[before])} and {_named(name, kind)}, which must be of one type"
            )
    if node.op_type == "SequenceInsert" and read[1] and _element(read[0]) not in ("", read[1]):
        return f"reads {_named(node.input[0], read[0])} and {_named(node.input[1], read[1])}, which must be of one type"
    return ""


def _results(node: onnx.NodeProto, opset: int, read: Sequence[str], bodies: Mapping[str, _Body]) -> list[str]:
    """Return the types of what a node gives, as far as they follow from its operator, what it reads and its bodies."""
    if node.op_type in _BODIED:
        return _results_of_body(node, next(iter(bodies.values()), None))
    if node.op_type == "SequenceEmpty":
        stated = next((attribute.i for attribute in node.attribute if attribute.name == "dtype"), TensorProto.FLOAT)
        return [f"seq({_TENSOR[stated]})" if stated in _TENSOR else ""]
    if node.op_type in _FROM_FIRST:
        return [_FROM_FIRST[node.op_type](read[0])]
    if any(name and kind not in _SPELLED for name, kind in zip(node.input, read, strict=True)):
        return []
    try:
        return [_TENSOR.get(kind, "") for kind in output_types(node, opset, [_SPELLED.get(kind, 0) for kind in read])]
    except Unsupported:
        return []


def _results_of_body(node: onnx.NodeProto, body: _Body | None) -> list[str]:
    results = [body.types.get(name, "") for name in body.outputs] if body else []
    if node.op_type == "SequenceMap":
        return [_sequence(kind) for kind in results]
    return results[1:] if node.op_type == "Loop" else results


def _misstated_output(node: onnx.NodeProto, results: Sequence[str], types: Mapping[str, str]) -> str:
    """Return which output the graph states to be of another type than its operator gives; "" where none is."""
    for name, kind in zip(node.output, results, strict=False):
        if _differ(kind, types.get(name)):
            return (
                f"gives {_shown(kind)}, and the graph states {_shown(types[name])} of its output {one_line(name, 80)}"
            )
    return ""


def _misfit_between(node: onnx.NodeProto, opset: int, read: Sequence[str], bodies: Mapping[str, _Body]) -> str:
    """Return what passes between a node of control flow and its bodies in two types; "" where nothing does."""
    if node.op_type == "If" and len(bodies) == 2:
        return _branches(bodies["then_branch"], bodies["else_branch"])
    body = bodies.get("body")
    if body is None or node.op_type not in _BODIED:
        return ""
    return _misfit_passed(node, opset, read, body) or _misfit_carried(node, body)


def _branches(then: _Body, otherwise: _Body) -> str:
    for name, else_name in zip(then.outputs, otherwise.outputs, strict=False):
        if _differ(then.types.get(name), otherwise.types.get(else_name)):
            return f"gives {then.named(name)} in then_branch and {otherwise.named(else_name)} in else_branch, which must be of one type"
    return ""


def _misfit_passed(node: onnx.NodeProto, opset: int, read: Sequence[str], body: _Body) -> str:
    kinds = _passed(node, opset, read)
    names = ["the iteration", "the condition", *node.input[2:]] if node.op_type == "Loop" else node.input[-len(kinds) :]
    for name, kind, inside in zip(names, kinds, body.inputs, strict=False):
        if _differ(kind, body.types.get(inside)):
            return f"passes {_named(name, kind)} to {body.named(inside)} in its body"
    return ""


def _misfit_carried(node: onnx.NodeProto, body: _Body) -> str:
    """Return what a body takes in one type and gives for the next turn in another. The condition is left: runtimes convert it."""
    match node.op_type:
        case "Loop":
            carried = list(zip(body.inputs[2:], body.outputs[1:], strict=False))
        case "Scan":
            scanned = next((attribute.i for attribute in node.attribute if attribute.name == "num_scan_inputs"), 0)
            carried = list(zip(body.inputs[: len(body.inputs) - scanned], body.outputs, strict=False))
        case _:
            carried = []
    for entering, leaving in carried:
        if _differ(body.types.get(entering), body.types.get(leaving)):
            return f"carries {body.named(entering)} from turn to turn, and its body gives {body.named(leaving)} for it"
    return ""


def _differ(kind: str | None, other: str | None) -> bool:
    """Return whether two types are known and differ; what may be absent goes with what is there."""
    return bool(kind and other) and _OPTIONAL.sub(r"\1", kind or "") != _OPTIONAL.sub(r"\1", other or "")


def _named(name: str, kind: str) -> str:
    return f"{one_line(name, 80)} of {_shown(kind)}"


def _shown(kind: str) -> str:
    """Return a type as people call it: "float32", "sequence of float32"."""
    named = re.sub(r"tensor\((\w+)\)", lambda match: _dtype(match[0]), kind)
    return re.sub(r"seq\((.*?)\)", r"sequence of \1", re.sub(r"optional\((.*)\)", r"optional \1", named))


def _dtype(spelled: str) -> str:
    return str(STORAGE.get(_SPELLED.get(spelled, 0), spelled[7:-1]))


def _allowed(spelled: Iterable[str]) -> str:
    """Return the types that a schema allows, tensors first."""
    tensors = sorted(_shown(kind) for kind in spelled if kind in _SPELLED)
    containers = sorted(_shown(kind) for kind in spelled if kind not in _SPELLED)
    return listed(tensors + containers, _FEW)
