"""Pools and transposed convolutions whose sizes onnx infers wrongly, written so that it infers what runtimes compute.

Up to opset 21 the letter of the standard counts windows of a pool with ceil_mode that begin behind the image; ONNX Runtime,
torch, onnx's own evaluator and opset 22 do not. ONNX Runtime trusts that inference all the same, where it folds a Shape or
checks a gradient's nodes, so that a graph that runs may not run with gradients unless the node says the size plainly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import onnx
from onnx import helper

from actconform.onnx.constants import tensor_of
from actconform.onnx.nested_graphs import graphs, subgraphs
from actconform.onnx.size_limits import inferred_with_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

STANDARD = ("", "ai.onnx")
POOLS = ("AveragePool", "LpPool", "MaxPool")
SIZES_CORRECTED = 22  # since when the standard counts no window of a pool that begins behind the image

Sizes = list[int | None]
_Info = TypeVar("_Info")


def sized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` in which no known size is inferred wrongly for a pool or a transposed convolution.

    What it computes stays. A size that `model` states for a tensor stays too, unless it is the wrong one. The model itself is
    returned where there is no such node. Nodes in local functions stay as they are.
    """
    opset = opset_of(model)
    if not any(missized(node, opset) for graph in graphs(model.graph) for node in graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stated = [without_sizes(graph) for graph in graphs(copy.graph)]
    wrong = right = _inferred(copy)
    prefix = "sized_"
    while any(name.startswith(prefix) for graph in graphs(copy.graph) for node in graph.node for name in node.output):
        prefix = "_" + prefix
    while _rewrite_one(copy, right, opset, prefix):
        right = _inferred(copy)
    for graph, stated_shapes, before, now in zip(graphs(copy.graph), stated, wrong, right, strict=True):
        _state_sizes(graph, stated_shapes, before, now)
    return copy


def missized(node: onnx.NodeProto, opset: int) -> bool:
    """Say whether onnx may infer other sizes of a pool or a transposed convolution than runtimes give."""
    attributes = stated_attributes(node)
    match node.op_type if node.domain in STANDARD else "":
        case "AveragePool" | "LpPool" | "MaxPool":
            return bool(attributes.get("ceil_mode")) and opset < SIZES_CORRECTED
        case "ConvTranspose":  # an output_shape below the input's loses axes; output_padding enlarges no SAME output
            padded = any(attributes.get("output_padding") or [])
            return (padded and pads_itself(node)) or bool(attributes.get("output_shape"))
    return False


def pads_itself(node: onnx.NodeProto) -> bool:
    """Say whether a node finds its padding from the sizes, as SAME_UPPER and SAME_LOWER do."""
    return bool(stated_attributes(node).get("auto_pad", b"").startswith(b"SAME"))


def dilated_by_itself(node: onnx.NodeProto) -> bool:
    """Say whether a pool has dilations and finds its padding itself: ONNX Runtime pads as if it had none."""
    attributes = stated_attributes(node)
    kernel, dilations = attributes.get("kernel_shape") or [], attributes.get("dilations") or []
    dilated = any(size > 1 and step > 1 for size, step in zip(kernel, dilations, strict=False))
    return dilated and pads_itself(node)


def stated_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes that a node states itself."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute if not each.ref_attr_name}


def opset_of(holder: onnx.ModelProto | onnx.FunctionProto) -> int:
    """Return the version of the standard's opset that a model or function states; 0 where it states none."""
    return next((entry.version for entry in holder.opset_import if entry.domain in STANDARD), 0)


def by_graph(
    graph: onnx.GraphProto,
    of: Callable[[onnx.GraphProto], dict[str, _Info]],
    outer: Mapping[str, _Info] | None = None,
) -> Iterator[tuple[onnx.GraphProto, dict[str, _Info]]]:
    """Yield what `graphs` does, each with what `of` says of its tensors and of those that it sees around it, by name.

    Graphs side by side may use one name for different tensors.
    """
    visible = {**(outer or {}), **of(graph)}
    yield graph, visible
    for node in graph.node:
        for inner in subgraphs(node):
            yield from by_graph(inner, of, visible)


def without_sizes(graph: onnx.GraphProto) -> dict[str, onnx.TensorShapeProto]:
    """Remove and return what a graph states of the shapes of what standard nodes give."""
    stated = {}
    inferable = {name for node in graph.node if node.domain in STANDARD for name in node.output}
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if value.name in inferable and value.type.HasField("tensor_type") and tensor.HasField("shape"):
            stated[value.name] = onnx.TensorShapeProto()
            stated[value.name].CopyFrom(tensor.shape)
            tensor.ClearField("shape")
    return stated


def _state_sizes(
    graph: onnx.GraphProto,
    stated: dict[str, onnx.TensorShapeProto],
    wrong: dict[str, Sizes],
    right: dict[str, Sizes],
) -> None:
    """State again what was removed, but for sizes that only the wrong inference gives."""
    for value in (*graph.value_info, *graph.output):
        if value.name not in stated:
            continue
        shape, tensor = stated[value.name], value.type.tensor_type
        before, now = wrong.get(value.name), right.get(value.name)
        if now is not None and before is not None and len(before) == len(shape.dim) != len(now):
            shape = helper.make_tensor_type_proto(tensor.elem_type, now).tensor_type.shape  # of the wrong rank
        elif before is not None and len(before) == len(shape.dim):
            for axis, dim in enumerate(shape.dim):
                inferred_wrongly = before[axis] is not None and (now is None or now[axis] != before[axis])
                if inferred_wrongly and dim.dim_value == before[axis]:
                    dim.Clear()
        tensor.shape.CopyFrom(shape)


def _inferred(model: onnx.ModelProto) -> list[dict[str, Sizes]]:
    """Return the sizes of tensors that each graph sees, as far as onnx infers numbers; none where it fails."""
    try:
        inferred = inferred_with_data(model)
    except onnx.shape_inference.InferenceError:
        return [{} for _ in graphs(model.graph)]
    return [sizes for _, sizes in by_graph(inferred.graph, _sizes_of)]


def _sizes_of(graph: onnx.GraphProto) -> dict[str, Sizes]:
    sizes: dict[str, Sizes] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            sizes[value.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
    return sizes


def _rewrite_one(model: onnx.ModelProto, by_place: list[dict[str, Sizes]], opset: int, prefix: str) -> bool:
    """Rewrite the first node that is inferred wrongly, and say whether there was one that could be."""
    for graph, sizes in zip(graphs(model.graph), by_place, strict=True):
        for place, node in enumerate(graph.node):
            if not missized(node, opset) or (dims := sizes.get(node.input[0])) is None:
                continue
            if node.op_type in POOLS:
                before = _plain_pool(node, dims[2:], prefix)
            else:
                before = _plain_conv_transpose(node, dims[2:], sizes.get(node.input[1]))
            if before is not None:
                for extra in reversed(before):
                    graph.node.insert(place, extra)
                return True
    return False


class _Axis(NamedTuple):
    """Where the windows of a pool stand along an axis."""

    size: int | None
    after: int  # the padding behind the image
    rest: int  # how much of the padded image lies behind the last whole window; -1 where unknown
    begins_behind: bool  # whether the window that the rest would fill begins behind the image


def _plain_pool(node: onnx.NodeProto, sizes: Sizes, prefix: str) -> list[onnx.NodeProto] | None:
    """Write a pool so that no window begins behind the image; return what goes before it, None where it stays.

    Along an axis where one would, all that lies behind the last whole window is not seen: the padding, then the image, is
    cut by so much.
    """
    attributes = stated_attributes(node)
    if pads_itself(node):
        return _plain_same(node, attributes, sizes)
    axes = [_axis(attributes, i, len(sizes), size) for i, size in enumerate(sizes)]
    if not any(axis.begins_behind for axis in axes):
        return None
    if all(axis.begins_behind or axis.rest == 0 for axis in axes):
        _set(node, ceil_mode=0)
        return []
    from_padding = [min(axis.after, axis.rest) if axis.begins_behind else 0 for axis in axes]
    from_image = [axis.rest - cut if axis.begins_behind else 0 for axis, cut in zip(axes, from_padding, strict=True)]
    if any(from_image) and any(node.output[1:]):
        return _wider(node, attributes, axes)  # its indices count in the whole image
    pads = (
        [0] * 2 * len(axes) if attributes.get("auto_pad") == b"VALID" else attributes.get("pads") or [0] * 2 * len(axes)
    )
    after = [axis.after - cut for axis, cut in zip(axes, from_padding, strict=True)]
    _set(node, auto_pad=None, pads=[*pads[: len(axes)], *after])
    if not any(from_image):
        return []
    cuts = [
        (i, axis.size - cut)
        for i, (axis, cut) in enumerate(zip(axes, from_image, strict=True), 2)
        if axis.size is not None and cut
    ]
    name = f"{prefix}{node.output[0]}"
    bounds = {"starts": [0] * len(cuts), "ends": [end for _, end in cuts], "axes": [axis for axis, _ in cuts]}
    constants = [
        helper.make_node("Constant", [], [f"{name}_{bound}"], value=tensor_of(np.array(values)))
        for bound, values in bounds.items()
    ]
    cut = helper.make_node("Slice", [node.input[0], *(f"{name}_{bound}" for bound in bounds)], [name], name=name)
    node.input[0] = name
    return [*constants, cut]


def _wider(node: onnx.NodeProto, attributes: dict[str, Any], axes: Sequence[_Axis]) -> list[onnx.NodeProto] | None:
    """Pad the image of a MaxPool so far that its last windows are whole, and drop those that begin behind it."""
    kernel, strides = attributes["kernel_shape"], attributes.get("strides") or [1] * len(axes)
    after = []
    for axis, size, stride in zip(axes, kernel, strides, strict=True):
        if axis.size is None:
            return None
        after.append(axis.after if axis.begins_behind or not axis.rest else axis.after + stride - axis.rest)
        if after[-1] >= size:
            return None  # which runtimes refuse
    pads = attributes.get("pads") or [0] * len(axes)
    _set(node, auto_pad=None, ceil_mode=0, pads=[*pads[: len(axes)], *after])
    return []


def _plain_same(node: onnx.NodeProto, attributes: dict[str, Any], sizes: Sizes) -> list[onnx.NodeProto] | None:
    """Write out the padding of a pool that has one window for each step of its stride, whatever the rounding."""
    axes = len(sizes)
    kernel, strides = attributes["kernel_shape"], attributes.get("strides") or [1] * axes
    if dilated_by_itself(node):
        return None
    totals = []
    for size, reach, stride in zip(sizes, kernel, strides, strict=True):
        if size is None or (total := (-(-size // stride) - 1) * stride + reach - size) < 0:
            return None  # where runtimes cut the image, or refuse to
        totals.append(total)
    _set(node, auto_pad=None, ceil_mode=0, pads=_split(totals, upper=attributes["auto_pad"] == b"SAME_UPPER"))
    return []


def _split(totals: Sequence[int], *, upper: bool) -> list[int]:
    """Return pads of these totals; of an odd one the larger half goes behind the image if `upper`."""
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return less + more if upper else more + less


def _axis(attributes: dict[str, Any], i: int, axes: int, size: int | None) -> _Axis:
    def of(name: str, default: int) -> int:
        return int((attributes.get(name) or [default] * axes)[i])

    pads = [0] * 2 * axes if attributes.get("auto_pad") == b"VALID" else attributes.get("pads") or [0] * 2 * axes
    if size is None:
        return _Axis(None, pads[axes + i], -1, begins_behind=False)
    stride, span = of("strides", 1), (of("kernel_shape", 1) - 1) * of("dilations", 1) + 1
    room = size + pads[i] + pads[axes + i] - span
    rest = room % stride
    behind = room >= 0 and rest > 0 and (room // stride + 1) * stride >= size + pads[i]
    return _Axis(size, pads[axes + i], rest, behind)


def _plain_conv_transpose(node: onnx.NodeProto, sizes: Sizes, weights: Sizes | None) -> list[onnx.NodeProto] | None:
    """Write out the padding that follows from the size of the output; return [], or None where the node stays."""
    attributes, axes = stated_attributes(node), len(sizes)
    kernel: list[Any] = attributes.get("kernel_shape") or (weights or [])[2:]
    if len(kernel) != axes or None in kernel:
        return None
    output_shape: list[int] | None = (attributes.get("output_shape") or [])[-axes:] or None
    strides, dilations = (attributes.get(name) or [1] * axes for name in ("strides", "dilations"))
    growth = list(attributes.get("output_padding") or [0] * axes)
    totals = []
    for i, size in enumerate(sizes):
        if output_shape is None:
            short = -strides[i]  # the output is stride times as large as the image, or what the kernel reaches
        elif size is None:
            return None
        else:
            short = (size - 1) * strides[i] - output_shape[i]
        total = short + growth[i] + (kernel[i] - 1) * dilations[i] + 1
        if output_shape is not None:
            growth[i] -= min(total, 0)
        totals.append(max(total, 0))
    if any(more >= max(pair) for more, *pair in zip(growth, strides, dilations, strict=True)):
        return None  # which no runtime takes
    if output_shape is not None and all(
        size is None or size <= out for size, out in zip(sizes, output_shape, strict=True)
    ):
        return None  # which onnx infers rightly
    pads = _split(totals, upper=attributes.get("auto_pad") == b"SAME_UPPER")
    _set(node, auto_pad=None, output_shape=None, pads=pads, output_padding=growth)
    return []


def _set(node: onnx.NodeProto, **values: Any) -> None:
    """Set attributes of a node; None removes one."""
    unchanged = [each for each in node.attribute if each.name not in values]
    del node.attribute[:]
    node.attribute.extend(unchanged)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items() if value is not None)
