"""The values of a model's layers on a route: the framework's own taps, or the graph cut off after each layer and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.onnx.gates import io_names
from actconform.onnx.subgraph import prefix
from actconform.testdata.golden.model_goldens import LAYER
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from actconform.types import Artifact, Bundle
    from actconform.types.model import Model
    from actconform.workers.protocol import Outcome


def cut(artifact: Artifact, outputs: Sequence[str]) -> Artifact:
    """Return the part of a graph that its `outputs` need: a layer marked as an output would keep a runtime from fusing it."""
    return msgspec.structs.replace(artifact, model=prefix(artifact.model, outputs))


def fed(call: Call, artifact: Artifact) -> Call:
    """Return the call with the inputs that the graph has: exporters drop what nothing reads."""
    names, _ = io_names(artifact.model)
    return Call(call.regime, {name: call.inputs[name] for name in names if name in call.inputs}, call.cotangents)


def layer_values(model: Model, whole: Artifact, job: Job, ask: Callable[[Job], Outcome]) -> Bundle:
    """Return the value of each layer, by name, as a runtime computes the graph `whole` up to it.

    `ask` runs a job, of which `job` is the pattern; a layer at which the runtime gives no answer is left out.
    """
    seen: dict[str, NDArray[Any]] = {}
    for layer in model.layers:
        part = cut(whole, [LAYER + layer.name])
        answer = ask(Job(job.case, part, [fed(job.calls[0], part)]))
        if answer.failure is None and answer.outputs:
            seen |= {name.removeprefix(LAYER): value for name, value in answer.outputs[0].items()}
    return seen
