"""Estimates the memory of workloads before anything is measured: one that does not fit is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actconform.bench.flops import ITEM
from actconform.bench.tensors import output_shape, shapes
from actconform.errors import UsageError
from actconform.types.model import Model

if TYPE_CHECKING:
    from actconform.bench.workloads import Workload
    from actconform.types import Kernel

TEMPORARIES = 3  # a graph of several operators holds about as much again, twice


def estimate(subject: Kernel | Model, workload: Workload, programs: int) -> int:
    """Return the bytes that a workload holds at once: inputs and outputs, backwards also cotangents and gradients, times 3, in every program."""
    if isinstance(subject, Model):
        each = sum(math.prod(tensor.shape) for tensor in subject.inputs) + sum(map(math.prod, subject.shapes.values()))
        elements = each * workload.size + subject.size
    elif subject.form == "unary":
        elements = 2 * workload.size
    else:
        tensor_shapes = shapes(subject, workload.size)
        elements = sum(map(math.prod, tensor_shapes.values())) + math.prod(output_shape(subject, tensor_shapes))
    return elements * ITEM * (1 if workload.direction == "forward" else 2) * TEMPORARIES * programs


def refuse_what_does_not_fit(subject: Kernel | Model, workload: Workload, programs: int, free_bytes: int) -> None:
    """Raise UsageError with the estimate where a workload needs more than `free_bytes`, unless that is unknown (0)."""
    needed = estimate(subject, workload, programs)
    if 0 < free_bytes < needed:
        raise UsageError(
            f"{workload.id}: {programs} programs at once would hold about {needed / 2**30:.3g} GiB, and {free_bytes / 2**30:.3g} GiB "
            "are available; take a smaller --size or --batch, or fewer routes (--route)"
        )
