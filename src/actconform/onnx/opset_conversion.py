"""Models of opsets 7 to 15, brought to opset 16 node by node.

Every version of an operator that differs from that of opset 16 is listed here: KEPT, where only types or words of the
standard changed, REWRITTEN (`actconform.onnx.opset_rewrites`), or REFUSED. tests/onnx_graphs/old_opsets.py evaluates both sides of
each. onnx's own converter is not used: it lacks what several operators need, and says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import onnx
from onnx import inliner

from actconform.onnx.gates import deep, standard_opset
from actconform.onnx.grad.rules.registry import STANDARD
from actconform.onnx.nested_graphs import subgraphs
from actconform.onnx.opset_rewrites import REWRITTEN, GraphScope, Rewriting
from actconform.onnx.size_limits import expect_sane_size

if TYPE_CHECKING:
    from collections.abc import Iterable

_Body: TypeAlias = onnx.GraphProto | onnx.FunctionProto

OLDEST = 7  # before it operators broadcast otherwise
TARGET = 16  # the first at which ScatterElements adds

_KEPT = """
    Abs 6; Add 7 13; ArgMax 1 11 12; ArgMin 1 11 12; AveragePool 7 10; BatchNormalization 14; Cast 6 9; Ceil 6; Clip 11 12;
    Compress 9; Concat 4 11; Constant 1 9 11 12; Conv 1; ConvTranspose 1; CumSum 11; DepthToSpace 1 11; DequantizeLinear 10;
    Div 7 13; Dropout 12; Equal 7 11; Erf 9; Exp 6; Expand 8; Flatten 1 9 11; Floor 6; GRU 7; Gather 1 11; GatherElements 11;
    GatherND 11 12; Gemm 7 9 11; Greater 7 9; GreaterOrEqual 12; Identity 1 13 14; If 1 11 13; IsNaN 9; LRN 1; LSTM 7;
    LeakyRelu 6; Less 7 9; LessOrEqual 12; Log 6; Loop 1 11 13; LpPool 2; MatMul 1 9; Max 6 8 12; MaxPool 1 8 10 11;
    MaxUnpool 9; Mean 6 8; MeanVarianceNormalization 9; Min 6 8 12; Mod 10; Mul 7 13; Neg 6; NegativeLogLikelihoodLoss 12;
    NonMaxSuppression 10; NonZero 9; OneHot 9; PRelu 7 9; Pad 11; Pow 7 12 13; QuantizeLinear 10; RNN 7; Reciprocal 6;
    ReduceL1 1 11; ReduceL2 1 11; ReduceLogSum 1 11; ReduceLogSumExp 1 11; ReduceMax 1 11 12; ReduceMean 1 11;
    ReduceMin 1 11 12; ReduceProd 1 11; ReduceSumSquare 1 11; Relu 6 13; Reshape 5 13; Resize 11; Scan 9 11;
    ScatterElements 11 13; ScatterND 11 13; Shape 1 13; Sigmoid 6; Sign 9; Size 1; Slice 10 11; SoftmaxCrossEntropyLoss 12;
    SpaceToDepth 1; Sqrt 6; Sub 7 13; Sum 6 8; Tanh 6; Tile 6; TopK 10; Transpose 1; Where 9
"""
KEPT = {
    (name, int(version)) for name, *versions in (entry.split() for entry in _KEPT.split(";")) for version in versions
}
REFUSED = {
    ("Scan", 8): "its batches and sequence lengths have no counterpart: export the model at opset 9 or newer",
}


def converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model`, graph and local functions, at opset 16 where it is older, which computes the same.

    Raises CannotConvertError, naming operator, opset and node, where a node has no equal there.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [*deep(_all_nodes(copy))]
    names = {name for node in nodes for name in (*node.input, *node.output)}
    names.update(value.name for value in (*copy.graph.input, *copy.graph.initializer))
    prefix = "since16_"
    while any(name.startswith(prefix) for name in names):
        prefix = "_" + prefix
    read = {name for node in nodes for name in node.input}
    for graph in (copy.graph, *(body for node in nodes for body in subgraphs(node))):
        read.update(value.name for value in graph.output)
    if standard_opset(copy) < TARGET:
        _convert(copy.graph, _inferred(model).graph, Rewriting(prefix, standard_opset(copy), read), GraphScope({}, {}))
        _state_opset(copy.opset_import)
        copy.ir_version = max(copy.ir_version, onnx.helper.OP_SET_ID_VERSION_MAP["ai.onnx", TARGET])
    for function in copy.functions:
        opset = _opset_of(function)
        if 0 < opset < TARGET:
            writing = Rewriting(f"{prefix}{function.name}_", opset, read | set(function.output))
            _convert(function, function, writing, GraphScope({}, {}))
            _state_opset(function.opset_import)
    return copy


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` whose local functions are inlined, each with what it computes at its own opset.

    Where opsets differ, those older than 16 are brought to it first. Raises CannotConvertError where a node has no equal
    there, TooLargeError as `expect_sane_size` does.
    """
    expect_sane_size(model)
    opset = standard_opset(model)
    if any(_opset_of(function) not in {0, opset} for function in model.functions):
        model = converted(model)
    return inliner.inline_local_functions(model, convert_version=True)


