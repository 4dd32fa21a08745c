"""What is known of the tensors of a graph before it runs: element types, dimensions, and the values of small constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from actconform.onnx.constants import constant_tensor
from actconform.onnx.gates import standard_opset
from actconform.onnx.grad.rules.registry import STANDARD

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.registry import Node

FIX = "fix the dimensions of the inputs, with --shape NAME=1,3,160,160 or shapes="

Array: TypeAlias = NDArray[Any]
Dims: TypeAlias = tuple[int | str | None, ...]  # a str is a symbol: two dimensions of one symbol are equal


class TensorInfo:
    """The tensors of one model as onnx infers them. Values are those of initializers in `model`, of Constant nodes, and noted."""

    def __init__(self, model: onnx.ModelProto, inferred: onnx.GraphProto) -> None:
        """Take `model`, and its graph with the types and shapes that `onnx.shape_inference` found."""
        self.opset = standard_opset(model)
        self.imports = list(model.opset_import)
        self.node: Node | None = None  # whose rule is at work
        self._types: dict[str, int] = {}
        self._dims: dict[str, Dims] = {}
        self._values: dict[str, onnx.TensorProto] = {}
        for value in (*inferred.value_info, *inferred.input, *inferred.output):
            self._types[value.name] = value.type.tensor_type.elem_type
            if value.type.tensor_type.HasField("shape"):
                self._dims[value.name] = tuple(_dim(dim) for dim in value.type.tensor_type.shape.dim)
        for sparse in model.graph.sparse_initializer:
            self._types[sparse.values.name] = sparse.values.data_type
            self._dims[sparse.values.name] = tuple(sparse.dims)
        overridable = {value.name for value in model.graph.input}
        for tensor in model.graph.initializer:
            if tensor.name not in overridable:
                self.knows(tensor, tensor.name)
        for node in model.graph.node:
            if node.op_type == "Constant" and node.domain in STANDARD and (tensor := constant_of(node)) is not None:
                self.knows(tensor, node.output[0])

    def knows(self, tensor: onnx.TensorProto, name: str) -> None:
        """Note that tensor `name` has this value in every run."""
        self._values[name] = tensor
        self._types[name] = tensor.data_type
        self._dims[name] = tuple(tensor.dims)

    def same_as(self, name: str, like: str) -> str:
        """Note that tensor `name` has element type and dimensions of `like`, and return it."""
        self._types[name] = self.element_type_of(like)
        if like in self._dims:
            self._dims[name] = self._dims[like]
        return name

    def described(self, name: str, called: str, *, without: int | None = None) -> onnx.ValueInfoProto:
        """Return what is known of tensor `name` as the description of a tensor `called`, but for the axis `without`.

        Raises UnsupportedOperator where its element type or rank is not known.
        """
        rank = self.rank(name)
        element_type = self.element_type_of(name)
        if not element_type:
            reason = f"the element type of {name} is not known: run onnx.shape_inference"
            raise self.node.refuse(reason) if self.node else ValueError(reason)
        dims = [dim for axis, dim in enumerate(self._dims[name]) if without is None or axis != without % rank]
        return helper.make_tensor_value_info(called, element_type, dims)

    def knows_like(self, name: str, of: str) -> None:
        """Note that tensor `name` has the shape and the value of tensor `of`, and its element type if none was noted."""
        self._types.setdefault(name, self.element_type_of(of))
        if of in self._dims:
            self._dims[name] = self._dims[of]
        if of in self._values:
            self._values[name] = self._values[of]

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return the shape of a tensor, None for dimensions known at run time alone; None where the rank is not known."""
        dims = self._dims.get(name)
        return None if dims is None else tuple(dim if isinstance(dim, int) else None for dim in dims)

    def same_dim(self, x: str, y: str, axis: int) -> bool:
        """Say whether it is known that two tensors are equally long along an axis, counted from the front."""
        dims = self._dims.get(x), self._dims.get(y)
        return (
            dims[0] is not None and dims[1] is not None and dims[0][axis] is not None and dims[0][axis] == dims[1][axis]
        )

    def rank(self, name: str) -> int:
        """Return the rank of a tensor. Raises UnsupportedOperator where it is not known."""
        dims = self._dims.get(name)
        if dims is None:
            reason = f"the rank of {name} is not known: {FIX}, or declare its shape"
            raise self.node.refuse(reason) if self.node else ValueError(reason)
        return len(dims)

    def axis(self, axis: int, x: str) -> int:
        """Return a node's axis over `x`, counted from the front. Raises UnsupportedOperator where the rank is not known."""
        return axis if axis >= 0 else axis + self.rank(x)

    def element_type_of(self, name: str) -> int:
        """Return the element type of a tensor as a TensorProto.DataType; 0 where it is not known."""
        return self._types.get(name, TensorProto.UNDEFINED)

    def value(self, name: str | None) -> Array | None:
        """Return the value of a small initializer, or of what nodes compute from constants alone; None where it is known only at run time.

        Initializers of more than 1,024 elements are not looked at, nor those that are inputs too and may be overridden.
        """
        tensor = self._values.get(name) if name else None
        return None if tensor is None else numpy_helper.to_array(tensor)

    def broadcast_axes(self, x: str, of: str, *, but_last: int = 0) -> list[int] | None:
        """Return the axes of `of` along which `x` was broadcast, without the last few; None where only a run can tell."""
        narrow, wide = self._dims.get(x), self._dims.get(of)
        if narrow is None or wide is None:
            return None
        leading = len(wide) - len(narrow)
        axes = list(range(leading))
        pairs = list(zip(narrow, wide[leading:], strict=True))
        for axis, (small, large) in enumerate(pairs[: len(pairs) - but_last], leading):
            if small == 1 and large != 1:
                axes.append(axis)
            elif not isinstance(small, int) and large != 1 and (small is None or small != large):
                return None
        return axes


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def constant_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor of a Constant node; None of what is no tensor of numbers."""
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return value
    if attribute.name.startswith(("value_float", "value_int")):
        kind = TensorProto.FLOAT if attribute.name.startswith("value_float") else TensorProto.INT64
        return constant_tensor(np.asarray(value), kind, "")
    return None
