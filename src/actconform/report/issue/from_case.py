"""From a finding of a run: a folder that shows it, addressed to the framework, the exporter or the runtime that is at fault."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from msgspec.structs import replace

from actconform._version import __version__
from actconform.checking.checked_sample import CheckedSample
from actconform.checking.minimize import Minimal, minimize
from actconform.checking.model_check import check_model
from actconform.checking.model_file import ModelFile
from actconform.checking.open_runtime import open_runtime
from actconform.checking.part import PartialModel
from actconform.checking.reproduction import MODEL, Reproduction, WorstElement
from actconform.checking.result import SampleFacts
from actconform.checking.source import read_source
from actconform.comparison.metamorphic import RelationChecks
from actconform.errors import ExportError, Unavailable, Unsupported, UsageError, WorkerError, near
from actconform.report.html.curves import first_wrong_step
from actconform.report.html.reproduce import DTYPE_NAMES
from actconform.report.html.reproduce import reproduction as native_program
from actconform.report.issue.exporter import GraphRun, of_exporter
from actconform.report.issue.from_check import replaced, write_minimal, write_texts
from actconform.report.issue.packages import packages_among
from actconform.report.issue.question import Question, native_interval, questions
from actconform.report.issue.reported import INVALID, ReportedFinding, with_output, without_elements
from actconform.report.read import read_report
from actconform.report.rerun_command import rerun_command
from actconform.run.case import CaseContext, VectorCache, artifact_for, job_for
from actconform.run.export_cache import Exports, cache_folder
from actconform.run.scheduler import worker_for
from actconform.run.training_case import graph_of_model, graphs_of
from actconform.text import number_of, one_line
from actconform.tolerance.ulp import to_hex
from actconform.types import Blame, Case, FindingClass, Route
from actconform.types.dtypes import DTYPES, from_hex
from actconform.types.finding import CLASSES
from actconform.types.training import Experiment
from actconform.verdict.severity import gravest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.checking.result import OutputCheck
    from actconform.checking.runs import RuntimeRuns
    from actconform.plugin.interfaces import Exporter
    from actconform.report.read import Report
    from actconform.run.scheduler import Plan
    from actconform.types import Bundle, Finding, Result
    from actconform.workers.client import Worker

TOLD = (ExportError, Unavailable, Unsupported, WorkerError)


class Silent:
    """A check's progress that nobody hears."""

    def stage(self, name: str, total: int = 0) -> None:
        """Say nothing."""

    def step(self, count: int = 1) -> None:
        """Say nothing."""

    def outputs(self, runtime: str, outputs: Sequence[OutputCheck]) -> None:
        """Say nothing."""


def issue_of_case(case_id: str, run_folder: Path, out: Path, plan: Plan) -> Path:
    """Write the folder `out` about the gravest finding of a case of a run, and return it.

    `plan` has the catalog and the settings; its cases do not matter. Raises UsageError for a case that the run does not have,
    that has no finding, or that cannot be run here.
    """
    reported = _reported(case_id, read_report(run_folder), plan)
    vectors = VectorCache(plan.folder, plan.manifest)
    try:
        if isinstance(reported.subject, Experiment):
            return _of_training(reported, vectors, out, plan)
        if reported.case.exporter is None:
            return _of_framework(reported, vectors, out)
        return _of_graph(reported, vectors, out, plan)
    except TOLD as error:
        raise UsageError(f"{reported.case.id} cannot be run here: {one_line(str(error))}") from error


