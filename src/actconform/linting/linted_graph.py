"""One graph as rules read it: who gives and reads a tensor, what is constant, types and shapes, and what only passes values on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from actconform.onnx.evaluate.node_label import STANDARD
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from actconform.types.trained import Dims

SMALL = 1024  # elements of a constant whose values rules read
# What gives the values that it reads, each where another axis or place may be.
PASSIVE = frozenset(
    "Identity Cast CastLike Reshape Flatten Squeeze Unsqueeze Transpose Dropout QuantizeLinear DequantizeLinear".split()  # noqa: SIM905
)
_RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
# What is constant where all that it reads is.
_FOLDABLE = PASSIVE | {
    "Concat",
    "Slice",
    "Gather",
    "Expand",
    "Mul",
    "Add",
    "Sub",
    "Div",
    "Neg",
    "Sqrt",
    "ConstantOfShape",
}


class Reader(NamedTuple):
    """A node that reads a tensor's values, after what only passes them on."""

    node: onnx.NodeProto | None
    """None where the values are an output of the graph."""
    tensor: str
    """As that node reads it."""
    axis: int | None
    """Where the axis that was followed is in it, counted from the front; None where that cannot be told."""


class LintedGraph:
    """The main graph of a model, or one that a node of it holds, in which names of the graphs around it are seen too."""

    def __init__(
        self,
        body: onnx.GraphProto,
        weights: Mapping[str, onnx.TensorProto],
        shapes: Mapping[str, tuple[int, Dims | None]],
        outer: LintedGraph | None = None,
    ) -> None:
        self.body = body
        self.outer = outer
        self.weights = weights
        """Initializers of the model, by name: as they lie in the file, external data unread."""
        self.outputs = {value.name for value in body.output}
        self.givers: dict[str, onnx.NodeProto] = {name: node for node in body.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in body.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self._shapes = shapes
        self._initializers = {tensor.name: tensor for tensor in body.initializer}
        self._constants = self._constant_names()

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        nodes: Sequence[onnx.NodeProto] = self.body.node
        return nodes

    def giver(self, name: str) -> onnx.NodeProto | None:
        """Return the node of this graph that gives a tensor."""
        return self.givers.get(name)

    def dims(self, name: str) -> Dims | None:
        """Return the shape of a tensor: a size, the name of one, or None where it is open; None where the rank is not known."""
        return self._shapes.get(name, (0, None))[1]

    def element_type(self, name: str) -> int:
        """Return the TensorProto.DataType of a tensor; 0 where it is not known."""
        return self._shapes.get(name, (0, None))[0]

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is a weight or a constant, or computed of such alone by moving, scaling or casting them."""
        return name in self._constants or (
            name not in self.givers and self.outer is not None and self.outer.is_constant(name)
        )

    def _constant_names(self) -> set[str]:
        names = {name for name in (*self._initializers, *self.weights) if name}
        for node in self.body.node:  # in an order in which each follows what it reads
            inputs = [name for name in node.input if name]
            if node.op_type == "Constant" or (
                node.op_type in _FOLDABLE
                and all(
                    name in names
                    or (name not in self.givers and self.outer is not None and self.outer.is_constant(name))
                    for name in inputs
                )
            ):
                names.update(name for name in node.output if name)
        return names

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the values of a small constant of numbers, cast as nodes cast it; None where it is none, or none that is small."""
        casts = []
        while (giver := self.givers.get(name)) is not None and giver.op_type in {"Identity", "Cast"}:
            casts.append(giver)
            name = giver.input[0]
        tensor = self._tensor(name)
        if tensor is None:
            array = self.outer.constant(name) if name not in self.givers and self.outer is not None else None
        elif (
            uses_external_data(tensor)
            or tensor.data_type == TensorProto.STRING
            or int(np.prod(tensor.dims, dtype=np.int64)) > SMALL
        ):
            return None
        else:
            array = numpy_helper.to_array(tensor)
        if array is None:
            return None
        for node in reversed(casts):
            array = _cast(array, node)
        return array

    def scalar(self, name: str) -> float | None:
        """Return the one number that a constant holds; None where it is none, or holds several that differ."""
        array = self.constant(name) if name else None
        if array is None or array.size == 0 or (array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16"):
            return None
        number = array.flat[0]
        return float(number) if (array == number).all() else None

    def _tensor(self, name: str) -> TensorProto | None:
        stored = self._initializers.get(name) or self.weights.get(name)
        if stored is not None:
            return stored
        giver = self.givers.get(name)
        if giver is None or giver.op_type != "Constant":
            return None
        for attribute in giver.attribute:
            if attribute.name == "value":
                value: TensorProto = attribute.t
                return value
            if attribute.name in {"value_float", "value_floats", "value_int", "value_ints"}:
                kind = np.float32 if "float" in attribute.name else np.int64
                stated: TensorProto = numpy_helper.from_array(np.asarray(helper.get_attribute_value(attribute), kind))
                return stated
        return None

    def origin(self, name: str) -> str:
        """Return the tensor whose values `name` has, before what only passes them on."""
        while (giver := self.givers.get(name)) is not None and is_standard(giver) and giver.op_type in PASSIVE:
            name = giver.input[0]
        return name

    def destinations(self, name: str, axis: int | None = None) -> Iterator[Reader]:
        """Yield what reads the values of a tensor, after what only passes them on; `axis` of it is followed, from the front."""
        pending = [(name, axis)]
        while pending:
            tensor, place = pending.pop()
            if tensor in self.outputs:
                yield Reader(None, tensor, place)
            for node in self.readers.get(tensor, ()):
                if is_standard(node) and node.op_type in PASSIVE and node.input[0] == tensor:
                    pending.append((node.output[0], self.axis_after(node, place)))
                else:
                    yield Reader(node, tensor, place)

    def reduced_axes(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """Return the axes of a reduction, counted from the front; () where they are not known."""
        dims = self.dims(node.input[0])
        stated = attribute_of(node, "axes", None)
        if stated is None and len(node.input) > 1 and (values := self.constant(node.input[1])) is not None:
            stated = [int(axis) for axis in values.flat]
        if not dims or stated is None:
            return ()
        return tuple(sorted(axis % len(dims) for axis in stated))

    def axis_after(self, node: onnx.NodeProto, axis: int | None) -> int | None:
        """Return where an axis of a passive node's input is in its output; None where that cannot be told."""
        if axis is None:
            return None
        before, after = self.dims(node.input[0]), self.dims(node.output[0])
        if node.op_type == "Transpose":
            order = attribute_of(node, "perm", None)
            if order is None:
                return None if before is None else len(before) - 1 - axis
            return list(order).index(axis) if axis in order else None
        if node.op_type in _RESHAPING:
            if before is None or after is None:
                return None
            places = [i for i, size in enumerate(after) if isinstance(before[axis], int) and size == before[axis]]
            is_last = axis == len(before) - 1
            return len(after) - 1 if is_last and len(after) - 1 in places else places[0] if len(places) == 1 else None
        return axis


def is_standard(node: onnx.NodeProto) -> bool:
    """Return whether a node is of the standard's own domain."""
    return node.domain in STANDARD


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, or `default` where it is not stated."""
    stated = next((attribute for attribute in node.attribute if attribute.name == name), None)
    return default if stated is None else helper.get_attribute_value(stated)


def name_of(node: onnx.NodeProto) -> str:
    """Return what findings call a node: its name, or the first tensor that it gives."""
    return node.name or next((name for name in node.output if name), "")


def shown_sizes(dims: Dims | None) -> str:
    """Return a shape for people: "n x 3 x 224"."""
    if dims is None:
        return "of unknown rank"
    return " x ".join("?" if size is None else one_line(str(size), 40) for size in dims) or "a scalar"


def _cast(array: NDArray[Any], node: onnx.NodeProto) -> NDArray[Any]:
    if node.op_type != "Cast":
        return array
    with np.errstate(all="ignore"):
        return array.astype(helper.tensor_dtype_to_np_dtype(attribute_of(node, "to", TensorProto.FLOAT)))
