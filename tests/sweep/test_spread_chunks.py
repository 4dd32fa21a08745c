"""Chunks on a Dask cluster of this machine: those of a local sweep, and as many differing bits, whichever worker dies."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from local_cluster import KillAtWork, started

from actconform.catalog.kernels import KERNELS
from actconform.cluster.connection import Cluster
from actconform.cluster.opened import opened_on
from actconform.errors import SweepError, UsageError
from actconform.exhaustive.statistics import SweepStatistics
from actconform.plugin.loader import GROUP, load_plugins
from actconform.settings import Config
from actconform.sweep.differing_bits import BitsComparison, Compared, SweptRoute, compare_chunks
from actconform.sweep.journal import Sweep, SweepIdentity, SweptChunk
from actconform.sweep.known_causes import Explanations
from actconform.sweep.runner import SweptProgram, sweep_chunks
from actconform.sweep.spread_chunks import SpreadSweep
from actconform.types import Case, FindingClass
from actconform.types.cause import Cause, Cover, Register
from actconform.workers.client import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import LocalCluster

TESTS = Path(__file__).parents[1]
PLUGIN = "stand_in:Plugin"
TRUNCATED = "truncated:Plugin"
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


def test_causes_are_looked_for_on_a_worker_and_are_those_of_this_machine(cluster: LocalCluster) -> None:
    case = Case("thresholded-relu", "value", "f32", "stand-in")  # which loses NaN
    identity = SweepIdentity(actconform="1.0", case=case, extent="sample", definition="", provider="made 1", facts={})
    covers = (Cover(class_=FindingClass.NAN_LOST, kernels=(case.subject,)),)
    register = Register(
        causes=(Cause(id="loses-nan", reason="", link="unreported", since="0.1", routes=("stand-in",), covers=covers),)
    )
    done: list[SweptChunk] = []
    with Worker("stand-in", plugins=(PLUGIN,)) as worker:
        sweep_chunks(program(case), (63, 127), [worker], NEVER, done.append)
        sweep = Sweep(identity=identity, chunks={chunk.chunk: chunk for chunk in done})
        points = [EntryPoint("core", "actconform.plugin.builtin:Builtin", GROUP), EntryPoint("made", PLUGIN, GROUP)]
        wanted = Explanations(load_plugins(entry_points=points), register, 60.0).of_sweep(sweep, None, worker)
    with Cluster(cluster.scheduler_address) as connected, opened_on(connected, Config(), Register(), (PLUGIN,)) as run:
        spread_sweep = SpreadSweep(connected, run)
        spread_sweep.started("stand-in")
        assert spread_sweep.explained(sweep, "stand-in", None, register, 60.0) == wanted
    assert [each.cause for each in wanted] == ["loses-nan"]


def swept(route: str, chunks: dict[int, str]) -> SweptRoute:
    """A route that was swept on the backend of its name, with the digests of its chunks."""
    case = Case("tanh", "value", "f32", route)
    identity = SweepIdentity(actconform="1.0", case=case, extent="sample", definition="", provider="made 1", facts={})
    done = {
        number: SweptChunk(chunk=number, sha256=sha256, statistics=SweepStatistics(), seconds=1.0)
        for number, sha256 in chunks.items()
    }
    return SweptRoute(Sweep(identity=identity, chunks=done), None, route)


def workers(stack: ExitStack) -> dict[str, Worker]:
    plugins = {"stand-in": PLUGIN, "truncated": TRUNCATED}
    return {name: stack.enter_context(Worker(name, plugins=(plugin,))) for name, plugin in plugins.items()}


@pytest.fixture(scope="module")
def routes(cluster: LocalCluster) -> list[SweptRoute]:
    """The routes of both backends, swept on this machine."""
    with ExitStack() as stack:
        done: dict[str, list[SweptChunk]] = {}
        for route, worker in workers(stack).items():
            case = Case("tanh", "value", "f32", route)
            sweep_chunks(program(case), CHUNKS, [worker], NEVER, done.setdefault(route, []).append)
        return [swept(route, {chunk.chunk: chunk.sha256 for chunk in of}) for route, of in done.items()]


def spread_bits(
    on: LocalCluster, comparison: BitsComparison, deadline: float = NEVER, then: Callable[[], None] = lambda: None
) -> Compared:
    done: Compared = []

    def keep(compared: Compared) -> None:
        done.extend(compared)
        then()

    with Cluster(on.scheduler_address) as cluster, opened_on(cluster, Config(), Register(), (PLUGIN, TRUNCATED)) as run:
        sweep = SpreadSweep(cluster, run)
        for backend in ("stand-in", "truncated"):
            sweep.started(backend)
        chunks, refusals = sweep.comparable(comparison)
        assert refusals == []
        sweep.compare_chunks(comparison.name, chunks, deadline, keep)
    return sorted(done, key=lambda each: each[1].chunk)


def test_bits_are_those_of_this_machine_though_a_worker_is_killed(
    cluster: LocalCluster, routes: list[SweptRoute], tmp_path: Path
) -> None:
    local: Compared = []
    with BitsComparison(routes, tmp_path, resume=False) as comparison, ExitStack() as stack:
        chunks = comparison.chunks(comparison.pairs)
        compare_chunks(chunks, [workers(stack)], NEVER, local.extend)
        kill = KillAtWork(cluster, "compared_on_worker")
        assert spread_bits(cluster, comparison, then=kill) == sorted(local, key=lambda each: each[1].chunk)
    assert any("compared_on_worker" in task for task in kill.interrupted)
    assert len(local) == len(chunks) > 1  # tanh is 1, whose last bit is 0, where x is large
    assert all(compared.differing.count > 0 for _, compared in local)


def test_other_bits_than_in_the_sweep_end_the_comparison(
    cluster: LocalCluster, routes: list[SweptRoute], tmp_path: Path
) -> None:
    before = [routes[0], swept("truncated", dict.fromkeys(CHUNKS, "of another day"))]
    with (
        BitsComparison(before, tmp_path, resume=False) as comparison,
        pytest.raises(SweepError, match=r"tanh/value/f32/truncated, chunk 6\d: the same inputs gave other bits"),
    ):
        spread_bits(cluster, comparison)


def test_after_the_deadline_no_chunk_is_compared(
    cluster: LocalCluster, routes: list[SweptRoute], tmp_path: Path
) -> None:
    with BitsComparison(routes, tmp_path, resume=False) as comparison:
        assert spread_bits(cluster, comparison, time.monotonic() - 1) == []


def test_routes_whose_backends_no_worker_has_together_are_not_compared_and_why_is_told(tmp_path: Path) -> None:
    routes = [swept(route, {62: route, 63: route}) for route in ("torch", "keras", "jax")]
    with started(n_workers=2, processes=False) as workers, BitsComparison(routes, tmp_path, resume=False) as comparison:
        offers: list[dict[str, float]] = [{"torch": 1, "keras": 1}, {"jax": 1}]
        with workers.get_client() as client:
            for address, offer in zip(workers.scheduler.workers, offers, strict=True):
                client.run(set_resources, offer, workers=[address])
        with Cluster(workers.scheduler_address) as cluster:
            chunks, refusals = SpreadSweep(cluster, "run").comparable(comparison)
    assert [(chunk.chunk, chunk.backends) for chunk in chunks] == [(63, {"keras", "torch"}), (62, {"keras", "torch"})]
    assert len(refusals) == 2
    assert all(words.startswith("bits not compared: --cluster ") for words in refusals)
    assert "no worker offers jax and keras together, as tanh/value of jax and keras needs" in refusals[0]
    assert '--resources "jax=1 torch=1"' in refusals[1]


async def set_resources(offer: dict[str, float], dask_worker: Any) -> None:
    await dask_worker.set_resources(**offer)