def _reported(case_id: str, report: Report, plan: Plan) -> ReportedFinding:
    results = {result.case: result for result in report.results}
    if case_id not in results:
        raise UsageError(f"the run has no case {one_line(case_id)}{near(case_id, list(results))}")
    result = results[case_id]
    if not result.findings:
        reason = f": {one_line(result.reason)}" if result.reason else ""
        raise UsageError(f"{case_id} has no finding to tell: its verdict is {result.verdict}{reason}")
    if result.subject not in plan.catalog.provable:
        raise UsageError(f"{case_id}: no plugin that is installed here gives {one_line(result.subject)}")
    of_step = first_wrong_step(result).evidence  # of a training what is wrong later follows from it
    telling = [each for each in result.findings if each.worst is not None and of_step in each.evidence]
    finding = gravest(telling) or result.findings[0]
    case = Case(result.subject, result.aspect, result.dtype, result.route)  # type: ignore[arg-type]
    facts = {"actconform": report.facts.actconform or __version__}
    exporter = plan.catalog.exporter(case)
    for backend in dict.fromkeys((exporter.source if exporter else "", plan.catalog.worker(case))):
        facts |= report.facts.backends.get(backend, {})
    evidence = [
        f"{finding.class_}: {number_of(finding.count, 'element')} in the regime {finding.regime}",
        finding.evidence,
        result.reason,
        result.curve.about if result.curve else "",
    ]
    of_exporter = exporter is not None and finding.blame == Blame.EXPORTER
    meaning = CLASSES[finding.class_].meaning
    about = Reproduction(
        title=f"{result.subject} ({result.dtype}, {result.route}): {meaning}",
        runtime=f"The graph that {case.exporter} writes" if of_exporter else Route.of(result.route).backend,
        meaning=meaning,
        criterion="limit",
        facts=facts,
        blame=str(finding.blame),
        subject=f"the case {case_id}, computed by {result.implementation}",
        evidence=tuple(dict.fromkeys(filter(None, evidence))),
        commands=(rerun_command(case_id),),
    )
    return ReportedFinding(result, finding, case, plan.catalog.provable[result.subject], about)


# Frameworks


def _of_framework(reported: ReportedFinding, vectors: VectorCache, out: Path) -> Path:
    """Write a program with the framework alone, where a short one shows it."""
    result, finding = reported.result, reported.finding
    program = native_program(result)
    about = reported.about
    assert not isinstance(reported.subject, Experiment)
    if finding.worst is not None:
        low, high = native_interval(result, finding, vectors.generate(reported.subject, reported.case))
        element = _native_element(result, finding, (high - low) / 2)
        x = from_hex(finding.worst.input_hex, DTYPES[result.dtype])
        about = replace(about, evidence=(f"seen at x = {x:.9g} ({finding.worst.input_hex})", *about.evidence))
        about = replace(
            about,
            worst=(element,),
            title=f"{result.implementation} ({result.dtype}): {element.got:.6g} where {element.wanted:.6g} is right",
        )
        if program:
            text = f"{program}\n{_verdict(finding, low, high)}"
            about = replace(about, program=text, packages=packages_among(about.facts))
    with replaced(out) as fresh:
        write_texts(fresh, about)
    return out


def _native_element(result: Result, finding: Finding, allowed: float) -> WorstElement:
    worst = finding.worst
    assert worst is not None
    return WorstElement(
        output=finding.tensor,
        place=(),
        dtype=DTYPE_NAMES.get(result.dtype, result.dtype),
        got=worst.got,
        got_hex=to_hex(worst.got, DTYPES[result.dtype]),
        wanted=worst.truth,
        wanted_hex=to_hex(worst.truth, DTYPES[result.dtype]),
        error=abs(worst.got - worst.truth),
        ulp=worst.ulp,
        allowed=allowed,
        count=finding.count,
    )


def _verdict(finding: Finding, low: float, high: float) -> str:
    """Return the lines that end the program with 1 where it shows the finding."""
    worst = finding.worst
    assert worst is not None
    if np.isnan(worst.truth):
        right = "math.isnan(number)"
    else:
        right = f'float("{low!r}") <= number <= float("{high!r}")'
        if finding.class_ == FindingClass.ZERO_SIGN:
            right += f" and (number != 0 or math.copysign(1, number) == {np.copysign(1.0, worst.truth)!r})"
    return f"""import math
import sys

wrong = [number for number in got if not ({right})]
print("the fault is there" if wrong else "every element is as it should be")
sys.exit(1 if wrong else 0)
"""


# Trainings


def _of_training(reported: ReportedFinding, vectors: VectorCache, out: Path, plan: Plan) -> Path:
    """Write what was wrong in which step, and where a runtime trains the graph of a step: a training takes more than a short program."""
    experiment = reported.subject
    assert isinstance(experiment, Experiment)
    with ExitStack() as stack:
        if reported.case.exporter is None:
            with replaced(out) as fresh:
                write_texts(fresh, reported.about)
            return out
        context, _, _ = _context(reported, vectors, plan, stack)
        graphs, _ = graphs_of(experiment, lambda model: graph_of_model(model, reported.case, context))
        if graphs is None:
            forward = graph_of_model(experiment.model, reported.case, context)
            return without_elements(reported, forward.model, out, INVALID)
        return without_elements(reported, graphs.step.model, out)


