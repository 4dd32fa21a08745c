"""The authored exporter: the ONNX graph that we write from a kernel, so that a runtime is judged with none between."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import onnx
from onnx import helper

import actconform.onnx.author.kernels  # noqa: F401  registers the built-in kernels
from actconform._version import __version__
from actconform.onnx.nodes import GRAPHS, OPSET, Nodes, graph, graph_of
from actconform.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.types import Kernel

__all__ = ["GRAPHS", "OPSET", "Nodes", "artifact_of", "author", "graph"]

OUTPUT = "y"
# From here to OPSET no operator of our graphs changed what it computes; below, graphs of gradients would need conversion.
OLDEST_OPSET = 16


def author(kernel: Kernel, dtype: str) -> Artifact:
    """Return the graph of `kernel` at `dtype` ("f32", "f16", "bf16"): standard operators, passed by onnx's checker.

    Its inputs are `kernel.inputs`, its output is "y", every dimension is dynamic. A unary kernel takes (n); a row
    kernel (b, n), or (b, n, m) where it works on axis 1; a further input, prelu's slope, is (n). `path` reads
    "operator: Gelu" or "composition: Split, Sigmoid, Mul". Parameters are rounded to the graph's dtype, or are float32
    attributes. Raises `Unsupported` where no graph is registered under the kernel's name.
    """
    write, nodes = graph_of(kernel), Nodes(dtype)
    nodes.rename(write(nodes, kernel), OUTPUT)
    inputs = {name: kernel.dims(name) for name in kernel.inputs}
    return artifact_of(kernel.name, nodes, inputs, [OUTPUT])


def artifact_of(name: str, nodes: Nodes, inputs: Mapping[str, Sequence[str | int]], outputs: Sequence[str]) -> Artifact:
    """Return the graph of these nodes: its inputs with their dimensions, its outputs typed as the standard infers.

    It has the lowest opset, from OLDEST_OPSET on, at which the standard has all its nodes as they are written, for its dtype, and
    that opset's IR version, so that old runtimes take it too. A graph whose nodes contradict each other cannot be written: onnx
    raises its InferenceError.
    """
    proto = helper.make_graph(
        nodes.nodes,
        name,
        [helper.make_tensor_value_info(input_name, nodes.element_type, dims) for input_name, dims in inputs.items()],
        [onnx.ValueInfoProto(name=output_name) for output_name in outputs],
        initializer=nodes.initializers,
    )
    _type_outputs(proto)
    model = next(model for model in map(partial(_at, proto), range(OLDEST_OPSET, OPSET + 1)) if _is_valid(model))
    opset = model.opset_import[0].version
    return Artifact(model=model.SerializeToString(deterministic=True), opset=opset, path=_path(nodes))


def _at(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="actconform",
        producer_version=__version__,
    )


def _type_outputs(graph: onnx.GraphProto) -> None:
    typed = onnx.shape_inference.infer_shapes(_at(graph, OPSET), check_type=True, strict_mode=True)
    for output, inferred in zip(graph.output, typed.graph.output, strict=True):
        output.CopyFrom(inferred)
        for dim in output.type.tensor_type.shape.dim:
            if dim.dim_param.startswith("unk__"):
                dim.Clear()


def _is_valid(model: onnx.ModelProto) -> bool:
    """Return whether the opset has every node as it is written: the operator, its attributes and inputs, for the dtype."""
    if model.opset_import[0].version == OPSET:
        return True  # in which it was written
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _path(nodes: Nodes) -> str:
    operators = list(dict.fromkeys(node.op_type for node in nodes.nodes))
    return f"{'operator' if len(nodes.nodes) == 1 else 'composition'}: {', '.join(operators)}"
