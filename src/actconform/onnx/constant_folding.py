"""What a graph computes from constants and static shapes alone; each `If` that this decides is replaced by its branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from actconform.onnx.constants import tensor_of
from actconform.onnx.gates import standard_opset
from actconform.onnx.grad.rules.registry import STANDARD
from actconform.onnx.grad.rules.tensor_info import constant_of
from actconform.onnx.inference import infer
from actconform.onnx.nested_graphs import fresh_prefix, own_names, renamed, subgraphs
from actconform.onnx.pool_sizes import without_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.onnx.grad.rules.tensor_info import Array

LARGEST = 1024  # elements of what is computed here: axes, shapes, scales and conditions

# Arithmetic of shapes. None but those of _MADE gives more elements than broadcasting its inputs does.
_FOLDED = frozenset(
    """
    Abs And Cast Ceil Concat Div Equal Floor Gather Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not
    Or Pow ReduceMax ReduceMin ReduceProd ReduceSum Reshape Round Shape Sign Size Slice Sqrt Squeeze Sub Transpose Unsqueeze
    Where Xor
    """.split()  # noqa: SIM905  a list to read
)
_MADE = ("ConstantOfShape", "Range")
_PICKS = (
    "Gather",
    "Slice",
    "Identity",
    "Squeeze",
    "Unsqueeze",
)  # of a shape that is known in part, what is known of it
_OPEN = -1  # stands for a dimension that only a run tells


def decided(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with each `If` of its main graph whose condition is constant replaced by the branch that it takes.

    Names inside a branch stay where they are not taken. The model itself is returned where no condition is constant.
    """
    overridable = {value.name for value in model.graph.input}
    while any(_is_if(node) for node in model.graph.node):
        try:
            _, computed = infer_constants(model)
        except onnx.shape_inference.InferenceError:
            return model
        values = {
            tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in overridable
        } | computed
        conditions = {
            place: bool(numpy_helper.to_array(values[node.input[0]]).all())
            for place, node in enumerate(model.graph.node)
            if _is_if(node) and node.input[0] in values
        }
        if not conditions:
            return model
        model = _fitting(_with_branches(model, conditions))
    return model


