"""Dask clusters on this machine, for tests."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from distributed import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Iterator


def started(**options: Any) -> LocalCluster:
    """Return a cluster of workers with one thread: processes, or with `processes=False` in this one, where they start at once."""
    return LocalCluster(
        threads_per_worker=1,
        dashboard_address=":0",
        worker_dashboard_address=":0",
        silence_logs=logging.CRITICAL,
        **options,
    )


def pids(cluster: LocalCluster) -> dict[str, int]:
    """Return the process of each worker, by address, once there are two."""
    with cluster.get_client() as client:
        client.wait_for_workers(2)
        return client.run(os.getpid)


class KillAtWork:
    """Kills a Dask worker in the midst of a task of this name, once, and waits until the scheduler has noticed."""

    def __init__(self, cluster: LocalCluster, task: str) -> None:
        self.scheduler, self.task = cluster.scheduler, task
        self.pids = pids(cluster)
        self.killed = ""

    def __call__(self) -> None:
        if self.killed:
            return
        end = time.monotonic() + 30.0
        while (address := next(self.at_work(), None)) is None and time.monotonic() < end:
            time.sleep(0.01)
        assert address is not None
        self.killed = address
        os.kill(self.pids[self.killed], signal.SIGKILL)
        end = time.monotonic() + 30.0
        while self.killed in self.scheduler.workers and time.monotonic() < end:
            time.sleep(0.02)

    def at_work(self) -> Iterator[str]:
        for worker in self.scheduler.workers.values():
            if any(task.prefix.name == self.task for task in worker.processing):
                yield worker.address

    @property
    def interrupted(self) -> list[str]:
        """The tasks that the worker had when it was removed."""
        events = [event for _, event in self.scheduler.get_events(self.killed)]
        return [
            task for event in events if event.get("action") == "remove-worker" for task in event["processing-tasks"]
        ]
