"""The gradient of a graph inside a node: a graph that computes its values anew, and from them and cotangents its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx
from onnx import helper

from actconform.errors import GradientError
from actconform.onnx.constants import tensor_of
from actconform.onnx.grad.rules.tensor_info import FIX
from actconform.onnx.inference import infer
from actconform.onnx.nested_graphs import captured, fresh_prefix, needed, own_names, renamed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Node


class GradientBody(NamedTuple):
    """A gradient graph's nodes and initializers, and how it calls the inputs of the graph it is of and its gradients, in order.

    `outputs` describe those outputs of that graph that have cotangents.
    """

    graph: onnx.GraphProto
    inputs: list[str]
    gradients: list[str]
    outputs: list[onnx.ValueInfoProto]


def gradient_of_body(
    b: GraphBuilder,
    node: Node,
    body: onnx.GraphProto,
    inputs: Sequence[onnx.ValueInfoProto],
    wrt: Sequence[str],
    cotangents: Mapping[int, str],
) -> GradientBody:
    """Return the gradient of a graph inside `node` with respect to `wrt`, inputs of it or tensors that it captures.

    `inputs` describe what the graph is given, in order. `cotangents` has the names of the cotangents of its outputs, by
    number. The result has new names for all but `cotangents` and what it takes from around it, `wrt` in any case; its own
    inputs and outputs are left empty. Raises UnsupportedOperator where a node inside has no rule.
    """
    from actconform.onnx.constant_folding import decided  # which imports the rules, and may be imported first

    model = decided(_standalone(b, body, inputs, wrt))
    around = {*captured(body), *wrt} - {value.name for value in inputs}
    marker = fresh_prefix("of_", [*own_names(model.graph)])
    outs = {f"{marker}{i}": name for i, name in cotangents.items()}
    for i in cotangents:
        model.graph.node.append(helper.make_node("Identity", [body.output[i].name], [f"{marker}{i}"]))
    model.graph.output.extend(_outputs(node, model, {f"{marker}{i}": body.output[i] for i in cotangents}))
    try:
        differentiated = b.differentiate(
            model, list(wrt), list(outs), cotangent=f"{marker}ct_", gradient=f"{marker}d_", keep_outputs=False
        )
    except GradientError as error:
        raise node.refuse(f"the graph inside it cannot be differentiated: {error}") from error
    new = {f"{marker}ct_{out}": name for out, name in outs.items()}
    prefix = b.prefix()

    def rename(name: str) -> str:
        return name if name in around else new.get(name, prefix + name)

    graph = renamed(differentiated.graph, rename)
    gradients = [rename(f"{marker}d_{name}") for name in wrt]
    gradient_graph = onnx.GraphProto(name=prefix, node=needed(graph.node, gradients))
    gradient_graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name not in around)
    return GradientBody(gradient_graph, [rename(value.name) for value in inputs], gradients, list(model.graph.output))


def typed(name: str, element_type: int) -> onnx.ValueInfoProto:
    """Return the description of a tensor of which the element type alone is stated."""
    value = onnx.ValueInfoProto(name=name)
    value.type.tensor_type.elem_type = element_type
    return value


def copy_of_body(b: GraphBuilder, body: onnx.GraphProto) -> onnx.GraphProto:
    """Return a graph inside a node, with new names for all that it does not take from around it."""
    inner_names, prefix = set(own_names(body)), b.prefix()
    return renamed(body, lambda name: prefix + name if name in inner_names else name)


def _standalone(
    b: GraphBuilder, body: onnx.GraphProto, inputs: Sequence[onnx.ValueInfoProto], wrt: Sequence[str]
) -> onnx.ModelProto:
    """Return a graph inside a node as a model, in which what it captures is an input, or a constant where that is known."""
    graph = onnx.GraphProto(name="body", node=body.node, initializer=body.initializer, value_info=body.value_info)
    graph.sparse_initializer.extend(body.sparse_initializer)
    graph.input.extend(inputs)
    captured_wrt = [name for name in wrt if name not in {value.name for value in inputs}]
    for name in dict.fromkeys([*captured(body), *captured_wrt]):
        value = None if name in captured_wrt else b.value(name)
        if value is not None:
            graph.initializer.append(tensor_of(value, name))
        else:
            graph.input.append(b.described(name, name))
    return helper.make_model(graph, opset_imports=b.imports, ir_version=10)


def _outputs(
    node: Node, model: onnx.ModelProto, declared: Mapping[str, onnx.ValueInfoProto]
) -> list[onnx.ValueInfoProto]:
    """Return the outputs that a model shall have, typed and shaped as onnx infers them, or else as they are declared."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.graph.output.extend(onnx.ValueInfoProto(name=name) for name in declared)
    try:
        inferred = infer(bare).output
    except onnx.shape_inference.InferenceError as error:
        raise node.refuse(f"the graph inside it has shapes that cannot fit: {' '.join(str(error).split())}") from error
    for value in inferred:
        if not value.type.tensor_type.HasField("shape"):
            value.type.CopyFrom(declared[value.name].type)
        if not value.type.tensor_type.HasField("shape"):
            raise node.refuse(f"the ranks of what the graph inside it gives are not known: {FIX}")
    return list(inferred)
