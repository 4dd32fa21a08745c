"""The authored exporter: the ONNX graph that we write from a kernel, so that a runtime is judged with none between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

import actconform.onnx.graphs  # noqa: F401  registers the built-in kernels
from actconform import __version__
from actconform.interfaces import Unsupported
from actconform.onnx.nodes import GRAPHS, OPSET, Nodes, graph
from actconform.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.types import Kernel

__all__ = ["GRAPHS", "OPSET", "Nodes", "artifact_of", "author", "graph"]

OUTPUT = "y"


def author(kernel: Kernel, dtype: str) -> Artifact:
    """Return the graph of `kernel` at `dtype` ("f32", "f16", "bf16"): standard operators, passed by onnx's checker.

    Its inputs are `kernel.inputs`, its output is "y", every dimension is dynamic. A unary kernel takes (n); a row
    kernel (b, n), or (b, n, m) where it works on axis 1; a further input, prelu's slope, is (n). `path` reads
    "operator: Gelu" or "composition: Split, Sigmoid, Mul". Parameters are rounded to the graph's dtype, or are float32
    attributes. Raises `Unsupported` where no graph is registered under the kernel's name.
    """
    write = GRAPHS.get(kernel.name)
    if write is None:
        raise Unsupported(f"no authored graph for kernel {kernel.name}")
    nodes = Nodes(dtype)
    nodes.rename(write(nodes, kernel), OUTPUT)
    inputs = {name: kernel.dims(name) for name in kernel.inputs}
    return artifact_of(kernel.name, nodes, inputs, [OUTPUT])


def artifact_of(name: str, nodes: Nodes, inputs: Mapping[str, Sequence[str | int]], outputs: Sequence[str]) -> Artifact:
    """Return the graph of these nodes: its inputs with their dimensions, its outputs typed as the standard infers.

    A graph whose nodes contradict each other cannot be written: onnx raises its InferenceError.
    """
    proto = helper.make_graph(
        nodes.nodes,
        name,
        [helper.make_tensor_value_info(one, nodes.element_type, dims) for one, dims in inputs.items()],
        [onnx.ValueInfoProto(name=one) for one in outputs],
        initializer=nodes.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        proto,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="actconform",
        producer_version=__version__,
    )
    typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    for output, inferred in zip(model.graph.output, typed.graph.output, strict=True):
        output.CopyFrom(inferred)
        for dim in output.type.tensor_type.shape.dim:
            if dim.dim_param.startswith("unk__"):
                dim.Clear()
    return Artifact(model=model.SerializeToString(deterministic=True), opset=OPSET, path=_path(nodes))


def _path(nodes: Nodes) -> str:
    operators = list(dict.fromkeys(node.op_type for node in nodes.nodes))
    return f"{'operator' if len(nodes.nodes) == 1 else 'composition'}: {', '.join(operators)}"
