"""Which calls of a case are made again, and in what order: the same on every machine."""

from __future__ import annotations

from itertools import cycle, islice, takewhile
from typing import TYPE_CHECKING

import numpy as np

from actconform.testdata.regimes import raw
from actconform.types.model import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types import Kernel

KERNEL_CALLS = (
    208  # of a case in all: those of unary kernels twice; one in fifty shows, and what a compiler does after 200
)
LAYER_CALLS = 160  # of a model's layers in all: it takes as long as its layers do
FEWEST = 10  # calls that are made again at least, where there are so many
SMALL = 1024  # numbers that a call may take to be made more than twice
BUDGET = 1 << 16  # numbers that calls take together which are made more than twice


def calls_of(subject: Kernel | Model, *, thorough: bool) -> int:
    """Return how many calls a case has in all, those that are made again among them: of a model in one dtype, thoroughly."""
    if isinstance(subject, Model):
        return LAYER_CALLS // len(subject.layers) if thorough else 0
    return KERNEL_CALLS


def repeated_calls(sizes: Sequence[int], calls: int) -> tuple[int, ...]:
    """Return which of the calls, by index, to make again after the last one: in disorder until there are `calls` of them in all.

    `sizes` are the numbers that each call takes. The first is always made again, and FEWEST of them in any case, all where there
    are no more. Where all have been, small ones are in turn, or the smallest where none is small, until they have taken BUDGET
    numbers.
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

    again = max(calls - len(sizes), min(len(sizes), FEWEST))
    further = islice(cycle(small), max(again - len(order), 0))
    return (*order[:again], *takewhile(within_budget, further))
