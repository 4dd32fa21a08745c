"""What a reader of a verdict should know of outputs that are NaN or infinite by the graph itself, in float64, whatever computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.undefined_values import integers_of
from actconform.onnx.nested_graphs import needed
from actconform.text import labelled, number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.flatten import FlatGraph, FlatNode

MOST_NOTES = 6


class _Place(NamedTuple):
    sample: int
    """Counted from 1."""
    elements: int
    size: int
    origin: str


def nonfinite_notes(samples: Sequence[CheckedSample]) -> list[str]:
    """Return sentences on the true outputs that hold NaN or infinities: how many elements in which samples, and which node gives the first.

    So too on nodes that make integers of NaN, as ArgMax does. At most MOST_NOTES, and a last one that counts the others.
    """
    notes = [*_of_outputs(samples), *_of_integers(samples)]
    more = len(notes) - MOST_NOTES
    if more > 0:
        notes[MOST_NOTES:] = [f"so it is with {number_of(more, 'further output or node', 'further outputs and nodes')}"]
    return notes


def integers_of_nan(graph: FlatGraph) -> dict[str, FlatNode]:
    """Return the nodes, by name, on which outputs depend and which make integers or booleans of a tensor that holds NaN."""
    if not graph.nonfinite.nan:
        return {}
    live = {node.name for node in needed([node.proto for node in graph.nodes], graph.outputs)}
    return {
        node.name: node
        for node in graph.nodes
        if node.name in live and integers_of(node) and any(name in graph.nonfinite.nan for name in node.inputs)
    }


def _of_outputs(samples: Sequence[CheckedSample]) -> Iterator[str]:
    for name in samples[0].graph.outputs:
        for kind in ("NaN", "infinite"):
            places = _places(samples, name, kind)
            if places:
                yield f"output {one_line(name, 80)} is {kind} in {_shares(places)}, as the graph is written: {places[0].origin}"


def _places(samples: Sequence[CheckedSample], name: str, kind: str) -> list[_Place]:
    places = []
    for number, sample in enumerate(samples, 1):
        nonfinite, truth = sample.graph.nonfinite, sample.graph.truth.get(name)
        origin = (nonfinite.nan if kind == "NaN" else nonfinite.infinite).get(name, "")
        if truth is not None and origin:
            elements = np.isnan(truth) if kind == "NaN" else np.isinf(truth)
            places.append(_Place(number, int(np.count_nonzero(elements)), truth.size, origin))
    return places


def _shares(places: Sequence[_Place]) -> str:
    """Return how many elements of the first sample, as "2 of 6 elements of sample 1", and that there are others."""
    first, *others = places
    share = f"{first.elements:,} of {number_of(first.size, 'element')} of sample {first.sample}"
    if not others:
        return share
    most = max(others, key=lambda place: place.elements)
    return f"{share} and in {number_of(len(others), 'other sample')}, at most {most.elements:,} of {most.size:,} in sample {most.sample}"


def _of_integers(samples: Sequence[CheckedSample]) -> Iterator[str]:
    told: set[str] = set()
    for place, sample in enumerate(samples, 1):
        for name, node in integers_of_nan(sample.graph).items():
            if name not in told:
                told.add(name)
                origin = next(words for each in node.inputs if (words := sample.graph.nonfinite.nan.get(each)))
                label = labelled(name, node.proto.op_type)
                yield f"{label} reads NaN in sample {place}, and what it gives for that means nothing: {origin}"
