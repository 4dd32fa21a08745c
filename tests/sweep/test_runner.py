"""Chunks in several workers: each once, none after the deadline, and all that is done is handed on when one fails."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from actconform.catalog.kernels import KERNELS
from actconform.errors import SweepError, UsageError, WorkerCrash
from actconform.exhaustive.statistics import SweepStatistics
from actconform.sweep.runner import SweptProgram, started, sweep_chunks
from actconform.types import Case
from actconform.workers.protocol import Failure
from actconform.workers.sweep_session import SweepResult

CASE = Case("tanh", "value", "f32", "fake")
PROGRAM = SweptProgram(KERNELS["tanh"], CASE, None, "quick")
NEVER = float("inf")


class FakeWorker:
    backend = "fake"

    def __init__(self, answer=lambda job: None, **facts):
        self.answer, self.facts = answer, facts
        self.swept, self.closed = [], False

    def start(self):
        return SimpleNamespace(unavailable="", facts=self.facts, provider="fake 1", cpu="x")

    def sweep(self, job, timeout):
        self.swept.append(job.chunk)
        return self.answer(job) or SweepResult(statistics=SweepStatistics(inputs=job.chunk), sha256="a")

    def close(self):
        self.closed = True


def test_each_chunk_is_swept_once_by_either_worker():
    both = threading.Barrier(2, timeout=10)
    workers = [FakeWorker(lambda job: both.wait() and None) for _ in range(2)]
    done = []
    sweep_chunks(PROGRAM, range(8), workers, NEVER, done.append)
    assert sorted(chunk.chunk for chunk in done) == list(range(8))
    assert sorted(workers[0].swept + workers[1].swept) == list(range(8))
    assert all(worker.swept for worker in workers)
    assert all(chunk.statistics.inputs == chunk.chunk for chunk in done)


def test_after_the_deadline_no_chunk_is_begun():
    worker, done = FakeWorker(), []
    sweep_chunks(PROGRAM, range(8), [worker], time.monotonic() - 1, done.append)
    assert (worker.swept, done) == ([], [])


@pytest.mark.parametrize(("kind", "refused"), [("error", False), ("unsupported", True)])
def test_a_failure_ends_the_sweep_after_what_is_done(kind, refused):
    worker = FakeWorker(lambda job: SweepResult(failure=Failure("run", kind, "no")) if job.chunk == 2 else None)
    done = []
    with pytest.raises(SweepError, match="tanh/value/f32/fake, chunk 2: no") as caught:
        sweep_chunks(PROGRAM, range(8), [worker], NEVER, done.append)
    assert caught.value.refused is refused
    assert [chunk.chunk for chunk in done] == [0, 1]
    assert worker.swept == [0, 1, 2]


def test_an_error_of_any_kind_ends_it_and_is_raised():
    with pytest.raises(ZeroDivisionError):
        sweep_chunks(PROGRAM, range(8), [FakeWorker(lambda job: 1 // 0)], NEVER, lambda _: None)


def test_a_worker_that_dies_ends_it_too():
    def die(job):
        raise WorkerCrash("died", "SIGKILL")

    with pytest.raises(SweepError, match="chunk 0: died"):
        sweep_chunks(PROGRAM, range(8), [FakeWorker(die)], NEVER, lambda _: None)


def test_a_journal_that_cannot_be_written_closes_the_workers():
    def full(_):
        raise OSError(28, "No space left on device")

    worker = FakeWorker()
    with pytest.raises(OSError, match="No space"):
        sweep_chunks(PROGRAM, range(1000), [worker], NEVER, full)
    assert worker.closed


def test_unequal_workers_are_refused_and_both_named():
    assert started([FakeWorker(torch="1"), FakeWorker(torch="1")]).facts == {"torch": "1"}
    with pytest.raises(UsageError, match="the workers of fake differ: torch is 1 and 2"):
        started([FakeWorker(torch="1"), FakeWorker(torch="2")])
