"""In which layouts of memory the elements of a finding lay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.testdata.memory_vectors import REGIME

if TYPE_CHECKING:
    from actconform.comparison.comparator import Comparison
    from actconform.testdata.kernel_vectors import TestVectors
    from actconform.types import Finding


def with_layouts_named(test_vectors: TestVectors, compared: Comparison) -> list[Finding]:
    """Return the findings of a comparison; the evidence of those in the regime "memory" names the layouts that show them."""
    return [
        msgspec.structs.replace(finding, evidence="; ".join(filter(None, (finding.evidence, words))))
        if finding.regime == REGIME and (words := _layouts(finding, test_vectors, compared))
        else finding
        for finding in compared.findings
    ]


def _layouts(finding: Finding, test_vectors: TestVectors, compared: Comparison) -> str:
    vectors = [vector for vector in test_vectors.vectors if vector.regime == REGIME and finding.tensor in vector.truth]
    elements = compared.elements.get(finding.place)
    ends = np.cumsum([vector.truth[finding.tensor].size for vector in vectors])
    sample = compared.samples.get((REGIME, finding.tensor))
    if elements is None or sample is None or ends[-1] != sample.got.size:  # some were of another shape
        return ""
    shown = np.unique(np.searchsorted(ends, elements, side="right"))
    return f"where arrays lie {', '.join(dict.fromkeys(vectors[number].layout for number in shown.tolist()))}"
