"""Whether a foreign graph can be evaluated in the order in which its nodes stand: names, order, cycles, operators."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import onnx

from actconform.errors import TooLargeError, UsageError, near
from actconform.onnx.gates import deep
from actconform.onnx.nested_graphs import graphs, reads
from actconform.onnx.size_limits import expect_sane_size
from actconform.text import listed, number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

OLDEST_OPSET = 7
NEWEST_OPSET = onnx.defs.onnx_opset_version()
CONTRIB_PREFIXES = (
    "com.microsoft",
    "com.ms.",
)  # of the domains in which ONNX Runtime's operators and those of its optimizer are
_NO_OPSET = 2**31 - 1  # newer than any
_SHOWN = 5  # names in a message


def expect_sound(model: onnx.ModelProto) -> None:
    """Raise UsageError, in words, where a model has no nodes, an opset that is not known here, or a graph that is none.

    That is: a tensor that two nodes give, one that is read and that nothing gives, a cycle, an attribute of another type than its
    operator takes; in bodies of control flow and functions too. Functions that call one another without end. Nodes that stand before
    those which they read are sorted: runtimes take them.
    """
    if not model.graph.node:
        raise UsageError("has no nodes: there is nothing to check")
    _expect_known_opset(model)
    _expect_unique_functions(model)
    for graph in graphs(model.graph):
        _expect_unique(graph, [value.name for value in graph.input], [tensor.name for tensor in graph.initializer])
        _sort_nodes(graph)
    _expect_given(model.graph, {value.name for value in model.graph.input}, "")
    for function in model.functions:
        where = f" in function {one_line(function.name)}"
        for body in graphs(function):
            inputs = list(function.input) if body is function else [value.name for value in body.input]
            _expect_unique(body, inputs, [] if body is function else [tensor.name for tensor in body.initializer])
            _sort_nodes(body)
        _expect_given(function, set(function.input), where)
    for node, opsets in operator_nodes(model):
        _expect_attribute_types(node, opsets)
    try:
        expect_sane_size(model)
    except TooLargeError as error:
        raise UsageError(one_line(str(error))) from error


def undefined_operators(model: onnx.ModelProto) -> list[str]:
    """Return the operators outside the standard's domain that neither ONNX Runtime's domains nor the model's functions define, as "domain:name"."""
    undefined = [
        one_line(f"{node.domain}:{node.op_type}")
        for node, opsets in operator_nodes(model)
        if operator_domain(node.domain) and not is_defined(node, opsets)
    ]
    return list(dict.fromkeys(undefined))


def operator_nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, Mapping[str, int]]]:
    """Yield the nodes at any depth, in functions too, that call no function of the model; with the opsets that hold there."""
    functions = {(operator_domain(function.domain), function.name) for function in model.functions}
    for holder, body in ((model, model.graph), *((function, function) for function in model.functions)):
        opsets = opsets_of(holder)
        for node in deep(body.node):
            if (operator_domain(node.domain), node.op_type) not in functions:
                yield node, opsets


def opsets_of(holder: onnx.ModelProto | onnx.FunctionProto) -> dict[str, int]:
    """Return the versions of operators that a model or a function states, by domain; the standard's is ""."""
    return {operator_domain(entry.domain): entry.version for entry in holder.opset_import}


def is_defined(node: onnx.NodeProto, opsets: Mapping[str, int]) -> bool:
    """Return whether the standard, at that version, or ONNX Runtime's domains define the operator of a node; functions aside."""
    domain = operator_domain(node.domain)
    version = operator_version(domain, opsets)
    if domain.startswith(CONTRIB_PREFIXES):
        return True
    return onnx.defs.has(node.op_type, version, domain) and not is_removed(
        onnx.defs.get_schema(node.op_type, version, domain)
    )


def is_removed(schema: onnx.defs.OpSchema) -> bool:
    """Return whether a version of an operator ends it: it is deprecated, and not the first."""
    return schema.deprecated and onnx.defs.has(schema.name, schema.since_version - 1, schema.domain)


def label(node: onnx.NodeProto) -> str:
    """Return what messages call a node: its name or what it gives, and its operator."""
    name = node.name or "-> " + ", ".join(filter(None, node.output))
    return one_line(f"{name} ({node.op_type})", 200)


def operator_version(domain: str, opsets: Mapping[str, int]) -> int:
    """Return the version of a domain's operators, 1 where none is stated."""
    return min(max(opsets.get(domain, 1), 1), _NO_OPSET)


