"""The gates: what must hold of an exported graph before any runtime sees it, and what there is to know about it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import uses_external_data

from actconform.errors import TooLargeError, near
from actconform.onnx.inference import expect_consistent, infer
from actconform.onnx.nested_graphs import subgraphs
from actconform.onnx.nodes import ELEMENT_TYPES
from actconform.onnx.size_limits import expect_sane_size
from actconform.text import number_of
from actconform.types import FindingClass
from actconform.types.model import LOSS, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from actconform.types import Artifact, Kernel
    from actconform.types.model import Model

CONVOLUTIONS = ("Conv", "ConvTranspose")
Breach = tuple[FindingClass, str]  # the class of the finding, and the evidence


class Wanted(NamedTuple):
    """What one tensor of a graph's interface must be: a dimension is its size, or the name of one that takes any size."""

    called: str
    dims: Sequence[str | int]
    element_type: int


def inspect(artifact: Artifact, kernel: Kernel, dtype: str) -> list[Breach]:
    """Return how `artifact` breaks what a graph of `kernel` at `dtype` must be, as (class, evidence); empty where it does not.

    "invalid-model": no ModelProto, data outside of the bytes, operators that their domain does not have at the stated opset
    and the model does not define, whatever onnx's full check (shape inference included) says, in its words. Of these the
    first alone is reported. "names": another number of inputs or outputs than the kernel has. "shape": an input of another
    rank, or with a fixed dimension: it cannot run at other sizes than it was exported at. "dtype": declared element types
    other than those of the kernel at `dtype`. Raises nothing.
    """
    model, breaches = _loaded(artifact)
    if model is None:
        return breaches
    inputs, outputs = _interface(model)
    if len(inputs) == len(kernel.inputs) and len(outputs) == 1:
        element_type = ELEMENT_TYPES[dtype]
        takes = [Wanted(f", the kernel's {name},", kernel.dims(name), element_type) for name in kernel.inputs]
        gives = Wanted("", (), TensorProto.INT64 if kernel.output_dtype == "int64" else element_type)
        pairs = list(zip(inputs, takes, strict=True))
        return [
            *breaches,
            *_shapes("input", pairs),
            *_dtypes("input", pairs),
            *_dtypes("output", [(outputs[0], gives)]),
        ]
    evidence = (
        f"inputs {[value.name for value in inputs]}, outputs {[value.name for value in outputs]}: "
        f"expected {len(kernel.inputs)} for {list(kernel.inputs)}, and one output"
    )
    return [*breaches, (FindingClass.NAMES, evidence)]


def inspect_model(artifact: Artifact, model: Model, dtype: str, *, constants: bool) -> list[Breach]:
    """Return how `artifact` breaks what a graph of `model` at `dtype` must be, as (class, evidence); empty where it does not.

    "invalid-model" as in `inspect`. "names": an input that the model lacks (with `constants` only those of roles "data" and
    "noise" are known; what nothing reads may be left out), or outputs other than "y", "loss" and "layer.NAME" for every layer
    (with `constants`: "y"), or either in another order than that, and not in that of their names, in which frameworks lay out
    dicts. "shape": an input or output declared of another rank, with another fixed size, or with a fixed batch. "dtype":
    declared element types other than those of `dtype`. Raises nothing.
    """
    proto, breaches = _loaded(artifact)
    if proto is None:
        return breaches
    inputs, outputs = _interface(proto)
    element_type = ELEMENT_TYPES[dtype]
    read = [model_input for model_input in model.inputs if not constants or model_input.role != "target"]
    expected_dims: dict[str, tuple[str | int, ...]] = {
        model_input.name: ("b", *model_input.shape) for model_input in read
    }
    if not constants:
        expected_dims |= {parameter.name: parameter.shape for parameter in model.parameters}
    wanted = [OUTPUT] if constants else [OUTPUT, LOSS, *(f"layer.{layer.name}" for layer in model.layers)]
    takes = [
        (value, Wanted("", expected_dims[value.name], element_type)) for value in inputs if value.name in expected_dims
    ]
    of_outputs = {OUTPUT: model.output, LOSS: LOSS, **{f"layer.{layer.name}": layer.name for layer in model.layers}}
    gives = [
        (value, Wanted("", _dims(model, of_outputs[value.name]), element_type))
        for value in outputs
        if value.name in wanted
    ]
    others = [(value, Wanted("", (), element_type)) for value in outputs if value.name not in wanted]
    names = (*_unknown_inputs(inputs, expected_dims), *_output_names(outputs, wanted))
    order = (*_order("inputs", inputs, list(expected_dims)), *_order("outputs", outputs, wanted))
    shapes = (*_shapes("input", takes), *_shapes("output", gives))
    return [*breaches, *names, *order, *shapes, *_dtypes("input", takes), *_dtypes("output", [*gives, *others])]


