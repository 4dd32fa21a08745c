"""Chunks of one sweep, one after the other in each of its workers."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from actconform.errors import SweepError, UsageError, WorkerError
from actconform.sweep.journal import SweptChunk
from actconform.sweep.row_sample import is_sampled, swept_rows
from actconform.workers.sweep_session import SweepJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from actconform.exhaustive.patterns import Extent
    from actconform.types import Artifact, Case, Kernel
    from actconform.workers.client import Worker
    from actconform.workers.protocol import Handshake
    from actconform.workers.sweep_session import SweepResult

Todo = TypeVar("Todo")
Done = TypeVar("Done")

CHUNK_SECONDS = 600.0  # of a chunk at least: a slow kernel's on a busy machine
WAKE_SECONDS = 0.5  # a Ctrl-C that comes just before a wait without end would not end it


class SweptProgram(NamedTuple):
    """What all chunks of a sweep have in common: the kernel, its case, the graph of a route that has one, and which inputs."""

    kernel: Kernel
    case: Case
    artifact: Artifact | None
    extent: Extent


def started(workers: Sequence[Worker]) -> Handshake:
    """Start all workers and return the handshake that they have in common.

    Raises UsageError where one cannot start or compute here, or has other versions than the first, naming both.
    """
    first: Handshake | None = None
    for worker in workers:
        try:
            hello = worker.start()
        except WorkerError as error:
            raise UsageError(f"{worker.backend}: {error}") from error
        if hello.unavailable:
            raise UsageError(f"{worker.backend}: {hello.unavailable}")
        if first is not None and (hello.facts, hello.provider, hello.cpu) != (first.facts, first.provider, first.cpu):
            before, now = ({**each.facts, "provider": each.provider, "cpu": each.cpu} for each in (first, hello))
            differing = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            words = "; ".join(
                f"{name} is {before.get(name, 'not there')} and {now.get(name, 'not there')}" for name in differing
            )
            raise UsageError(f"the workers of {worker.backend} differ: {words}; give all of them the same environment")
        first = first or hello
    assert first is not None  # there is at least one worker
    return first


def sweep_chunks(
    program: SweptProgram,
    chunks: Iterable[int],
    workers: Sequence[Worker],
    deadline: float,
    on_chunk: Callable[[SweptChunk], None],
) -> None:
    """Sweep chunks of a program, or of its kernel's sample, each in the next free worker, and hand each that is done to `on_chunk` in the caller's thread.

    After `deadline`, as time.monotonic has it, no further chunk is begun. Raises SweepError where one cannot be done, after
    those that the other workers had begun are handed on. Where `on_chunk` raises, or the caller is interrupted, workers are closed.
    """

    def turn(worker: Worker) -> Callable[[int], SweptChunk]:
        return lambda chunk: swept(worker, program, chunk)

    in_turns(chunks, [([worker], turn(worker)) for worker in workers], deadline, on_chunk)


def in_turns(
    chunks: Iterable[Todo],
    turns: Sequence[tuple[Sequence[Worker], Callable[[Todo], Done]]],
    deadline: float,
    on_done: Callable[[Done], None],
) -> None:
    """Give each chunk to the next free of `turns`, which computes with workers of its own; all else is as in `sweep_chunks`."""
    waiting: _Turns[Todo, Done] = _Turns(deque(chunks), deadline)
    for _, turn in turns:
        threading.Thread(target=waiting.take, args=(turn,), daemon=True).start()
    failures = []
    try:
        for item in waiting.items(len(turns)):
            if isinstance(item, Exception):
                failures.append(item)
            else:
                on_done(item)
    except BaseException:
        waiting.chunks.clear()
        for workers, _ in turns:
            for worker in workers:
                worker.close()
        raise
    if failures:
        raise failures[0]


class _Turns(Generic[Todo, Done]):
    """The chunks that wait, until when one may begin, and what is done."""

    def __init__(self, chunks: deque[Todo], deadline: float) -> None:
        self.chunks, self._deadline = chunks, deadline
        self._done: queue.Queue[Done | Exception | None] = queue.Queue()

    def take(self, turn: Callable[[Todo], Done]) -> None:
        """Do one waiting chunk after the other; at the end None is done."""
        try:
            while time.monotonic() < self._deadline and (chunk := self._next()) is not None:
                self._done.put(turn(chunk))
        except Exception as error:  # noqa: BLE001  raised again in the caller's thread
            self.chunks.clear()
            self._done.put(error)
        finally:
            self._done.put(None)

    def _next(self) -> Todo | None:
        """Take a waiting chunk; None where none is left, as another worker may have taken the last one just now."""
        try:
            return self.chunks.popleft()
        except IndexError:
            return None

    def items(self, working: int) -> Iterator[Done | Exception]:
        """Yield what is done until each of the `working` workers has ended."""
        while working:
            try:
                item = self._done.get(timeout=WAKE_SECONDS)
            except queue.Empty:
                continue
            if item is None:
                working -= 1
            else:
                yield item


def swept(worker: Worker, program: SweptProgram, chunk: int) -> SweptChunk:
    """Return one chunk, swept in the worker; that of a sample is compared here. Raises SweepError where it cannot be done."""
    kernel, case, artifact, extent = program
    if is_sampled(kernel):
        return swept_rows(worker, kernel, case, artifact, chunk, CHUNK_SECONDS)
    result = answered(worker, SweepJob(case, artifact, chunk, extent))
    assert result.statistics is not None  # a chunk that did not fail has them
    return SweptChunk(chunk=chunk, sha256=result.sha256, statistics=result.statistics, seconds=result.seconds)


def answered(worker: Worker, job: SweepJob) -> SweepResult:
    """Return the worker's answer. Raises SweepError where the chunk cannot be done."""
    try:
        result = worker.sweep(job, CHUNK_SECONDS)
    except WorkerError as error:
        raise SweepError(f"{job.case.id}, chunk {job.chunk}: {error}") from error
    if result.failure is not None:
        raise SweepError(
            f"{job.case.id}, chunk {job.chunk}: {result.failure.message}", refused=result.failure.kind == "unsupported"
        )
    return result
