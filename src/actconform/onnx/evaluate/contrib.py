"""Operators of the domain com.microsoft, which ONNX Runtime's optimizer and quantizer write: by their definition, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.elementwise import Compute, Operation

CONTRIB_DOMAIN = "com.microsoft"

CONTRIB: dict[str, tuple[Operation, dict[str, Any]]] = {}
"""By name the function of an operator, and the defaults of its attributes."""


def contrib(*op_types: str, **defaults: Any) -> Callable[[Compute], Compute]:
    """Register a function as the operators `op_types` of com.microsoft; `defaults` are those of attributes left out."""

    def register(compute: Compute) -> Compute:
        CONTRIB.update(dict.fromkeys(op_types, (compute, defaults)))
        return compute

    return register
