"""Control flow. The gradient of If is an If of gradients; that of Loop and Scan is a Scan back over the steps that were taken.

What was computed inside a branch or a step is not seen from outside, so that it is computed anew there. A loop is run once
more before, for the states that each step began with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx
from onnx import TensorProto, helper

from actconform.onnx.constants import FLOATS
from actconform.onnx.grad.rules.bodies import copy_of_body, gradient_of_body, typed
from actconform.onnx.grad.rules.graph_builder import HALVES
from actconform.onnx.grad.rules.registry import rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents, Node


class Steps(NamedTuple):
    """What runs step by step, as Loop and Scan have it: a body, its states, and where its inputs lie at each step.

    `described` are the inputs of the body. `read` has for each the tensor that holds its values over all steps, the axis along
    which they lie, and the direction in which the steps go. Behind `skipped` inputs and outputs of the body (the number of the step and its
    conditions) come the states, whose first values are `initial`, and then the other inputs and the outputs of each step.
    """

    body: onnx.GraphProto
    described: list[onnx.ValueInfoProto]
    read: list[tuple[str, int, int]]
    initial: Sequence[str]
    skipped: tuple[int, int]


@rule("If")
def choice(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """If: an If with the same condition, whose branches give the gradients of the branches by all that either reads."""
    wanted = _wanted_around(node)
    cotangents = {i: cotangent for i, cotangent in enumerate(g) if cotangent}
    branches = {}
    for name in ("then_branch", "else_branch"):
        gradient = gradient_of_body(b, node, node.attributes[name], [], wanted, cotangents)
        gradient.graph.output.extend(
            typed(d, b.element_type_of(x)) for d, x in zip(gradient.gradients, wanted, strict=True)
        )
        branches[name] = gradient.graph
    results = b.outputs(len(wanted), "If", node.inputs[0], **branches)
    return [None, *_in_order(b, node, dict(zip(wanted, results, strict=True)))]


@rule("Scan")
def scan(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Scan: a Scan back over its steps, that sums up the gradients by what the body takes from around it."""
    body, n = node.attributes["body"], node.attributes["num_scan_inputs"]
    n_states = len(node.inputs) - n
    initial, sequences = node.inputs[:n_states], node.inputs[n_states:]
    axes = node.attributes.get("scan_input_axes") or [0] * n
    directions = node.attributes.get("scan_input_directions") or [0] * n
    n_outputs = len(node.outputs) - n_states
    out_axes = node.attributes.get("scan_output_axes") or [0] * n_outputs
    out_directions = node.attributes.get("scan_output_directions") or [0] * n_outputs

    saved = _states_of_scan(b, node, n_states) if n_states else []
    read = [(name, 0, 0) for name in saved] + list(zip(sequences, axes, directions, strict=True))
    results = list(zip(g[n_states:], out_axes, out_directions, strict=True))
    wants = [node.wants(i) for i in range(len(node.inputs))]
    names = [value.name for value in body.input]
    described = [b.described(x, name) for x, name in zip(initial, names, strict=False)]
    for x, name, axis in zip(sequences, names[n_states:], axes, strict=True):
        described.append(b.described(x, name, without=axis))
    steps = Steps(body, described, read, initial, (0, 0))
    return _back(b, node, steps, g[:n_states], results, wants)


