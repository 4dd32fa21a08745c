"""A run on a Dask cluster of this machine: its results are those of a local run, whatever dies."""

from __future__ import annotations

import logging
import os
import signal
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from distributed import LocalCluster

from actconform.cluster.connection import Cluster
from actconform.cluster.spread_run import run_on_cluster
from actconform.plugin.loader import GROUP, load_plugins
from actconform.run.scheduler import Plan, run
from actconform.run.select import all_cases
from actconform.settings import Config
from actconform.testdata.golden.store import golden_dir, read_manifest
from actconform.types import Result, Verdict
from actconform.types.cause import Register
from actconform.workers.protocol import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def started(**options: Any) -> LocalCluster:
    return LocalCluster(
        threads_per_worker=1,
        dashboard_address=None,
        worker_dashboard_address=None,
        silence_logs=logging.CRITICAL,
        **options,
    )


@pytest.fixture(scope="module")
def processes() -> Iterator[LocalCluster]:
    """Two Dask workers, each a process that is replaced when it dies."""
    with started(n_workers=2) as cluster:
        yield cluster


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    """Two Dask workers in this process, which start at once."""
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


def at_work(on: LocalCluster) -> Iterator[str]:
    """Yield the addresses of the workers that run cases."""
    for worker in on.scheduler.workers.values():
        if any(task.prefix.name == "run_line_cases" for task in worker.processing):
            yield worker.address


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
    with processes.get_client() as client:
        client.wait_for_workers(2)
        pids = client.run(os.getpid)
    killed: list[str] = []

    def kill(result: Result) -> None:
        if result.verdict is not Verdict.UNAVAILABLE and not killed:
            killed.append(next(at_work(processes)))
            os.kill(pids[killed[0]], signal.SIGKILL)

    results, starts = spread(processes, plan, kill)
    (removal,) = (
        event for _, event in processes.scheduler.get_events(killed[0]) if event.get("action") == "remove-worker"
    )
    assert any("run_line_cases" in task for task in removal["processing-tasks"])
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
