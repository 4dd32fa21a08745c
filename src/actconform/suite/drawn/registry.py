"""The strategies of operators, by name: each file of `families` registers those of one family."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import onnx

from actconform.suite.drawn.drawer import OPSETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.suite.drawn.drawer import Drawer
    from actconform.suite.drawn.node import DrawnNode

DrawNode: TypeAlias = "Callable[[Drawer], DrawnNode]"


class OperatorStrategy(NamedTuple):
    """How nodes of an operator are drawn."""

    op_type: str
    family: str
    draw: DrawNode
    opsets: tuple[int, ...]
    """Those at which the strategy's form is that of the schema, the simplest first."""


STRATEGIES: dict[str, OperatorStrategy] = {}


def drawn_operator(*op_types: str, since: int = 13) -> Callable[[DrawNode], DrawNode]:
    """Register a function as what draws the operators `op_types`; its file is their family.

    It takes a `Drawer` of an opset from `since` on that has the operator. Raises ValueError where an operator is drawn already.
    """

    def register(draw: DrawNode) -> DrawNode:
        for op_type in op_types:
            if op_type in STRATEGIES:
                raise ValueError(f"two strategies for operator {op_type}")
            first = first_opset(op_type)
            opsets = tuple(opset for opset in OPSETS if opset >= max(since, first)) or (max(since, first),)
            STRATEGIES[op_type] = OperatorStrategy(op_type, draw.__module__.rpartition(".")[2], draw, opsets)
        return draw

    return register


def first_opset(op_type: str) -> int:
    """Return the opset that brought an operator of the standard."""
    return min(
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == op_type and schema.domain == ""
    )