def outcome(op_type: str, version: int) -> str:
    """Return what becomes of a version of an operator: "kept", "rewritten" or "refused"; "" where it is in no table."""
    pair = (op_type, version)
    if pair in REFUSED:
        return "refused"
    if pair in REWRITTEN:
        return "rewritten"
    return "kept" if pair in KEPT or _unchanged(op_type, version) else ""


def _unchanged(op_type: str, version: int) -> bool:
    return (
        onnx.defs.has(op_type, TARGET, "")
        and onnx.defs.get_schema(op_type, TARGET, "").since_version == version
        and not onnx.defs.get_schema(op_type, TARGET, "").deprecated
    )


def _convert(body: _Body, inferred: _Body, writing: Rewriting, outer: GraphScope) -> None:
    """Convert the nodes of a graph or function in place, and of all graphs in them; `inferred` is it with shapes and types."""
    scope = GraphScope({**outer.described, **_described(inferred)}, {**outer.values, **_constants(body)})
    replaced: list[onnx.NodeProto] = []
    for node, same in zip(body.node, [*inferred.node], strict=True):
        for inner, inner_inferred in zip(subgraphs(node), subgraphs(same), strict=True):
            _convert(inner, inner_inferred, writing, scope)
        replaced.extend(_converted_node(node, writing, scope))
    del body.node[:]
    body.node.extend(replaced)


def _converted_node(node: onnx.NodeProto, writing: Rewriting, scope: GraphScope) -> list[onnx.NodeProto]:
    if node.domain not in STANDARD or not onnx.defs.has(node.op_type, writing.opset, ""):
        return [node]
    version = onnx.defs.get_schema(node.op_type, writing.opset, "").since_version
    writing.begin(node, scope)
    match outcome(node.op_type, version):
        case "kept":
            return [node]
        case "rewritten":
            for attribute in node.attribute:
                if attribute.ref_attr_name:
                    raise writing.refuse(f"its attribute {attribute.name} is an argument of the function that holds it")
            REWRITTEN[node.op_type, version](writing, node)
            return writing.written()
    raise writing.refuse(REFUSED.get((node.op_type, version), f"this version has no known equal at opset {TARGET}"))


def _state_opset(entries: Iterable[onnx.OperatorSetIdProto]) -> None:
    for entry in entries:
        if entry.domain in STANDARD:
            entry.version = TARGET


def _opset_of(function: onnx.FunctionProto) -> int:
    return next((entry.version for entry in function.opset_import if entry.domain in STANDARD), 0)


def _all_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [*model.graph.node, *(node for function in model.functions for node in function.node)]


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        return model


def _described(body: _Body) -> dict[str, onnx.TypeProto.Tensor]:
    """Return what a graph or function says of its own tensors, without those of graphs in its nodes."""
    if isinstance(body, onnx.FunctionProto):
        return {}
    described = {value.name: value.type.tensor_type for value in (*body.value_info, *body.input, *body.output)}
    for tensor in body.initializer:
        described[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
    return described


def _constants(body: _Body) -> dict[str, onnx.TensorProto]:
    """Return the tensors of a graph or function that are the same in every run."""
    values = {}
    if isinstance(body, onnx.GraphProto):
        inputs = {value.name for value in body.input}
        values = {tensor.name: tensor for tensor in body.initializer if tensor.name not in inputs}
    for node in body.node:
        if node.op_type == "Constant":
            values.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    return values
