"""What is left of a graph in the graph that OpenVINO compiles of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

CONSTANT = "Const"


def surviving_tensors(model: ModelProto, core: Any, compiled: Callable[[Any], Any]) -> tuple[str, ...]:
    """Return the tensors that nodes of the graph, and operations of the compiled graph, give, in order; nodes get other names.

    An operation names those that it was made of, in order, with a comma between them: it gives what the last of them does. Raises
    RuntimeError where OpenVINO refuses the graph.
    """
    for number, node in enumerate(model.graph.node):
        # Operations are called so; without it they might have no name, another's, or one with a comma.
        node.name = f"node{number}"
    graph = core.read_model(model.SerializeToString())
    tensors_of = {op.get_friendly_name(): [set(port.get_names()) for port in op.outputs()] for op in graph.get_ops()}
    computed: set[str] = set()
    for operation in compiled(graph).get_runtime_model().get_ops():
        info = operation.get_rt_info()
        if info["layerType"].astype(str) != CONSTANT:
            last = info["originalLayersNames"].astype(str).rpartition(",")[2]
            computed.update(*tensors_of.get(last, []))
    return tuple(name for node in model.graph.node for name in node.output if name and name in computed)
