"""The job of a route of a workload: the graph or program that its case judges, with the workload's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.bench.tensors import REGIME
from actconform.run.case import artifact_for
from actconform.run.subject import subject_of
from actconform.types.model import LOSS, OUTPUT
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.bench.workloads import Workload
    from actconform.run.case import CaseContext
    from actconform.types import Bundle


def job_of(
    workload: Workload, route: str, context: CaseContext, tensors: Callable[[bool], tuple[Bundle, Bundle | None]]
) -> Job:
    """Return what a worker prepares. `tensors` gives the workload's inputs and cotangents, with or without constants.

    A model gives y and its loss, a graph with constants y alone. Backwards a graph gives the gradients and nothing else: what
    they do not need is not computed. Raises Unsupported, Unavailable, ExportError and WorkerError as exports do.
    """
    case, subject = workload.case(route), context.catalog.subject(workload.subject)
    line = subject_of(subject)
    call = Call(REGIME, *tensors(case.constants))
    graph = artifact_for(subject, case, context)
    if graph is None:
        return Job(case, None, [call], batch=workload.size if line.layered else 0)
    part = line.graph_for(graph, case.aspect, [OUTPUT] if case.constants else [OUTPUT, LOSS])
    return Job(case, part, [line.call_for(call, part)])
