"""Which truths float64 does not decide, and that exact arithmetic does."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.catalog.kernels import KERNELS
from actconform.exhaustive import midpoints
from actconform.exhaustive.midpoints import from_midpoint, nearest_float32, undecided
from actconform.exhaustive.patterns import patterns
from actconform.oracle.arb.correctly_rounded import exactly_rounded
from actconform.oracle.float64.registry import FORMULAS


def test_what_lies_near_midway_is_undecided_and_nothing_else():
    gap = 2.0**-23
    truth = np.array(
        [1.0, 1 + gap / 2, 1 + gap / 2 * (1 + 1e-7), 1 + gap * 0.499, 1 + gap, np.nan, np.inf, -1 - gap / 2]
    )
    assert undecided(truth).tolist() == [1, 2, 7]
    tiny = 2.0**-149
    assert undecided(np.array([0.0, tiny / 2, tiny, 1.5 * tiny, 1.51 * tiny, 2.0**-160])).tolist() == [1, 3]
    largest = float(np.finfo(np.float32).max)
    assert undecided(np.array([largest, largest + 2.0**103, 2.0**128])).tolist() == [1]


def test_the_hardest_are_nearest_to_midway():
    gap = 2.0**-23
    assert from_midpoint(np.array([1 + gap / 2, 1 + gap / 4, 1.0, 2.0**-140])).tolist() == [0.0, 0.25, 0.5, 1.0]


def test_exact_arithmetic_decides_what_float64_rounds_wrongly():
    # float64 says that silu of a subnormal number is x / 2 exactly; it is a little more
    x = np.array([2.0**-149, 3 * 2.0**-149, -(2.0**-149)])
    truth = FORMULAS["silu"].value(x, {})
    assert truth.tolist() == (x / 2).tolist()
    nearest, proven = nearest_float32(KERNELS["silu"], "value", x, truth)
    assert proven
    assert nearest.tolist() == [2.0**-149, 2 * 2.0**-149, 0.0]


@pytest.mark.parametrize(
    ("kernel", "aspect"), [("silu", "value"), ("hard-swish", "value"), ("gelu-erf", "value"), ("mish", "value")]
)
@pytest.mark.parametrize("binade", [0, 256])
def test_many_ties_are_decided_as_each_alone(kernel, aspect, binade):
    x = patterns(binade, "sample")[:1000].view(np.float32).astype(np.float64)
    truth = FORMULAS[kernel][aspect == "gradient"](x, KERNELS[kernel].parameters)
    unsure = undecided(truth)
    nearest, proven = nearest_float32(KERNELS[kernel], aspect, x[unsure], truth[unsure])
    assert proven
    assert nearest.tolist() == exactly_rounded(KERNELS[kernel], aspect, x[unsure], "f32").tolist()


def test_without_exact_arithmetic_nothing_is_proven(monkeypatch):
    def missing(*_):
        raise ImportError

    monkeypatch.setattr(midpoints, "exactly_rounded", missing)
    nearest, proven = nearest_float32(KERNELS["silu"], "value", np.array([2.0**-149]), np.array([2.0**-150]))
    assert (nearest.tolist(), proven) == ([0.0], False)
