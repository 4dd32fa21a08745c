"""The inputs of a sweep that are worth keeping as golden points: those hardest to round, and those at which the program erred most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.exhaustive.midpoints import from_midpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from actconform.exhaustive.measure import SweptFunction
    from actconform.sweep.journal import Sweep

HARDEST = 48  # as many as the generator draws for each aspect


def hard_inputs(sweep: Sweep, function: SweptFunction) -> NDArray[np.float32]:
    """Return the 48 inputs whose truth lies nearest to midway between two float32, and the worst in ULP and in the limit's unit, ascending by pattern.

    Only normal results count as hard.
    """
    counted = sweep.statistics
    x = _inputs(counted.hard)
    with np.errstate(all="ignore"):
        truth = function.formula(x.astype(np.float64), function.kernel.parameters)
    distances = from_midpoint(truth)
    nearest = np.argsort(distances, kind="stable")[:HARDEST]
    hardest = x[nearest[distances[nearest] <= 0.5]]
    worst = _inputs(worst.input_hex for worst in (counted.ulp, counted.scaled) if worst.error > 0)
    return np.unique(np.concatenate([hardest, worst]).view(np.uint32)).view(np.float32)


def _inputs(patterns: Iterable[str]) -> NDArray[np.float32]:
    return np.array([int(pattern, 16) for pattern in patterns], np.uint32).view(np.float32)
