"""Clusters that cannot be used are refused before anything runs, with what is wrong and what to do."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import pytest
from local_cluster import started

from actconform._version import __version__
from actconform.cluster import connection
from actconform.cluster.connection import Cluster
from actconform.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A cluster without a worker."""
    with started(n_workers=0, processes=False) as cluster:
        yield cluster.scheduler_address


def refusal(address: str) -> str:
    with pytest.raises(UsageError) as refused:
        Cluster(address, seconds=0.3)
    message = str(refused.value)
    del refused
    gc.collect()  # here: a client that did not connect, collected in the thread of the next one, would wait for it
    return message


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "http://127.0.0.1:9", "tcp://127.0.0.1:port", ""]
)
def test_no_scheduler_answers(address: str) -> None:
    message = refusal(address)
    assert message.startswith(f"--cluster {address}: no Dask scheduler answers there within 0.3 s")
    assert message.endswith("wanted tcp://HOST:PORT, as `dask scheduler` prints it")


def test_a_scheduler_without_workers(scheduler: str) -> None:
    assert f"it had no worker within 0.3 s; start one with `dask worker {scheduler}`" in refusal(scheduler)


def test_other_versions_are_refused_and_both_are_named(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = connection.installation
    monkeypatch.setattr(connection, "installation", lambda: changed(elsewhere()))
    monkeypatch.setattr(Cluster, "_asked_of_scheduler", lambda _: elsewhere())
    assert (
        f"the scheduler has actconform {__version__}; this process has actconform 9.9: install the same on both"
        in refusal(scheduler)
    )


def changed(installation: connection.Installation) -> connection.Installation:
    return connection.Installation({**installation.versions, "actconform": "9.9"}, installation.machine)


def test_a_process_without_actconform(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'actconform'")
    monkeypatch.setattr(Cluster, "_asked_of_scheduler", lambda _: missing)
    assert "the scheduler has no actconform as here (ModuleNotFoundError: No module named 'actconform')" in refusal(
        scheduler
    )


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert refusal("tcp://127.0.0.1:9") == '--cluster needs Dask: pip install "actconform[cluster]"'
