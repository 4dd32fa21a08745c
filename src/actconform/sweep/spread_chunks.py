"""Chunks of a sweep as the tasks of a Dask cluster."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from distributed import KilledWorker, as_completed

from actconform.cluster.tasks import LineFacts, open_line, start_line
from actconform.errors import SweepError, UsageError
from actconform.sweep.known_causes import Explanations
from actconform.sweep.runner import swept

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from distributed import Future

    from actconform.cluster.connection import Cluster
    from actconform.sweep.differing_bits import BitsComparison, Compared, UnequalChunk
    from actconform.sweep.journal import CoveredFinding, Sweep, SweptChunk
    from actconform.sweep.runner import SweptProgram
    from actconform.types import Artifact
    from actconform.types.cause import Register
    from actconform.workers.protocol import Handshake


class SpreadSweep:
    """Sweeps on a cluster, where they are open as `run`; chunks are those that a local sweep comes to, but for their seconds."""

    def __init__(self, cluster: Cluster, run: str) -> None:
        self._cluster, self._run = cluster, run
        self._facts: LineFacts = {}

    def started(self, backend: str) -> Handshake:
        """Return the handshake of a backend on the first worker that starts it. Raises UsageError where it cannot start or compute there."""
        start, facts = self._submit(backend, [backend], start_line, self._run, backend).result()
        if start.hello is None or start.verdict is not None:
            raise UsageError(f"{backend}: {start.reason}")
        self._facts |= facts
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
        job["deadline"] = _on_all_clocks(deadline)
        futures = self._cluster.client.map(
            swept_on_worker, list(chunks), **job, resources=self._resources(program.case.id, [backend]), pure=False
        )
        self._take(program.case.id, futures, on_chunk)

    def explained(
        self, sweep: Sweep, backend: str, artifact: Artifact | None, register: Register, timeout: float
    ) -> list[CoveredFinding]:
        """Return the findings of a complete sweep that causes explain, looked for where the backend is. Raises SweepError as `Explanations` does."""
        covered: list[CoveredFinding] = []
        name, job = sweep.identity.case.id, {"register": register, "timeout": timeout}
        future = self._submit(
            name, [backend], explained_on_worker, sweep, artifact, run=self._run, backend=backend, **job
        )
        self._take(name, [future], covered.extend)
        return covered

    def comparable(self, comparison: BitsComparison) -> tuple[list[UnequalChunk], list[str]]:
        """Return the chunks of a comparison that a worker can compare, and of what pairs none can, and why.

        Where a worker has all backends, it computes a chunk once on each route; else a chunk comes once for each pair whose backends a worker has.
        """
        pairs = comparison.pairs
        if not self._refusal(comparison.name, comparison.backends(pairs)):
            return comparison.chunks(pairs), []
        chunks, refusals = [], []
        for pair in pairs:
            if reason := self._refusal(pair.name, comparison.backends([pair])):
                refusals.append(f"bits not compared: {reason}")
            else:
                chunks += comparison.chunks([pair])
        return chunks, refusals

    def compare_chunks(
        self, name: str, chunks: Iterable[UnequalChunk], deadline: float, on_compared: Callable[[Compared], None]
    ) -> None:
        """Compare chunks, each on the next free worker that has its backends: only counts cross the network. All else is as in `sweep_chunks`."""
        futures = [
            self._submit(
                name, chunk.backends, compared_on_worker, chunk, run=self._run, deadline=_on_all_clocks(deadline)
            )
            for chunk in chunks
        ]
        self._take(name, futures, on_compared)

    def _submit(
        self, name: str, backends: Collection[str], task: Callable[..., Any], *of: Any, **job: Any
    ) -> Future[Any]:
        return self._cluster.client.submit(task, *of, **job, resources=self._resources(name, backends), pure=False)

    def _resources(self, name: str, backends: Collection[str]) -> dict[str, float] | None:
        return self._cluster.resources(name, *backends) or None

    def _take(self, name: str, futures: Sequence[Future[Any]], on_done: Callable[[Any], None]) -> None:
        """Hand on what tasks have done, which is None after the deadline."""
        try:
            for future in as_completed(futures, loop=self._cluster.client.loop):
                done, facts = _result(name, future)
                self._cluster.refuse_other_facts(name, facts, self._facts)
                if done is not None:
                    on_done(done)
        finally:
            for future in futures:
                future.release()

    def _refusal(self, name: str, backends: Collection[str]) -> str:
        """Return why no worker has all these backends, "" where one has."""
        try:
            self._cluster.resources(name, *backends)
        except UsageError as error:
            return str(error)
        return ""


def _on_all_clocks(deadline: float) -> float:
    """Return a deadline by the clock that other machines have too."""
    return time.time() + deadline - time.monotonic()


def _result(name: str, future: Future[Any]) -> Any:
    try:
        return future.result()
    except KilledWorker as error:
        raise SweepError(
            f"{name}: {error.allowed_failures + 1} Dask workers died while they computed one task"
        ) from None


def swept_on_worker(
    chunk: int, *, run: str, backend: str, program: SweptProgram, deadline: float
) -> tuple[SweptChunk | None, LineFacts]:
    """Sweep a chunk on this worker and return it with what it depends on; None after the `deadline`, as time.time has it."""
    with open_line(run, backend) as line:
        if time.time() >= deadline:
            return None, {}
        line.start()
        return swept(line.worker, program, chunk), line.facts()


def explained_on_worker(
    sweep: Sweep, artifact: Artifact | None, *, run: str, backend: str, register: Register, timeout: float
) -> tuple[list[CoveredFinding], LineFacts]:
    """Look for causes of a sweep's findings on this worker; return what is explained, and what the worker's answers depend on."""
    with open_line(run, backend) as line:
        line.start()
        return Explanations(line.catalog, register, timeout).of_sweep(sweep, artifact, line.worker), line.facts()


def compared_on_worker(chunk: UnequalChunk, *, run: str, deadline: float) -> tuple[Compared | None, LineFacts]:
    """Compare a chunk on this worker; all else is as in `swept_on_worker`."""
    with ExitStack() as stack:
        # in one order in all threads of a worker, so that no two wait for each other
        lines = {backend: stack.enter_context(open_line(run, backend)) for backend in sorted(chunk.backends)}
        if time.time() >= deadline:
            return None, {}
        for line in lines.values():
            line.start()
        compared = chunk.compared({backend: line.worker for backend, line in lines.items()})
        return compared, {name: facts for line in lines.values() for name, facts in line.facts().items()}
