"""How much memory trials will want, before anything is measured: what does not fit is refused, not tried."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from actconform.bench.flops import ITEM
from actconform.bench.tensors import output_shape, shapes
from actconform.errors import UsageError
from actconform.types.model import Model

if TYPE_CHECKING:
    from actconform.bench.workloads import Workload
    from actconform.types import Kernel

TEMPORARIES = 3  # a graph of several operators holds about as much again, twice
_MEMINFO = Path("/proc/meminfo")


def estimate(subject: Kernel | Model, workload: Workload, programs: int) -> int:
    """Return the bytes that a trial holds at once: inputs and outputs, backwards also cotangents and gradients, times 3, in every program."""
    if isinstance(subject, Model):
        each = sum(math.prod(one.shape) for one in subject.inputs) + sum(map(math.prod, subject.shapes.values()))
        numbers = each * workload.size + subject.size
    elif subject.form == "unary":
        numbers = 2 * workload.size
    else:
        given = shapes(subject, workload.size)
        numbers = sum(map(math.prod, given.values())) + math.prod(output_shape(subject, given))
    return numbers * ITEM * (1 if workload.direction == "forward" else 2) * TEMPORARIES * programs


def available() -> int:
    """Return the bytes that the machine can give without swapping, or 0 where it does not say."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMINFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def refuse_what_does_not_fit(subject: Kernel | Model, workload: Workload, programs: int, there: int) -> None:
    """Raise UsageError with the estimate where a trial wants more than is `there`, unless that is unknown (0)."""
    wanted = estimate(subject, workload, programs)
    if 0 < there < wanted:
        raise UsageError(
            f"{workload.id}: {programs} programs at once would hold about {wanted / 2**30:.3g} GiB, and {there / 2**30:.3g} GiB "
            "are available; take a smaller --size or --batch, or fewer routes (--route)"
        )
