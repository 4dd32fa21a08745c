"""How large a graph becomes: counted before anything of it is made, so that a few bytes do not fill the memory."""

from __future__ import annotations

import math
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from actconform.errors import TooLargeError
from actconform.onnx.constants import tensor_of
from actconform.onnx.nested_graphs import subgraphs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MOST_NODES = 100_000  # once functions are inlined
MOST_DEPTH = 100  # of functions that call functions: newer onnx refuses more, older recurses
MOST_BYTES = 2**31 - 1  # of the same, as protobuf can hold
MOST_ELEMENTS = 2**28  # of a tensor that is evaluated here: 2 GiB in float64
MOST_VECTOR_ELEMENTS = (
    2**21
)  # elements of all tensors of rank 1, for each of which onnx's inference holds some 60 bytes
READ = 1024  # elements of an input that may say how large an output is
# What has as many elements as a value or an attribute says.
GROWING = frozenset(
    """
    AffineGrid AveragePool BlackmanWindow CenterCropPad Col2Im ConstantOfShape Conv ConvInteger ConvTranspose DFT DeformConv
    Expand HammingWindow HannWindow ImageDecoder LpPool MaxPool MaxRoiPool MaxUnpool MelWeightMatrix OneHot Pad QLinearConv
    RandomNormal RandomUniform Range Resize RoiAlign STFT TfIdfVectorizer Tile Upsample
    """.split()  # noqa: SIM905  a list to read
)
COMPUTED = frozenset("Add Cast Concat Constant Div Gather Identity Max Min Mul Neg Slice Squeeze Sub Unsqueeze".split())  # noqa: SIM905

_Function: TypeAlias = tuple[str, str, str]
_Types: TypeAlias = dict[str, "onnx.TypeProto"]
_Values: TypeAlias = dict[str, "onnx.TensorProto"]


def expect_sane_size(model: onnx.ModelProto) -> None:
    """Raise TooLargeError where the model has too many nodes or bytes once its functions are inlined, or they call without end.

    So too where a Split asks for too many outputs.
    """
    functions = {_key(function): function for function in model.functions}
    calls = {key: {called for called in _called(body) if called in functions} for key, body in functions.items()}
    sizes: dict[_Function, tuple[int, int]] = {}

    def size_of(body: onnx.GraphProto | onnx.FunctionProto) -> tuple[int, int]:
        nodes, size = 0, body.ByteSize()
        for node in body.node:
            nodes += 1
            called = (_domain(node.domain), node.op_type, node.overload)
            if called in functions:
                more, larger = sizes[called]
                nodes, size = nodes + more, size + larger
            for attribute in node.attribute:
                if node.op_type == "Split" and attribute.name == "num_outputs" and attribute.i > MOST_NODES:
                    where = node.name or "-> " + ", ".join(node.output)  # onnx's inference makes as many sizes
                    request = f"operator Split at node {where} asks for {_count(attribute.i)} outputs"
                    raise TooLargeError(f"{request}; at most {MOST_NODES:,} are taken")
            for graph in subgraphs(node):
                more, larger = size_of(graph)
                nodes, size = nodes + more, size + larger
        return nodes, size

    depths: dict[_Function, int] = {}
    for key in _innermost_first(calls):
        depths[key] = 1 + max((depths[called] for called in calls[key]), default=0)
        if depths[key] > MOST_DEPTH:
            raise TooLargeError(f"functions of the model call one another more than {MOST_DEPTH} deep")
        sizes[key] = size_of(functions[key])
    nodes, size = size_of(model.graph)
    if nodes > MOST_NODES or size > MOST_BYTES:
        raise TooLargeError(
            f"with its functions inlined the model has {_count(nodes)} nodes in {_count(size)} bytes; at most {MOST_NODES:,} "
            f"nodes in {MOST_BYTES:,} bytes are taken"
        )


def expect_sane_output(node: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]], opset: int) -> None:
    """Raise TooLargeError where a standard node makes a tensor of more than MOST_ELEMENTS of these inputs, as onnx infers it.

    The inputs have the dtypes that the graph declares.
    """
    if node.op_type not in GROWING and math.prod(array.size or 1 for array in inputs.values()) <= MOST_ELEMENTS:
        return  # no operator else gives more than each element of one input beside each of the others
    types: _Types = {}
    values: _Values = {}
    for name, array in inputs.items():
        element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        types[name] = helper.make_tensor_type_proto(element_type, array.shape)
        if array.size <= READ:
            values[name] = tensor_of(array, name)
    for name, type_ in _inferred_alone(node, types, values, opset).items():
        dims = [dim.dim_value for dim in type_.tensor_type.shape.dim]
        if math.prod(dims) > MOST_ELEMENTS:
            raise TooLargeError(
                f"{name} would hold {_count(math.prod(dims))} numbers; at most {MOST_ELEMENTS:,} are made"
            )


