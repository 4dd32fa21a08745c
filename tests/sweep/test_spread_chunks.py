"""Chunks on a Dask cluster of this machine: those of a local sweep, whichever worker dies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from local_cluster import KillAtWork, started

from actconform.catalog.kernels import KERNELS
from actconform.cluster.connection import Cluster
from actconform.cluster.opened import opened_on
from actconform.errors import SweepError, UsageError
from actconform.settings import Config
from actconform.sweep.runner import SweptProgram, sweep_chunks
from actconform.sweep.spread_chunks import SpreadSweep
from actconform.types import Case
from actconform.types.cause import Register
from actconform.workers.client import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import LocalCluster

    from actconform.sweep.journal import SweptChunk

TESTS = Path(__file__).parents[1]
PLUGIN = "stand_in:Plugin"
RELU = Case("relu", "value", "f32", "stand-in")
SOFTMAX = Case("softmax", "value", "f32", "stand-in")
CHUNKS = range(60, 72)
NEVER = float("inf")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TESTS)
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        with started(n_workers=2) as cluster:
            yield cluster


def spread(
    on: LocalCluster, case: Case, deadline: float = NEVER, then: Callable[[], None] = lambda: None
) -> dict[int, tuple[str, object]]:
    done: list[SweptChunk] = []

    def keep(chunk: SweptChunk) -> None:
        done.append(chunk)
        then()

    with Cluster(on.scheduler_address) as cluster, opened_on(cluster, Config(), Register(), (PLUGIN,)) as run:
        sweep = SpreadSweep(cluster, run)
        assert sweep.started(case.worker).backend == case.worker
        sweep.sweep_chunks(program(case), case.worker, CHUNKS, deadline, keep)
    return content(done)


def program(case: Case) -> SweptProgram:
    return SweptProgram(KERNELS[case.subject], case, None, "sample")


def here(case: Case) -> dict[int, tuple[str, object]]:
    local: list[SweptChunk] = []
    with Worker("stand-in", plugins=(PLUGIN,)) as worker:
        sweep_chunks(program(case), CHUNKS, [worker], NEVER, local.append)
    assert len(local) == len(CHUNKS)
    return content(local)


def content(done: list[SweptChunk]) -> dict[int, tuple[str, object]]:
    assert len({chunk.chunk for chunk in done}) == len(done)
    return {chunk.chunk: (chunk.sha256, chunk.statistics) for chunk in done}


def test_a_worker_that_is_killed_costs_no_chunk(cluster: LocalCluster) -> None:
    kill = KillAtWork(cluster, "swept_on_worker")
    assert spread(cluster, RELU, then=kill) == here(RELU)
    assert any("swept_on_worker" in task for task in kill.interrupted)


def test_a_sample_of_rows_is_that_of_a_local_sweep(cluster: LocalCluster) -> None:
    assert spread(cluster, SOFTMAX) == here(SOFTMAX)


def test_after_the_deadline_no_chunk_is_begun(cluster: LocalCluster) -> None:
    assert spread(cluster, RELU, time.monotonic() - 1) == {}


def test_a_kernel_that_is_refused_ends_the_sweep_in_the_backends_words(cluster: LocalCluster) -> None:
    with pytest.raises(SweepError, match="numpy has no") as refused:
        spread(cluster, Case("mish", "value", "f32", "stand-in"))
    assert refused.value.refused


def test_a_backend_that_cannot_compute_is_told(cluster: LocalCluster) -> None:
    with pytest.raises(UsageError, match=r"no-device: .*no device"):
        spread(cluster, Case("relu", "value", "f32", "no-device"))
