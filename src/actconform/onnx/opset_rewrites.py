"""Operators as they were before opset 16, written by those of opset 16 that compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.errors import CannotConvertError
from actconform.onnx.constants import operator_node, tensor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Rewrite: TypeAlias = Callable[["Rewriting", onnx.NodeProto], None]


class GraphScope(NamedTuple):
    """What is known of the tensors that the nodes of a graph see: what onnx infers of them, and the values of constants.

    Graphs side by side may use one name for different tensors.
    """

    described: Mapping[str, onnx.TypeProto.Tensor]
    values: Mapping[str, onnx.TensorProto]


class Rewriting:
    """What a rewrite knows of the model, and the nodes that it writes in place of one."""

    def __init__(self, prefix: str, opset: int, read: set[str]) -> None:
        """Take what names begin with, the opset of the old nodes, and which tensors are read."""
        self.opset = opset
        self.read = read
        self._prefix = prefix
        self._scope = GraphScope({}, {})
        self._node = onnx.NodeProto()
        self._written: list[onnx.NodeProto] = []
        self._count = 0

    def begin(self, node: onnx.NodeProto, scope: GraphScope) -> None:
        """Turn to a node, which sees a scope."""
        self._node, self._scope, self._written = node, scope, []

    def written(self) -> list[onnx.NodeProto]:
        """Return what was written in place of the node."""
        return self._written

    def refuse(self, reason: str) -> CannotConvertError:
        """Return the error, to be raised, that the node has no equal."""
        node = self._node
        where = node.name or "-> " + ", ".join(name for name in node.output if name)
        return CannotConvertError(f"operator {node.op_type} (opset {self.opset}) at node {where}: {reason}")

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the node, as far as they are stated."""
        values = {each.name: helper.get_attribute_value(each) for each in self._node.attribute}
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}

    def element_type(self, name: str) -> int:
        """Return the element type of a tensor, 0 where it is not known."""
        described = self._scope.described.get(name)
        return TensorProto.UNDEFINED if described is None else described.elem_type

    def rank(self, name: str) -> int | None:
        """Return the rank of a tensor, None where it is not known."""
        described = self._scope.described.get(name)
        return len(described.shape.dim) if described is not None and described.HasField("shape") else None

    def value(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant, None of what only a run knows."""
        tensor = self._scope.values.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def add(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write a node with one output of a new name, and return that."""
        self._count += 1
        name = f"{self._prefix}{op_type}_{self._count}"
        self._written.append(operator_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def give(
        self, op_type: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **attributes: Any
    ) -> None:
        """Write the node that gives the old node's outputs, or those named, under its name."""
        node = self._node
        self._written.append(
            operator_node(op_type, inputs, node.output if outputs is None else outputs, name=node.name, **attributes)
        )

    def constant(self, values: Any, dtype: type[np.generic] = np.int64) -> str:
        """Write a constant."""
        return self.add("Constant", [], value=tensor_of(np.array(values, dtype=dtype)))

    def number(self, value: float, like: str) -> str:
        """Write a scalar of the element type of tensor `like`."""
        element_type = self.element_type(like)
        if element_type == TensorProto.UNDEFINED:
            return self.add("CastLike", [self.constant(value, np.float32), like])
        dtype = helper.tensor_dtype_to_np_dtype(element_type)
        with np.errstate(over="ignore"):
            return self.add(
                "Constant", [], value=tensor_of(np.array(value).astype(dtype))
            )  # a bound beyond the type is none


REWRITTEN: dict[tuple[str, int], Rewrite] = {}


def rewrite(op_type: str, *versions: int) -> Callable[[Rewrite], Rewrite]:
    """Register a function as what rewrites versions of an operator, each named by the opset that brought it."""

    def register(function: Rewrite) -> Rewrite:
        REWRITTEN.update({(op_type, version): function for version in versions})
        return function

    return register


@rewrite("Softmax", 1, 11)
@rewrite("LogSoftmax", 1, 11)
@rewrite("Hardmax", 1, 11)
def _over_all_behind(w: Rewriting, node: onnx.NodeProto) -> None:
    """Softmax and its kin took all axes from `axis`, by default 1, on as one."""
    x = node.input[0]
    axis, rank = w.attributes().get("axis", 1), w.rank(x)
    if rank is not None and axis in {-1, rank - 1}:
        w.give(node.op_type, [x], axis=-1)
        return
    rows = w.add(node.op_type, [w.add("Flatten", [x], axis=axis)], axis=-1)
    w.give("Reshape", [rows, w.add("Shape", [x])], allowzero=1)


@rewrite("Squeeze", 1, 11)
@rewrite("Unsqueeze", 1, 11)
@rewrite("ReduceSum", 1, 11)
def _axes_as_input(w: Rewriting, node: onnx.NodeProto) -> None:
    attributes = w.attributes()
    axes = attributes.pop("axes", None)
    w.give(node.op_type, [node.input[0], *([] if axes is None else [w.constant(axes)])], **attributes)


@rewrite("Split", 2, 11)
def _split(w: Rewriting, node: onnx.NodeProto) -> None:
    attributes = w.attributes()
    sizes = attributes.pop("split", None)
    w.give("Split", [node.input[0], *([] if sizes is None else [w.constant(sizes)])], **attributes)


@rewrite("Slice", 1)
def _slice(w: Rewriting, node: onnx.NodeProto) -> None:
    attributes = w.attributes()
    starts, ends, axes = (attributes.get(name) for name in ("starts", "ends", "axes"))
    w.give("Slice", [node.input[0], *(w.constant(each) for each in (starts, ends, axes) if each is not None)])


@rewrite("Pad", 2)
def _pad(w: Rewriting, node: onnx.NodeProto) -> None:
    attributes = w.attributes()
    fill = w.number(attributes.get("value", 0.0), node.input[0])
    w.give("Pad", [node.input[0], w.constant(attributes["pads"]), fill], mode=attributes.get("mode", "constant"))


@rewrite("TopK", 1)
def _top_k(w: Rewriting, node: onnx.NodeProto) -> None:
    attributes = w.attributes()
    w.give("TopK", [node.input[0], w.constant([attributes["k"]])], axis=attributes.get("axis", -1))


@rewrite("Clip", 6)
def _clip(w: Rewriting, node: onnx.NodeProto) -> None:
    """Clip had bounds always: by default the ends of float32, which an infinity does not pass."""
    x, largest = node.input[0], float(np.finfo(np.float32).max)
    attributes = w.attributes()
    low, high = (attributes.get(name, bound) for name, bound in (("min", -largest), ("max", largest)))
    w.give("Clip", [x, w.number(low, x), w.number(high, x)])


@rewrite("Dropout", 7, 10)
def _dropout(w: Rewriting, node: onnx.NodeProto) -> None:
    """Dropout had no training mode that a graph could state: it passes its input on."""
    if w.read.intersection(filter(None, node.output[1:])):
        raise w.refuse("what its mask is without training was not defined before opset 12: remove the mask's readers")
    w.give("Identity", [node.input[0]], node.output[:1])


@rewrite("BatchNormalization", 7, 9)
def _batch_normalization(w: Rewriting, node: onnx.NodeProto) -> None:
    if any(node.output[1:]):
        raise w.refuse("in training mode, as its further outputs say, it changed at opset 14: export at 14 or newer")
    attributes = w.attributes()
    if attributes.pop("spatial", 1):
        w.give("BatchNormalization", node.input, **attributes)
        return
    x, scale, bias, mean, variance = node.input  # each number of an image has its own statistics
    spread = w.add("Sqrt", [w.add("Add", [variance, w.number(attributes.get("epsilon", 1e-5), variance)])])
    scaled = w.add("Mul", [w.add("Div", [w.add("Sub", [x, mean]), spread]), scale])
    w.give("Add", [scaled, bias])


@rewrite("Scatter", 9)
def _scatter(w: Rewriting, node: onnx.NodeProto) -> None:
    w.give("ScatterElements", node.input, **w.attributes())


@rewrite("RoiAlign", 10)
def _roi_align(w: Rewriting, node: onnx.NodeProto) -> None:
    w.give("RoiAlign", node.input, coordinate_transformation_mode="output_half_pixel", **w.attributes())


@rewrite("Upsample", 7)
def _upsample(w: Rewriting, node: onnx.NodeProto) -> None:
    attributes = w.attributes()
    scales = np.array(attributes["scales"], np.float32)
    _resize(w, node.input[0], w.constant(scales, np.float32), attributes.get("mode", "nearest"), scales)


@rewrite("Upsample", 9)
@rewrite("Resize", 10)
def _resize_10(w: Rewriting, node: onnx.NodeProto) -> None:
    x, scales = node.input
    _resize(w, x, scales, w.attributes().get("mode", "nearest"), w.value(scales))


def _resize(w: Rewriting, x: str, scales: str, mode: str, value: NDArray[Any] | None) -> None:
    """Write Resize as it was: pixel i of the result lies at i / scale of the image.

    The nearest pixel is the one before where an axis grows and the one after where it shrinks, as runtimes have it: the
    standard was silent. Opset 11 has one rule for all axes, so that axes that shrink are resized by themselves.
    """
    placed = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode != "nearest" or (value is not None and (value >= 1).all()):
        w.give("Resize", [x, "", scales], **placed, nearest_mode="floor")
        return
    if value is not None and (value <= 1).all():
        w.give("Resize", [x, "", scales], **placed, nearest_mode="ceil")
        return
    if value is None:
        unit = w.constant(1.0, np.float32)
        larger, smaller = w.add("Max", [scales, unit]), w.add("Min", [scales, unit])
    else:
        larger, smaller = (w.constant(each(value, 1), np.float32) for each in (np.maximum, np.minimum))
    grown = w.add("Resize", [x, "", larger], **placed, nearest_mode="floor")
    w.give("Resize", [grown, "", smaller], **placed, nearest_mode="ceil")
