"""The experiments in training: what the texts on activation functions claim, and each optimizer; small for every run, published for a full one.

Claims of small experiments are stated for their own sizes; where a text has a number for the published size, it stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.catalog.experiments.published import published_experiments
from actconform.catalog.experiments.small import small_experiments

if TYPE_CHECKING:
    from actconform.types.training import Experiment


def experiments() -> tuple[Experiment, ...]:
    """Return every built-in experiment; those of published size have "@published" in their names."""
    return (*small_experiments(), *published_experiments())
