"""The two rows of `make bench` about timing, from a report made of injected times."""

from __future__ import annotations

import msgspec
import pytest

from actconform.bench.intervals import ConfidenceInterval
from benchmarks.throughput import held


def test_rows_are_the_clock_s_share_and_the_share_of_medians_apart(timed):
    made = timed({"torch": 1e-3, "keras": 3e-3}, noise=0.0)
    one = made.measured[0]
    again = (ConfidenceInterval(1.04, 1.0, 2.0), ConfidenceInterval(0.93, 0.9, 1.0))
    figures = tuple(msgspec.structs.replace(f, again=other) for f, other in zip(one.figures, again, strict=True))
    measured = [msgspec.structs.replace(one, figures=figures)]
    clock, apart = held(msgspec.structs.replace(made, measured=measured))
    assert clock[1:] == (pytest.approx(1e-7 / 1e-2), 0.01)
    assert apart[1:] == (0.5, 0.1)
    assert "of 2 routes" in apart[0]
