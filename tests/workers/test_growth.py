"""A process that grows at every call is told from one that fills a cache, and from one that does nothing."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from actconform.workers.growth import CALLS, LEAK, growth, resident

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's memory in /proc")
MIB = 1 << 20


def test_memory_that_is_held_is_seen():
    before = resident()
    held = np.ones(64 * MIB // 8)
    assert 60 * MIB < resident() - before < 80 * MIB
    assert held.all()


def test_a_hoard_grows_by_what_it_keeps_at_every_call():
    kept: list[Any] = []
    assert 7 * MIB < growth(lambda: kept.append(np.ones(MIB))) < 9 * MIB
    assert len(kept) == 2 * CALLS


def test_a_cache_that_is_full_after_some_calls_does_not_grow():
    kept: list[Any] = []
    assert growth(lambda: kept.append(np.ones(MIB if len(kept) < CALLS else 1))) == 0


def test_what_keeps_nothing_or_little_does_not_grow():
    kept: list[Any] = []
    assert growth(lambda: np.ones(MIB)) == 0
    assert growth(lambda: kept.append(np.ones(LEAK // 64))) == 0