def _dims(model: Model, layer: str) -> tuple[str | int, ...]:
    return () if layer == LOSS else ("b", *model.shapes[layer])


def _loaded(artifact: Artifact) -> tuple[onnx.ModelProto | None, list[Breach]]:
    """Return the model, and the first way in which it is none that a runtime could be given."""
    try:
        model = onnx.load_from_string(artifact.model)
    except Exception as error:  # noqa: BLE001  protobuf's DecodeError, among others
        return None, [
            (FindingClass.INVALID_MODEL, f"{number_of(len(artifact.model), 'byte')} that are no ONNX model: {error}")
        ]
    invalid = _outside(model) or _unregistered(model) or _refused(model) or _misfit(model)
    return model, [(FindingClass.INVALID_MODEL, invalid)] if invalid else []


def io_names(model: bytes) -> tuple[list[str], list[str]]:
    """Return the names of a graph's inputs, without initializers, and of its outputs, in order.

    Exporters name tensors as they like: what a kernel calls x is the first input. Raises protobuf's DecodeError for other bytes.
    """
    inputs, outputs = _interface(onnx.load_from_string(model))
    return [value.name for value in inputs], [value.name for value in outputs]


def operators(model: bytes) -> list[str]:
    """Return the operator of every node in order, with bodies of control flow and functions; "domain:" before foreign ones."""
    return [_spelled(node) for node, _ in _nodes(onnx.load_from_string(model))]


def facts(artifact: Artifact) -> dict[str, str]:
    """Return what could explain a graph: the path taken, warnings, opset, IR version, producer, and the count of each operator.

    Bytes that are no model have path and warnings alone.
    """
    origin = {"path": artifact.path, "warnings": "; ".join(artifact.warnings)}
    try:
        model = onnx.load_from_string(artifact.model)
    except DecodeError:
        return origin
    counts = Counter(_spelled(node) for node, _ in _nodes(model))
    foreign = [f"{entry.domain} {entry.version}" for entry in model.opset_import if _domain(entry.domain)]
    return {
        **origin,
        "opset": ", ".join([str(standard_opset(model)), *foreign]),
        "ir_version": str(model.ir_version),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "operators": ", ".join(f"{name} {count}" for name, count in counts.items()),
    }


def standard_opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard's opset that a model states; 0 where it states none."""
    return _opsets(model.opset_import).get("", 0)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _spelled(node: onnx.NodeProto) -> str:
    return f"{node.domain}:{node.op_type}" if _domain(node.domain) else node.op_type


def _opsets(entries: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {_domain(entry.domain): entry.version for entry in entries}


def _interface(model: onnx.ModelProto) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants], list(model.graph.output)


def _nodes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, dict[str, int]]]:
    """Yield every node of the graph and of the model's functions, at any depth, with the opsets that hold for it."""
    for body, entries in ((model.graph, model.opset_import), *((each, each.opset_import) for each in model.functions)):
        opsets = _opsets(entries)
        yield from ((node, opsets) for node in deep(body.node))


def deep(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes, and after each those of its subgraphs at any depth."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from deep(graph.node)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that a model holds: of initializers and attributes, at any depth, in functions too."""
    graphs = [model.graph]
    for node, _ in _nodes(model):
        graphs += subgraphs(node)
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)


def _outside(model: onnx.ModelProto) -> str:
    """Return which tensors point to a file; an artifact is its bytes, and no path in it is ever followed."""
    external = [tensor.name for tensor in tensors(model) if uses_external_data(tensor)]
    return f"data in files beside the model, which do not come with it: {', '.join(external)}" if external else ""


def _unregistered(model: onnx.ModelProto) -> str:
    """Return which operators nobody defines. tf2onnx leaves TensorFlow's own nodes in the standard's domain, without raising."""
    functions = {(_domain(function.domain), function.name) for function in model.functions}
    unknown: dict[str, str] = {}
    for node, opsets in _nodes(model):
        domain = _domain(node.domain)
        version = opsets.get(domain)
        if (domain, node.op_type) in functions:
            continue
        if version is None:
            unknown[_spelled(node)] = f"{_spelled(node)} (of domain {domain or 'ai.onnx'}, whose opset is not stated)"
        elif not onnx.defs.has(node.op_type, version, domain):
            unknown[_spelled(node)] = f"{_spelled(node)} (opset {version}, node {node.name or node.output[0]})"
    return f"no such operator: {', '.join(unknown.values())}" if unknown else ""


