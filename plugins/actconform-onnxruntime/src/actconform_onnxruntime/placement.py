"""Where ONNX Runtime put the nodes of a graph, from its own record of the assignment.

The record is taken after functions are expanded (Mish becomes Softplus, Tanh, Mul), and before nodes are fused and copies
between devices put in. It has what was cast to float32 for the CPU, too: f16 nodes that no provider takes.

Not every node on the CPU computes. ONNX Runtime deliberately leaves there what works on shapes (Shape, then Gather and Concat of
it, before a Reshape): those tensors lie in main memory anyhow, and no number of the data goes through them. Such nodes are told
apart here, from the graph: what depends on nothing but shapes and constants, and does not grow into a tensor of data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from actconform import Unavailable
from actconform_onnxruntime.session import read_graph

RECORD = "get_provider_graph_assignment_info"
NO_RECORD = "this ONNX Runtime does not say where it put the nodes of a graph: take 1.24 or newer"

MEASURE = frozenset({"Shape", "Size"})
# They make of a shape a tensor as large as it says, which is computing; but of a rank only something as long as a shape.
GROW = frozenset({"ConstantOfShape", "Expand", "EyeLike", "OneHot", "Range", "Tile"})


class Placement(NamedTuple):
    """The operators that each provider computes, and those that work on shapes elsewhere than on the provider asked for."""

    computed: dict[str, tuple[str, ...]]
    shapes: tuple[str, ...]


def placed(session: Any, model: bytes | str, provider: str) -> Placement:
    """Return where the session of `model`, bytes or the path of a file, on `provider` has its nodes; it must have been told to record it.

    A release that keeps no record names the providers of a session alone: where there is one, every node is there, and which
    operators they became is not known. Raises `Unavailable` where there are several.
    """
    if not hasattr(session, RECORD):
        if session.get_providers() != [provider]:
            raise Unavailable(NO_RECORD)
        return Placement({provider: ()}, ())
    computed: dict[str, dict[str, None]] = {}
    shapes: dict[str, None] = {}
    known: set[tuple[str, str]] | None = None
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            if part.ep_name != provider:
                known = shape_nodes(model) if known is None else known
                if node.op_type in MEASURE or (node.name, node.op_type) in known:
                    shapes[node.op_type] = None
                    continue
            computed.setdefault(part.ep_name, {})[node.op_type] = None
    return Placement({name: tuple(operators) for name, operators in computed.items()}, tuple(shapes))


def shape_nodes(model: bytes | str) -> set[tuple[str, str]]:
    """Return name and operator of the graph's nodes that depend on shapes and constants alone, at least one shape among them.

    Nodes without a name are known by the operator: where one of them computes, none is returned. Nodes in the bodies of
    loops and branches, and of functions, are not looked at.
    """
    graph = read_graph(model).graph
    constants = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}
    shapes: set[str] = set()
    ranks: set[str] = set()  # of the shapes, those that depend on no dimension
    of_shapes, others = set(), set()
    for node in graph.node:
        read, identity = set(filter(None, node.input)), (node.name, node.op_type)
        measures = node.op_type in MEASURE
        if node.op_type == "Constant" or (read and read <= constants):
            constants.update(node.output)
            others.add(identity)
        elif measures or (read & shapes and read <= (ranks if node.op_type in GROW else shapes) | constants):
            shapes.update(node.output)
            ranks.update(node.output if read <= (shapes if measures else ranks | constants) else ())
            of_shapes.add(identity)
        else:
            others.add(identity)
    return of_shapes - others
