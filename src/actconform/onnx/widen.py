"""A graph with every floating-point tensor turned to float64. The text of this file is copied into programs that stand alone."""

from __future__ import annotations

from collections.abc import Iterable  # noqa: TC003  copied
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

NARROW = (1, 10, 16)  # TensorProto.FLOAT, FLOAT16, BFLOAT16
DOUBLE = 11  # TensorProto.DOUBLE
TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")  # not stash_type: the evaluator knows float32 alone


def widened(model: bytes) -> bytes:
    """Return the model with float64 for float32, float16 and bfloat16: inputs, outputs, constants, and what casts go to.

    Attributes that are numbers (alpha, epsilon) are float32 in any graph, and stay.
    """
    proto = onnx.load_model_from_string(model)
    _widen_graph(proto.graph)
    for function in proto.functions:
        _widen_nodes(function.node)
        for value in function.value_info:
            _widen_type(value.type)
    return bytes(proto.SerializeToString())


def narrow_output_types(model: bytes) -> dict[str, np.dtype[Any]]:
    """Return the dtypes of the graph's floating-point outputs by name: what they are rounded to."""
    outputs = onnx.load_model_from_string(model).graph.output
    kinds = {output.name: output.type.tensor_type.elem_type for output in outputs}
    return {name: np.dtype(helper.tensor_dtype_to_np_dtype(kind)) for name, kind in kinds.items() if kind in NARROW}


def _widen_graph(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(value.type)
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    _widen_nodes(graph.node)


def _widen_type(kind: onnx.TypeProto) -> None:
    if kind.tensor_type.elem_type in NARROW:
        kind.tensor_type.elem_type = DOUBLE


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in NARROW:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in ("value_float", "value_floats") and node.op_type == "Constant":
                floats = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                attribute.Clear()
                attribute.name, attribute.type = "value", 4  # AttributeProto.TENSOR
                attribute.t.CopyFrom(numpy_helper.from_array(np.array(floats, np.float64)))
            elif attribute.name in TYPE_ATTRIBUTES and attribute.i in NARROW:
                attribute.i = DOUBLE
            _widen_tensor(attribute.t)
            for tensor in attribute.tensors:
                _widen_tensor(tensor)
            for graph in (attribute.g, *attribute.graphs):
                _widen_graph(graph)
