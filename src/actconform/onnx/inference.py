"""Types and shapes of a graph's tensors by onnx's inference, without those of which runtimes and the model itself differ.

onnx's inference is wrong about some nodes: up to opset 21 it counts windows of a pool with ceil_mode that begin behind the
image, which ONNX Runtime, torch and opset 22 do not. What it says of such a node is not taken: a size is then what the model
states, or open, so that a run tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_UNKNOWN = "actconform.unknown"  # a domain of which onnx infers nothing
_STANDARD = ("", "ai.onnx")
_CORRECTED = 22  # since when the standard counts no window of a pool that begins behind the image
_POOLS = ("AveragePool", "LpPool", "MaxPool")
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_INT32_MAX = 2**31 - 1

Sizes = list[int | str | None]  # None where open


class _Tensor(NamedTuple):
    element_type: int
    dims: Sizes | None


def infer(model: onnx.ModelProto) -> onnx.GraphProto:
    """Return the graph of `model` with the types and shapes that onnx infers, values of shapes followed; doubtful ones open.

    A size that `model` states stays, unless it is what onnx wrongly infers. Raises onnx.shape_inference.InferenceError
    where what is stated contradicts the rest.
    """
    return _inferred(model, strict=False, check_type=False)


def expect_consistent(model: onnx.ModelProto, *, check_type: bool) -> None:
    """Raise onnx's own error where `model` is not valid, or shapes or types in it cannot fit; doubtful inference aside."""
    onnx.checker.check_model(model)
    try:
        onnx.shape_inference.infer_shapes(model, check_type=check_type, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        _inferred(model, strict=True, check_type=check_type)


def _inferred(model: onnx.ModelProto, *, strict: bool, check_type: bool) -> onnx.GraphProto:
    values, opset = _constants(model), _opset(model)
    doubtful = [node for graph in _graphs(model.graph) for node in graph.node if _doubtful(node, opset, values)]
    stated = _tensors(model.graph)
    open_sizes: dict[str, _Tensor] = {node.output[0]: _Tensor(0, None) for node in doubtful}
    while True:
        copy = _hidden(model, open_sizes, stated, strict=strict)
        graph = onnx.shape_inference.infer_shapes(
            copy, check_type=check_type, strict_mode=strict, data_prop=not strict
        ).graph
        known = _tensors(graph)
        before = dict(open_sizes)
        for node in doubtful:
            if node.output[0] in open_sizes:
                given = _given(node, known, stated.get(node.output[0]))
                if given is None:  # nothing is in doubt
                    del open_sizes[node.output[0]]
                else:
                    open_sizes[node.output[0]] = given
        if open_sizes == before:
            return graph


def _hidden(
    model: onnx.ModelProto, sizes: Mapping[str, _Tensor], stated: Mapping[str, _Tensor], *, strict: bool
) -> onnx.ModelProto:
    """Return a copy in which onnx infers nothing of some nodes, and finds their outputs described by `sizes` instead.

    With `strict` it infers nothing either of those where its own inference fails, nor of doubtful ones in functions, and each
    node has a name to be told by.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for holder, body in ((copy, copy.graph), *((function, function) for function in copy.functions)):
        opset = _opset(holder)
        holder.opset_import.append(helper.make_opsetid(_UNKNOWN, 1))
        for node in (node for graph in _graphs(body) for node in graph.node):
            hide = node.output[0] in sizes if body is copy.graph else strict and _doubtful(node, opset, {})
            if strict:
                node.name = node.name or "-> " + ", ".join(filter(None, node.output))
                hide = hide or _fails(node, opset)
            if hide:
                node.domain = _UNKNOWN
    for graph in _graphs(copy.graph):
        for node in graph.node:
            if node.output[0] in sizes:
                given = sizes[node.output[0]]
                _describe(graph, node, given if given.element_type else stated.get(node.output[0], given))
    return copy


def _describe(graph: onnx.GraphProto, node: onnx.NodeProto, given: _Tensor) -> None:
    if not given.element_type:
        return
    noted = {value.name: value for value in (*graph.value_info, *graph.output)}
    for i, name in enumerate(node.output[:2]):  # the second output is MaxPool's: indices
        if name:
            info = helper.make_tensor_value_info(name, TensorProto.INT64 if i else given.element_type, given.dims)
            (noted.get(name) or graph.value_info.add()).CopyFrom(info)


def _fails(node: onnx.NodeProto, opset: int) -> bool:
    """Say whether onnx's inference itself may fail at a node that is right.

    It broadcasts no ellipses, and of operators without an inference of their own it infers the body, attributes left out
    and all, which only the defaults would fill.
    """
    if node.domain not in _STANDARD:
        return False
    if node.op_type == "Einsum":
        return True
    if not onnx.defs.has(node.op_type, opset, ""):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type, opset, "")
    return bool(schema.has_function) and not schema.has_type_and_shape_inference_function


def _doubtful(node: onnx.NodeProto, opset: int, values: Mapping[str, TensorProto]) -> bool:
    """Say whether the sizes that onnx infers may be others than those that a runtime gives."""
    given = _attributes(node)
    same = given.get("auto_pad", b"").startswith(b"SAME")
    match node.op_type if node.domain in _STANDARD else "":
        case "AveragePool" | "LpPool" | "MaxPool":
            counts = bool(given.get("ceil_mode")) and opset < _CORRECTED
            return counts or (same and max(given.get("dilations") or [1]) > 1)  # ONNX Runtime pads as if undilated
        case "ConvTranspose":  # an output_shape below the input's loses axes; output_padding enlarges no SAME output
            return bool(given.get("output_shape")) or (same and any(given.get("output_padding") or []))
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


def _given(node: onnx.NodeProto, known: Mapping[str, _Tensor], stated: _Tensor | None) -> _Tensor | None:
    """Return the element type of a node's output, and its sizes where they are certain; None where all of them are."""
    x = known.get(node.input[0], _Tensor(0, None))
    inferred_sizes, wrong = _sizes(node, x.dims, known)
    if inferred_sizes is None:
        return stated if stated is not None else _Tensor(x.element_type, None)
    if node.op_type in _POOLS and None not in inferred_sizes[2:]:
        return None
    if stated is not None and stated.dims is not None and len(stated.dims) == len(inferred_sizes):
        for axis, size in enumerate(stated.dims):
            if inferred_sizes[axis] is None and size != wrong.get(axis):
                inferred_sizes[axis] = size
    return _Tensor(x.element_type, inferred_sizes)


def _sizes(
    node: onnx.NodeProto, dims: Sizes | None, known: Mapping[str, _Tensor]
) -> tuple[Sizes | None, dict[int, int]]:
    """Return the sizes of a doubtful node's output, None where open, and those that onnx would wrongly infer, by axis."""
    if node.op_type == "Range":
        return [None], {}
    if dims is None:
        return None, {}
    if node.op_type == "STFT":
        return [dims[0], None, None, 2], {}
    if node.op_type == "Slice":
        return [None] * len(dims), {}
    given = _attributes(node)
    if node.op_type == "ConvTranspose":
        weights = known.get(node.input[1], _Tensor(0, None)).dims
        inner = weights[1] if weights is not None else None
        channels = inner * given.get("group", 1) if isinstance(inner, int) else None
        asked: Sequence[int | None] = given.get("output_shape") or [None] * (len(dims) - 2)
        return [dims[0], channels, *asked[2 - len(dims) :]], _with_output_padding(given, dims)
    sizes, wrong = [*dims[:2]], {}
    for axis, size in enumerate(dims[2:]):
        counts = _counts(given, axis, len(dims) - 2, size) if isinstance(size, int) else (None, 0)
        sizes.append(counts[0] if counts[0] == counts[1] else None)
        if sizes[-1] is None:
            wrong[2 + axis] = counts[1]
    return sizes, wrong


def _with_output_padding(given: Mapping[str, Any], dims: Sizes) -> dict[int, int]:
    """Return the sizes that onnx infers of a ConvTranspose whose output should be `strides` times as large as its input."""
    axes = len(dims) - 2
    steps = zip(dims[2:], given.get("strides") or [1] * axes, given.get("output_padding") or [0] * axes, strict=True)
    sizes = enumerate((size, stride, more) for size, stride, more in steps)
    return {2 + axis: size * stride + more for axis, (size, stride, more) in sizes if isinstance(size, int) and more}


def _counts(given: Mapping[str, Any], axis: int, axes: int, size: int) -> tuple[int, int]:
    """Return how many windows a pool has along an axis: as opset 22 counts them, and as onnx does below it."""

    def of(name: str, default: int) -> int:
        return int((given.get(name) or [default] * axes)[axis])

    kernel, stride, dilation = of("kernel_shape", 1), of("strides", 1), of("dilations", 1)
    placed, ceil = given.get("auto_pad", b"NOTSET"), bool(given.get("ceil_mode"))
    if placed.startswith(b"SAME"):
        count = -(-size // stride)
        return (count if dilation == 1 else -1), count
    pads = [0] * 2 * axes if placed == b"VALID" else given.get("pads") or [0] * 2 * axes
    room = size + pads[axis] + pads[axes + axis] - (kernel - 1) * dilation - 1
    count = (-(-room // stride) if ceil else room // stride) + 1
    return count - ((count - 1) * stride >= size + pads[axis]), count


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute if not each.ref_attr_name}


def _graphs(body: Any) -> Iterator[Any]:
    """Yield a graph, or the body of a function, and the graphs that its nodes hold, at any depth."""
    yield body
    for node in body.node:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(graph)


def _opset(holder: onnx.ModelProto | onnx.FunctionProto) -> int:
    return next((entry.version for entry in holder.opset_import if entry.domain in _STANDARD), 0)


def _constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    values: dict[str, TensorProto] = {}
    for graph in _graphs(model.graph):
        values |= {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                values[node.output[0]] = node.attribute[0].t
    return values


def _tensors(graph: onnx.GraphProto) -> dict[str, _Tensor]:
    """Return what a graph, and those in its nodes, say of their tensors."""
    tensors = {}
    for each in _graphs(graph):
        for tensor in each.initializer:
            tensors[tensor.name] = _Tensor(tensor.data_type, list(tensor.dims))
        for value in (*each.value_info, *each.input, *each.output):
            said = value.type.tensor_type
            dims = [_size(dim) for dim in said.shape.dim] if said.HasField("shape") else None
            tensors[value.name] = _Tensor(said.elem_type, dims)
    return tensors


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
