"""The `hard` points of a unary kernel: inputs whose result lies so near to midway between two float32 that an error shows as a wrong rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.oracle.float64.registry import FORMULAS
from actconform.types.dtypes import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.testdata.golden.store import Golden
    from actconform.types import Kernel

    F64 = NDArray[np.float64]

CANDIDATES = 1 << 18
KEPT = 48  # for each aspect: of so many candidates they lie within about 1e-4 of a gap
HARD = 2.0**-10  # a function whose points are all farther from midway has none: it is exact, or of few values
SLACK = 4.0  # the generator draws with formulas of float64: another machine's may choose neighbours that lie a little farther


def hard_points(kernel: Kernel, near: NDArray[np.float32], aspect: int) -> NDArray[np.float32]:
    """Return the inputs, among many neighbours of `near`, whose value (`aspect` 0) or derivative (1) lies closest to midway."""
    bits = np.resize(near, CANDIDATES).view(np.uint32) ^ np.arange(CANDIDATES, dtype=np.uint32) >> np.uint32(8)
    x = bits.view(np.float32).astype(np.float64)
    with np.errstate(all="ignore"):
        y = FORMULAS[kernel.name][aspect](x, kernel.parameters)
    chosen = np.argsort(from_midway(y), kind="stable")[:KEPT]
    return x[chosen].astype(np.float32)


def from_midway(y: F64) -> F64:
    """Return how far each number lies from midway between its float32 neighbours, in gaps; infinite for a float32 and what is not finite."""
    with np.errstate(invalid="ignore"):
        scaled = np.abs(np.frexp(y)[0]) * 2.0 ** DTYPES["f32"].precision
        fraction = scaled - np.floor(scaled)
        return np.where(np.isfinite(y) & (fraction > 0), np.abs(fraction - 0.5), np.inf)


def not_hard(kernel: Kernel, golden: Golden) -> list[str]:
    """Return a message for each aspect of a unary golden whose points called `hard` are not, where the kernel has such points."""
    regimes = dict(golden.split())
    if not {"hard", "ordinary"} <= regimes.keys():
        return [f"{kernel.name}: the golden has no regime 'hard' or no 'ordinary': mint it again"]
    problems = []
    for aspect, tensor in enumerate(("y", "d_x")):
        block = slice(aspect * KEPT, (aspect + 1) * KEPT)
        stored = float(from_midway(regimes["hard"][tensor][block]).max(initial=0.0))
        drawn = hard_points(kernel, regimes["ordinary"]["x"], aspect).astype(np.float64)
        with np.errstate(all="ignore"):
            nearest = float(from_midway(FORMULAS[kernel.name][aspect](drawn, kernel.parameters)).max())
        if nearest <= HARD and not stored <= HARD + SLACK * nearest:
            problems.append(
                f"{kernel.name}: points called 'hard' are not: {tensor} lies up to {stored:.2g} of a gap from midway between two "
                f"float32, those that the generator draws {nearest:.2g}; mint the golden again"
            )
    return problems
