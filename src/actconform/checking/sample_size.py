"""The shapes that a model's tensors have for inputs of certain shapes, and whether all of them fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from actconform.checking.memory import estimated_bytes, expect_fits
from actconform.errors import GradientError
from actconform.onnx.grad.arguments import fix_shapes
from actconform.onnx.size_limits import inferred_with_data

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.checking.source import Source


def inferred_shapes(source: Source, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Return the shapes of the tensors of the main graph, functions inlined, that onnx infers from those of the inputs.

    Tensors of which it does not know every size are left out. Raises onnx.shape_inference.InferenceError where the inputs
    cannot fit together.
    """
    light = onnx.ModelProto()
    light.CopyFrom(source.light)
    try:
        fix_shapes(light.graph, input_shapes)
    except GradientError as error:
        raise onnx.shape_inference.InferenceError(str(error)) from error
    graph = inferred_with_data(light).graph
    shapes: dict[str, Sequence[int]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    return shapes


def expect_sample_fits(source: Source, shapes: Mapping[str, Sequence[int]], max_memory: int | None, where: str) -> None:
    """Raise UsageError with the estimate where a check with tensors of these shapes needs more memory; `where` as " at n = 3".

    `max_memory` is in bytes, by default what the machine has available.
    """
    expect_fits(estimated_bytes(source.weight_bytes, source.light.graph, shapes), max_memory, where)
