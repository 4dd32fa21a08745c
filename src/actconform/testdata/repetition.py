"""Which calls of a case are made again, and in what order: the same on every machine."""

from __future__ import annotations

from itertools import cycle, islice, takewhile
from typing import TYPE_CHECKING

import numpy as np

from actconform.testdata.regimes import raw

if TYPE_CHECKING:
    from collections.abc import Sequence

KERNEL_CALLS = 160  # of a case in all: one in fifty shows, and what a compiler does after a hundred
MODEL_CALLS = 12  # a call of a model takes as long as many of a kernel
SMALL = 1024  # numbers that a call may take to be made more than twice
BUDGET = 1 << 16  # numbers that calls take together which are made more than twice


def repeated_calls(sizes: Sequence[int], calls: int) -> tuple[int, ...]:
    """Return which of the calls, by index, to make again after the last one: in disorder until there are `calls` of them in all.

    `sizes` are the numbers that each call takes. The first is always made again. Where all have been, small ones are in turn, or
    the smallest where none is small, until they have taken BUDGET numbers.
    """
    if not sizes:
        return ()
    order = np.argsort(raw(f"repetition/{len(sizes)}", len(sizes)), kind="stable").tolist()
    order.insert(0, order.pop(order.index(0)))
    small = [index for index in order if sizes[index] <= SMALL] or [int(np.argmin(sizes))]
    taken = 0

    def within_budget(index: int) -> bool:
        nonlocal taken
        taken += sizes[index]
        return taken <= BUDGET

    again = max(calls - len(sizes), 1)
    further = islice(cycle(small), max(again - len(order), 0))
    return (*order[:again], *takewhile(within_budget, further))
