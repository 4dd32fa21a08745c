"""Error bounds of operators that the standard defines by a graph: those of its nodes, one after another.

Kernels that fuse the graph round less, or elsewhere by no more: both factors of the scores of `Attention` may be scaled, or
their product, and a softmax in pieces is rescaled, which the bound of a softmax has room for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from actconform.errors import Unsupported
from actconform.onnx.constants import operator_node
from actconform.onnx.evaluate.computation import computation
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE, output_types
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, bounded_outputs, error_bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.onnx.evaluate.elementwise import OperatorNode


@error_bound("Attention", "CausalConvWithState", "RotaryEmbedding", "SwiGLU", arithmetic=False)
def _body(context: BoundContext, *inputs: Approximation | None) -> tuple[Approximation, ...]:
    """The values are those of the operator itself."""
    element_types = [_element_type(context, each) for each in inputs]
    body = _function_body(context.node, inputs, element_types, context.output_types)
    types = dict(zip(body.input, element_types, strict=False))
    tensors = dict(zip(body.input, inputs, strict=False))
    (opset,) = (entry.version for entry in body.opset_import)
    for node in body.node:
        kinds = output_types(node, opset, [types.get(name, 0) for name in node.input])
        read = [tensors.get(name) for name in node.input]
        results = bounded_outputs(computation(node, opset), kinds, read)
        tensors |= {name: each for name, each in zip(node.output, results, strict=False) if name}
        types |= dict(zip(node.output, kinds, strict=True))
    values = context.values(inputs)
    bounded = [tensors.get(name) for name in body.output]
    return tuple(
        Approximation(value, None if each is None or each.error is None else each.error.reshape(np.shape(value)))
        for value, each in zip(values, bounded, strict=False)
    )


def _element_type(context: BoundContext, x: Approximation | None) -> int:
    """Return the element type of an input: of floats that of the first output of floats."""
    if x is None:
        return 0
    if x.value.dtype.kind == "f":
        return next(kind for kind in context.output_types if kind in FORMATS)
    return next(kind for kind, dtype in STORAGE.items() if dtype == x.value.dtype)


def _function_body(
    node: OperatorNode,
    inputs: Sequence[Approximation | None],
    element_types: Sequence[int],
    result_types: Sequence[int],
) -> onnx.FunctionProto:
    """Return the standard's definition of a node; raise Unsupported where it has none."""
    schema: Any = onnx.defs.get_schema(node.op_type, node.opset, "")  # whose types leave functions out
    attributes = {name: value for name, value in node.attributes.items() if value is not None}
    names = [f"x{i}" if each else "" for i, each in enumerate(inputs)]
    results = [f"y{i}" if kind else "" for i, kind in enumerate(result_types)]
    proto = operator_node(node.op_type, names, results, "", **attributes)
    body = onnx.FunctionProto()
    if schema.has_context_dependent_function:
        described = [
            helper.make_tensor_type_proto(kind, None if each is None else each.value.shape).SerializeToString()
            for each, kind in zip(inputs, element_types, strict=True)
        ]
        serialized = schema.get_context_dependent_function(proto.SerializeToString(), described)
        body.ParseFromString(serialized)
    elif schema.has_function:
        body.CopyFrom(schema.function_body)
        for inner in body.node:
            _state(inner, attributes)
    if not body.node:
        raise Unsupported(
            f"no error bound for {node.op_type} at opset {node.opset}: the standard does not define it by a graph"
        )
    return body


def _state(inner: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """Put the attributes of the function in the place of what refers to them in a node of its body."""
    stated = [
        helper.make_attribute(attribute.name, attributes[attribute.ref_attr_name])
        if attribute.ref_attr_name
        else attribute
        for attribute in inner.attribute
        if attribute.ref_attr_name in {"", *attributes}
    ]
    inner.ClearField("attribute")
    inner.attribute.extend(stated)
