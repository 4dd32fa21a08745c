"""What a program did beside its outputs: to its inputs, from call to call, to the process, and where it ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.comparison.comparator import structural
from actconform.text import number_of
from actconform.types import FindingClass
from actconform.workers.process_state import KEPT, SUBNORMALS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Finding
    from actconform.workers.protocol import JobResult


def refused_layouts(outcome: JobResult, layouts: Sequence[str]) -> str:
    """Return in words in which layouts a program took no arrays, by call, and why; "" where it took all."""
    refused = {layouts[call]: message for call, message in outcome.refused.items() if layouts[call]}
    return f"takes no arrays that lie {', '.join(refused)}: {next(iter(refused.values()))}" if refused else ""


def behaviour(
    test_vectors: TestVectors, outcome: JobResult, provider: str, facts: Mapping[str, str], *, unlimited: bool = False
) -> list[Finding]:
    """Return the findings for inputs changed in place, outputs that differ between two runs, what is left behind, and placement.

    `provider` is the execution provider that every node must have been given; empty where nothing is promised. Where the backend's
    `facts` say that it flushes subnormals, the process may do so. `unlimited` is whether outputs differ by more than limits allow:
    their findings have the magnitude 1 then, not 0.
    """
    findings = []
    for class_, calls_and_tensors in (
        (FindingClass.MUTATES_INPUT, outcome.mutated),
        (FindingClass.NONDETERMINISTIC, outcome.unsteady),
    ):
        for tensor in sorted({name for _, name in calls_and_tensors}):
            calls = [call for call, name in calls_and_tensors if name == tensor]
            regime = test_vectors.vectors[calls[0]].regime if calls[0] < len(test_vectors.vectors) else ""
            evidence = f"seen in {number_of(len(calls), 'call')}"
            finding = structural(class_, regime, tensor, evidence, len(calls))
            if class_ == FindingClass.NONDETERMINISTIC and unlimited:
                finding = msgspec.structs.replace(finding, magnitude=1.0)
            findings.append(finding)
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
