"""The graph that ONNX Runtime makes of a graph before it runs it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from actconform_onnxruntime import session

if TYPE_CHECKING:
    from actconform import Artifact

BLOCKED = "com.microsoft.nchwc"  # its nodes give tensors in blocks of channels, except for the one that puts them back in order
IN_ORDER = "ReorderOutput"


def surviving_tensors(artifact: Artifact, provider: str, level: str) -> tuple[str, ...]:
    """Return the tensors that a node of the graph gives, and a node of the graph optimized at `level` still gives, in order.

    Raises `Unsupported` as `load` does.
    """
    model = artifact.file or artifact.model
    # A folder of its own: two at once must not read each other's. Beside the model, where whoever made the model removes it.
    with tempfile.TemporaryDirectory(dir=Path(artifact.file).parent if artifact.file else None) as folder:
        path = str(Path(folder, "optimized.onnx"))
        session.load(model, provider, level, optimized=path)
        optimized = session.read_graph(path).graph
    plain = [node for node in optimized.node if node.domain != BLOCKED or node.op_type == IN_ORDER]
    computed = {name for node in plain for name in node.output}
    return tuple(
        name for node in session.read_graph(model).graph.node for name in node.output if name and name in computed
    )
