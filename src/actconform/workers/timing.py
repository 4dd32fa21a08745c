"""Programs prepared in a worker, to be timed in interleaved rounds with those of other workers."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from actconform.workers.protocol import Call, Failure, Job, JobResult, aligned_copy
from actconform.workers.session import StoppedError, stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.plugin.interfaces import Program
    from actconform.workers.session import Session

SAMPLE_SECONDS = 0.008  # of the calls in one sample: 40,000 times what reading the clock takes
WARM_SECONDS = 0.2
STEADY = 1.1  # two samples in a row within this are warm
READINGS = 1000


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """A program to prepare under a key, with the one call of its job; a program already under that key is closed."""

    key: str
    job: Job


class Prepared(msgspec.Struct, kw_only=True, tag=True):
    """The number of calls in a sample of SAMPLE_SECONDS, or the failure. `clock` is the time of reading the clock, in s."""

    loops: int = 0
    clock: float = 0.0
    implementation: str = ""
    placement: dict[str, tuple[str, ...]] = {}
    failure: Failure | None = None


class TakeSample(msgspec.Struct, frozen=True, tag="Sample"):
    """A sample to take: `loops` calls of the program under a key; with 0 calls the program is closed."""

    key: str
    loops: int


class Sampled(msgspec.Struct, kw_only=True, tag=True):
    """The seconds that the calls took together."""

    seconds: float = 0.0
    failure: Failure | None = None


class _PreparedProgram(NamedTuple):
    """A program, its call `once`, and where a sample has several calls, their inputs."""

    program: Program
    call: Call | None
    once: Callable[[], object]


class Timers:
    """The prepared programs of one worker."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ready: dict[str, _PreparedProgram] = {}

    def prepare(self, request: Prepare) -> Prepared:
        """Build or load the program, call it until it is warm, and count the calls of a sample; faults are not raised."""
        self._close(request.key)
        outcome = JobResult()
        program = None
        try:
            program = self._session.open(request.job, outcome)
            with stage("run", 0):
                call = request.job.calls[0]
                once = _in_fresh_memory(program, call)
                loops = _warm(once)
            self._ready[request.key] = _PreparedProgram(program, call if loops > 1 else None, once)
        except StoppedError as stopped:
            _close(program)
            return Prepared(failure=stopped.failure)
        return Prepared(
            loops=loops,
            clock=min(_timed(lambda: None, 1) for _ in range(READINGS)),
            implementation=outcome.implementation,
            placement=outcome.placement,
        )

    def sample(self, request: TakeSample) -> Sampled:
        """Make the calls and return their seconds; faults are not raised.

        Several calls get their inputs in fresh memory, since a call's time depends on their addresses, and follow an untimed
        call, since the programs timed before it have filled the caches.
        """
        if not request.loops:
            self._close(request.key)
            return Sampled()
        try:
            with stage("run", 0):
                if request.key not in self._ready:
                    raise LookupError(f"nothing is ready under {request.key!r}: the worker may be a new one")
                timed = self._ready[request.key]
                if request.loops > 1 and timed.call:
                    timed = timed._replace(once=_in_fresh_memory(timed.program, timed.call))
                    self._ready[request.key] = timed
                    timed.once()
                return Sampled(seconds=_timed(timed.once, request.loops))
        except StoppedError as stopped:
            return Sampled(failure=stopped.failure)

    def _close(self, key: str) -> None:
        timed = self._ready.pop(key, None)
        _close(timed.program if timed else None)


def _close(program: Program | None) -> None:
    with suppress(StoppedError), stage("run"):  # the program is not used any more
        if program is not None:
            program.close()


def _in_fresh_memory(program: Program, call: Call) -> Callable[[], object]:
    inputs = {name: aligned_copy(array) for name, array in call.inputs.items()}
    if call.cotangents is None:
        return program.prepare_call(inputs)
    return program.prepare_call(inputs, {name: aligned_copy(array) for name, array in call.cotangents.items()})


def _timed(once: Callable[[], Any], loops: int) -> float:
    """Return the seconds of `loops` calls. What they return lives until the next: freeing is part of a call."""
    clock = time.perf_counter
    started = clock()
    for _ in range(loops):
        once()
    return clock() - started


def _warm(once: Callable[[], Any]) -> int:
    """Call until a sample takes about SAMPLE_SECONDS and two in a row take as long; return the calls of a sample."""
    once()
    loops, last, until = 1, 0.0, time.perf_counter() + WARM_SECONDS
    while True:
        seconds = _timed(once, loops)
        if seconds < SAMPLE_SECONDS / 2:
            loops = max(loops * 2, min(int(loops * SAMPLE_SECONDS / max(seconds, 1e-9)), loops * 16))
            last = 0.0
        elif max(seconds, last) <= STEADY * min(seconds, last) or time.perf_counter() > until:
            return loops
        else:
            last = seconds
