"""onnx's own cases of single nodes, at the newest opset: models with inputs and expected outputs."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

OTHER_TYPES = ("seq_type", "optional_type", "map_type")


@cache
def node_cases() -> list[Any]:
    """Return all cases of one node of the standard that takes and gives tensors alone."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [case for case in cases if len(case.model.graph.node) == 1 and _tensors_alone(case.model.graph)]


def _tensors_alone(graph: onnx.GraphProto) -> bool:
    (node,) = graph.node
    values = (*graph.input, *graph.output)
    return not node.domain and all(value.type.HasField("tensor_type") for value in values)


def opset_of(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if not entry.domain)


def cases_without_graphs() -> Iterator[tuple[Any, onnx.NodeProto]]:
    """Yield each case with its node, but those of control flow."""
    for case in node_cases():
        (node,) = case.model.graph.node
        if node.op_type not in {"If", "Loop", "Scan"}:
            yield case, node
