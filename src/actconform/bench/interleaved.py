"""Samples in turns, A B C, A B C: what drifts in the machine hits all alike. One of them computes at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from actconform.errors import WorkerError
from actconform.workers.session import fault_message
from actconform.workers.timing import Prepare, Prepared, Sampled, TakeSample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.workers.protocol import Job

ENOUGH, SECONDS = 9, 3.0  # so many rounds are enough where they take longer than that: elements by the million


class Timer(Protocol):
    """The part of a worker that times."""

    def prepare(self, request: Prepare, timeout: float) -> Prepared: ...

    def sample(self, request: TakeSample, timeout: float) -> Sampled: ...


class Runner(NamedTuple):
    """One of those that are timed in turns: its name, unique among them, its worker, and how its job is made."""

    name: str
    worker: Timer
    job: Callable[[], Job]


class Samples(NamedTuple):
    """What was taken of one runner: the seconds of a call in each round; or, with fewer rounds, why it stopped."""

    prepared: Prepared
    samples: list[float]
    stopped: str = ""


def in_turns(runners: Sequence[Runner], rounds: int, timeout: float) -> dict[str, Samples]:
    """Get all runners ready, take one sample of each in every round, and close them; return what was taken by name.

    There are so many rounds, or ENOUGH of them where SECONDS are over by then.
    A runner that fails is out, with the reason; if its worker died, so are the others of that worker. Each call of a
    worker has `timeout` seconds. KeyboardInterrupt passes on.
    """
    taken: dict[str, Samples] = {}
    for runner in runners:
        _prepare(runner, runners, taken, timeout)
    until = time.monotonic() + SECONDS
    for done in range(rounds):
        if done >= ENOUGH and time.monotonic() > until:
            break
        for runner in runners:
            if not taken[runner.name].stopped:
                _sample(runner, runners, taken, timeout)
    for runner in runners:
        if not taken[runner.name].stopped:
            _closed(runner, timeout)
    return taken


def _prepare(runner: Runner, runners: Sequence[Runner], taken: dict[str, Samples], timeout: float) -> None:
    if runner.name in taken:
        return  # its worker is gone
    try:
        prepared = runner.worker.prepare(Prepare(runner.name, runner.job()), timeout)
    except WorkerError as error:
        _worker_gone(runner, runners, taken, error)
    except Exception as error:  # noqa: BLE001  a graph that is invalid, or was not had, costs one route
        taken[runner.name] = Samples(Prepared(), [], fault_message(error))
    else:
        taken[runner.name] = Samples(prepared, [], prepared.failure.message if prepared.failure else "")


def _sample(runner: Runner, runners: Sequence[Runner], taken: dict[str, Samples], timeout: float) -> None:
    mine = taken[runner.name]
    try:
        sampled = runner.worker.sample(TakeSample(runner.name, mine.prepared.loops), timeout)
    except WorkerError as error:
        _worker_gone(runner, runners, taken, error)
        return
    if sampled.failure:
        taken[runner.name] = mine._replace(stopped=sampled.failure.message)
    else:
        mine.samples.append(sampled.seconds / mine.prepared.loops)


def _worker_gone(runner: Runner, runners: Sequence[Runner], taken: dict[str, Samples], error: WorkerError) -> None:
    for other in runners:
        if other.worker is runner.worker:
            why = str(error) if other is runner else f"its worker ended with {runner.name}: {error}"
            before = taken.get(other.name, Samples(Prepared(), []))
            taken[other.name] = before._replace(stopped=before.stopped or why)


def _closed(runner: Runner, timeout: float) -> None:
    try:
        runner.worker.sample(TakeSample(runner.name, 0), timeout)
    except WorkerError:
        return  # what it had is gone with it
