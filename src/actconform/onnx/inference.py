"""Types and shapes of a graph's tensors by onnx's inference, without those that runtimes compute otherwise.

What onnx's inference says of some nodes is not taken: a size is then what the model states, or open, so that a run tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.onnx.nested_graphs import graphs
from actconform.onnx.pool_sizes import (
    POOLS,
    STANDARD,
    by_graph,
    dilated_by_itself,
    missized,
    opset_of,
    pads_itself,
    sized,
)
from actconform.onnx.size_limits import inferred_with_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_UNKNOWN = "actconform.unknown"  # a domain of which onnx infers nothing
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_INT32_MAX = 2**31 - 1

Sizes = list[int | str | None]  # None where open
_Place = tuple[int, int]  # of a node: the number of its graph, and its own in that


class _Tensor(NamedTuple):
    element_type: int
    dims: Sizes | None


def infer(model: onnx.ModelProto) -> onnx.GraphProto:
    """Return the graph of `model` with the types and shapes that onnx infers, values of shapes followed; doubtful ones open.

    A size that `model` states stays, unless it is what onnx wrongly infers. Raises onnx.shape_inference.InferenceError
    where what is stated contradicts the rest.
    """
    return _inferred(sized(model), strict=False, check_type=False)


def expect_consistent(model: onnx.ModelProto, *, check_type: bool) -> None:
    """Raise onnx's own error where `model` is not valid, or shapes or types in it cannot fit; doubtful inference aside."""
    onnx.checker.check_model(model)
    try:
        onnx.shape_inference.infer_shapes(model, check_type=check_type, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        _inferred(sized(model), strict=True, check_type=check_type)


def _inferred(model: onnx.ModelProto, *, strict: bool, check_type: bool) -> onnx.GraphProto:
    opset = opset_of(model)
    doubtful = {
        (number, i): node
        for number, (graph, values) in enumerate(by_graph(model.graph, _constants))
        for i, node in enumerate(graph.node)
        if _doubtful(node, opset, values)
    }
    stated = [tensors for _, tensors in by_graph(model.graph, _tensors)]
    described = {place: _Tensor(0, None) for place in doubtful}
    while True:
        copy = _hidden(model, described, stated, strict=strict)
        if strict:
            inferred = onnx.shape_inference.infer_shapes(copy, check_type=check_type, strict_mode=True).graph
        else:
            inferred = inferred_with_data(copy).graph
        tensors = [each for _, each in by_graph(inferred, _tensors)]
        before = dict(described)
        for (number, i), node in doubtful.items():
            described[number, i] = _output_tensor(node, tensors[number], stated[number].get(node.output[0]))
        if described == before:
            return inferred


def _hidden(
    model: onnx.ModelProto,
    described: Mapping[_Place, _Tensor],
    stated: Sequence[Mapping[str, _Tensor]],
    *,
    strict: bool,
) -> onnx.ModelProto:
    """Return a copy in which onnx infers nothing of some nodes, and finds what they give `described` instead.

    With `strict` it infers nothing either of those where its own inference fails, nor of doubtful ones in functions, and each
    node has a name that messages can show.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, graph in enumerate(graphs(copy.graph)):
        for i, node in enumerate(graph.node):
            if (number, i) in described:
                tensor = described[number, i]
                _describe(graph, node, tensor if tensor.element_type else stated[number].get(node.output[0], tensor))
                node.domain = _UNKNOWN
    for holder, body in ((copy, copy.graph), *((function, function) for function in copy.functions)):
        opset = opset_of(holder)
        holder.opset_import.append(helper.make_opsetid(_UNKNOWN, 1))
        for node in (node for graph in graphs(body) for node in graph.node) if strict else ():
            node.name = node.name or "-> " + ", ".join(filter(None, node.output))
            in_function = body is not copy.graph
            if _fails(node, opset) or (in_function and (missized(node, opset) or _doubtful(node, opset, {}))):
                node.domain = _UNKNOWN
    return copy


def _describe(graph: onnx.GraphProto, node: onnx.NodeProto, tensor: _Tensor) -> None:
    if not tensor.element_type:
        return
    noted = {value.name: value for value in (*graph.value_info, *graph.output)}
    for i, name in enumerate(node.output[:2]):  # the second output is MaxPool's: indices
        if name:
            info = helper.make_tensor_value_info(name, TensorProto.INT64 if i else tensor.element_type, tensor.dims)
            (noted.get(name) or graph.value_info.add()).CopyFrom(info)


def _fails(node: onnx.NodeProto, opset: int) -> bool:
    """Say whether onnx's inference itself may fail at a node that is right.

    It broadcasts no ellipses, and of operators without an inference of their own it infers the body, attributes left out
    and all, which only the defaults would fill.
    """
    if node.domain not in STANDARD:
        return False
    if node.op_type == "Einsum":
        return True
    if not onnx.defs.has(node.op_type, opset, ""):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type, opset, "")
    return bool(schema.has_function) and not schema.has_type_and_shape_inference_function


def _doubtful(node: onnx.NodeProto, opset: int, values: Mapping[str, TensorProto]) -> bool:
    """Say whether the sizes that onnx infers may be others than those that a runtime gives."""
    match node.op_type if node.domain in STANDARD else "":
        case "AveragePool" | "LpPool" | "MaxPool":
            return dilated_by_itself(node) or (pads_itself(node) and missized(node, opset))
        case "Range":  # the count is rounded in the type that counts
            return any(name not in values or values[name].data_type in _FLOATS for name in node.input)
        case "STFT":  # takes a left out `onesided` for 0
            return True
        case "Slice":  # backwards, an end of the largest integer is taken for behind the last element
            return _ends_far_back(node, values)
    return False


def _ends_far_back(node: onnx.NodeProto, values: Mapping[str, TensorProto]) -> bool:
    ends, steps = (values.get(node.input[i]) if len(node.input) > i else None for i in (2, 4))
    if steps is None or not (numpy_helper.to_array(steps) < 0).any():
        return False
    return ends is None or bool((numpy_helper.to_array(ends).astype(np.int64) >= _INT32_MAX).any())


def _output_tensor(node: onnx.NodeProto, inferred: Mapping[str, _Tensor], stated: _Tensor | None) -> _Tensor:
    """Return the element type of a doubtful node's output and its sizes, None where open."""
    x = inferred.get(node.input[0], _Tensor(0, None))
    sizes = _sizes(node, x.dims)
    if stated is not None and stated.dims is not None and (sizes is None or len(stated.dims) == len(sizes)):
        sizes = [
            size if size is not None else stated_size
            for size, stated_size in zip(sizes or stated.dims, stated.dims, strict=True)
        ]
    return _Tensor(x.element_type or (stated.element_type if stated else 0), sizes)


def _sizes(node: onnx.NodeProto, dims: Sizes | None) -> Sizes | None:
    if node.op_type == "Range":
        return [None]
    if dims is None:
        return None
    if node.op_type in POOLS:
        return [*dims[:2], *[None] * (len(dims) - 2)]
    return [dims[0], None, None, 2] if node.op_type == "STFT" else [None] * len(dims)


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            values[node.output[0]] = node.attribute[0].t
    return values


def _tensors(graph: onnx.GraphProto) -> dict[str, _Tensor]:
    """Return what a graph says of its own tensors."""
    tensors = {tensor.name: _Tensor(tensor.data_type, list(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        described = value.type.tensor_type
        dims = [_size(dim) for dim in described.shape.dim] if described.HasField("shape") else None
        tensors[value.name] = _Tensor(described.elem_type, dims)
    return tensors


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
