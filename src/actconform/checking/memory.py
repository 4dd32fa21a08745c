"""How much memory a check of a model takes, estimated from its tensors before any of them is made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnx import TensorProto

from actconform.errors import UsageError
from actconform.machine.memory import available_bytes
from actconform.onnx.gates import tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

GIB = 2**30
BASE = GIB // 4  # the processes themselves, with NumPy and a runtime
COPIES = 3  # of the weights as they are stored: in the model, in the bytes that a runtime gets, in the runtime
TRUTH = 8  # bytes of an element in float64
HELD = 3  # a tensor of the truth, its error, and what a runtime gave for it
_FLOATS = {getattr(TensorProto, name) for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")}


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes that the weights of a model take during a check: COPIES times as they are stored, and in float64."""
    stored, floats = 0, 0
    for tensor in tensors(model):
        elements = math.prod(tensor.dims)
        stored += elements * element_size(tensor.data_type)
        floats += elements if tensor.data_type in _FLOATS else 0
    return COPIES * stored + TRUTH * floats


def estimated_bytes(weights: int, graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> int:
    """Return the bytes that a check takes at once: `weights`, and the tensors of `shapes` that nodes of the main graph hold at once.

    A tensor counts from the node that gives it to the last one that reads it, in float64, HELD times. Tensors without a shape
    count nothing: the estimate is a lower one.
    """
    return BASE + weights + TRUTH * HELD * _peak_elements(graph, shapes)


def element_size(element_type: int) -> int:
    """Return the bytes of an element, 1 for types of fewer bits, 8 for those of no fixed size."""
    from actconform.onnx.evaluate.element_types import STORAGE

    return STORAGE[element_type].itemsize if element_type in STORAGE else 8 if element_type == TensorProto.STRING else 1


def expect_fits(needed: int, max_memory: int | None, sizes: str) -> None:
    """Raise UsageError with the estimate where `needed` bytes are more than `max_memory`, by default the memory available."""
    limit = available_bytes() if max_memory is None else max_memory
    if 0 < limit < needed:
        origin = "are available" if max_memory is None else "are allowed by --max-memory"
        raise UsageError(
            f"is too large for memory: a check would hold about {needed / GIB:.3g} GiB{sizes}, and {limit / GIB:.3g} GiB {origin}; "
            "take a machine with more, smaller inputs, or allow it with --max-memory"
        )


def _peak_elements(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> int:
    last_read = {name: i for i, node in enumerate(graph.node) for name in node.input}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    outputs = {value.name for value in graph.output}
    alive = sum(sizes.get(value.name, 0) for value in graph.input)
    peak = alive
    for i, node in enumerate(graph.node):
        alive += sum(sizes.get(name, 0) for name in node.output if name)
        peak = max(peak, alive)
        over = {
            name for name in (*node.input, *node.output) if name and last_read.get(name, i) <= i and name not in outputs
        }
        alive -= sum(sizes.get(name, 0) for name in over)
    return peak
