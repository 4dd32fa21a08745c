"""A model with its float32 tensors in float16: what `--dtype f16` checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.flatten import flatten
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.onnx.gates import standard_opset
from actconform.onnx.nested_graphs import graphs, own_names, subgraphs
from actconform.onnx.opset_conversion import inlined

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from actconform.checking.flatten import Array
    from actconform.types.case import Bundle

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")  # that hold an element type; stash_type stays, as exporters write it


def as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` that computes in float16 what it computed in float32, functions inlined.

    An operator that the standard does not define for float16 computes in float32 between two casts, and so does an input that
    must be float32, such as the scales of Resize. Weights are rounded to nearest; those beyond the format's range become infinite.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(inlined(model) if model.functions else model)
    converter = _Converter(standard_opset(copy), {*own_names(copy.graph)})
    for graph in graphs(copy.graph):
        converter.convert(graph)
    return copy


def overflowing_weights(model: onnx.ModelProto) -> list[str]:
    """Return the float32 weights that have a finite value beyond float16's range."""
    names = []
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type == FLOAT:
                values = np.abs(numpy_helper.to_array(tensor))
                if (np.isfinite(values) & (values >= 65520.0)).any():
                    names.append(tensor.name)
    return names


def conversion_note(model: onnx.ModelProto, inputs: Bundle, converted: Mapping[str, Array]) -> str:
    """Return a sentence on how far the conversion moves the true outputs, both graphs in float64 on the same float16 inputs.

    `converted` are the true outputs of the converted graph, `inputs` those of the first sample.
    """
    widened = {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in inputs.items()}
    moves = []
    for name, truth in flatten(model, widened).truth.items():
        moved = converted.get(name)
        if truth.dtype.kind != "f" or moved is None or moved.shape != truth.shape or not truth.size:
            continue
        with np.errstate(all="ignore"):
            error = float(np.nan_to_num(np.max(np.abs(moved - truth)), nan=np.inf))
        largest = float(np.max(np.abs(truth), where=np.isfinite(truth), initial=0.0))
        moves.append(f"{name} by {error:.3g} of at most {largest:.3g}")
    return f"the conversion itself, weights and constants rounded, moves the true outputs: {', '.join(moves[:5])}"


class _Converter:
    def __init__(self, opset: int, names: set[str]) -> None:
        self._opset = opset
        self._names = names

    def convert(self, graph: onnx.GraphProto) -> None:
        """Convert a graph, those inside its nodes aside."""
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == FLOAT:
                value.type.tensor_type.elem_type = FLOAT16
        for tensor in graph.initializer:
            _round(tensor)
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            _convert_attributes(node)
            graph.node.extend(self._with_casts(node))

    def _with_casts(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the node, casts before inputs that have to stay float32, and behind outputs that then are."""
        places = self._wide_places(node)
        if places is None:
            yield node
            return
        inputs, outputs = places
        for i in inputs:
            if i < len(node.input) and node.input[i]:
                wide = self._fresh(f"{node.input[i]}_float32")
                yield helper.make_node("Cast", [node.input[i]], [wide], to=FLOAT)
                node.input[i] = wide
        behind = []
        for i in outputs:
            if i < len(node.output) and node.output[i]:
                wide = self._fresh(f"{node.output[i]}_float32")
                behind.append(helper.make_node("Cast", [wide], [node.output[i]], to=FLOAT16))
                node.output[i] = wide
        yield node
        yield from behind

    def _wide_places(self, node: onnx.NodeProto) -> tuple[list[int], list[int]] | None:
        """Return the inputs and outputs of a node that cannot be float16; None where all can, or its operator is not known."""
        if node.domain not in STANDARD or any(True for _ in subgraphs(node)):
            return None
        if not onnx.defs.has(node.op_type, self._opset, ""):
            return None
        schema = onnx.defs.get_schema(node.op_type, self._opset, "")
        allowed = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}
        wide = {name for name, types in allowed.items() if "tensor(float)" in types and "tensor(float16)" not in types}
        wide.add("tensor(float)")
        places = _places(schema.inputs, len(node.input), wide), _places(schema.outputs, len(node.output), wide)
        return places if any(places) else None

    def _fresh(self, name: str) -> str:
        while name in self._names:
            name += "'"
        self._names.add(name)
        return name


def _places(formal: Sequence[onnx.defs.OpSchema.FormalParameter], count: int, wide: Iterable[str]) -> list[int]:
    if not formal:
        return []
    return [i for i in range(count) if formal[min(i, len(formal) - 1)].type_str in wide]


def _round(tensor: TensorProto) -> None:
    if tensor.data_type == FLOAT:
        with np.errstate(over="ignore"):
            half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))


def _convert_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            _round(attribute.t)
        elif attribute.name in TYPE_ATTRIBUTES and attribute.i == FLOAT:
            attribute.i = FLOAT16
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            values = [attribute.f] if attribute.name == "value_float" else list(attribute.floats)
            array = np.array(values if attribute.name == "value_floats" else values[0], np.float16)
            attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))
