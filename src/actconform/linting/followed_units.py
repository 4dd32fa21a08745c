"""Where the units of a softmax go: through constants, elementwise activations and normalizations, which leave them dependent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.linting.linted_graph import PASSIVE, is_standard

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from actconform.linting.linted_graph import LintedGraph

NONLINEAR = frozenset(
    "Relu LeakyRelu PRelu Elu Selu Celu Gelu Sigmoid Tanh HardSigmoid HardSwish Swish Mish Softplus Softsign "  # noqa: SIM905
    "ThresholdedRelu Clip Max Min Erf".split()
)
NORMALIZING = frozenset({"BatchNormalization", "LayerNormalization", "RMSNormalization"})
_ARITHMETIC = frozenset("Add Sub Mul Div Neg Pow Sqrt Reciprocal".split())  # noqa: SIM905  of activations written out
_STATISTICS = frozenset({"ReduceMean", "ReduceSum", "ReduceL2"})  # of normalizations written out
_ELEMENTWISE = NONLINEAR | NORMALIZING | _ARITHMETIC


def followed_units(graph: LintedGraph, tensor: str, axis: int | None) -> dict[str, int | None]:
    """Return the tensors of a graph that are computed of one tensor's units alone, unit by unit or normalized over them.

    By name, the tensor itself among them: where its axis is in each, from the front; None where that cannot be told, and in a statistic
    over the units. What is multiplied with or added to other computed values is not among them.
    """
    places = {tensor: axis}
    pending = [tensor]
    while pending:
        name = pending.pop()
        for node in graph.readers.get(name, ()):
            if not is_standard(node) or not node.output or node.output[0] in places:
                continue
            if node.op_type in PASSIVE and node.input[0] == name:
                places[node.output[0]] = graph.axis_after(node, places[name])
            elif node.op_type in _ELEMENTWISE and _is_of_units(graph, node, places):
                places[node.output[0]] = next(
                    (places[each] for each in node.input if places.get(each) is not None), None
                )
            elif node.op_type in _STATISTICS and graph.reduced_axes(node) == (places[name],):
                places[node.output[0]] = None
            else:
                continue
            pending.append(node.output[0])
    return places


def _is_of_units(graph: LintedGraph, node: onnx.NodeProto, places: Mapping[str, int | None]) -> bool:
    return all(name in places or graph.is_constant(name) for name in node.input if name)
