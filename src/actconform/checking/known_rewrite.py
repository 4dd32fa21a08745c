"""Whether a registered cause explains what a runtime made of one node or of several: by the graph as it rewrites it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from actconform.checking.judge import shown_values
from actconform.checking.known_cause import KnownCause, cause_words
from actconform.checking.part import PartialModel, accepted_by_bounds, part_of, read_from_outside
from actconform.checking.runs import RunFailure
from actconform.errors import Unsupported
from actconform.types import DRIVER_EXPORTER
from actconform.verdict.causes.rewrites import REWRITES

if TYPE_CHECKING:
    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.result import LevelCheck, TensorCheck
    from actconform.checking.runs import RuntimeRuns


def known_rewrite(
    runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, tensor: TensorCheck
) -> KnownCause | None:
    """Return the registered cause of a segment that is off, of one node or of several that were fused; None where there is none.

    The cause must rewrite nodes of the segment, and every element that came must lie within the error bounds of the segment as it is
    rewritten, given what it read. What the segment reads and gives is shown once more.
    """
    facts = runs.start()
    if isinstance(facts, RunFailure):
        return None
    causes = runs.register.rewriting(f"{DRIVER_EXPORTER}+{runs.registered_as}", facts)
    if not causes:
        return None
    graph, name = sample.graph, tensor.tensor
    places = [place for place, node in enumerate(graph.nodes) if node.name in tensor.segment]
    values = shown_values(runs, sample, [*read_from_outside(graph, places), name], level.name)
    try:
        part = part_of(graph, places, values, [name])
    except KeyError:  # something that was read is not shown
        return None
    for cause in causes:
        rewritten = onnx.ModelProto()
        rewritten.CopyFrom(part.model)
        if not REWRITES[cause.rewrite](rewritten.graph):
            continue
        try:
            accepted = accepted_by_bounds(PartialModel(rewritten, part.inputs), {name: values[name]})[name]
        except (KeyError, Unsupported, ValueError):
            continue
        if accepted.truth.shape == values[name].shape and not accepted.rejects(values[name]).any():
            return KnownCause(cause.id, f"known cause {cause.id}: {cause_words(cause)}")
    return None