def _fitting(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` without what it states of shapes that the branches taken do not give: exporters may state those of the other branch."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    stated = without_sizes(bare.graph)
    try:
        inferred = infer(bare)
    except onnx.shape_inference.InferenceError:
        return model
    inferred_types = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
    for value in (*bare.graph.value_info, *bare.graph.output):
        if value.name in stated:
            shape, inferred_type = stated[value.name], inferred_types.get(value.name)
            if (
                inferred_type is not None
                and inferred_type.HasField("shape")
                and not _may_agree(shape, inferred_type.shape)
            ):
                shape = inferred_type.shape
            value.type.tensor_type.shape.CopyFrom(shape)
    return bare


def _may_agree(shape: onnx.TensorShapeProto, inferred: onnx.TensorShapeProto) -> bool:
    pairs = zip(shape.dim, inferred.dim, strict=False)
    differ = any(a.HasField("dim_value") and b.HasField("dim_value") and a.dim_value != b.dim_value for a, b in pairs)
    return len(shape.dim) == len(inferred.dim) and not differ


def infer_constants(model: onnx.ModelProto) -> tuple[onnx.GraphProto, dict[str, onnx.TensorProto]]:
    """Return the graph with the types and shapes that onnx infers, and the small tensors that are the same in every run.

    Each helps to find more of the other. Raises onnx.shape_inference.InferenceError where shapes cannot fit.
    """
    values: dict[str, onnx.TensorProto] = {}
    while True:
        inferred = infer(_with_constants(model, values))
        computed = constants(model, inferred)
        if len(computed) <= len(values):
            return inferred, computed
        values = computed


def _with_constants(model: onnx.ModelProto, values: dict[str, onnx.TensorProto]) -> onnx.ModelProto:
    """Return `model` with initializers in place of the nodes that compute them."""
    if not values:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(
        node for node in model.graph.node if not (len(node.output) == 1 and node.output[0] in values)
    )
    copy.graph.initializer.extend(values.values())
    return copy


def constants(model: onnx.ModelProto, inferred: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the small tensors that nodes of `model` compute from constants and static dimensions, whatever the inputs.

    `inferred` is the graph with the shapes that onnx found.
    """
    overridable = {value.name for value in model.graph.input}
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name not in overridable and _count(tensor.dims) <= LARGEST and not tensor.external_data
    }
    shapes = {
        value.name: [dim.dim_value if dim.HasField("dim_value") else _OPEN for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    partly: dict[str, Array] = {}
    folded = {}
    opset = standard_opset(model)
    for node in model.graph.node:
        result = _value(node, opset, values, partly, shapes)
        if result is None or result.size > LARGEST or result.dtype.kind not in "biuf":
            continue
        name = node.output[0]
        if node.op_type in {"Shape", *_PICKS} and result.dtype == np.int64 and (_of_shape(node, partly, result)):
            partly[name] = result
            continue
        values[name] = result
        folded[name] = tensor_of(result, name)
    return folded


def _of_shape(node: onnx.NodeProto, partly: dict[str, Array], result: Array) -> bool:
    """Say whether `result` has dimensions that are not known."""
    return (node.op_type == "Shape" or node.input[0] in partly) and bool((result == _OPEN).any())


def _value(
    node: onnx.NodeProto, opset: int, values: dict[str, Array], partly: dict[str, Array], shapes: dict[str, list[int]]
) -> Array | None:
    """Return what a node of one output computes, where its inputs are known; of a shape, what is known of it."""
    if node.domain not in STANDARD or len(node.output) != 1:
        return None
    if node.op_type == "Constant":
        tensor = constant_of(node)
        return None if tensor is None or _count(tensor.dims) > LARGEST else numpy_helper.to_array(tensor)
    if node.op_type not in _FOLDED and node.op_type not in _MADE:
        return None
    if node.op_type in {"Shape", "Size"}:
        value = values.get(node.input[0])
        return _dimensions(node, shapes.get(node.input[0]) if value is None else list(value.shape))
    arguments = _arguments(node, values, partly)
    if arguments is None or (node.op_type in _MADE and not _makes_few(node, list(arguments.values()))):
        return None
    return _evaluated(node, opset, arguments)


def _arguments(node: onnx.NodeProto, values: dict[str, Array], partly: dict[str, Array]) -> dict[str, Array] | None:
    """Return what a node reads by name; None where that is not known."""
    arguments: dict[str, Array] = {}
    for i, name in enumerate(node.input):
        if name in values:
            arguments[name] = values[name]
        elif i == 0 and node.op_type in _PICKS and name in partly:
            arguments[name] = partly[name]
        elif name:
            return None
    return arguments


def _makes_few(node: onnx.NodeProto, arguments: list[Array]) -> bool:
    """Say whether a node that makes a tensor of any size makes one that is small."""
    if node.op_type == "ConstantOfShape":
        return _count(int(size) for size in arguments[0]) <= LARGEST
    if len(arguments) < 3:  # an operand stands twice
        return False
    start, limit, step = (float(each.item()) for each in arguments)
    return step != 0 and (limit - start) / step <= LARGEST


def _dimensions(node: onnx.NodeProto, shape: list[int] | None) -> Array | None:
    if shape is None or (node.op_type == "Size" and (_OPEN in shape or _count(shape) > np.iinfo(np.int64).max)):
        return None
    if node.op_type == "Size":
        return np.array(_count(shape))
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    return np.array(shape[ends.get("start", 0) : ends.get("end", len(shape))], dtype=np.int64)


def _evaluated(node: onnx.NodeProto, opset: int, arguments: dict[str, Array]) -> Array | None:
    """Return what one node gives; None where it fails at these values, as it will when the graph runs."""
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    alone.domain = ""
    ends = [onnx.ValueInfoProto(name=name) for name in arguments], [onnx.ValueInfoProto(name=node.output[0])]
    graph = helper.make_graph([alone], "node", *ends)
    try:
        with np.errstate(all="ignore"):
            (result,) = ReferenceEvaluator(graph, opsets={"": opset}).run(None, arguments)
    except Exception:  # noqa: BLE001  of whatever kind
        return None
    return np.asarray(result)


def _with_branches(model: onnx.ModelProto, conditions: dict[int, bool]) -> onnx.ModelProto:
    """Return `model` in which the `If` nodes that `conditions` numbers are replaced by their then (True) or else branch."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    names = set(own_names(copy.graph)).union(*(node.output for node in model.graph.node))
    for place, node in enumerate(model.graph.node):
        if place not in conditions:
            copy.graph.node.append(node)
            continue
        wanted = "then_branch" if conditions[place] else "else_branch"
        (branch,) = (attribute.g for attribute in node.attribute if attribute.name == wanted)
        branch = _apart(branch, names)
        names.update(own_names(branch))
        copy.graph.initializer.extend(branch.initializer)
        copy.graph.sparse_initializer.extend(branch.sparse_initializer)
        copy.graph.node.extend(branch.node)
        for inner, outer in zip(branch.output, node.output, strict=True):
            if outer:
                copy.graph.node.append(helper.make_node("Identity", [inner.name], [outer]))
    return copy


def _apart(branch: onnx.GraphProto, names: set[str]) -> onnx.GraphProto:
    """Return the branch with other names for those of its own tensors that are among `names`."""
    branch_names = set(own_names(branch))
    if branch_names.isdisjoint(names):
        return branch
    prefix = fresh_prefix("branch_", names | branch_names)
    clash = branch_names & names
    return renamed(branch, lambda name: prefix + name if name in clash else name)


def _is_if(node: onnx.NodeProto) -> bool:
    return node.op_type == "If" and node.domain in STANDARD and any(True for _ in subgraphs(node))


def _count(dims: Iterable[int]) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count
