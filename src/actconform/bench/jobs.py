"""The job of a route in a trial: the graph or program that its case judges, with the trial's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.bench.tensors import REGIME
from actconform.onnx.gradient_artifact import pulled_back, with_cotangents
from actconform.run.case import artifact_for
from actconform.run.layer_values import cut, fed
from actconform.types.model import LOSS, OUTPUT, Model
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.bench.workloads import Trial
    from actconform.run.case import Desk
    from actconform.types import Bundle


def job_of(trial: Trial, route: str, desk: Desk, tensors: Callable[[bool], tuple[Bundle, Bundle | None]]) -> Job:
    """Return what a worker gets ready, on the trial's `tensors`, which are asked with or without constants. Raises Unsupported, Unavailable, ExportError and WorkerError as exports do.

    A model gives y and its loss, a graph with constants y alone. Backwards a graph gives the gradients and nothing else: what
    they do not need is not computed.
    """
    case, subject = trial.case(route), desk.catalog.subject(trial.subject)
    call = Call(REGIME, *tensors(case.constants))
    whole = artifact_for(subject, case, desk)
    if whole is None:
        return Job(case, None, [call], batch=trial.size if isinstance(subject, Model) else 0)
    if case.aspect == "gradient":
        asked = pulled_back(cut(whole, [LOSS]) if isinstance(subject, Model) else whole, subject)
        call = Call(call.regime, with_cotangents(call.inputs, call.cotangents))
    elif isinstance(subject, Model):
        asked = cut(whole, [OUTPUT] if case.constants else [OUTPUT, LOSS])
    else:
        asked = whole
    return Job(case, asked, [fed(call, asked) if isinstance(subject, Model) else call])
