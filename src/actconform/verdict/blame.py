"""Whose fault a finding is, with the evidence beside it. Two evaluators must agree before a runtime is blamed; one is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.text import shortened
from actconform.types import DRIVER_EXPORTER, NOWHERE, Blame, Finding, FindingClass, Kernel
from actconform.types.dtypes import DTYPES
from actconform.types.finding import CLASSES
from actconform.verdict.reevaluate import still

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Bundle, Case
    from actconform.types.model import Model
    from actconform.verdict.reevaluate import LayerReevaluation, Reevaluation

PROCESS = (FindingClass.MEMORY_GROWTH, FindingClass.PLACEMENT)


def blame(
    finding: Finding, subject: Kernel | Model, case: Case, reevaluation: Reevaluation | LayerReevaluation | None = None
) -> Finding:
    """Return the finding with its blame and the evidence.

    convention: both outputs are defensible. framework: a native route differs. On a route through a graph both evaluators must
    agree: exporter (authored-graph for the graphs that we write) where the graph itself breaks the limit, runtime where it does not;
    else undetermined.
    """
    reason = _convention(finding, subject, case) if isinstance(subject, Kernel) else ""
    if reason:
        return _blamed(finding, Blame.CONVENTION, reason)
    if case.exporter is None:
        reason = f"native {case.backend} differs from the exact truth; no export is involved" if finding.worst else ""
        return _blamed(finding, Blame.FRAMEWORK, reason)
    if finding.class_ in PROCESS:
        return _blamed(finding, Blame.RUNTIME, "")
    if CLASSES[finding.class_].of_call:
        return _blamed(finding, Blame.RUNTIME, "a graph has one output for one input")
    return _by_reevaluation(finding, case.exporter, reevaluation) if reevaluation else finding


def _by_reevaluation(finding: Finding, exporter: str, reevaluation: Reevaluation | LayerReevaluation) -> Finding:
    agreement, numbers = reevaluation.agreement(finding)
    if agreement != "wrong":
        return _blamed(finding, Blame.RUNTIME if agreement == "right" else Blame.UNDETERMINED, numbers)
    if exporter != DRIVER_EXPORTER:
        return _blamed(finding, Blame.EXPORTER, numbers)
    if reevaluation.artifact.path.startswith("operator:") and CLASSES[finding.class_].special_value:
        return _blamed(finding, Blame.CONVENTION, f"{numbers}; so the standard defines {reevaluation.artifact.path}")
    return _blamed(finding, Blame.AUTHORED_GRAPH, numbers)


def _blamed(finding: Finding, blame: Blame, reason: str) -> Finding:
    evidence = "; ".join(filter(None, (finding.evidence, reason)))
    return msgspec.structs.replace(finding, blame=blame, evidence=evidence)


def _convention(finding: Finding, kernel: Kernel, case: Case) -> str:
    if kernel.defaults_only and finding.class_ in (FindingClass.SCALED_ERROR, FindingClass.BIAS):
        return "the framework's default parameters differ from the definition's"
    if finding.class_ == FindingClass.ZERO_SIGN:
        return "the sign of a zero is a choice where the definition does not fix it"
    if finding.class_ == FindingClass.DTYPE and kernel.output_dtype == "int64":
        return "the width of an index is a choice"
    if finding.interval == NOWHERE:
        return ""
    low, high = finding.interval.ends(DTYPES[case.dtype])
    if low != high:  # other inputs lie between
        return ""
    at = (item for item in kernel.conventions if item.aspect == case.aspect and low in item.inputs)
    return next(
        (item.why for item in at if not item.answers), ""
    )  # answers that are conventions are covered one by one


def breach(class_: FindingClass, evidence: str) -> Finding:
    """Return the finding for an exported graph that breaks a gate: no runtime has seen it, so the exporter is to blame."""
    return Finding(
        class_=class_,
        count=1,
        regime="",
        tensor="",
        interval=NOWHERE,
        worst=None,
        magnitude=0.0,
        blame=Blame.EXPORTER,
        evidence=shortened(evidence),
    )


def by_drawing(finding: Finding, of_graph: Sequence[Finding]) -> Finding:
    """Return the finding, the exporter's where its graph draws random numbers: then no runtime gives the same twice.

    `of_graph` are the findings that the graph shows without being run.
    """
    drawing = next((shown for shown in of_graph if shown.class_ == FindingClass.NONDETERMINISTIC), None)
    if drawing is None or not (finding.class_ == FindingClass.NONDETERMINISTIC or finding.blame == Blame.UNDETERMINED):
        return finding
    return _blamed(finding, drawing.blame, drawing.evidence)


def by_optimizer(
    findings: Sequence[Finding],
    test_vectors: TestVectors,
    levels: Sequence[str],
    optimizers: Sequence[str],
    outputs_at: Callable[[str], Sequence[Bundle] | None],
) -> list[Finding]:
    """Return the findings with "runtime:optimizer" for "runtime" where the first of `levels` removes them.

    `outputs_at` gives the runtime's outputs at a level, or at "without NAME" for one of `optimizers`; the evidence names the
    first optimizer without which the finding is gone, or says that no single one does it.
    """
    plain = outputs_at(levels[0]) if levels else None
    if plain is None:
        return list(findings)
    return [
        _optimized(finding, test_vectors, levels[0], optimizers, outputs_at)
        if finding.blame == Blame.RUNTIME and finding.worst and not still(finding, test_vectors, plain)
        else finding
        for finding in findings
    ]


def _optimized(
    finding: Finding,
    test_vectors: TestVectors,
    level: str,
    optimizers: Sequence[str],
    outputs_at: Callable[[str], Sequence[Bundle] | None],
) -> Finding:
    for name in optimizers:
        without = outputs_at(f"without {name}")
        if without is not None and not still(finding, test_vectors, without):
            return _blamed(finding, Blame.OPTIMIZER, f"gone at level {level}, and without {name} alone")
    return _blamed(finding, Blame.OPTIMIZER, f"gone at level {level}; leaving out no single optimizer removes it")
