"""Rules on number formats: float64 among float32, float16 that overflowed, epsilons that vanished, Softmax of old opsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from actconform.linting.linted_graph import attribute_of, is_standard, name_of, shown_sizes
from actconform.onnx.nested_graphs import graphs
from actconform.plugin.lint_rule import LintRule
from actconform.text import one_line
from actconform.types.lint import LintFix, LintObservation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx
    from numpy.typing import NDArray

    from actconform.linting.linted_graph import LintedGraph
    from actconform.linting.linted_model import LintedModel

NARROW: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}
F16_MOST = 65504.0
F16_LEAST_NORMAL = 2.0**-14
# Operators whose constants are weights; what is added or chosen may be a mask.
_WEIGHING = frozenset(
    "MatMul Gemm Conv ConvTranspose BatchNormalization InstanceNormalization LayerNormalization LSTM GRU RNN Mul Div Gather".split()  # noqa: SIM905
)


def _double_in_float(model: LintedModel) -> Iterator[LintObservation]:
    if _has_double_interface(model):
        return
    for graph in model.graphs:
        for name, node, size in _double_constants(graph):
            readers = graph.readers.get(name, [])
            if not readers or name in graph.outputs:
                continue
            first = node or readers[0]
            if all(_narrowing(reader) for reader in readers):
                message = (
                    f"constant {one_line(name, 80)} of {size:,} float64 numbers is cast to float32 or less at each run"
                )
                yield model.at(first, message, {"elements": size}, "note")
            else:
                reader = next(each for each in readers if not _narrowing(each))
                message = f"constant {one_line(name, 80)} is float64, so that {one_line(reader.op_type, 80)} {one_line(name_of(reader), 80)} computes in float64"
                yield model.at(first, message, {"elements": size})
        for node in graph.nodes:
            if _widens(graph, node):
                kind = NARROW[graph.element_type(node.input[0])]
                yield model.at(node, f"Cast of {kind} to float64: what reads it computes in float64")


def _has_double_interface(model: LintedModel) -> bool:
    declared = (*model.source.inputs.values(), *model.source.outputs.values())
    return any(tensor.element_type == TensorProto.DOUBLE for tensor in declared)


def _double_constants(graph: LintedGraph) -> Iterator[tuple[str, onnx.NodeProto | None, int]]:
    """Yield the name, the Constant node where there is one, and the number of elements of each float64 constant."""
    if graph.outer is None:
        for name, tensor in graph.weights.items():
            if tensor.data_type == TensorProto.DOUBLE:
                yield name, None, int(np.prod(tensor.dims, dtype=np.int64))
    else:
        for tensor in graph.body.initializer:
            if tensor.data_type == TensorProto.DOUBLE:
                yield tensor.name, None, int(np.prod(tensor.dims, dtype=np.int64))
    for node in graph.nodes:
        value = attribute_of(node, "value", None) if node.op_type == "Constant" and is_standard(node) else None
        if value is not None and value.data_type == TensorProto.DOUBLE:
            yield node.output[0], node, int(np.prod(value.dims, dtype=np.int64))


def _narrowing(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and is_standard(node) and attribute_of(node, "to", 0) != TensorProto.DOUBLE


def _widens(graph: LintedGraph, node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Cast"
        and is_standard(node)
        and attribute_of(node, "to", 0) == TensorProto.DOUBLE
        and graph.element_type(node.input[0]) in NARROW
        and not graph.is_constant(node.input[0])
    )


def _fold_double_casts(proto: onnx.ModelProto, model: LintedModel) -> list[LintFix]:
    """Replace a Cast to float32, float16 or bfloat16 of a float64 constant that only Casts read by a constant of that type."""
    if _has_double_interface(model):
        return []
    fixes = []
    for body in graphs(proto.graph):
        doubles = {tensor.name: tensor for tensor in body.initializer if tensor.data_type == TensorProto.DOUBLE}
        for node in body.node:
            value = attribute_of(node, "value", None) if node.op_type == "Constant" else None
            if value is not None and value.data_type == TensorProto.DOUBLE:
                doubles[node.output[0]] = value
        for node in body.node:
            if not (_narrowing(node) and node.input[0] in doubles and attribute_of(node, "to", 0) in NARROW):
                continue
            array = _rounded(model.source.array(doubles[node.input[0]]), attribute_of(node, "to", 0))
            label, output = name_of(node), node.output[0]
            node.CopyFrom(
                helper.make_node("Constant", [], [output], name=node.name, value=numpy_helper.from_array(array))
            )
            change = f"is a constant of {NARROW[helper.np_dtype_to_tensor_dtype(array.dtype)]}, rounded as the Cast did"
            fixes.append(LintFix(code="AC204", node=one_line(label, 200), change=change, exact=True))
    return fixes


def _rounded(array: NDArray[Any], element_type: int) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        return array.astype(helper.tensor_dtype_to_np_dtype(element_type))


def _flattening_softmax(model: LintedModel) -> Iterator[LintObservation]:
    for activation in model.activations:
        node = activation.node
        if node.op_type not in {"Softmax", "LogSoftmax"} or len(activation.axes) < 2:
            continue
        dims = activation.graph.dims(activation.result) or activation.graph.dims(activation.argument) or ()
        behind = [dims[axis] for axis in activation.axes[1:]]
        if all(size == 1 for size in behind):
            continue
        axes = ", ".join(map(str, activation.axes))
        yield model.at(
            node,
            f"{node.op_type} of opset {model.opset} with axis {activation.axes[0]} of {shown_sizes(dims)} normalizes over axes {axes} together, not along one",
            {"axis": activation.axes[0], "opset": model.opset},
        )


def _overflowed_halves(model: LintedModel) -> Iterator[LintObservation]:
    spoiling = {weight.name: weight.reader for weight in model.nonfinite_weights if weight.infinite}
    for graph, name, tensor in _half_constants(model):
        weighing = (
            node
            for reader in graph.destinations(name)
            if (node := reader.node) is not None and node.op_type in _WEIGHING
        )
        reader = spoiling.get(name) or next(weighing, None)
        if reader is None:
            continue
        halves = model.source.array(tensor)
        magnitudes = halves.view(np.uint16) & 0x7FFF
        infinite = int((magnitudes == 0x7C00).sum()) if name in spoiling else 0
        clamped = int((magnitudes == 0x7BFF).sum())
        words = [f"{count:,} {kind}" for count, kind in ((infinite, "infinite"), (clamped, "at +-65504")) if count]
        if words:
            yield model.at(
                reader,
                f"weight {one_line(name, 80)} of {halves.size:,} float16 numbers has {', '.join(words)}",
                {"infinite": infinite, "clamped": clamped, "elements": halves.size},
                None if infinite else "warning",
            )


def _half_constants(model: LintedModel) -> Iterator[tuple[LintedGraph, str, TensorProto]]:
    for graph in model.graphs:
        held: Iterable[TensorProto] = graph.weights.values() if graph.outer is None else graph.body.initializer
        for tensor in held:
            if tensor.data_type == TensorProto.FLOAT16:
                yield graph, tensor.name, tensor
        for node in graph.nodes:
            value = attribute_of(node, "value", None) if node.op_type == "Constant" and is_standard(node) else None
            if value is not None and value.data_type == TensorProto.FLOAT16:
                yield graph, node.output[0], value


def _vanished_epsilon(model: LintedModel) -> Iterator[LintObservation]:
    for graph in model.graphs:
        for node in graph.nodes:
            if node.op_type != "Add" or not is_standard(node) or not _needs_epsilon(graph, node.output[0]):
                continue
            for name in node.input:
                if graph.element_type(name) != TensorProto.FLOAT16 or not graph.is_constant(name):
                    continue
                epsilon = graph.scalar(name)
                if epsilon == 0:
                    yield model.at(
                        node, "the float16 constant that keeps the divisor from 0 is 0 itself", {"epsilon": 0.0}
                    )
                elif epsilon is not None and 0 < epsilon < F16_LEAST_NORMAL:
                    message = f"the epsilon {epsilon:.3g} is subnormal in float16: runtimes that flush such numbers compute with 0"
                    yield model.at(node, message, {"epsilon": epsilon}, "note")


def _needs_epsilon(graph: LintedGraph, name: str) -> bool:
    """Whether a tensor is divided by, or its root or logarithm is taken."""
    for reader in graph.destinations(name):
        node = reader.node
        if node is None or not is_standard(node):
            continue
        exponent = graph.scalar(node.input[1]) if node.op_type == "Pow" and len(node.input) > 1 else None
        if node.op_type in {"Sqrt", "Reciprocal", "Log"} or (node.op_type == "Div" and node.input[1] == reader.tensor):
            return True
        if exponent is not None and exponent in {-0.5, 0.5, -1.0}:
            return True
    return False


NUMBER_RULES = (
    LintRule(
        code="AC204",
        name="float64-in-a-float32-graph",
        severity="warning",
        why="float64 takes twice the memory of float32 and longer to compute, many times longer on most GPUs, for a result that is rounded to float32 (u = 2^-24).",
        hint="Make the constant float32 (numpy and Python numbers are float64); --fix folds constants that are only cast.",
        check=_double_in_float,
        fix=_fold_double_casts,
    ),
    LintRule(
        code="AC205",
        name="softmax-flattens-below-opset-13",
        severity="warning",
        why="Before opset 13 Softmax flattens to a matrix at `axis` and normalizes rows: for axis = 1 of n x c x h x w over c h w numbers, not over c.",
        hint="Export at opset 13 or newer, or transpose so that the axis is the last.",
        check=_flattening_softmax,
    ),
    LintRule(
        code="AC206",
        name="float16-overflow",
        severity="error",
        why="The largest float16 is 65504; a weight beyond it became infinite or was clamped, and inf - inf and 0 inf are NaN.",
        hint="Keep these weights in float32 (a list of nodes to leave out of the conversion), or scale them.",
        check=_overflowed_halves,
    ),
    LintRule(
        code="AC207",
        name="float16-epsilon-vanishes",
        severity="error",
        why="The least float16 above 0 is 2^-24 = 6e-8, and an epsilon below half of it is 0: x / sqrt(var + 0) is infinite or NaN where var is 0.",
        hint="Use an epsilon of 1e-4 or more in float16, or normalize in float32.",
        check=_vanished_epsilon,
    ),
)
