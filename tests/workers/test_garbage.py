"""Copies of a graph that refer to themselves do not pile up while an exporter makes them, however many objects there are beside."""

from __future__ import annotations

import gc

import pytest

from actconform.workers.garbage import collected_garbage

COPIES, NODES = 12, 2000


class Weights:
    living = 0

    def __init__(self) -> None:
        Weights.living += 1

    def __del__(self) -> None:
        Weights.living -= 1


def most_copies() -> int:
    """Make graphs whose nodes refer to them, each of the one before, which is let go of then; return how many there were at once."""
    counts = []
    for _ in range(COPIES):
        graph = {"weights": Weights(), "nodes": []}
        graph["nodes"] = [{"graph": graph, "inputs": [], "outputs": []} for _ in range(NODES)]
        counts.append(Weights.living)
    return max(counts)


@pytest.fixture
def framework():
    """Objects that stay, as those of a framework do."""
    gc.collect()
    kept = [[] for _ in range(300_000)]
    gc.collect()
    yield
    kept.clear()
    gc.collect()


def test_few_copies_are_there_at_once_and_none_at_the_end(framework):
    by_itself = most_copies()
    gc.collect()
    thresholds = gc.get_threshold()
    with collected_garbage():
        assert most_copies() <= by_itself / 2
    assert Weights.living == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == (thresholds, 0)


def test_a_process_that_leaves_objects_out_itself_is_left_alone():
    gc.freeze()
    try:
        with collected_garbage():
            assert gc.get_freeze_count() > 0
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_it_is_as_before_after_an_error():
    with pytest.raises(RuntimeError), collected_garbage():
        raise RuntimeError
    assert gc.get_freeze_count() == 0
