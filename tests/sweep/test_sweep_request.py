"""A budget is a time with its unit."""

from __future__ import annotations

import math

import pytest

from actconform.errors import UsageError
from actconform.sweep.request import SweepRequest


@pytest.mark.parametrize(("budget", "seconds"), [("", math.inf), ("90s", 90.0), ("10m", 600.0), ("1.5h", 5400.0)])
def test_a_budget_is_read(budget, seconds):
    assert SweepRequest(budget=budget).seconds == seconds


@pytest.mark.parametrize("budget", ["10", "m", "0s", "-1m", "1 m", "1d", "inf"])
def test_what_is_no_time_is_refused(budget):
    with pytest.raises(UsageError, match=f"--budget {budget}: expected a time such as 90s"):
        _ = SweepRequest(budget=budget).seconds
