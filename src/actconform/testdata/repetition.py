"""Which calls of a case are made again, and in what order: the same on every machine."""

from __future__ import annotations

from itertools import cycle, islice, takewhile
from typing import TYPE_CHECKING

import numpy as np

from actconform.testdata.regimes import raw

if TYPE_CHECKING:
    from collections.abc import Sequence

CALLS = 256  # of a case in all: compilers change tiers after as many, and one call in fifty shows
SMALL = 1024  # numbers that a call may take to be made more than twice
BUDGET = 1 << 16  # numbers that further calls take together


def repeated_calls(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the calls to make again after the last one, by index: all in disorder, then small ones in turn.

    `sizes` are the numbers that each call takes. There are CALLS calls in all, or fewer where those that are repeated more than
    once have taken BUDGET numbers. Where none is small it is the smallest that is repeated.
    """
    if not sizes:
        return ()
    order = np.argsort(raw(f"repetition/{len(sizes)}", len(sizes)), kind="stable").tolist()
    small = [index for index in order if sizes[index] <= SMALL] or [int(np.argmin(sizes))]
    further = islice(cycle(small), max(CALLS - 2 * len(sizes), 0))
    taken = 0

    def within(index: int) -> bool:
        nonlocal taken
        taken += sizes[index]
        return taken <= BUDGET

    return (*order, *takewhile(within, further))
