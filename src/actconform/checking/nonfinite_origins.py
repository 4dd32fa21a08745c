"""Where NaN and infinities in the tensors of a flat graph come from, recorded while it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actconform.text import labelled, one_line

if TYPE_CHECKING:
    import onnx

Array: TypeAlias = NDArray[Any]


@dataclass
class NonfiniteOrigins:
    """By name of each tensor that holds NaN or an infinity: the nearest place before it that holds the first, in words."""

    nan: dict[str, str] = field(default_factory=dict)
    infinite: dict[str, str] = field(default_factory=dict)

    def given(self, kind: str, name: str, array: Array) -> None:
        """Record a tensor that no node gives; `kind` is what it is, as "input". Anything but floats is passed over."""
        has_nan, has_infinity = _held(array)
        if has_nan:
            self.nan[name] = f"{kind} {one_line(name, 80)} holds NaN"
        if has_infinity:
            self.infinite[name] = f"{kind} {one_line(name, 80)} holds infinities"

    def computed(self, node: onnx.NodeProto, name: str, array: Array) -> None:
        """Record a result of a node, by what the node reads."""
        has_nan, has_infinity = _held(array)
        if not (has_nan or has_infinity):
            return
        nan = next((self.nan[operand] for operand in node.input if operand in self.nan), "")
        infinite = next((self.infinite[operand] for operand in node.input if operand in self.infinite), "")
        label = labelled(node.name, node.op_type)
        if has_nan and not nan:
            nan = f"{label} gives NaN for " + (f"an infinity, and {infinite}" if infinite else "finite operands")
        if has_infinity and not infinite:
            infinite = f"{label} gives an infinity for operands that hold none"
        self.nan.update({name: nan} if has_nan else {})
        self.infinite.update({name: infinite} if has_infinity else {})


def _held(array: Array) -> tuple[bool, bool]:
    """Return whether floats hold NaN, and whether they hold an infinity."""
    if array.dtype.kind not in "fV" or bool(np.isfinite(array).all()):
        return False, False
    return bool(np.isnan(array).any()), bool(np.isinf(array).any())
