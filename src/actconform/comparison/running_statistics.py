"""The running statistics that a model's batch normalizations leave after one call in training, against their definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.comparison.comparator import compare
from actconform.testdata.model_vectors import statistics_vectors
from actconform.types import Blame

if TYPE_CHECKING:
    from actconform.types import Bundle, Finding, Measurement
    from actconform.types.model import Model

UNBIASED = "the unbiased variance, n / (n - 1) times the batch's own, which estimates that of all data: a choice"


def has_statistics(model: Model) -> bool:
    """Tell whether a call of the model leaves running statistics."""
    return model.training and any(layer.kind == "batch-norm" for layer in model.layers)


def compare_statistics(model: Model, dtype: str, got: Bundle) -> tuple[list[Measurement], list[Finding]]:
    """Return the measurements and findings of running statistics, regime "statistics", by the parameters that they replace.

    Definition and limit are those of `statistics_vectors`. A variance that is no other than the unbiased one is blamed on "convention",
    and the evidence says so; all else is yet to be blamed.
    """
    biased, unbiased = statistics_vectors(model, dtype)
    measurements, findings = compare(biased, [got])
    off_both = {finding.tensor for finding in compare(unbiased, [got])[1]}
    return measurements, [
        finding
        if finding.tensor in off_both
        else msgspec.structs.replace(finding, blame=Blame.CONVENTION, evidence=UNBIASED)
        for finding in findings
    ]
