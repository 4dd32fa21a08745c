"""A node by itself: what a runtime gives for just what the node read in a run, with no neighbour to be fused with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.checking.judge import shown_values
from actconform.checking.model_file import ModelFile
from actconform.checking.part import accepted_by_bounds, part_of, read_from_outside
from actconform.errors import Unsupported

if TYPE_CHECKING:
    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.result import LevelCheck, TensorCheck
    from actconform.checking.runs import RuntimeRuns


def ratio_alone(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, tensor: TensorCheck) -> float | None:
    """Return the error over the bound of the node that gives a tensor where it runs by itself; None where it does not run so."""
    graph = sample.graph
    place = next(place for place, node in enumerate(graph.nodes) if node.name == tensor.node)
    try:
        values = shown_values(runs, sample, read_from_outside(graph, [place]), level.name)
        part = part_of(graph, [place], values, [tensor.tensor])
        with ModelFile(part.model) as file:
            answer = runs.outputs(file, part.inputs, level.name)
        if answer.failure:
            return None
        return accepted_by_bounds(part, answer.outputs)[tensor.tensor].ratio(answer.outputs[tensor.tensor])
    except (KeyError, Unsupported, ValueError):  # something that it reads is not shown, or is not evaluated by itself
        return None
