"""A model with its float32 tensors in float16 or bfloat16: what `--dtype` checks."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.flatten import flatten
from actconform.errors import Unsupported, UsageError
from actconform.onnx.evaluate.contrib.registry import CONTRIB
from actconform.onnx.evaluate.element_types import FORMATS, output_types
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.onnx.gates import standard_opset
from actconform.onnx.nested_graphs import graphs, own_names, subgraphs
from actconform.onnx.opset_conversion import inlined
from actconform.text import listed
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from actconform.checking.flatten import Array, FlatGraph
    from actconform.types.case import Bundle

LowPrecision: TypeAlias = Literal["f16", "bf16"]

FLOAT = TensorProto.FLOAT
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
FULL_BITS = 32  # formats of fewer are low precision
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")  # that hold an element type; stash_type stays, as exporters write it


class _Target(NamedTuple):
    """A format as graphs and arrays have it."""

    name: str
    element_type: int
    spelled: str
    """In the schemas of operators."""
    dtype: np.dtype[Any]
    oldest: int
    """The first opset whose Cast knows it."""


_TARGETS = {
    "f16": _Target("float16", TensorProto.FLOAT16, "tensor(float16)", np.dtype(np.float16), 1),
    "bf16": _Target("bfloat16", TensorProto.BFLOAT16, "tensor(bfloat16)", np.dtype(ml_dtypes.bfloat16), 13),
}


class Lowered(NamedTuple):
    """A converted model, and what stayed in float32 in it."""

    model: onnx.ModelProto
    wide: tuple[str, ...]
    """Operators that the standard does not define for the format at this opset: they compute in float32 between casts."""


def lowered(model: onnx.ModelProto, dtype: LowPrecision = "f16", *, between_casts: bool = False) -> Lowered:
    """Return a copy of `model` that computes in float16 or bfloat16 what it computed in float32, functions inlined.

    An operator that the standard does not define for the format computes in float32 between two casts, and so does an input that
    must be float32, such as the scales of Resize. Weights are rounded to nearest; those beyond the format's range become infinite.
    With `between_casts` all operators compute so, for a runtime that has no kernels of the format: ONNX Runtime on the CPU has next to
    none of bfloat16, and refuses the graph otherwise. Each result is then rounded once, as accelerators do.
    Raises UsageError for bfloat16 below opset 13, where the standard has no such tensors.
    """
    target = _TARGETS[dtype]
    opset = standard_opset(model)
    if opset < target.oldest:
        raise UsageError(
            f"the model is of opset {opset}, and there is no {target.name} before opset {target.oldest}: export it at a newer one"
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(inlined(model) if model.functions else model)
    converter = _Converter(opset, {*own_names(copy.graph)}, target, everywhere=between_casts)
    converter.convert(copy.graph, ChainMap())
    return Lowered(copy, tuple(converter.wide))


def lowered_sample(sample: Mapping[str, Array], dtype: LowPrecision = "f16") -> dict[str, Array]:
    """Return inputs for a converted model: float32 arrays rounded to nearest, all else as it is."""
    return {name: _rounded(array, dtype) if array.dtype == np.float32 else array for name, array in sample.items()}


def overflowing_weights(model: onnx.ModelProto, dtype: LowPrecision = "f16") -> list[str]:
    """Return the float32 weights that have a finite value beyond the format's range."""
    names = []
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type == FLOAT:
                values = np.abs(numpy_helper.to_array(tensor))
                if (np.isfinite(values) & (values >= DTYPES[dtype].overflow)).any():
                    names.append(tensor.name)
    return names


def conversion_note(model: onnx.ModelProto, inputs: Bundle, converted: Mapping[str, Array]) -> str:
    """Return a sentence on how far the conversion moves the true outputs, both graphs in float64 on the same rounded inputs.

    `converted` are the true outputs of the converted graph, `inputs` those of the first sample.
    """
    short = [target.dtype for target in _TARGETS.values()]
    widened = {name: array.astype(np.float32) if array.dtype in short else array for name, array in inputs.items()}
    moves = []
    for name, truth in flatten(model, widened).truth.items():
        moved = converted.get(name)
        if truth.dtype.kind != "f" or moved is None or moved.shape != truth.shape or not truth.size:
            continue
        with np.errstate(all="ignore"):
            error = float(np.nan_to_num(np.max(np.abs(moved - truth)), nan=np.inf))
        largest = float(np.max(np.abs(truth), where=np.isfinite(truth), initial=0.0))
        moves.append(f"{name} by {error:.3g} of at most {largest:.3g}")
    return f"the conversion itself, weights and constants rounded, moves the true outputs: {listed(moves, 5)}"


class _Wide(NamedTuple):
    """Places of a node's inputs and outputs that stay float32."""

    inputs: Sequence[int]
    outputs: Sequence[int]
    named: bool
    """Whether the operator itself lacks the format; else these are float32 whatever the others are, as the scales of Resize."""


