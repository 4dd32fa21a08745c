"""What messages of the evaluators call a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

STANDARD = ("", "ai.onnx")
"""How models spell the standard's domain."""


def node_label(node: onnx.NodeProto, opset: int) -> str:
    """Return a node's operator, domain and opset, and its name or outputs."""
    return (
        f"operator {node.op_type} (domain {node.domain or 'ai.onnx'}, opset {opset}) "
        f"at node {node.name or '-> ' + ', '.join(node.output)}"
    )