def _expect_attribute_types(node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    """Raise UsageError where an attribute has another type than the operator's schema says; what stands for a function's is left."""
    domain = operator_domain(node.domain)
    version = operator_version(domain, opsets)
    if not onnx.defs.has(node.op_type, version, domain):
        return
    schema: Any = onnx.defs.get_schema(node.op_type, version, domain)
    for attribute in node.attribute:
        stated = schema.attributes.get(attribute.name)
        if stated is None or attribute.ref_attr_name or attribute.type == stated.type.value:
            continue
        given = onnx.AttributeProto.AttributeType.Name(attribute.type)
        raise UsageError(
            f"node {label(node)} has the attribute {one_line(attribute.name)!r} of type {given}, and its operator takes "
            f"{stated.type.name} there: export it again"
        )


def _expect_known_opset(model: onnx.ModelProto) -> None:
    stated = [entry.version for entry in model.opset_import if not operator_domain(entry.domain)]
    if not stated:
        raise UsageError("states no opset of the standard (ai.onnx): save it with opset_imports")
    opset = max(stated)
    if opset < OLDEST_OPSET:
        raise UsageError(
            f"is of opset {opset}; {OLDEST_OPSET} to {NEWEST_OPSET} are taken: export it at a newer one, or convert it with "
            "onnx.version_converter"
        )
    if opset > NEWEST_OPSET:
        raise UsageError(
            f"is of opset {opset}, and the installed onnx {onnx.__version__} has opsets up to {NEWEST_OPSET}: install a newer onnx"
        )


def _expect_unique_functions(model: onnx.ModelProto) -> None:
    counts = Counter((function.domain, function.name, function.overload) for function in model.functions)
    if twice := [name for (_, name, _), count in counts.items() if count > 1]:
        raise UsageError(f"defines a function more than once: {_names(twice)}")


def _expect_unique(body: Any, inputs: Sequence[str], initializers: Sequence[str]) -> None:
    """Raise UsageError where a name of `body`, a graph or function, stands for two tensors."""
    if twice := [name for name, count in Counter(inputs).items() if count > 1]:
        raise UsageError(f"has more than one input of one name: {_names(twice)}")
    if twice := [name for name, count in Counter(initializers).items() if count > 1]:
        raise UsageError(f"has more than one initializer of one name: {_names(twice)}")
    givers: dict[str, str] = dict.fromkeys(inputs, "an input") | dict.fromkeys(initializers, "an initializer")
    for node in body.node:
        for name in filter(None, node.output):
            if name in givers:
                raise UsageError(
                    f"two give the tensor {one_line(name)!r}: {givers[name]} and node {label(node)}; names must be unique"
                )
            givers[name] = f"node {label(node)}"
    outputs = [value if isinstance(value, str) else value.name for value in body.output]
    if twice := [name for name, count in Counter(outputs).items() if count > 1]:
        raise UsageError(f"lists an output more than once: {_names(twice)}")


def _sort_nodes(body: Any) -> None:
    """Put the nodes of `body` into an order in which each follows those that it reads; raise UsageError where they wait in a cycle."""
    place = {name: i for i, node in enumerate(body.node) for name in node.output if name}
    if all(place.get(name, -1) < i for i, node in enumerate(body.node) for name in reads(node)):
        return
    dependencies = {i: {place[name] for name in reads(node) if name in place} for i, node in enumerate(body.node)}
    try:
        order = list(TopologicalSorter(dependencies).static_order())
    except CycleError as error:
        nodes = [label(body.node[i]) for i in error.args[1][::-1][:-1]]
        shown = " -> ".join([*nodes[:_SHOWN], *(["..."] if len(nodes) > _SHOWN else []), nodes[0]])
        raise UsageError(
            f"has a cycle of {number_of(len(nodes), 'node')}, each of which waits for the one before it: {shown}"
        ) from error
    nodes = [onnx.NodeProto.FromString(body.node[i].SerializeToString()) for i in order]
    del body.node[:]
    body.node.extend(nodes)


def _expect_given(body: Any, names: set[str], where: str) -> None:
    """Raise UsageError where nodes or outputs of the outermost graph read a tensor that nothing gives."""
    if not isinstance(body, onnx.FunctionProto):
        names = names.union(_held(body))
    names = names.union(*(node.output for node in body.node))
    readers = {
        name: f"node {label(node)}"
        for node in reversed(body.node)
        for name in reads(node)
        if name and name not in names
    }
    outputs = (value if isinstance(value, str) else value.name for value in body.output)
    readers |= {name: "the outputs" for name in outputs if name not in names and name not in readers}
    if readers:
        name, reader = next(iter(readers.items()))
        more = f", and {len(readers) - 1} more such tensors" if len(readers) > 1 else ""
        advice = near(name, sorted(names)) if len(names) < 2000 else ""
        raise UsageError(
            one_line(f"reads a tensor that nothing gives{where}: {name!r}, read by {reader}{more}{advice}")
        )


def _held(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)


def _names(names: Iterable[str]) -> str:
    return listed([one_line(name, 80) for name in names], _SHOWN)


def operator_domain(domain: str) -> str:
    """Return a domain as opsets have it: the standard's is ""."""
    return "" if domain == "ai.onnx" else domain