@rule("Loop")
def loop(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """Loop: a Scan back over the steps that were taken, however their number was decided."""
    body, initial = node.attributes["body"], node.inputs[2:]
    n_states = len(initial)
    read = [(name, 0, 0) for name in _inputs_of_loop(b, node, n_states)]
    results = [(cotangent, 0, 0) for cotangent in g[n_states:]]
    wants = [node.wants(i) for i in range(2, len(node.inputs))]
    number, going, *names = (value.name for value in body.input)
    described = [helper.make_tensor_value_info(number, TensorProto.INT64, [])]
    described.append(helper.make_tensor_value_info(going, TensorProto.BOOL, []))
    described += [b.described(x, name) for x, name in zip(initial, names, strict=True)]
    steps = Steps(body, described, read, initial, (2, 1))
    return [None, None, *_back(b, node, steps, g[:n_states], results, wants)]


def _wanted_around(node: Node) -> list[str]:
    return [name for name, wanted in zip(node.captured, node.wanted[len(node.inputs) :], strict=True) if wanted]


def _in_order(b: GraphBuilder, node: Node, gradients: dict[str, str]) -> list[str | None]:
    """Return the cotangent of each tensor that the node captures."""
    for name, gradient in gradients.items():
        b.same_as(gradient, name)
    return [gradients.get(name) for name in node.captured]


def _states_of_scan(b: GraphBuilder, node: Node, n_states: int) -> list[str]:
    """Run a Scan again for the states that each step began with; return them, stacked along axis 0."""
    body = copy_of_body(b, node.attributes["body"])
    del body.output[n_states:]
    _save(b, body, [value.name for value in body.input[:n_states]])
    attributes = {
        name: value for name, value in node.attributes.items() if not name.startswith(("body", "scan_output"))
    }
    return b.outputs(2 * n_states, "Scan", *node.inputs, body=body, **attributes)[n_states:]


def _inputs_of_loop(b: GraphBuilder, node: Node, n_states: int) -> list[str]:
    """Run a Loop again for what each step was given: its number, the condition and the states, stacked along axis 0."""
    body = copy_of_body(b, node.attributes["body"])
    del body.output[1 + n_states :]
    saved = _save(b, body, [value.name for value in body.input])
    inputs = [name or None for name in node.inputs]
    return b.outputs(n_states + len(saved), "Loop", *inputs, body=body)[n_states:]


def _save(b: GraphBuilder, body: onnx.GraphProto, names: Sequence[str]) -> list[str]:
    """Copy tensors of a body, so that they can be outputs of it a second time; return the names of the copies."""
    prefix = b.prefix()
    copies = [f"{prefix}{i}" for i in range(len(names))]
    body.node.extend(helper.make_node("Identity", [name], [copy]) for name, copy in zip(names, copies, strict=True))
    body.output.extend(onnx.ValueInfoProto(name=copy) for copy in copies)
    return copies


def _back(
    b: GraphBuilder,
    node: Node,
    steps: Steps,
    g_states: Cotangents,
    results: Sequence[tuple[str | None, int, int]],
    wants: Sequence[bool],
) -> Cotangents:
    """Return the cotangents of the states' first values, of the other inputs of each step, and of what the body captures.

    `results` are the cotangents of the outputs of each step, with axis and direction; `wants` says whether those of states
    and other inputs are needed. The states of the Scan that gives them are cotangents of states, and sums.
    """
    n_states = len(steps.initial)
    first, first_result = steps.skipped
    live = [i for i, name in enumerate(steps.initial) if b.element_type_of(name) in FLOATS]
    sliced = [i for i in range(n_states, len(wants)) if wants[i]]
    around = _wanted_around(node)
    prefix = b.prefix()
    g_of = {first_result + i: f"{prefix}state{i}" for i in live}
    arriving = {f"{prefix}result{i}": each for i, each in enumerate(results) if each[0]}
    for i, (cotangent, _, _) in enumerate(results):
        if cotangent:
            g_of[first_result + n_states + i] = f"{prefix}result{i}"
    inputs = [steps.described[first + i].name for i in [*live, *sliced]]
    body_gradient = gradient_of_body(b, node, steps.body, steps.described, [*inputs, *around], g_of)
    _refuse_growth(node, body_gradient.outputs, [steps.described[first + i] for i in live])

    graph, gradients = body_gradient.graph, iter(body_gradient.gradients)
    states = [f"{prefix}state{i}" for i in live]
    graph.input.extend(typed(name, b.element_type_of(steps.initial[i])) for name, i in zip(states, live, strict=True))
    graph.output.extend(typed(next(gradients), b.element_type_of(steps.initial[i])) for i in live)
    slices = [typed(next(gradients), _element_type(steps.described[first + i])) for i in sliced]
    for i, (name, gradient) in enumerate(zip(around, gradients, strict=True)):
        _add_up(graph, gradient, _wide(b.element_type_of(name)), f"{prefix}sum{i}")
    graph.output.extend(slices)
    graph.input.extend(
        typed(name, _element_type(each)) for name, each in zip(body_gradient.inputs, steps.described, strict=True)
    )
    graph.input.extend(typed(name, b.element_type_of(each[0] or "")) for name, each in arriving.items())

    begin = [g_states[i] or b.zeros_like(steps.initial[i]) for i in live]
    begin += [b.Cast(b.zeros_like(name), to=_wide(b.element_type_of(name))) for name in around]
    places = [steps.read[first + i] for i in sliced]
    results_back = iter(_scan_back(b, graph, begin, [*steps.read, *arriving.values()], places))
    by_input = {i: b.same_as(next(results_back), steps.initial[i]) for i in live}
    sums = {name: b.Cast(next(results_back), to=b.element_type_of(name)) for name in around}
    by_input |= {i: b.same_as(d, steps.read[first + i][0]) for i, d in zip(sliced, results_back, strict=True)}
    return [*(by_input.get(i) for i in range(len(wants))), *_in_order(b, node, sums)]


def _scan_back(
    b: GraphBuilder,
    graph: onnx.GraphProto,
    begin: Sequence[str],
    read: Sequence[tuple[str | None, int, int]],
    written: Sequence[tuple[str, int, int]],
) -> list[str]:
    """Run a body from the last step to the first; what is read or written forwards in one direction it is in the other."""
    out = {}
    if written:
        out["scan_output_axes"] = [axis for _, axis, _ in written]
        out["scan_output_directions"] = [1 - direction for _, _, direction in written]
    return b.outputs(
        len(graph.output),
        "Scan",
        *begin,
        *(name for name, _, _ in read),
        body=graph,
        num_scan_inputs=len(read),
        scan_input_axes=[axis for _, axis, _ in read],
        scan_input_directions=[1 - direction for _, _, direction in read],
        **out,
    )


def _add_up(graph: onnx.GraphProto, gradient: str, element_type: int, name: str) -> None:
    """Give a body of a Scan a state that sums up a gradient, in that element type."""
    graph.input.append(typed(name, element_type))
    graph.node.append(helper.make_node("Cast", [gradient], [f"{name}_wide"], to=element_type))
    graph.node.append(helper.make_node("Add", [name, f"{name}_wide"], [f"{name}_next"]))
    graph.output.append(typed(f"{name}_next", element_type))


def _wide(element_type: int) -> int:
    return TensorProto.FLOAT if element_type in HALVES else element_type


def _element_type(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type


def _refuse_growth(node: Node, after: Sequence[onnx.ValueInfoProto], before: Sequence[onnx.ValueInfoProto]) -> None:
    """Raise UnsupportedOperator where a step gives a state another shape than it took, which cannot be stacked."""
    for new, old in zip(after, before, strict=False):
        dims = new.type.tensor_type.shape.dim, old.type.tensor_type.shape.dim
        differ = any(
            n.HasField("dim_value") and o.HasField("dim_value") and n.dim_value != o.dim_value
            for n, o in zip(*dims, strict=False)
        )
        if len(dims[0]) != len(dims[1]) or differ:
            raise node.refuse(f"the state {old.name} changes its shape from step to step: export the loop unrolled")
