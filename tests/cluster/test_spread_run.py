"""A run on a Dask cluster of this machine: its results are those of a local run, whatever dies."""

from __future__ import annotations

import os
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from local_cluster import KillAtWork, pids, started
from processes import children

from actconform.cluster.connection import Cluster
from actconform.cluster.spread_run import run_on_cluster
from actconform.errors import UsageError
from actconform.plugin.loader import GROUP, load_plugins
from actconform.run.recorder import Recorder
from actconform.run.scheduler import Plan, run
from actconform.run.select import all_cases
from actconform.settings import Config
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Result, Verdict
from actconform.types.cause import Register
from actconform.workers.protocol import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import LocalCluster

    from actconform.plugin.loader import Catalog

TESTS = Path(__file__).parents[1]
PLUGIN = "stand_in:Plugin"
SUBJECTS = ("relu", "sigmoid", "selu", "leaky-relu-0.3")


@pytest.fixture(scope="module", autouse=True)
def stand_in_on_every_worker() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TESTS)
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def processes() -> Iterator[LocalCluster]:
    """Two Dask workers, each a process that is replaced when it dies."""
    with started(n_workers=2) as cluster:
        yield cluster


@pytest.fixture
def thread() -> Iterator[LocalCluster]:
    """A Dask worker in this process, which starts at once."""
    with started(n_workers=1, processes=False) as cluster:
        yield cluster


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    """Two of them."""
    with started(n_workers=2, processes=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def plan() -> Plan:
    catalog = catalog_of(PLUGIN)
    return Plan(
        cases=[
            case
            for case in all_cases(catalog)
            if case.aspect == "value"
            and case.dtype in ("f32", "f16")
            and case.subject in SUBJECTS
            and case.route in ("stand-in", "no-device")
        ],
        catalog=catalog,
        config=Config(timeout=60.0),
        folder=golden_dir(),
        manifest=read_manifest(golden_dir()),
        register=Register(),
        plugins=(PLUGIN,),
    )


def catalog_of(*plugins: str) -> Catalog:
    points = [EntryPoint(value, value, GROUP) for value in (*plugins, "actconform.plugin.builtin:Builtin")]
    return load_plugins(entry_points=points)


def some(plan: Plan, *subjects: str) -> Plan:
    cases = [case for case in plan.cases if case.subject in subjects and case.route == "stand-in"]
    return msgspec.structs.replace(plan, cases=cases)


def spread(
    on: LocalCluster, plan: Plan, then: Callable[[Result], None] = lambda _: None
) -> tuple[list[Result], dict[str, Handshake | str]]:
    results: list[Result] = []
    starts: dict[str, Handshake | str] = {}

    def keep(result: Result) -> None:
        results.append(result)
        then(result)

    with Cluster(on.scheduler_address) as cluster:
        run_on_cluster(cluster, plan, lambda backend, hello, _: starts.__setitem__(backend, hello), keep)
    return results, starts


def timeless(results: list[Result]) -> dict[str, Result]:
    assert len({result.case for result in results}) == len(results)
    return {result.case: msgspec.structs.replace(result, seconds=0.0, timings={}) for result in results}


@pytest.fixture(scope="module")
def local(plan: Plan) -> dict[str, Result]:
    results: list[Result] = []
    run(plan, lambda *_: None, results.append)
    assert {result.verdict for result in results} >= {Verdict.PASS, Verdict.FAIL, Verdict.CRASH, Verdict.UNAVAILABLE}
    return timeless(results)


@pytest.mark.parametrize("allowed_failures", [3, 0], ids=["again", "each case alone"])
def test_a_worker_that_is_killed_costs_no_result(
    processes: LocalCluster, plan: Plan, local: dict[str, Result], allowed_failures: int
) -> None:
    processes.scheduler.allowed_failures = allowed_failures
    kill = KillAtWork(processes, "run_line_cases")

    def killing(result: Result) -> None:
        if result.verdict is not Verdict.UNAVAILABLE:
            kill()
            processes.scheduler.allowed_failures = 3  # a machine under load may lose another one

    results, starts = spread(processes, plan, killing)
    assert any("run_line_cases" in task for task in kill.interrupted)
    assert timeless(results) == local
    assert isinstance(starts["stand-in"], Handshake)


def test_a_case_with_which_the_workers_die_is_a_crash(processes: LocalCluster, plan: Plan) -> None:
    processes.scheduler.allowed_failures = 0
    fatal = msgspec.structs.replace(some(plan, "relu"), plugins=(PLUGIN, "fatal_backend:Plugin"))
    fatal = msgspec.structs.replace(
        fatal,
        cases=[msgspec.structs.replace(case, route="fatal") for case in fatal.cases],
        catalog=catalog_of(*fatal.plugins),
    )
    results, _ = spread(processes, fatal)
    assert [result.verdict for result in results] == [Verdict.CRASH, Verdict.CRASH]
    assert all("1 Dask workers died while they ran this" in result.reason for result in results)


def test_resources_place_a_backend_on_the_workers_that_offer_it(processes: LocalCluster, plan: Plan) -> None:
    process_of = pids(processes)
    offering, other, *_ = process_of
    with processes.get_client() as client:
        client.run(offer, {"stand-in": 1}, workers=[offering])
        try:
            idle: set[int] = set()
            results, starts = spread(
                processes, some(plan, "relu", "sigmoid"), lambda _: idle.update(children(process_of[other]))
            )
        finally:
            client.run(offer, {"stand-in": 0}, workers=[offering])
    assert {result.verdict for result in results} == {Verdict.PASS}
    hello = starts["stand-in"]
    assert isinstance(hello, Handshake)
    assert not idle


async def offer(resources: dict[str, float], dask_worker: Any) -> None:
    await dask_worker.set_resources(**resources)


def test_backends_that_no_worker_offers_together_are_refused(threads: LocalCluster, plan: Plan) -> None:
    with threads.get_client() as client:
        for worker, backend in zip(client.run(os.getpid), ("ort-cpu", "torch"), strict=True):
            client.run(offer, {backend: 1}, workers=[worker])
    with Cluster(threads.scheduler_address) as cluster:
        assert cluster.resources("ort-cpu", "ort-cpu") == {"ort-cpu": 1.0}
        assert cluster.resources("keras", "keras") == {}
        with pytest.raises(
            UsageError, match=r'no worker offers ort-cpu and torch together.*--resources "ort-cpu=1 torch=1"'
        ):
            cluster.resources("torch+ort-cpu", "ort-cpu", "torch")


def test_unlike_machines_are_refused_for_one_backend(threads: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    processors = iter(("Xeon", "Xeon", "Xeon", "EPYC"))
    monkeypatch.setattr("actconform.cluster.installation.cpu_name", lambda: next(processors, "Xeon"))
    with Cluster(threads.scheduler_address) as cluster, pytest.raises(UsageError) as refused:
        cluster.resources("torch", "torch")
    assert "cpu EPYC" in str(refused.value)
    assert "cpu Xeon" in str(refused.value)
    assert '--resources "torch=1"' in str(refused.value)


def test_a_scheduler_that_goes_ends_the_run_with_what_there_is_and_it_resumes_here(
    plan: Plan, local: dict[str, Result], tmp_path: Path
) -> None:
    shown = some(plan, "relu", "sigmoid", "selu")
    with started(n_workers=1, processes=False) as cluster, recorder(tmp_path, shown, resume=False) as record:

        def lose(result: Result) -> None:
            record.add(result)
            cluster.close()

        with pytest.raises(UsageError, match=r"the scheduler is gone.*--resume"):
            spread(cluster, msgspec.structs.replace(shown, earlier=record), lose)
    results: list[Result] = []
    with recorder(tmp_path, shown, resume=True) as record:
        run(msgspec.structs.replace(shown, earlier=record), lambda *_: None, results.append)
        assert 0 < record.kept < len(shown.cases)
    assert timeless(results) == {case: result for case, result in local.items() if case in timeless(results)}
    assert len(results) == len(shown.cases)


def recorder(folder: Path, plan: Plan, *, resume: bool) -> Recorder:
    return Recorder(folder, about="the same", resume={case.id for case in plan.cases} if resume else None)


def test_an_interrupt_ends_the_processes_of_the_run(thread: LocalCluster, plan: Plan) -> None:
    before = children(os.getpid())

    def interrupt(result: Result) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spread(thread, some(plan, "relu", "sigmoid", "selu"), interrupt)
    end = time.monotonic() + 10.0
    while children(os.getpid()) - before and time.monotonic() < end:
        time.sleep(0.05)
    assert not children(os.getpid()) - before


def test_facts_that_differ_between_workers_end_the_run(
    thread: LocalCluster, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = iter(("1.0", "1.0"))
    monkeypatch.setattr(
        "actconform.cluster.tasks.OpenLine.facts", lambda _: {"stand-in": {"driver": next(drivers, "2.0")}}
    )
    with pytest.raises(UsageError, match=r"one worker of stand-in has driver 2.0; the first has driver 1.0"):
        spread(thread, some(plan, "relu", "sigmoid", "selu"))
