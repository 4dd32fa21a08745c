"""A node by itself: what a runtime gives for just what the node read in a run, with no neighbour to be fused with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.judge import PIECE_BYTES
from actconform.checking.model_file import ModelFile
from actconform.checking.part import accepted_by_bounds, part_of, read_from_outside
from actconform.checking.runs import Marks
from actconform.errors import Unsupported

if TYPE_CHECKING:
    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.result import LevelCheck, TensorCheck
    from actconform.checking.runs import RuntimeRuns
    from actconform.types.case import Bundle


def ratio_alone(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, tensor: TensorCheck) -> float | None:
    """Return the error over the bound of the node that gives a tensor where it runs by itself; None where it does not run so."""
    graph = sample.graph
    place = next(place for place, node in enumerate(graph.nodes) if node.name == tensor.node)
    try:
        part = part_of(graph, [place], _values(runs, sample, level, place), [tensor.tensor])
        with ModelFile(part.model) as file:
            answer = runs.outputs(file, part.inputs, level.name)
        if answer.failure:
            return None
        return accepted_by_bounds(part, answer.outputs)[tensor.tensor].ratio(answer.outputs[tensor.tensor])
    except (KeyError, Unsupported, ValueError):  # something that it reads is not shown, or is not evaluated by itself
        return None


def _values(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, place: int) -> Bundle:
    """Return what a node read: inputs of the model, and tensors as the run at that level shows them."""
    graph = sample.graph
    names = [name for name in read_from_outside(graph, [place]) if name not in sample.inputs]
    marks = Marks(names, graph.types, {name: graph.nbytes(name) for name in names})
    values = dict(sample.inputs)
    for piece in runs.marked(sample.file, sample.inputs, marks, budget_bytes=PIECE_BYTES, level=level.name, final={}):
        values.update(piece.values)
    return values
