"""A graph of one operator with its inputs, as a strategy draws it, and whether the standard takes it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from actconform.checking.flatten import wide
from actconform.checking.part import PartialModel
from actconform.errors import Unsupported
from actconform.onnx.constants import tensor_of
from actconform.onnx.evaluate.computation import computation
from actconform.onnx.evaluate.element_types import output_types

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array: TypeAlias = NDArray[Any]


class DrawnNode(NamedTuple):
    """One node of an operator of the standard: attributes, inputs in order with None where one is left out, and opset."""

    op_type: str
    opset: int
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any]
    constants: frozenset[int] = frozenset()
    """The places of the inputs that are initializers of the graph; all others are inputs of the graph."""
    outputs: int = 1

    def __repr__(self) -> str:
        return f"{self.op_type} at opset {self.opset}"  # hypothesis writes it often, and arrays are long

    def model(self) -> PartialModel:
        """Return the graph, its inputs i0, i1 ... and outputs o0, o1 ... in the order of the node, their shapes as onnx infers them.

        Raises InvalidDrawError where onnx's checker or its strict inference of types and shapes does not take it.
        """
        names = [f"i{place}" if array is not None else "" for place, array in enumerate(self.inputs)]
        while names and not names[-1]:
            names.pop()
        results = [f"o{place}" for place in range(self.outputs)]
        node = helper.make_node(self.op_type, names, results, name="node", **self.attributes)
        arrays = {f"i{place}": array for place, array in enumerate(self.inputs) if array is not None}
        constants = {f"i{place}" for place in self.constants}
        inputs = {name: array for name, array in arrays.items() if name not in constants}
        try:
            types = output_types(node, self.opset, [_element_type(arrays[name]) if name else 0 for name in names])
            graph = helper.make_graph(
                [node],
                self.op_type,
                [
                    helper.make_tensor_value_info(name, _element_type(array), array.shape)
                    for name, array in inputs.items()
                ],
                [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(results, types, strict=True)],
                [tensor_of(array, name) for name, array in arrays.items() if name in constants],
            )
            opsets = [helper.make_opsetid("", self.opset)]
            model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
            model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
            self._declare_rest(model)
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, Unsupported) as error:
            raise InvalidDrawError(f"{self.op_type} at opset {self.opset}: {error}") from error
        return PartialModel(model, inputs)

    def _declare_rest(self, model: onnx.ModelProto) -> None:
        """Declare the shapes that inference does not tell, as those from the values of an input, as they are for these values."""
        if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
            return
        with np.errstate(all="ignore"):
            results = computation(model.graph.node[0], self.opset).compute(
                [None if array is None else wide(array) for array in self.inputs]
            )
        for value, result in zip(model.graph.output, results, strict=False):
            if not value.type.tensor_type.HasField("shape"):
                kind = value.type.tensor_type.elem_type
                value.CopyFrom(helper.make_tensor_value_info(value.name, kind, np.shape(result)))


class InvalidDrawError(ValueError):
    """A drawn graph that the standard does not take, and why: no runtime is asked."""


def _element_type(array: Array) -> int:
    kind: int = helper.np_dtype_to_tensor_dtype(array.dtype)
    return kind


def example_digest(part: PartialModel) -> str:
    """Return what tells a graph with its inputs from others: 16 hexadecimal digits, alike on every machine."""
    hashed = hashlib.sha256(part.model.SerializeToString(deterministic=True))
    for name, array in part.inputs.items():
        hashed.update(f"{name} {array.dtype.name} {array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()[:16]
