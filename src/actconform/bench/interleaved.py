"""Interleaved rounds of samples, A B C, A B C: drift of the machine affects all alike. One runner computes at a time."""

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
    """One participant of the interleaved rounds: its name, unique among them, its worker, and how its job is made."""

    name: str
    worker: Timer
    job: Callable[[], Job]


class Samples(NamedTuple):
    """The samples of one runner: the seconds of a call in each round; or, with fewer rounds, why it stopped."""

    prepared: Prepared
    samples: list[float]
    stopped: str = ""


def interleaved_rounds(runners: Sequence[Runner], rounds: int, timeout: float) -> dict[str, Samples]:
    """Prepare all runners, take one sample of each in every round, and close them; return the samples by name.

    There are `rounds` rounds, or ENOUGH of them where SECONDS are over by then.
    A runner that fails is left out from then on, with the reason; if its worker died, so are the others of that worker. Each
    call of a worker has `timeout` seconds. KeyboardInterrupt passes on.
    """
    samples: dict[str, Samples] = {}
    for runner in runners:
        _prepare(runner, runners, samples, timeout)
    until = time.monotonic() + SECONDS
    for done in range(rounds):
        if done >= ENOUGH and time.monotonic() > until:
            break
        for runner in runners:
            if not samples[runner.name].stopped:
                _sample(runner, runners, samples, timeout)
    for runner in runners:
        if not samples[runner.name].stopped:
            _closed(runner, timeout)
    return samples


def _prepare(runner: Runner, runners: Sequence[Runner], samples: dict[str, Samples], timeout: float) -> None:
    if runner.name in samples:
        return  # its worker is gone
    try:
        prepared = runner.worker.prepare(Prepare(runner.name, runner.job()), timeout)
    except WorkerError as error:
        _worker_gone(runner, runners, samples, error)
    except Exception as error:  # noqa: BLE001  a graph that is invalid, or could not be exported, costs one route
        samples[runner.name] = Samples(Prepared(), [], fault_message(error))
    else:
        samples[runner.name] = Samples(prepared, [], prepared.failure.message if prepared.failure else "")


def _sample(runner: Runner, runners: Sequence[Runner], samples: dict[str, Samples], timeout: float) -> None:
    earlier = samples[runner.name]
    try:
        sampled = runner.worker.sample(TakeSample(runner.name, earlier.prepared.loops), timeout)
    except WorkerError as error:
        _worker_gone(runner, runners, samples, error)
        return
    if sampled.failure:
        samples[runner.name] = earlier._replace(stopped=sampled.failure.message)
    else:
        earlier.samples.append(sampled.seconds / earlier.prepared.loops)


def _worker_gone(runner: Runner, runners: Sequence[Runner], samples: dict[str, Samples], error: WorkerError) -> None:
    for affected in runners:
        if affected.worker is runner.worker:
            reason = str(error) if affected is runner else f"its worker ended with {runner.name}: {error}"
            before = samples.get(affected.name, Samples(Prepared(), []))
            samples[affected.name] = before._replace(stopped=before.stopped or reason)


def _closed(runner: Runner, timeout: float) -> None:
    try:
        runner.worker.sample(TakeSample(runner.name, 0), timeout)
    except WorkerError:
        return  # its program ended with the worker
