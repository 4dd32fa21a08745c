"""A process that grows at every call is told from one that fills a cache, and from one that does nothing."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from actconform.workers.memory_growth import CALLS, LEAK, MOST, growth, resident

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
    assert 2 * CALLS <= len(kept) <= MOST // (8 * MIB) * 3  # what is a leak is known long before memory ends


def test_a_cache_that_is_full_after_some_calls_does_not_grow():
    kept: list[Any] = []
    assert growth(lambda: kept.append(np.ones(MIB if len(kept) < CALLS else 1))) == 0


@pytest.mark.parametrize("entries", [10, 20, 40, 64, 100, 150])
def test_a_cache_with_a_limit_that_is_still_filling_is_no_leak(entries: int):
    kept: list[Any] = []

    def call() -> None:
        kept.append(np.ones(MIB // 8))
        del kept[:-entries]

    assert growth(call) == 0
    assert len(kept) == entries


@pytest.mark.parametrize("size", [MIB // 2, MIB, 4 * MIB, 32 * MIB])
def test_a_hoard_of_any_size_never_comes_to_rest(size: int):
    kept: list[Any] = []
    assert 0.7 * size < growth(lambda: kept.append(np.ones(size // 8))) < 1.3 * size
    assert sum(each.nbytes for each in kept) < 2 * MOST


def test_what_keeps_nothing_or_little_does_not_grow():
    kept: list[Any] = []
    assert growth(lambda: np.ones(MIB)) == 0
    assert growth(lambda: kept.append(np.ones(LEAK // 64))) == 0
