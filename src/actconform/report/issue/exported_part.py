"""A fault of a graph beside its trained model that exporting anew does not show: the nodes themselves, with what the trained model has there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from actconform.checking.exported_standalone import run as evaluated_by_onnx
from actconform.checking.flatten import wide
from actconform.checking.minimize import Minimal
from actconform.checking.model_file import ModelFile
from actconform.checking.part import (
    Accepted,
    PartialModel,
    accepted_by_bounds,
    accepted_by_spread,
    part_of,
    read_from_outside,
)
from actconform.checking.runs import RunFailure
from actconform.checking.trained.backward import forward_part
from actconform.checking.trained.layer_matching import in_graph_layout
from actconform.checking.trained.names import arrays_in_graph_layout, arrays_in_trained_layout
from actconform.checking.truth import evaluated
from actconform.onnx.evaluate.element_types import STORAGE
from actconform.report.issue.from_check import write_minimal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from actconform.checking.flatten import Array, FlatGraph
    from actconform.checking.reproduction import Reproduction
    from actconform.checking.result import ModelFault
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.session import CheckedGraph
    from actconform.checking.trained.column import TrainedColumn

TWICE = 2  # of two that compute the same, each may be off by the bound


def attach_part(
    graph: CheckedGraph, column: TrainedColumn, fault: ModelFault, about: Reproduction, folder: Path
) -> bool:
    """Write the nodes at fault as a model with the trained model's values to `folder`; return whether they show it: else nothing is written."""
    for part, right in _parts(graph, column, fault):
        minimal = _judged(part, right, graph.runtimes)
        if minimal is not None:
            whole = len(part.model.graph.node) == len(graph.samples[fault.sample].graph.nodes)
            write_minimal(folder, replace(minimal, is_whole_model=whole), None, about)
            return True
    return False


def _parts(graph: CheckedGraph, column: TrainedColumn, fault: ModelFault) -> Iterator[tuple[PartialModel, Array]]:
    """Yield the nodes at fault, then the whole graph, with what the trained model has of the tensor that is wrong."""
    sample = graph.samples[fault.sample]
    flat = forward_part(sample.graph)
    target = fault.tensor.tensor if fault.tensor else fault.output.name if fault.output else ""
    trained = _trained_values(graph, column, flat, fault)
    if target not in trained:
        return
    everything = range(len(flat.nodes))
    segment = [place for place in everything if flat.nodes[place].name in fault.segment]
    for places in filter(None, (segment, list(everything))):
        read = read_from_outside(flat, places)
        values = {**sample.inputs, **{name: trained[name] for name in read if name in trained}}
        rest = [name for name in read if name not in values]
        truth = evaluated(replace(flat, outputs=rest), sample.inputs) if rest else {}
        values |= {name: array.astype(STORAGE[flat.types[name]]) for name, array in truth.items()}
        if all(name in values for name in read):
            yield part_of(flat, places, values, [target]), trained[target]


def _trained_values(graph: CheckedGraph, column: TrainedColumn, flat: FlatGraph, fault: ModelFault) -> dict[str, Array]:
    """Return the trained model's tensors, as it runs, by those of the graph that they are."""
    inputs = arrays_in_trained_layout(column.inputs, graph.samples[fault.sample].inputs)
    run = column.runs.layers(inputs, column.mode)
    if isinstance(run, RunFailure):
        return {}
    place = next(place for place, each in enumerate(graph.columns) if each is column)
    values = dict(arrays_in_graph_layout(column.outputs, run.outputs))
    for match in graph.result.trained[place].matches:
        if match.trained < len(run.tensors) and run.tensors[match.trained].size == np.prod(match.shape, dtype=int):
            values[match.tensor] = in_graph_layout(match, run.tensors[match.trained])
    return {
        name: array.astype(STORAGE[flat.types[name]])
        for name, array in values.items()
        if name not in flat.constants and flat.types.get(name) in STORAGE and flat.shapes.get(name) == array.shape
    }


def _judged(part: PartialModel, right: Array, runtimes: Sequence[RuntimeRuns]) -> Minimal | None:
    """Return a part whose answer is not what the trained model has, by its nodes' bounds or else by its spread; None where it is, or cannot be told."""
    (name,) = (value.name for value in part.model.graph.output)
    number = wide(right).astype(np.float64)
    try:
        got = answers(part, runtimes)
        for bounds in (accepted_by_bounds(part, got), accepted_by_spread(part)):
            if name not in bounds:
                continue
            accepted = Accepted(number, number, number)
            if bounds[name].truth.shape == number.shape:
                accepted = within(number, TWICE * bound_of(bounds[name]))
            minimal = Minimal(part, "the graph", "", "trained", got, {name: accepted}, runs=1)
            if minimal.ratio > 1:
                return minimal
    except Exception:  # noqa: BLE001  whatever the nodes of a file raise by themselves: it is not shown
        return None
    return None


def answers(part: PartialModel, runtimes: Sequence[RuntimeRuns]) -> dict[str, Array]:
    """Return the outputs of a model by the first runtime that takes it, else by onnx's own evaluator, which may raise anything."""
    with ModelFile(part.model) as file:
        for runs in runtimes:
            answer = runs.outputs(file, part.inputs)
            if not answer.failure:
                return {name: answer.outputs[name] for name in file.outputs}
        return evaluated_by_onnx(str(file.path), dict(part.inputs), "")


def bound_of(right: Accepted) -> Array:
    """Return by how much an answer may be off."""
    with np.errstate(invalid="ignore"):
        bound = np.maximum(right.highest - right.truth, right.truth - right.lowest)
    return np.nan_to_num(bound, posinf=np.inf)  # an infinite truth is exact


def within(number: Array, allowed: Array) -> Accepted:
    """Return what accepts answers that are off by what is allowed."""
    with np.errstate(invalid="ignore"):
        return Accepted(number, np.asarray(number - allowed), np.asarray(number + allowed))
