"""What a program did beside its outputs: to its inputs, from call to call, to memory, and where it ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.comparison.comparator import structural
from actconform.types import FindingClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Finding
    from actconform.workers.protocol import JobResult

MIB = 1 << 20


def refused_layouts(outcome: JobResult, layouts: Sequence[str]) -> str:
    """Return in words in which layouts a program took no arrays, by call, and why; "" where it took all."""
    refused = {layouts[call]: message for call, message in outcome.refused.items() if layouts[call]}
    return f"takes no arrays that lie {', '.join(refused)}: {next(iter(refused.values()))}" if refused else ""


def behaviour(
    test_vectors: TestVectors, outcome: JobResult, provider: str, *, unlimited: bool = False
) -> list[Finding]:
    """Return the findings for inputs changed in place, outputs that differ between two runs, memory and placement.

    `provider` is the execution provider that every node must have been given; empty where nothing is promised. `unlimited` is
    whether outputs differ by more than limits allow: their findings have the magnitude 1 then, not 0.
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
            finding = structural(class_, regime, tensor, evidence, len(calls))
            if class_ == FindingClass.NONDETERMINISTIC and unlimited:
                finding = msgspec.structs.replace(finding, magnitude=1.0)
            findings.append(finding)
    if outcome.grown:
        evidence = f"the process grows by {outcome.grown / MIB:.1f} MiB at every further call of the same inputs"
        findings.append(structural(FindingClass.MEMORY_GROWTH, "", "", evidence))
    elsewhere = {name: nodes for name, nodes in outcome.placement.items() if provider and name != provider}
    if elsewhere:
        nodes_elsewhere = "; ".join(f"{', '.join(nodes)} on {name}" for name, nodes in elsewhere.items())
        count = sum(map(len, elsewhere.values()))
        findings.append(structural(FindingClass.PLACEMENT, "", "", f"{nodes_elsewhere}: asked for {provider}", count))
    return findings
