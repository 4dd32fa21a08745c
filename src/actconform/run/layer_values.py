"""The values of a model's layers on a route: the framework's own intermediates, or the graph cut off after each layer and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.run.subject import call_with_inputs_of, subgraph_to
from actconform.testdata.golden.model_goldens import LAYER
from actconform.workers.protocol import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.types import Artifact, Bundle
    from actconform.types.model import Model
    from actconform.workers.protocol import JobResult


def layer_values(model: Model, whole: Artifact, job: Job, ask: Callable[[Job], JobResult]) -> Bundle:
    """Return the value of each layer, by name, as a runtime computes the graph `whole` up to it.

    `ask` runs a job, of which `job` is the pattern; a layer at which the runtime gives no answer is left out.
    """
    seen: dict[str, NDArray[Any]] = {}
    for layer in model.layers:
        part = subgraph_to(whole, [LAYER + layer.name])
        answer = ask(Job(job.case, part, [call_with_inputs_of(job.calls[0], part)]))
        if answer.failure is None and answer.outputs:
            seen |= {name.removeprefix(LAYER): value for name, value in answer.outputs[0].items()}
    return seen
