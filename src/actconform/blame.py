"""Whose fault a finding is, with the evidence beside it. Two witnesses must agree before a runtime is accused; one cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.compare.ulp import from_hex
from actconform.types import DTYPES

if TYPE_CHECKING:
    from actconform.types import Case, Finding, Kernel


def blame(finding: Finding, kernel: Kernel, case: Case) -> Finding:
    """Return the finding with its blame: convention where both answers are defensible, framework on a native route.

    A route through a graph stays undetermined: telling exporter from runtime needs a second witness of the same graph.
    """
    why = _convention(finding, kernel, case)
    if why:
        return msgspec.structs.replace(finding, blame="convention", evidence=_joined(finding.evidence, why))
    if case.exporter is None:
        why = f"native {case.backend} differs from the exact truth; no export is involved" if finding.worst else ""
        return msgspec.structs.replace(finding, blame="framework", evidence=_joined(finding.evidence, why))
    return finding


def _convention(finding: Finding, kernel: Kernel, case: Case) -> str:
    if kernel.defaults_only and finding.class_ in ("scaled-error", "bias"):
        return "the framework's default parameters differ from the definition's"
    if finding.class_ == "zero-sign":
        return "the sign of a zero is a choice where the definition does not fix it"
    if finding.class_ == "dtype" and kernel.output_dtype == "int64":
        return "the width of an index is a choice"
    if not finding.interval[0]:
        return ""
    ends = {from_hex(end, DTYPES[case.dtype]) for end in finding.interval}
    mine = (item for item in kernel.conventions if item.aspect == case.aspect and ends <= set(item.inputs))
    return next((item.why for item in mine), "")


def _joined(evidence: str, why: str) -> str:
    return "; ".join(filter(None, (evidence, why)))