class _Converter:
    def __init__(self, opset: int, names: set[str], target: _Target, *, everywhere: bool) -> None:
        self._opset = opset
        self._names = names
        self._target = target
        self._everywhere = everywhere
        self.wide: dict[str, None] = {}

    def convert(self, graph: onnx.GraphProto, outer: ChainMap[str, int]) -> list[int]:
        """Convert a graph and those inside its nodes; return the types that its outputs had. `outer` are the types of tensors around it."""
        types = outer.new_child()
        for value in (*graph.value_info, *graph.output, *graph.input):
            tensor = value.type.tensor_type
            types[value.name] = tensor.elem_type
            if tensor.elem_type == FLOAT:
                tensor.elem_type = self._target.element_type
        for initializer in graph.initializer:
            types[initializer.name] = initializer.data_type
            self._round(initializer)
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            types.update(zip(node.output, self._output_types(node, types), strict=True))
            graph.node.extend(self._converted(node, types))
        return [types.get(value.name, 0) for value in graph.output]

    def _output_types(self, node: onnx.NodeProto, types: ChainMap[str, int]) -> list[int]:
        """Return the types of a node's outputs in the model as it was, 0 for unknown ones; convert the graphs inside the node."""
        inner = [self.convert(body, types) for body in subgraphs(node)]
        if inner:
            body_types = inner[0][len(inner[0]) - len(node.output) :]  # a Loop's body gives its condition first
            return body_types + [0] * (len(node.output) - len(body_types))
        try:
            return output_types(node, self._opset, [types.get(name, 0) for name in node.input])
        except Unsupported:
            return [types.get(name, 0) for name in node.output]

    def _converted(self, node: onnx.NodeProto, types: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
        """Yield the node, casts before inputs that have to stay float32, and behind outputs that then are."""
        wide = self._wide_parameters(node)
        if wide is None:
            self._convert_attributes(node)
            yield node
            return
        inputs, outputs = (
            [i for i in places if types.get(names[i], 0) in (FLOAT, TensorProto.UNDEFINED) and names[i]]
            for places, names in ((wide.inputs, node.input), (wide.outputs, node.output))
        )
        if wide.named and (inputs or outputs):
            self.wide[node.op_type] = None
        if not outputs or not wide.named:
            self._convert_attributes(node)
        for i in inputs:
            name = self._fresh(f"{node.input[i]}_float32")
            yield helper.make_node("Cast", [node.input[i]], [name], to=FLOAT)
            node.input[i] = name
        behind = []
        if outputs:
            node.name = (
                node.name or f"{node.op_type}:{node.output[0]}"
            )  # as it is called where its output keeps its name
        for i in outputs:
            name = self._fresh(f"{node.output[i]}_float32")
            behind.append(helper.make_node("Cast", [name], [node.output[i]], to=self._target.element_type))
            node.output[i] = name
        yield node
        yield from behind

    def _wide_parameters(self, node: onnx.NodeProto) -> _Wide | None:
        """Return what of a node cannot be of the format if it is float32; None where all can, or its operator is not known."""
        standard = node.domain in STANDARD
        if any(True for _ in subgraphs(node)) or (standard and node.op_type in ("Cast", "Constant")):
            return None
        contrib = (node.domain, node.op_type) in CONTRIB
        if (self._everywhere and (standard or contrib)) or (contrib and self._target.name == "bfloat16"):
            return _Wide(range(len(node.input)), range(len(node.output)), named=True)
        if not standard or not onnx.defs.has(node.op_type, self._opset, ""):
            return None
        schema = onnx.defs.get_schema(node.op_type, self._opset, "")
        allowed = {each.type_param_str: set(each.allowed_type_strs) for each in schema.type_constraints}
        names = {
            name for name, types in allowed.items() if "tensor(float)" in types and self._target.spelled not in types
        }
        fixed = {*names, "tensor(float)"}
        places = _places(schema.inputs, len(node.input), fixed), _places(schema.outputs, len(node.output), fixed)
        return _Wide(*places, named=bool(names)) if any(places) else None

    def _fresh(self, name: str) -> str:
        while name in self._names:
            name += "'"
        self._names.add(name)
        return name

    def _round(self, tensor: TensorProto) -> None:
        if tensor.data_type == FLOAT:
            rounded = _to_dtype(numpy_helper.to_array(tensor), self._target)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))

    def _convert_attributes(self, node: onnx.NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                self._round(attribute.t)
            elif attribute.name in TYPE_ATTRIBUTES and attribute.i == FLOAT:
                attribute.i = self._target.element_type
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                stated = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                array = _to_dtype(np.array(stated, np.float32), self._target)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))


def _places(formal: Sequence[onnx.defs.OpSchema.FormalParameter], count: int, wide: Iterable[str]) -> list[int]:
    if not formal:
        return []
    return [i for i in range(count) if formal[min(i, len(formal) - 1)].type_str in wide]


def _rounded(array: Array, dtype: LowPrecision) -> Array:
    return _to_dtype(array, _TARGETS[dtype])


def _to_dtype(array: Array, target: _Target) -> Array:
    """Return float32 numbers rounded once to a format, to nearest, in its dtype."""
    with np.errstate(over="ignore"):
        return array.astype(target.dtype)


def is_low_precision(graph: FlatGraph) -> bool:
    """Return whether a graph computes in fewer bits than float32, or quantized."""
    formats = {FORMATS[element_type].bits for element_type in graph.types.values() if element_type in FORMATS}
    return any(bits < FULL_BITS for bits in formats) or any(
        node.proto.op_type in QUANTIZED or node.proto.op_type.startswith("QLinear") for node in graph.nodes
    )
