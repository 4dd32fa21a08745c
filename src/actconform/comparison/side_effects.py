"""What a program did beside its outputs: to its inputs, from call to call, to the process, and where it ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.comparison.comparator import structural
from actconform.types import FindingClass
from actconform.workers.process_state import KEPT, SUBNORMALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Finding
    from actconform.workers.protocol import JobResult


def behaviour(test_vectors: TestVectors, outcome: JobResult, provider: str, facts: Mapping[str, str]) -> list[Finding]:
    """Return the findings for inputs changed in place, outputs that differ between two runs, what is left behind, and placement.

    `provider` is the execution provider that every node must have been given; empty where nothing is promised. Where the backend's
    `facts` say that it flushes subnormals, the process may do so.
    """
    findings = []
    for class_, calls_and_tensors in (
        (FindingClass.MUTATES_INPUT, outcome.mutated),
        (FindingClass.NONDETERMINISTIC, outcome.unsteady),
    ):
        for tensor in sorted({name for _, name in calls_and_tensors}):
            calls = [call for call, name in calls_and_tensors if name == tensor]
            regime = test_vectors.vectors[calls[0]].regime if calls[0] < len(test_vectors.vectors) else ""
            evidence = f"seen in {len(calls)} call{'s' if len(calls) > 1 else ''}"
            findings.append(structural(class_, regime, tensor, evidence, len(calls)))
    for tensor in sorted({name for _, name in outcome.entangled}):
        done = [words for words, name in outcome.entangled if name == tensor]
        findings.append(structural(FindingClass.NONDETERMINISTIC, "", tensor, "; ".join(done), len(done)))
    flushing = facts.get("subnormals", KEPT) != KEPT
    if changed := [words for setting, words in outcome.changed if not (flushing and setting in SUBNORMALS)]:
        findings.append(structural(FindingClass.NONDETERMINISTIC, "", "", "; ".join(changed), len(changed)))
    if outcome.leaks:
        evidence = "; ".join(outcome.leaks)
        findings.append(structural(FindingClass.MEMORY_GROWTH, "", "", evidence, len(outcome.leaks)))
    elsewhere = {name: nodes for name, nodes in outcome.placement.items() if provider and name != provider}
    if elsewhere:
        nodes_elsewhere = "; ".join(f"{', '.join(nodes)} on {name}" for name, nodes in elsewhere.items())
        count = sum(map(len, elsewhere.values()))
        findings.append(structural(FindingClass.PLACEMENT, "", "", f"{nodes_elsewhere}: asked for {provider}", count))
    return findings
