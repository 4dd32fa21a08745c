"""The names under which cli/check_ calls the conversion to float16."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.low_precision import conversion_note, lowered, overflowing_weights

if TYPE_CHECKING:
    import onnx

__all__ = ["as_float16", "conversion_note", "overflowing_weights"]


def as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` in float16."""
    return lowered(model, "f16").model
