"""A finding that is the exporter's: its graph is kept whole, exported anew by a short program, and run by onnx's own evaluator."""

from __future__ import annotations

import os
import subprocess
import sys
from string import Template
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec.structs import replace

from actconform.checking import exported_standalone
from actconform.checking.copied_text import module_text
from actconform.checking.exported_standalone import run as evaluated_by_onnx
from actconform.checking.minimize import Minimal
from actconform.checking.model_file import ModelFile
from actconform.checking.part import PartialModel
from actconform.checking.reproduction import PROGRAM
from actconform.comparison.comparator import compare
from actconform.errors import Unsupported
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.report.html.reproduce import DTYPE_NAMES, function_of
from actconform.report.issue.from_check import write_minimal
from actconform.report.issue.packages import packages_among
from actconform.report.issue.question import questions
from actconform.report.issue.reported import ReportedFinding, with_output, without_elements
from actconform.workers.protocol import Call, Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from actconform.checking.flatten import Array
    from actconform.plugin.interfaces import Exporter
    from actconform.report.issue.question import Question
    from actconform.settings import Config
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Finding
    from actconform.workers.client import Worker

SECONDS = 300  # for a framework to export


class GraphRun(NamedTuple):
    """The graph of a case, and what it is graph_run."""

    model: onnx.ModelProto
    job: Job
    vectors: TestVectors


def of_exporter(
    reported: ReportedFinding,
    exporter: type[Exporter],
    exporting: Worker,
    graph_run: GraphRun,
    out: Path,
    config: Config,
) -> Path:
    """Write a folder for the exporter's authors, and return it."""
    question = _question(reported, graph_run)
    if question is None:
        return without_elements(reported, graph_run.job.artifact.model if graph_run.job.artifact else b"", out)
    part = PartialModel(with_output(graph_run.model, question.tensor), question.inputs)
    got = _evaluated(part)
    minimal = Minimal(
        part=part,
        runtime=exporter.name,
        level="",
        criterion="limit",
        got=got,
        accepted={question.tensor: question.accepted},
        reproduced=question.wrong(got[question.tensor]),
        is_whole_model=True,
    )
    implementation, native = _framework_value(reported, exporter.source, exporting, question, config.timeout)
    function = function_of(implementation, exporter.source, reported.case.dtype)
    template = exporter.reproduction() if function and list(question.inputs) == ["x"] else ""
    code = Template(template).substitute(function=function, dtype=DTYPE_NAMES[reported.case.dtype])
    about = replace(
        reported.about,
        evidence=(*reported.about.evidence, *_values(reported, question, part, implementation, native)),
    )
    evaluation = module_text(exported_standalone.__name__)
    signs = frozenset((question.tensor,)) if question.zero_signs else frozenset()
    if code:
        packages = packages_among(about.facts)
        exported_anew = replace(about, source=f"{code}\n\n{evaluation}", exporting=code, packages=packages)
        write_minimal(out, minimal, None, exported_anew, signs)
        if not minimal.reproduced or _shows(
            out, config.backends[exporter.source].python if exporter.source in config.backends else ""
        ):
            return out
        about = replace(
            about,
            evidence=(
                *about.evidence,
                "a function exported by itself does not show it: the graph is evaluated as it was written",
            ),
        )
    write_minimal(out, minimal, None, replace(about, source=evaluation), signs)
    return out


def _question(reported: ReportedFinding, graph_run: GraphRun) -> Question | None:
    """Return the fewest inputs for which onnx's evaluator shows it: at the finding's worst element, or where the graph is wrong alike."""
    first: Question | None = None
    for finding in (reported.finding, *_alike(reported.finding, graph_run)):
        for question in questions(reported.result, finding, graph_run.vectors, graph_run.job):
            first = first or question
            got = _evaluated(PartialModel(with_output(graph_run.model, question.tensor), question.inputs))
            if question.wrong(got[question.tensor]):
                return question
    return first


def _alike(finding: Finding, graph_run: GraphRun) -> list[Finding]:
    """Return findings of the same kind in what onnx's evaluator makes of the graph."""
    calls = zip(graph_run.vectors.vectors, graph_run.job.calls, strict=False)
    outputs = []
    for vector, call in calls:
        got = _evaluated(PartialModel(graph_run.model, call.inputs))
        outputs.append({name: array.astype(vector.dtypes.get(name, array.dtype)) for name, array in got.items()})
    return [each for each in compare(graph_run.vectors, outputs)[1] if each.worst and finding.same(each, anywhere=True)]


def _evaluated(part: PartialModel) -> dict[str, Array]:
    with ModelFile(part.model) as file:
        try:
            return evaluated_by_onnx(str(file.path), dict(part.inputs), "")
        except Exception as error:
            raise Unsupported(f"onnx's evaluator does not take the graph: {error}") from error


def _framework_value(
    reported: ReportedFinding, source: str, exporting: Worker, question: Question, timeout: float
) -> tuple[str, Mapping[str, Array]]:
    """Return what computes natively, in words, and its outputs; nothing where it does not say."""
    if reported.case.aspect != "value":
        return "", {}
    native = replace(reported.case, route=source)
    outcome = exporting.run(Job(native, None, [Call("", question.inputs)], name="the model"), timeout)
    return ("", {}) if outcome.failure else (outcome.implementation, outcome.outputs[0])


def _values(
    reported: ReportedFinding, question: Question, part: PartialModel, implementation: str, native: Mapping[str, Array]
) -> list[str]:
    """Return what both evaluators make of the graph, and the framework itself of the function, as sentences."""
    sentences = []
    try:
        with np.errstate(all="ignore"):
            rounded = CorrectlyRoundedEvaluator(part.model.SerializeToString()).forward(question.inputs)
        sentences.append(f"correctly rounded node by node, the graph gives {_element(question, rounded)} there")
    except (Unsupported, ValueError, TypeError, KeyError, RuntimeError, IndexError):
        sentences.append("the graph cannot be evaluated correctly rounded")
    if native:
        sentences.append(f"the framework itself gives {_element(question, native)} there ({implementation})")
    if reported.case.aspect == "gradient":
        sentences.append("the nodes of the gradient were added to the exported graph by `actconform grad`")
    return sentences


def _element(question: Question, outputs: Mapping[str, Array]) -> str:
    array = np.asarray(outputs[question.tensor], np.float64)
    return f"{array.flat[question.place]:.9g}"


def _shows(folder: Path, python: str | None) -> bool:
    """Whether the program, run where the framework is, shows it."""
    command = [python or sys.executable, PROGRAM]
    try:
        done = subprocess.run(  # noqa: S603  our own program
            command,
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=SECONDS,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 1 and b"the fault is there" in done.stdout
