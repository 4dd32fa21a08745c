"""Whether 8-bit products are wrong since a runtime adds them in pairs in 16 bits, which saturate: judged by the same nodes with weights of 7 bits.

Kernels for x86 processors without VNNI do so (the instruction VPMADDUBSW): two products of 255 and 127 are 64,770, and 16 bits end at 32,767.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from actconform.checking.judge import shown_values
from actconform.checking.model_file import ModelFile
from actconform.checking.part import PartialModel, accepted_by_bounds, part_of, read_from_outside
from actconform.errors import Unsupported

if TYPE_CHECKING:
    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.result import LevelCheck, TensorCheck
    from actconform.checking.runs import RuntimeRuns

SATURATION = (
    (
        "with its weights halved, to 7 bits, it is right, as where pairs of 8-bit products are added in 16 bits, which saturate: "
        "kernels for processors without VNNI do so"
    ),
    "what helps: quantize with reduce_range=True, or weights as QuantType.QUInt8; or a processor with VNNI",
)


def saturates(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, tensor: TensorCheck) -> bool:
    """Return whether the nodes that give a tensor, by themselves, are over their bound, and within it with int8 weights halved.

    False where they have no such weights, or do not run by themselves.
    """
    graph = sample.graph
    segment = {*tensor.segment, tensor.node}
    places = [place for place, node in enumerate(graph.nodes) if node.name in segment]
    try:
        values = shown_values(runs, sample, read_from_outside(graph, places), level.name)
        part = part_of(graph, places, values, [tensor.tensor])
        halved = _with_halved_weights(part)
        return halved is not None and _is_off(runs, part, level.name) and not _is_off(runs, halved, level.name)
    except (KeyError, Unsupported, ValueError):  # something that it reads is not shown, or is not evaluated by itself
        return False


def _with_halved_weights(part: PartialModel) -> PartialModel | None:
    """Return the same nodes with int8 matrices and kernels halved towards 0; None where there are none."""
    model = onnx.ModelProto()
    model.CopyFrom(part.model)
    weights = [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    for tensor in weights:
        halves = np.trunc(numpy_helper.to_array(tensor) / 2).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(halves, tensor.name))
    return PartialModel(model, part.inputs) if weights else None


def _is_off(runs: RuntimeRuns, part: PartialModel, level: str) -> bool:
    """Return whether a runtime's answer is over its bound. Raises ValueError where it gives none."""
    with ModelFile(part.model) as file:
        answer = runs.outputs(file, part.inputs, level)
    if answer.failure:
        raise ValueError(answer.failure.message)
    accepted = accepted_by_bounds(part, answer.outputs)
    return any(accepted[name].ratio(array) > 1 for name, array in answer.outputs.items())
