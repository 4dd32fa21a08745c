"""A copy of a model without its large tensors, so that checks and rewrites cost what its nodes cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import inliner
from onnx.external_data_helper import uses_external_data

from actconform.errors import CannotConvertError, GradientError, TooLargeError
from actconform.onnx.constant_folding import decided
from actconform.onnx.gates import standard_opset
from actconform.onnx.grad.arguments import fix_shapes
from actconform.onnx.grad.rules.registry import STANDARD, ZERO_DERIVATIVE, rule_of
from actconform.onnx.inference import expect_consistent
from actconform.onnx.opset_conversion import OLDEST, TARGET, converted, inlined
from actconform.onnx.pool_sizes import sized
from actconform.onnx.size_limits import expect_sane_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

OPSETS = range(
    TARGET, 27
)  # ScatterElements adds since 16; newer operators than those of 26 nobody has written rules for
SMALL = 1024  # elements: axes, shapes and scalars, whose values rules ask for

# Operators that the standard defines by others, but by control flow, or through which no float flows.
_OPAQUE = frozenset(
    "AffineGrid Bernoulli BlackmanWindow DynamicQuantizeLinear HammingWindow HannWindow Range SequenceMap".split()  # noqa: SIM905
)


def strip_weights(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> onnx.ModelProto:
    """Return a checked copy of `model` without its large initializers, ready for rules.

    What is left out is an input there, and inputs have the dimensions of `shapes`. Local functions are inlined, each `If` of
    constant condition is replaced by its branch, and operators that have no rule but a definition by other operators by that;
    below opset 16 the nodes are converted to 16. Raises GradientError where `model` is no valid model or has shapes that
    cannot fit, states an opset below 7 or above 26, or cannot be converted.
    """
    if not isinstance(model, onnx.ModelProto):
        raise GradientError(
            f"an onnx.ModelProto is expected, not {type(model).__name__}: read one with onnx.load(path)"
        )
    light = without_weights(model)
    try:
        expect_sane_size(light)  # before the check, which follows functions as far as they go
    except TooLargeError as error:
        raise GradientError(str(error)) from error
    open_dimensions(light.graph)
    fix_shapes(light.graph, shapes or {})
    if fault := _fault(light):
        raise GradientError(f"not a valid ONNX model: {fault}")
    return decided(_expanded(sized(_modern(light))))


def restore_weights(light: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Put the initializers of `model` that `strip_weights` left out into `light`, which may have been rewritten meanwhile."""
    input_names = {value.name for value in model.graph.input}
    large = [tensor for tensor in model.graph.initializer if not _small(tensor)]
    placeholders = {tensor.name for tensor in large} - input_names
    inputs = [value for value in light.graph.input if value.name not in placeholders]
    del light.graph.input[:]
    light.graph.input.extend(inputs)
    light.graph.initializer.extend(large)


def _fault(light: onnx.ModelProto) -> str:
    """Return why onnx rejects a model, shapes or declared types that cannot fit among the reasons; '' where it does not."""
    try:
        expect_consistent(light, check_type=False)
    except Exception as error:  # noqa: BLE001  whatever the checker raises is its verdict
        return " ".join(str(error).split())
    return ""


def _small(tensor: onnx.TensorProto) -> bool:
    count = 1
    for dim in tensor.dims:
        count *= dim
    return count <= SMALL and not uses_external_data(tensor)


def open_dimensions(graph: onnx.GraphProto) -> None:
    """Clear the dimensions that some exporters write for unknown ones: -1, and "?" for several that are not equal."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0 or dim.dim_param in {"?", "-1", "None"}:
                dim.Clear()


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` whose initializers of more than SMALL elements are inputs: what checks and inference need of it."""
    light = onnx.ModelProto()
    _copy(model, light, leave_out="graph")
    _copy(model.graph, light.graph, leave_out="initializer")
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if _small(tensor):
            light.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            shape = list(tensor.dims)
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    if model.HasField("graph"):
        light.graph.SetInParent()
    return light


def _copy(source: Message, target: Message, leave_out: str) -> None:
    """Copy all fields of a message but one."""
    for field, value in source.ListFields():
        if field.name == leave_out:
            continue
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _modern(light: onnx.ModelProto) -> onnx.ModelProto:
    opset = standard_opset(light)
    if opset > OPSETS[-1]:
        raise GradientError(
            f"the model is of opset {opset}; gradients are known for opsets 15 to {OPSETS[-1]}: export it at one of them"
        )
    if opset < OLDEST:
        raise GradientError(
            f"the model is of opset {opset}, which cannot be brought to {OPSETS[0]}: export it at a newer one"
        )
    try:
        if light.functions:
            light = inlined(light)
        light = decided(light)
        return converted(light) if opset < OPSETS[0] else light
    except CannotConvertError as error:
        raise GradientError(
            f"the model cannot be brought to opset {OPSETS[0]}, which gradients need: {error}"
        ) from error


def _expanded(light: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators without a rule by what the standard defines them as, until none is left that has such a body."""
    opset = standard_opset(light)
    while compound := sorted(name for name in {_standard(node) for node in light.graph.node} if _compound(name, opset)):
        for node in light.graph.node:
            if _standard(node) in compound:
                _state_defaults(node, opset)
        ids = [("", name) for name in compound]
        rewritten = inliner.inline_selected_functions(light, ids, inline_schema_functions=True)
        if not {_standard(node) for node in rewritten.graph.node}.isdisjoint(compound):
            return rewritten  # a body that depends on types that are not known: its node will be refused by name
        light = rewritten
    return light


def _state_defaults(node: onnx.NodeProto, opset: int) -> None:
    """Write out the attributes on which a node is silent: onnx's inliner leaves holes where a body refers to them."""
    stated = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, opset, "").attributes.items():
        if name not in stated and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def _standard(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in STANDARD else ""


def _compound(op_type: str, opset: int) -> bool:
    if rule_of("", op_type) or op_type in ZERO_DERIVATIVE or op_type in _OPAQUE:
        return False
    if not onnx.defs.has(op_type, opset, ""):
        return False
    schema: Any = onnx.defs.get_schema(op_type, opset, "")  # of which onnx's stub lacks the two
    return bool(schema.has_function or schema.has_context_dependent_function)
