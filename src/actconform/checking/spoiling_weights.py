"""Which weights that are not finite spoil an output, by evaluating the graph again with ordinary numbers in their place."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.flatten import flatten
from actconform.checking.made_finite import INSTEAD
from actconform.checking.nonfinite_outputs import integers_of_nan
from actconform.errors import Unsupported
from actconform.text import labelled, number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.flatten import Answers, Array, FlatGraph
    from actconform.checking.nonfinite_weights import NonfiniteWeight
    from actconform.checking.source import Source

_CLEAN = f"with {INSTEAD} in place of what is not finite in the weights"


class Spoiled(NamedTuple):
    """What weights that are not finite do to one sample."""

    place: int
    """Of the first of the weights, in their order, that spoils anything there."""
    sentences: tuple[str, ...]
    """What all of them spoil there."""


def first_spoiling(
    source: Source,
    samples: Sequence[CheckedSample],
    answers: Sequence[Answers | None],
    weights: Sequence[NonfiniteWeight],
) -> Spoiled | None:
    """Return which of the weights is the first that spoils an output of the first sample in which any does; None where none does.

    An element of an output is spoiled that is NaN or infinite, and finite with ordinary numbers in the weights; an output of integers
    where a node on its way makes them of NaN, and not so with ordinary numbers. `samples` have been evaluated; `answers` of each sample
    are those of `flatten`.
    """
    names = [weight.name for weight in weights]
    for number, (sample, asked) in enumerate(zip(samples, answers, strict=True), 1):
        if sample.graph.nonfinite.nan or sample.graph.nonfinite.infinite:
            clean = _flat(source, sample, asked, names)
            sentences = () if clean is None else tuple(_spoiled(sample.graph, clean, number))
            if clean is not None and sentences:
                return Spoiled(_first(source, sample, asked, names, clean), sentences)
    return None


def _first(
    source: Source, sample: CheckedSample, answers: Answers | None, names: Sequence[str], clean: FlatGraph
) -> int:
    """Return the place of the first of the weights that spoils anything, of which all together do."""

    def spoils(count: int) -> bool:
        graph = _flat(source, sample, answers, names[count:])
        return graph is not None and any(_spoiled(graph, clean, 0))

    return bisect_left(range(1, len(names)), True, key=spoils)  # noqa: FBT003  a value that is sought


def _flat(source: Source, sample: CheckedSample, answers: Answers | None, names: Sequence[str]) -> FlatGraph | None:
    """Return the graph with these weights made finite; None where it cannot be evaluated so."""
    try:
        return flatten(source.model, sample.inputs, answers, made_finite=frozenset(names))
    except (Unsupported, ValueError):
        return None


def _spoiled(graph: FlatGraph, clean: FlatGraph, sample: int) -> Iterator[str]:
    """Yield what is spoiled in one graph, and is not in the other."""
    for name, truth in graph.truth.items():
        reference = clean.truth.get(name)
        if truth.dtype.kind != "f" or reference is None:
            continue
        wrong = ~np.isfinite(truth)
        if truth.shape == reference.shape:
            wrong &= np.isfinite(reference)
        elif not np.isfinite(reference).all():
            continue
        if wrong.any():
            yield f"output {one_line(name, 80)} is {_kind(truth[wrong])} in {_share(wrong)} of sample {sample}; {_CLEAN} it is finite there"
    sound = integers_of_nan(clean)
    for name, node in integers_of_nan(graph).items():
        if name not in sound:
            label = labelled(name, node.proto.op_type)
            yield f"{label} reads NaN in sample {sample}; {_CLEAN} it reads none"


def _kind(numbers: Array) -> str:
    nan = np.isnan(numbers)
    return "NaN" if nan.all() else "NaN or infinite" if nan.any() else "infinite"


def _share(elements: Array) -> str:
    return f"{np.count_nonzero(elements):,} of {number_of(elements.size, 'element')}"
