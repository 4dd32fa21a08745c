"""Activations in a graph, written by one node or, as exporters do, by several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from actconform.linting.linted_graph import attribute_of, is_standard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx

    from actconform.linting.linted_graph import LintedGraph

ActivationKind = Literal["softmax", "log-softmax", "sigmoid", "tanh", "relu"]
AXIS_IS_ONE_AXIS = 13  # the opset since which Softmax normalizes along one axis, and no longer over all from it on


class GraphActivation(NamedTuple):
    """An activation in a graph."""

    kind: ActivationKind
    graph: LintedGraph
    node: onnx.NodeProto
    """That gives the result."""
    argument: str
    """The tensor that it is of."""
    result: str
    axes: tuple[int, ...] = ()
    """Of softmax, counted from the front: those over which it normalizes; () where they are not known."""

    @property
    def units(self) -> int | None:
        """How many numbers a softmax makes to sum to 1; None where that is open."""
        dims = self.graph.dims(self.result) or self.graph.dims(self.argument)
        if dims is None or not self.axes or max(self.axes) >= len(dims):  # the graph may state shapes that cannot be
            return None
        count = 1
        for axis in self.axes:
            size = dims[axis]
            if not isinstance(size, int):
                return None
            count *= size
        return count


def graph_activations(graph: LintedGraph, opset: int) -> Iterator[GraphActivation]:
    """Yield the activations of a graph, in the order of the nodes that give them."""
    for node in graph.nodes:
        if is_standard(node) and (reading := _READINGS.get(node.op_type)):
            activation = reading(graph, node, opset)
            if activation is not None:
                yield activation


def _softmax(graph: LintedGraph, node: onnx.NodeProto, opset: int) -> GraphActivation:
    dims = graph.dims(node.input[0]) or graph.dims(node.output[0])
    axis = attribute_of(node, "axis", -1 if opset >= AXIS_IS_ONE_AXIS else 1)
    axes: tuple[int, ...] = ()
    if dims is not None and -len(dims) <= axis <= len(dims):
        first = axis + len(dims) if axis < 0 else axis
        axes = (first,) if opset >= AXIS_IS_ONE_AXIS else tuple(range(first, len(dims)))
    kind: ActivationKind = "softmax" if node.op_type == "Softmax" else "log-softmax"
    return GraphActivation(kind, graph, node, node.input[0], node.output[0], axes)


def _plain(kind: ActivationKind) -> Callable[[LintedGraph, onnx.NodeProto, int], GraphActivation | None]:
    def read(graph: LintedGraph, node: onnx.NodeProto, opset: int) -> GraphActivation | None:  # noqa: ARG001  like the others
        return GraphActivation(kind, graph, node, node.input[0], node.output[0])

    return read


def _quotient(graph: LintedGraph, node: onnx.NodeProto, opset: int) -> GraphActivation | None:  # noqa: ARG001
    """Read exp(x) / sum(exp(x)), and 1 / (1 + exp(-x))."""
    above, below = node.input
    if graph.scalar(above) == 1.0:
        argument = _one_plus_exp_of_negative(graph, below)
        return None if argument is None else GraphActivation("sigmoid", graph, node, argument, node.output[0])
    total, exponential = _giver(graph, below, "ReduceSum"), _giver(graph, above, "Exp")
    if total is None or exponential is None or graph.origin(total.input[0]) != graph.origin(above):
        return None
    return GraphActivation(
        "softmax", graph, node, _unshifted(graph, exponential.input[0]), node.output[0], graph.reduced_axes(total)
    )


def _reciprocal(graph: LintedGraph, node: onnx.NodeProto, opset: int) -> GraphActivation | None:  # noqa: ARG001
    argument = _one_plus_exp_of_negative(graph, node.input[0])
    return None if argument is None else GraphActivation("sigmoid", graph, node, argument, node.output[0])


def _difference(graph: LintedGraph, node: onnx.NodeProto, opset: int) -> GraphActivation | None:  # noqa: ARG001
    """Read x - log(sum(exp(x))) and x - ReduceLogSumExp(x)."""
    argument, below = node.input
    total = _giver(graph, below, "ReduceLogSumExp")
    if total is None:
        logarithm = _giver(graph, below, "Log")
        total = None if logarithm is None else _giver(graph, logarithm.input[0], "ReduceSum")
        exponential = None if total is None else _giver(graph, total.input[0], "Exp")
        summed = None if exponential is None else exponential.input[0]
    else:
        summed = total.input[0]
    if total is None or summed is None or graph.origin(summed) != graph.origin(argument):
        return None
    return GraphActivation(
        "log-softmax", graph, node, _unshifted(graph, argument), node.output[0], graph.reduced_axes(total)
    )


def _floor(graph: LintedGraph, node: onnx.NodeProto, opset: int) -> GraphActivation | None:  # noqa: ARG001
    """Read max(x, 0)."""
    for place, name in enumerate(node.input):
        if len(node.input) == 2 and graph.scalar(name) == 0.0:
            return GraphActivation("relu", graph, node, node.input[1 - place], node.output[0])
    return None


def _clip(graph: LintedGraph, node: onnx.NodeProto, opset: int) -> GraphActivation | None:
    """Read a Clip from 0 on as relu, one to 6 among them."""
    least = (
        attribute_of(node, "min", None) if opset < 11 else graph.scalar(node.input[1]) if len(node.input) > 1 else None
    )
    return GraphActivation("relu", graph, node, node.input[0], node.output[0]) if least == 0 else None


def _giver(graph: LintedGraph, name: str, operator: str) -> onnx.NodeProto | None:
    node = graph.giver(graph.origin(name))
    return node if node is not None and node.op_type == operator and is_standard(node) else None


def _unshifted(graph: LintedGraph, name: str) -> str:
    """Return x of x - max(x), which has the same softmax; `name` itself where it is none."""
    difference = _giver(graph, name, "Sub")
    if difference is None:
        return name
    greatest = _giver(graph, difference.input[1], "ReduceMax")
    if greatest is not None and graph.origin(greatest.input[0]) == graph.origin(difference.input[0]):
        return str(difference.input[0])
    return name


def _one_plus_exp_of_negative(graph: LintedGraph, name: str) -> str | None:
    total = _giver(graph, name, "Add")
    for place, term in enumerate(total.input if total is not None else ()):
        if graph.scalar(term) == 1.0 and total is not None:
            exponential = _giver(graph, total.input[1 - place], "Exp")
            negative = None if exponential is None else _giver(graph, exponential.input[0], "Neg")
            return None if negative is None else negative.input[0]
    return None


_READINGS: Mapping[str, Callable[[LintedGraph, onnx.NodeProto, int], GraphActivation | None]] = {
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Sigmoid": _plain("sigmoid"),
    "Tanh": _plain("tanh"),
    "Relu": _plain("relu"),
    "Div": _quotient,
    "Reciprocal": _reciprocal,
    "Sub": _difference,
    "Max": _floor,
    "Clip": _clip,
}
