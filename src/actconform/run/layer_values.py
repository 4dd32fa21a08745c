"""The values of a model's layers on a route: the framework's own intermediates, or the graph cut off after each layer and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.onnx.gates import io_names
from actconform.onnx.subgraph import extract_subgraph
from actconform.testdata.golden.model_goldens import LAYER
from actconform.workers.protocol import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from actconform.types import Artifact, Bundle
    from actconform.types.model import Model
    from actconform.workers.protocol import Call, JobResult


def layer_values(model: Model, graph: Artifact, job: Job, run: Callable[[Job], JobResult]) -> Bundle:
    """Return the value of each layer, by name, as a runtime computes `graph` up to it.

    `run` runs a job, of which `job` is the pattern; a layer at which the runtime fails is left out.
    """
    values: dict[str, NDArray[Any]] = {}
    for layer in model.layers:
        part = subgraph_to(graph, [LAYER + layer.name])
        outcome = run(Job(job.case, part, [call_with_inputs_of(job.calls[0], part)]))
        if outcome.failure is None and outcome.outputs:
            values |= {name.removeprefix(LAYER): value for name, value in outcome.outputs[0].items()}
    return values


def subgraph_to(artifact: Artifact, outputs: Sequence[str]) -> Artifact:
    """Return the part of a graph that its `outputs` need: a layer marked as an output would keep a runtime from fusing it."""
    return msgspec.structs.replace(artifact, model=extract_subgraph(artifact.model, outputs))


def call_with_inputs_of(call: Call, artifact: Artifact) -> Call:
    """Return the call with the inputs that the graph has: exporters drop what nothing reads."""
    names, _ = io_names(artifact.model)
    return msgspec.structs.replace(call, inputs={name: call.inputs[name] for name in names if name in call.inputs})
