"""A set of inputs with the truth of the model on it, and the verdict on an output end to end."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from msgspec.structs import replace

from actconform.checking.result import OutputCheck, SampleFacts
from actconform.checking.spread import output_verdict
from actconform.checking.truth import draws
from actconform.checking.undefined_values import undefined_tensors
from actconform.onnx.evaluate.element_types import STORAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.checking.flatten import Array, FlatGraph
    from actconform.checking.model_file import ModelFile
    from actconform.types.case import Bundle

MOST_SAMPLES = 2  # that are judged node by node, beside those whose outputs are not explained
LARGE_BYTES = 2**28  # of all tensors of one sample, in float64
MOST_WORSE = 2  # of these
QUANTIZING = ("QuantizeLinear", "DynamicQuantize", "QLinear", "QGemm")  # how the names of such operators begin


class Progress(Protocol):
    """What hears how far a check is."""

    def stage(self, name: str, total: int = 0) -> None:
        """A stage begins, of so many steps."""

    def step(self, count: int = 1) -> None:
        """So many steps of the stage are done."""

    def outputs(self, runtime: str, outputs: Sequence[OutputCheck]) -> None:
        """The outputs of a runtime are judged end to end."""


@dataclass
class CheckedSample:
    """One set of inputs, with the truth of the model on it."""

    inputs: Bundle
    facts: SampleFacts
    saved: Bundle | None = None
    """Outputs that were saved elsewhere, of the framework for example."""
    original: FlatGraph | None = None
    """Of a graph that was converted to another format: the graph before, at the same inputs; its tensors have the same names."""
    graph: FlatGraph = field(init=False)
    file: ModelFile = field(init=False)
    """The flat graph, for runtimes."""
    draws: list[dict[str, Array]] = field(init=False)
    """The outputs of the draws of rounding."""

    @cached_property
    def swayed_draws(self) -> list[dict[str, Array]]:
        """The outputs of draws in which all that rounding decides goes both ways."""
        return draws(self.graph, self.inputs, swayed=True)

    @cached_property
    def undefined(self) -> dict[str, str]:
        """See `undefined_tensors`."""
        return undefined_tensors(self.graph)

    def verdict(self, output: OutputCheck, array: Array) -> OutputCheck:
        """Return `output`, which has its name, sample and shape, with the verdict on an answer whose truth there is.

        One that the standard does not define is not judged.
        One that rounding does not explain may be explained by what it decides at a step function: each element by as much as
        these decisions move it.
        """
        graph, name = self.graph, output.name
        if reason := self.undefined.get(name):
            return replace(output, unjudged=reason)
        truth, element_type = graph.truth[name], graph.types.get(name, 0)
        quantized = quantizes(graph)
        verdict = output_verdict(output, array, truth, self.draws, element_type, quantized=quantized)
        if verdict.explained or not any(node.tie for node in graph.nodes):
            return verdict
        swayed = output_verdict(output, array, truth, self.draws, element_type, self.swayed_draws, quantized=quantized)
        return replace(swayed, tied=True) if swayed.explained else verdict


def output_check(sample: CheckedSample, place: int, name: str, array: Array | None) -> OutputCheck:
    """Return the verdict end to end on an output of sample number `place`, which `evaluate` has seen; None is no answer at all."""
    graph = sample.graph
    if array is None:
        return OutputCheck(
            name=name, sample=place, shape=(), spreads=np.inf, reason="it was not given", explained=False
        )
    output = OutputCheck(name=name, sample=place, shape=array.shape)
    dtype = STORAGE.get(graph.types.get(name, 0), array.dtype)
    if array.dtype != dtype:
        reason = f"it is of {array.dtype}, and should be of {dtype}"
        return replace(output, spreads=np.inf, reason=reason, explained=False)
    truth = graph.truth.get(name)
    if truth is None:
        return replace(output, unjudged=graph.unknown.get(name, "its true value is not known"))
    if name not in graph.types or depends_on_answers(graph, name):
        return replace(output, unjudged="it depends on a node that cannot be evaluated here")
    return sample.verdict(output, array)


def quantizes(graph: FlatGraph) -> bool:
    """Return whether a graph rounds to levels of a quantization on the way, so that rounding decides between two of them."""
    return any(node.proto.op_type.startswith(QUANTIZING) for node in graph.nodes)


def depends_on_answers(graph: FlatGraph, output: str) -> bool:
    """Return whether an output is made of what a runtime answered in place of the truth."""
    if not graph.answered:
        return False
    doubtful = set(graph.answered)
    for node in graph.nodes:
        if not doubtful.isdisjoint(node.inputs):
            doubtful.update(node.outputs)
    return output in doubtful


def judged_samples(outputs: Sequence[OutputCheck], samples: Sequence[CheckedSample]) -> list[int]:
    """Return the places of the samples that are judged node by node: the first ones, and the first of those that are not explained.

    Of a model whose tensors are large the first sample alone: the others tell little more of its nodes, and take as long.
    """
    graph = samples[0].graph
    large = sum(graph.nbytes(name) for node in graph.nodes for name in node.outputs) > LARGE_BYTES
    chosen = list(range(min(len(samples), 1 if large else MOST_SAMPLES)))
    worse = dict.fromkeys(output.sample for output in outputs if not output.explained)
    return chosen + [place for place in worse if place not in chosen][:MOST_WORSE]
