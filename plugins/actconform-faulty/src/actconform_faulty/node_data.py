"""ONNX's own data: the cases of single operators in `onnx.backend.test`, as calls of a kernel or of a runtime.

A kernel gets the inputs that ONNX has for the operator that its authored graph consists of, float32 alone, flattened or cut
into rows as the kernel takes them, and its own parameters: the truth at these is the reference. That is kinder than ONNX,
whose cases have other parameters than many kernels. A runtime that alters graphs gets ONNX's graphs, inputs and outputs as
they are. Kernels that are compositions, gradients, models in a framework, and exporters of models have no such data.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

from actconform.errors import Unsupported
from actconform.onnx.author.exporter import author
from actconform.onnx.author.model import author_model
from actconform.oracle import truth
from actconform.testdata.kernel_vectors import STORAGE
from actconform.types import Artifact
from actconform.workers.protocol import Call
from actconform_faulty.peer_limits import ONNX_ATOL, ONNX_RTOL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from actconform import Kernel, Model
    from actconform.types import Bundle

DTYPE = "f32"
NODES = "onnx node data"
SEED = 0  # most of the data is drawn from numpy's global generator when the cases are first made


class NodeVector(NamedTuple):
    """A call whose outputs ONNX's data, or the truth, says, and ONNX's limits for it."""

    call: Call
    reference: Bundle
    rtol: float = ONNX_RTOL
    atol: float = ONNX_ATOL


class NodeCase(NamedTuple):
    """One case of ONNX's: a graph of one node and what it gives."""

    name: str
    graph: Artifact
    vector: NodeVector


def of_kernel(kernel: Kernel) -> list[NodeVector]:
    """Return the calls of a kernel on ONNX's inputs for its operator; none where it is no single operator."""
    try:
        kind, _, operator = author(kernel, DTYPE).path.partition(": ")
    except Unsupported:
        return []
    if kind != "operator":
        return []
    vectors = []
    for case in _cases().get(operator, ()):
        inputs = _reshaped(kernel, list(case.vector.call.inputs.values()))
        if inputs is not None:
            storage = np.int64 if kernel.output_dtype == "int64" else STORAGE[DTYPE]
            with np.errstate(over="ignore"):
                reference = {name: np.asarray(array).astype(storage) for name, array in truth(kernel, inputs).items()}
            vectors.append(NodeVector(Call(NODES, inputs), reference))
    return vectors


def of_graph(model: Model) -> list[NodeCase]:
    """Return ONNX's cases for every operator in a model's graph, to be loaded by the runtime that would load that graph."""
    nodes = onnx.load_from_string(author_model(model, DTYPE).model).graph.node
    return [case for operator in dict.fromkeys(node.op_type for node in nodes) for case in _cases().get(operator, ())]


def _reshaped(kernel: Kernel, arrays: list[NDArray[Any]]) -> Bundle | None:
    """Return ONNX's inputs as the kernel takes them, or None where they do not fit."""
    of_kernel_inputs = arrays[: len(kernel.inputs)]
    if (
        len(of_kernel_inputs) < len(kernel.inputs)
        or not of_kernel_inputs[0].ndim
        or any(array.dtype != np.float32 for array in of_kernel_inputs)
    ):
        return None
    x, *further = of_kernel_inputs
    if kernel.form == "unary":
        return {"x": x.ravel()}
    if kernel.axis == 1:
        return {"x": x if x.ndim == 3 else x[..., None]} if x.ndim in (2, 3) else None
    if any(array.shape != x.shape[-1:] for array in further):
        return None
    return dict(zip(kernel.inputs, (x.reshape(-1, x.shape[-1]), *further), strict=True))


@cache
def _cases() -> dict[str, list[NodeCase]]:
    """Return ONNX's cases of one node, by operator, whose inputs and outputs are all plain arrays. The first call takes 10 s."""
    state = np.random.get_state()  # noqa: NPY002  onnx draws from there
    np.random.seed(SEED)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from onnx.backend.test.loader import load_model_tests

            loaded = load_model_tests(kind="node")
    finally:
        np.random.set_state(state)  # noqa: NPY002
    vectors = defaultdict(list)
    for case in loaded:
        if case.model is None or len(case.model.graph.node) != 1:
            continue
        for inputs, outputs in case.data_sets or ():
            if all(isinstance(array, np.ndarray) for array in (*inputs, *outputs)):
                vectors[case.model.graph.node[0].op_type].append(_node_case(case, inputs, outputs))
    return dict(vectors)


def _node_case(case: Any, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> NodeCase:
    graph = case.model.graph
    artifact = Artifact(case.model.SerializeToString(), case.model.opset_import[0].version, "onnx")
    call = Call(NODES, {value.name: array for value, array in zip(graph.input, inputs, strict=False)})
    reference = {value.name: array for value, array in zip(graph.output, outputs, strict=False)}
    return NodeCase(case.name, artifact, NodeVector(call, reference, case.rtol, case.atol))