# Graphs


def _context(
    reported: ReportedFinding, vectors: VectorCache, plan: Plan, stack: ExitStack
) -> tuple[CaseContext, type[Exporter] | None, Worker | None]:
    """Return what running the case needs, the case's exporter and the worker that exports, open until the stack ends."""
    case, catalog = reported.case, plan.catalog
    exporter = catalog.exporter(case)
    exporting = _opened(plan, exporter.source, stack) if exporter else None
    worker = _opened(plan, catalog.worker(case), stack)
    exports = Exports(exporting, cache_folder()) if exporting else None
    context = CaseContext(catalog, plan.register, plan.config.timeout, vectors, worker, exports, {})
    return context, exporter, exporting


def _of_graph(reported: ReportedFinding, vectors: VectorCache, out: Path, plan: Plan) -> Path:
    case, catalog = reported.case, plan.catalog
    assert not isinstance(reported.subject, Experiment)
    test_vectors = vectors.generate(reported.subject, case)
    with ExitStack() as stack:
        context, exporter, exporting = _context(reported, vectors, plan, stack)
        graph = artifact_for(reported.subject, case, context)
        assert graph is not None
        if reported.finding.class_ == FindingClass.INVALID_MODEL:
            return without_elements(reported, graph.model, out, INVALID)
        job = job_for(
            reported.subject, case, test_vectors, RelationChecks(case.subject, case.aspect, test_vectors), graph
        )
        assert job.artifact is not None
        model = onnx.load_from_string(job.artifact.model)
        if reported.finding.blame == Blame.EXPORTER and exporter and exporting:
            return of_exporter(reported, exporter, exporting, GraphRun(model, job, test_vectors), out, plan.config)
        case_questions = list(questions(reported.result, reported.finding, test_vectors, job))
        if not case_questions:
            return without_elements(reported, job.artifact.model, out)
        name = catalog.worker(case) if case.backend in catalog.backends else case.backend
        runs = stack.enter_context(open_runtime(name, catalog, plan.config, plugins=plan.plugins))
        return _of_runtime(reported, model, case_questions, runs, out)


def _opened(plan: Plan, backend: str, stack: ExitStack) -> Worker:
    worker = worker_for(plan, backend)
    stack.callback(worker.close)
    return worker


def _of_runtime(
    reported: ReportedFinding, model: onnx.ModelProto, case_questions: Sequence[Question], runs: RuntimeRuns, out: Path
) -> Path:
    """Cut the smallest part out of the graph that shows it, or take it whole, with the fewest inputs that show it."""
    with ModelFile(model) as file:
        for question in case_questions:
            answer = runs.outputs(file, question.inputs)
            if not answer.failure and question.wrong(answer.outputs[question.tensor]):
                break
    if answer.failure:
        raise UsageError(f"{reported.case.id}: {runs.name} gives no answer: {one_line(answer.failure.message)}")
    got = answer.outputs[question.tensor]
    shown = question.wrong(got)
    minimal = _cut(model, question.inputs, runs) if shown and not question.zero_signs else None
    if minimal is None:
        accepted = {question.tensor: question.accepted}
        part = PartialModel(with_output(model, question.tensor), question.inputs)
        minimal = Minimal(
            part, runs.name, "", "limit", {question.tensor: got}, accepted, reproduced=shown, is_whole_model=True
        )
    signs = frozenset((question.tensor,)) if question.zero_signs else frozenset()
    write_minimal(out, minimal, runs, reported.about, signs)
    return out


def _cut(model: onnx.ModelProto, inputs: Bundle, runs: RuntimeRuns) -> Minimal | None:
    """Return the smallest part that is beyond its error bound; None where rounding explains every node."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, MODEL)
        path.write_bytes(model.SerializeToString())
        sample = CheckedSample(dict(inputs), SampleFacts(origin="the case"))
        try:
            check = check_model(read_source(path), [sample], [runs], Silent())
        except (Unsupported, ValueError, UsageError):
            return None
    fault = check.runtimes[0].fault
    if fault is None or fault.tensor is None:
        return None
    minimal = minimize(fault, sample.graph, sample.inputs, runs)
    return minimal if minimal.reproduced else None