def inferred_with_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with all types and shapes that onnx infers, the values of small tensors of shapes among its reasons.

    onnx holds a value for each element of each tensor of rank 1; where these are too many, it infers without them. Raises
    onnx.shape_inference.InferenceError.
    """
    plain = onnx.shape_inference.infer_shapes(model)
    elements = sum(_vector_sizes(plain).values())
    return plain if elements > MOST_VECTOR_ELEMENTS else onnx.shape_inference.infer_shapes(model, data_prop=True)


def _vector_sizes(plain: onnx.ModelProto) -> dict[str, int]:
    """Return the elements of every tensor of rank 1 whose size is known, or can be computed from constants and shapes."""
    graph, opset = plain.graph, next((entry.version for entry in plain.opset_import if not _domain(entry.domain)), 0)
    types = {value.name: value.type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {each.name: helper.make_tensor_type_proto(each.data_type, each.dims) for each in graph.initializer}
    values = {each.name: each for each in graph.initializer if math.prod(each.dims) <= READ}
    for node in graph.node:
        if node.domain not in {"", "ai.onnx"} or not onnx.defs.has(node.op_type, opset, ""):
            continue
        if _needs_values(node, types, values):
            types |= _inferred_alone(node, types, values, opset)
        if len(node.output) == 1 and (value := _value(node, types, values)) is not None:
            values[node.output[0]] = value
    return {name: size for name, type_ in types.items() if (size := _length(type_)) is not None}


def _needs_values(node: onnx.NodeProto, types: _Types, values: _Values) -> bool:
    """Say whether values that are computed may tell a size that types alone do not."""
    unknown = any(name and _shape(types.get(name)) is None for name in node.output)
    return unknown and any(name in values for name in node.input)


def _inferred_alone(node: onnx.NodeProto, types: _Types, values: _Values, opset: int) -> dict[str, onnx.TypeProto]:
    read = [name for name in node.input if name]
    try:
        return onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, opset, ""),
            node,
            {name: types[name] for name in read},
            {name: values[name] for name in read if name in values},
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=onnx.IR_VERSION,
        )
    except Exception:  # noqa: BLE001  what onnx does not infer, or finds wrong, whoever evaluates it will tell
        return {}


def _value(node: onnx.NodeProto, types: _Types, values: _Values) -> onnx.TensorProto | None:
    """Return the value of a small tensor by which shapes are computed; None of any other."""
    if node.op_type in {"Shape", "Size"}:
        shape = _shape(types.get(node.input[0]))
        many = shape is None or math.prod(max(size, 1) for size in shape) > np.iinfo(np.int64).max // 8
        feeds = None if shape is None or many else {node.input[0]: np.broadcast_to(np.float32(0), shape)}
    elif node.op_type in COMPUTED and all(name in values for name in node.input if name):
        feeds = {name: numpy_helper.to_array(values[name]) for name in node.input if name}
    else:
        return None
    if feeds is None:
        return None
    try:
        (array,) = ReferenceEvaluator(node).run(None, feeds)
    except Exception:  # noqa: BLE001  of no use for a size
        return None
    return tensor_of(np.asarray(array)) if np.size(array) <= READ else None


def _length(type_: onnx.TypeProto) -> int | None:
    shape = _shape(type_)
    return shape[0] if shape is not None and len(shape) == 1 else None


def _shape(type_: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """Return the sizes of a tensor; None where one is not known."""
    if type_ is None or not type_.tensor_type.HasField("shape"):
        return None
    dims = type_.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _innermost_first(calls: Mapping[_Function, set[_Function]]) -> list[_Function]:
    """Return the functions, each after all that it calls; raise TooLargeError where one calls itself, however far down."""
    try:
        return [*TopologicalSorter(calls).static_order()]
    except CycleError as error:
        domain, name, _ = error.args[1][0]
        raise TooLargeError(
            f"function {name} of domain {domain} calls itself, or functions that do: it has no end"
        ) from error


def _called(body: onnx.GraphProto | onnx.FunctionProto) -> set[_Function]:
    called = {(_domain(node.domain), node.op_type, node.overload) for node in body.node}
    return called.union(*(_called(graph) for node in body.node for graph in subgraphs(node)))


def _key(function: onnx.FunctionProto) -> _Function:
    return _domain(function.domain), function.name, function.overload


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**15 else f"{float(min(number, 10**300)):.0e}"