def _refused(model: onnx.ModelProto) -> str:
    try:
        expect_sane_size(model)  # before the check, which follows functions as far as they go
        expect_consistent(model, check_type=True)
    except TooLargeError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  whatever the checker raises is its verdict
        return f"onnx.checker: {' '.join(str(error).split())}"
    return ""


def _misfit(model: onnx.ModelProto) -> str:
    """Return which convolution's kernel does not fit the channels that it reads and its groups: onnx's check passes them all."""
    if not any(node.op_type in CONVOLUTIONS for node in model.graph.node):
        return ""
    graph = infer(model)
    values = (*graph.input, *graph.value_info)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    shapes |= {tensor.name: [*tensor.dims] for tensor in graph.initializer}
    for node in graph.node:
        x, kernel = (shapes.get(name, []) for name in node.input[:2]) if node.op_type in CONVOLUTIONS else ([], [])
        if len(x) < 2 or len(kernel) < 2 or 0 in (x[1], kernel[0], kernel[1]):  # open
            continue
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        read = kernel[1] * groups if node.op_type == "Conv" else kernel[0]
        if x[1] != read or kernel[0] % groups:
            return f"{node.op_type} {node.name or node.output[0]}: a kernel of shape {kernel} in {number_of(groups, 'group')} for {number_of(x[1], 'channel')}"
    return ""


def _unknown_inputs(inputs: list[onnx.ValueInfoProto], names: Mapping[str, object]) -> Iterator[Breach]:
    for value in inputs:
        if value.name not in names:
            yield FindingClass.NAMES, f"input {value.name} is none of the model's{near(value.name, list(names))}"


def _output_names(outputs: list[onnx.ValueInfoProto], wanted: list[str]) -> Iterator[Breach]:
    names = [value.name for value in outputs]
    missing = [output for output in wanted if output not in names]
    added = [output for output in names if output not in wanted]
    if missing:
        yield FindingClass.NAMES, f"outputs {missing} are missing among {names}"
    if added:
        yield FindingClass.NAMES, f"outputs {added} are none of the model's"


def _order(kind: str, values: list[onnx.ValueInfoProto], wanted: list[str]) -> Iterator[Breach]:
    """Yield what is wrong with the order, by which runtimes take inputs and give outputs where they are not named."""
    names = [value.name for value in values if value.name in wanted]
    expected = [name for name in wanted if name in names]
    if names not in (expected, sorted(expected)):
        yield FindingClass.NAMES, f"{kind} in the order {names}: expected {expected}"


def _shapes(kind: str, pairs: Iterable[tuple[onnx.ValueInfoProto, Wanted]]) -> Iterator[Breach]:
    for value, wanted in pairs:
        if not value.type.tensor_type.HasField("shape"):
            continue
        dims = value.type.tensor_type.shape.dim
        if len(dims) != len(wanted.dims):
            yield (
                FindingClass.SHAPE,
                f"{kind} {value.name}{wanted.called} has {number_of(len(dims), 'dimension')}, not {len(wanted.dims)}",
            )
            continue
        fixed = [
            (dim, actual.dim_value)
            for dim, actual in zip(wanted.dims, dims, strict=True)
            if actual.HasField("dim_value")
        ]
        for dim, size in fixed:
            if isinstance(dim, str):
                yield FindingClass.SHAPE, f"{kind} {value.name}{wanted.called} takes {dim} = {size} alone, not any size"
        mismatched = [(size, dim) for dim, size in fixed if not isinstance(dim, str) and dim != size]
        if mismatched:
            sizes = [size for _, size in fixed]
            yield FindingClass.SHAPE, f"{kind} {value.name}{wanted.called} has sizes {sizes}, not {list(wanted.dims)}"


def _dtypes(kind: str, pairs: Iterable[tuple[onnx.ValueInfoProto, Wanted]]) -> Iterator[Breach]:
    for value, wanted in pairs:
        declared = value.type.tensor_type.elem_type
        if declared != wanted.element_type:
            names = TensorProto.DataType.Name(declared), TensorProto.DataType.Name(wanted.element_type)
            yield FindingClass.DTYPE, f"{kind} {value.name} is declared {names[0]}, asked for {names[1]}"
