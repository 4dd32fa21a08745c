"""One training down its line: draw -> export -> one graph of a step | train -> compare step by step -> claims -> blame -> causes -> judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.comparison.steps import compare_training
from actconform.comparison.training_measures import broken_claims, curve_of
from actconform.onnx.author.model import author_model
from actconform.onnx.gates import facts, inspect_model
from actconform.onnx.step_graph import training_graph
from actconform.run.training_blame import blame_of_training
from actconform.types import Artifact, Blame
from actconform.types.dtypes import DTYPES
from actconform.types.finding import Finding  # noqa: TC001  msgspec reads the annotations
from actconform.types.result import Curve, Measurement  # noqa: TC001  as above
from actconform.verdict.blame import breach
from actconform.workers.protocol import Failure, TrainingJob

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from actconform.run.case import CaseContext
    from actconform.types import Case
    from actconform.types.model import Model
    from actconform.types.training import Experiment


WORK_OF_A_TIMEOUT = 1e8  # numbers that layers compute in the time that a case is given


class TrainingGraphs(msgspec.Struct, frozen=True):
    """The graphs of a route that trains by graphs: the forward pass as it was made, a step, and the model in inference."""

    forward: Artifact
    step: Artifact
    inference: Artifact


def graphs_of(experiment: Experiment, make: Callable[[Model], Artifact]) -> tuple[TrainingGraphs | None, list[Finding]]:
    """Return the graphs of a training by way of what `make` makes of a model, or the findings of a graph that is no model's.

    Raises Unsupported where an operator on the way back has no rule.
    """
    forward, inference = make(experiment.model), make(experiment.evaluation)
    breaches = [
        breach(*broken)
        for artifact, model in ((forward, experiment.model), (inference, experiment.evaluation))
        for broken in inspect_model(artifact, model, "f32", constants=False)
    ]
    if breaches:
        return None, breaches
    step = msgspec.structs.replace(forward, model=training_graph(forward.model, experiment))
    return TrainingGraphs(forward, step, inference), []


class TrainingOutcome(msgspec.Struct, kw_only=True):
    """What a training came to on its route: a failure of the backend, or findings with what was measured."""

    failure: Failure | None = None
    findings: list[Finding] = []
    measurements: list[Measurement] = []
    curve: Curve | None = None
    implementation: str = ""
    export: dict[str, str] = {}


def run_training(
    case: Case, context: CaseContext, stage: Callable[[str], AbstractContextManager[None]]
) -> TrainingOutcome:
    """Train on a case's route and compare; raises what `run_case` makes results of."""
    experiment = context.catalog.experiments[case.subject]
    with stage("draw"):
        task = context.vector_cache.task(experiment)
    graphs: TrainingGraphs | None = None
    described: dict[str, str] = {}
    if case.exporter is not None:
        with stage("export"):
            graphs, breaches = graphs_of(experiment, lambda model: graph_of_model(model, case, context))
        if graphs is None:
            return TrainingOutcome(findings=breaches)
        described = facts(graphs.forward) if context.exports else {}
    with stage("worker"):
        job = TrainingJob(case, task, graphs.step if graphs else None, graphs.inference if graphs else None)
        outcome = context.worker.train(job, context.timeout * (1.0 + experiment.work / WORK_OF_A_TIMEOUT))
    if outcome.failure is not None or outcome.record is None:
        return TrainingOutcome(failure=outcome.failure, export=described)
    record = outcome.record
    with stage("compare"):
        free = context.vector_cache.free_running(task, record.forms)
        first_step = context.vector_cache.first_step(task) if task.keep else None
        compared = compare_training(task, record, free, DTYPES[case.dtype], first_step)
        curve = None
        if compared.sound:
            curve = msgspec.structs.replace(curve_of(task, record), wrong_step=compared.wrong_step)
        claims = broken_claims(experiment, curve) if curve is not None and compared.finite else []
    with stage("blame"):
        pair = (graphs.step, graphs.inference) if graphs else None
        whose = blame_of_training(case, task, record, pair, compared.first)
        findings = [msgspec.structs.replace(finding, blame=whose) for finding in compared.findings]
        # What comes out otherwise though every step is right is nobody's fault that is proven.
        whose = whose if compared.first else Blame.UNDETERMINED
        findings += [msgspec.structs.replace(finding, blame=whose) for finding in claims]
    return TrainingOutcome(
        findings=findings,
        measurements=compared.measurements,
        curve=curve,
        implementation=record.implementation,
        export=described,
    )


def graph_of_model(model: Model, case: Case, context: CaseContext) -> Artifact:
    """Return the forward graph of a model on a case's route: exported, or where no exporter is, as we write it."""
    if context.exports is None:
        return author_model(model, case.dtype)
    return context.exports.artifact(model, case.dtype, case.exporter or "", context.timeout, None)
