"""Chunks of a sweep as the tasks of a Dask cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from distributed import KilledWorker, as_completed

from actconform.cluster.tasks import LineFacts, open_line, start_line
from actconform.errors import SweepError, UsageError
from actconform.run.scheduler import Line
from actconform.sweep.runner import swept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from distributed import Future

    from actconform.cluster.connection import Cluster
    from actconform.sweep.journal import SweptChunk
    from actconform.sweep.runner import SweptProgram
    from actconform.types import Case
    from actconform.workers.protocol import Handshake


class SpreadSweep:
    """Sweeps on a cluster, where they are open as `run`; chunks are those that a local sweep comes to, but for their seconds."""

    def __init__(self, cluster: Cluster, run: str) -> None:
        self._cluster, self._run = cluster, run
        self._facts: dict[str, LineFacts] = {}

    def started(self, backend: str) -> Handshake:
        """Return the handshake of a backend on the first worker that starts it. Raises UsageError where it cannot start or compute there."""
        start, facts = self._cluster.client.submit(
            start_line, self._run, backend, resources=self._resources(backend), pure=False
        ).result()
        if start.hello is None or start.verdict is not None:
            raise UsageError(f"{backend}: {start.reason}")
        self._facts[backend] = facts
        hello: Handshake = start.hello
        return hello

    def sweep_chunks(
        self,
        program: SweptProgram,
        backend: str,
        chunks: Iterable[int],
        deadline: float,
        on_chunk: Callable[[SweptChunk], None],
    ) -> None:
        """Sweep chunks, each on the next free worker, as `runner.sweep_chunks` does; a chunk whose worker dies is swept again on another.

        Raises UsageError where a worker has other facts than the one that started the backend, or the scheduler is gone.
        """
        job: dict[str, Any] = {"run": self._run, "backend": backend, "program": program}
        job["deadline"] = time.time() + deadline - time.monotonic()  # by a clock that other machines have too
        futures = self._cluster.client.map(
            swept_on_worker, list(chunks), **job, resources=self._resources(backend), pure=False
        )
        try:
            for future in as_completed(futures, loop=self._cluster.client.loop):
                self._take(future, program.case, backend, on_chunk)
        finally:
            for future in futures:
                future.release()

    def _take(self, future: Future[Any], case: Case, backend: str, on_chunk: Callable[[SweptChunk], None]) -> None:
        try:
            chunk, facts = future.result()
        except KilledWorker as error:
            raise SweepError(
                f"{case.id}: {error.allowed_failures + 1} Dask workers died while they swept one chunk"
            ) from None
        self._cluster.refuse_other_facts(Line(backend, "", []), facts, self._facts[backend])
        if chunk is not None:
            on_chunk(chunk)

    def _resources(self, backend: str) -> dict[str, float] | None:
        return self._cluster.resources(Line(backend, "", [])) or None


def swept_on_worker(
    chunk: int, *, run: str, backend: str, program: SweptProgram, deadline: float
) -> tuple[SweptChunk | None, LineFacts]:
    """Sweep a chunk on this worker and return it with what it depends on; None after the `deadline`, as time.time has it."""
    with open_line(run, backend) as line:
        if time.time() >= deadline:
            return None, {}
        line.start()
        return swept(line.worker, program, chunk), line.facts()
