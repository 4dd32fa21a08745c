"""Reverse mode on ONNX graphs: a graph that computes y also returns the vector-Jacobian products of what it computes.

The nodes added are standard `ai.onnx` operators, so that any ONNX runtime gives gradients of the very graph that it runs.
Each forward node is visited once, backwards; its rule (`actconform.onnx.grad.rules`) turns the cotangents of its outputs into
those of its inputs. What no rule covers is an error, never a gradient of zero.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

import actconform.onnx.grad.rules  # noqa: F401  registers the rules
from actconform.errors import GradientError, NameTakenError, UnsupportedOperator
from actconform.onnx.constant_folding import infer_constants
from actconform.onnx.constants import FLOATS
from actconform.onnx.grad.arguments import chosen_outputs, wanted_tensors
from actconform.onnx.grad.rules.graph_builder import GraphBuilder
from actconform.onnx.grad.rules.registry import (
    STANDARD,
    ZERO_DERIVATIVE,
    Node,
    rule_of,
)
from actconform.onnx.nested_graphs import captured, fresh_prefix, needed, own_names, reads, rename_tensors, subgraphs
from actconform.onnx.strip_weights import restore_weights, strip_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.onnx.grad.rules.registry import Cotangents, Rule


__all__ = ["GradientError", "NameTakenError", "UnsupportedOperator", "add_gradients"]

# Element types through which no derivative flows. A type that is not known, or no tensor's, may carry one.
DISCRETE = {
    number
    for name, number in TensorProto.DataType.items()
    if name.startswith(("INT", "UINT")) or name in {"BOOL", "STRING"}
}


def add_gradients(
    model: onnx.ModelProto,
    wrt: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    *,
    cotangent: str = "ct_",
    gradient: str = "d_",
    keep_outputs: bool = True,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> onnx.ModelProto:
    """Return a copy of `model` that also returns the gradient with respect to each tensor of `wrt`.

    `wrt` names float inputs or initializers, by default all float inputs. `shapes` fixes the dimensions of inputs. For each
    of `outputs`, by default all float outputs, the copy has a further input "ct_<output>" of that output's shape and type,
    the cotangent; for each x of `wrt` a further output "d_<x>" of the shape and type of x, the sum over the outputs of
    cotangent times Jacobian. With `keep_outputs=False` the gradients are its only outputs. The forward nodes stay as they
    are, but for local functions, operators that have no rule but a definition by other operators, and each `If` whose
    condition is constant, which are replaced by their bodies; pools and transposed convolutions whose size onnx infers
    wrongly, which say it plainly; below opset 16 all are converted to it.

    A tensor on which no output depends, or by steps and counts alone, gets zeros. Kinks follow the conventions of
    docs/gradients.md. Raises GradientError, a ValueError, where `model` is not valid or of an opset below 7 or above 26, a
    name is not known, `wrt` is no float tensor, a shape cannot be, or a rule fails; NameTakenError, a GradientError, where a
    new name is taken; TypeError where names are no strings; UnsupportedOperator where a gradient would have to pass an
    operator that has no rule. The time taken grows with the number of nodes.
    """
    light = strip_weights(model, shapes)
    graph = light.graph
    wanted, chosen = wanted_tensors(model, graph, wrt), chosen_outputs(graph, outputs)
    existing = set(own_names(graph))
    new = [*(cotangent + name for name in chosen), *(gradient + name for name in wanted)]
    clash = [name for name in new if name in existing] or [name for name in new if new.count(name) > 1]
    if clash:
        raise NameTakenError(clash[0])

    inferred, values = _settled(light)
    b = GraphBuilder(light, inferred, fresh_prefix("vjp_", existing.union(new)), add_gradients)
    for name, tensor in values.items():
        b.knows(tensor, name)
    arriving = {name: [b.same_as(cotangent + name, name)] for name in chosen}
    _propagate(b, _reached(b, graph, wanted), arriving)

    gradients = {gradient + name: _gradient_of(b, name, arriving) for name in wanted}
    _name(b, gradients)
    described = {value.name: value for value in (*inferred.output, *inferred.input)}
    stated = {value.name: value for value in graph.output}
    graph.input.extend(_described(described[name], cotangent + name, stated[name]) for name in chosen)
    if not keep_outputs:
        del graph.output[:]
    graph.output.extend(_output(b, described.get(name), name, gradient + name) for name in wanted)
    nodes = needed(b.nodes, gradients)
    used = {name for node in nodes for name in reads(node)}
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for tensor in b.initializers if tensor.name in used)
    try:
        onnx.checker.check_model(light)
    except onnx.checker.ValidationError as error:
        raise GradientError(f"the rules made no valid ONNX model: {' '.join(str(error).split())}") from error
    restore_weights(light, model)
    return light


def _settled(light: onnx.ModelProto) -> tuple[onnx.GraphProto, dict[str, TensorProto]]:
    try:
        return infer_constants(light)
    except onnx.shape_inference.InferenceError as error:
        raise GradientError(f"not a valid ONNX model: {' '.join(str(error).split())}") from error


def _reached(b: GraphBuilder, graph: onnx.GraphProto, wrt: Sequence[str]) -> list[tuple[onnx.NodeProto, set[str]]]:
    """Return the nodes through which a derivative with respect to `wrt` flows, in order, with those of their reads that bear it.

    Derivatives end at operators of zero derivative and at tensors of integers; an operator without a rule might do
    anything with them.
    """
    bearing = set(wrt)
    reached = []
    for node in graph.node:
        if not (borne := bearing.intersection(reads(node))):
            continue
        ruled = rule_of(node.domain, node.op_type)
        if node.domain in STANDARD and node.op_type in ZERO_DERIVATIVE:
            continue
        reached.append((node, borne))
        bearing.update(name for name in node.output if name and not (ruled and b.element_type_of(name) in DISCRETE))
    return reached


def _propagate(b: GraphBuilder, reached: list[tuple[onnx.NodeProto, set[str]]], arriving: dict[str, list[str]]) -> None:
    """Carry the cotangents in `arriving`, all that came to each tensor, from the last of the nodes back to the first."""
    for proto, borne in reversed(reached):
        g = [_total(b, arriving, name) for name in proto.output]
        if not any(g):
            continue
        node = _node(b, proto, borne)
        rule = _rule(node)
        b.at(node, _float_type(b, node))
        cotangents = _apply(b, node, rule, g)
        for name, wanted, cotangent in zip((*node.inputs, *node.captured), node.wanted, cotangents, strict=False):
            if wanted and cotangent:
                arriving.setdefault(name, []).append(cotangent)


def _rule(node: Node) -> Rule:
    rule = rule_of(node.domain, node.op_type)
    if rule is None:
        called = f'"{node.op_type}"' + ("" if node.domain in STANDARD else f', domain="{node.domain}"')
        raise node.refuse(f"it has no rule; register one with actconform.onnx.grad.rules.registry.rule({called})")
    return rule


def _apply(b: GraphBuilder, node: Node, rule: Rule, g: Cotangents) -> Cotangents:
    """Return the cotangents that the rule of a node gives. Raises GradientError where it fails or returns something else."""
    whose = f"the gradient rule {rule.__module__}.{getattr(rule, '__qualname__', rule)} of {node.label}"
    try:
        cotangents = rule(b, node, g)
    except UnsupportedOperator:
        raise
    except Exception as error:
        raise GradientError(f"{whose} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(cotangents, list | tuple) or not all(
        name is None or isinstance(name, str) for name in cotangents
    ):
        raise GradientError(f"{whose} returned {cotangents!r}: a list is expected, a name or None for each input")
    return cotangents


def _total(b: GraphBuilder, arriving: dict[str, list[str]], name: str) -> str | None:
    """Return the sum of what came to a tensor, whose readers have all been visited."""
    parts = arriving.get(name, [])
    if len(parts) > 1:
        parts[:] = [b.total(parts)]
    return parts[0] if parts else None


def _node(b: GraphBuilder, proto: onnx.NodeProto, borne: set[str]) -> Node:
    standard = proto.domain in STANDARD
    attributes = dict(_defaults(proto.op_type, b.opset)) if standard else {}
    attributes |= {each.name: _decoded(helper.get_attribute_value(each)) for each in proto.attribute}
    outside = tuple(dict.fromkeys(name for body in subgraphs(proto) for name in captured(body)))
    return Node(
        name=proto.name,
        op_type=proto.op_type,
        domain=proto.domain,
        opset=b.opset,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        captured=outside,
        wanted=tuple(name in borne for name in (*proto.input, *outside)),
    )


@cache
def _defaults(op_type: str, opset: int) -> dict[str, Any]:
    schema = onnx.defs.get_schema(op_type, opset, "")
    defaults = [attribute.default_value for attribute in schema.attributes.values() if attribute.default_value.type]
    return {each.name: _decoded(helper.get_attribute_value(each)) for each in defaults}


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def _float_type(b: GraphBuilder, node: Node) -> int:
    for name in (*node.inputs, *node.outputs, *node.captured):
        if b.element_type_of(name) in FLOATS:
            return b.element_type_of(name)
    raise node.refuse("the element types of its inputs are not known, or no floats that gradients are computed in")


def _output(b: GraphBuilder, described: onnx.ValueInfoProto | None, name: str, output: str) -> onnx.ValueInfoProto:
    """Return the description of a gradient, an `output` of the shape and type of the tensor `name`."""
    if described is None:
        return helper.make_tensor_value_info(output, b.element_type_of(name), b.shape(name))
    return _described(described, output)


def _gradient_of(b: GraphBuilder, name: str, arriving: dict[str, list[str]]) -> str:
    b.element_type = b.element_type_of(name)
    return _total(b, arriving, name) or b.zeros_like(name)


def _name(b: GraphBuilder, gradients: dict[str, str]) -> None:
    """Give the tensors `gradients` their names as outputs, its keys: new ones in place of old, and copies of what is not new.

    A copy of each would do, had ONNX Runtime (1.31) no fault there: it drops the copy of a tensor that goes into a product
    with a transposed matrix and a sum as well, and then does not find the tensor.
    """
    new = {name for node in b.nodes for name in node.output}
    names: dict[str, str] = {}
    for output, tensor in gradients.items():
        if tensor in new and tensor not in names:
            names[tensor] = output
        else:
            b.nodes.append(helper.make_node("Identity", [tensor], [output], name=output))
    rename_tensors(b.nodes, lambda name: names.get(name, name))


def _described(value: onnx.ValueInfoProto, name: str, stated: onnx.ValueInfoProto | None = None) -> onnx.ValueInfoProto:
    """Return `value` under another name, with the symbols that the model itself states for dimensions."""
    described = onnx.ValueInfoProto()
    described.CopyFrom(value)
    described.name = name
    for dim in described.type.tensor_type.shape.dim:
        if dim.dim_param.startswith("unk__"):  # names that inference made up
            dim.Clear()
    if stated is not None:
        for dim, stated_dim in zip(
            described.type.tensor_type.shape.dim, stated.type.tensor_type.shape.dim, strict=False
        ):
            if stated_dim.dim_param:
                dim.CopyFrom(stated_dim)
    return described
