"""Programs held ready in a worker, to be timed in turns with those of other workers."""

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
    """A program to get ready under a key, by the one call of its job; any that was under that key is closed."""

    key: str
    job: Job


class Prepared(msgspec.Struct, kw_only=True, tag=True):
    """How many calls make a sample of SAMPLE_SECONDS; or why there is none. `clock` is what reading the clock takes, in s."""

    loops: int = 0
    clock: float = 0.0
    implementation: str = ""
    placement: dict[str, tuple[str, ...]] = {}
    failure: Failure | None = None


class TakeSample(msgspec.Struct, frozen=True, tag="Sample"):
    """A sample to take: so many calls of what is ready under a key; with 0 calls it is closed."""

    key: str
    loops: int


class Sampled(msgspec.Struct, kw_only=True, tag=True):
    """The seconds that the calls took together."""

    seconds: float = 0.0
    failure: Failure | None = None


class _Held(NamedTuple):
    """A program, what computes once, and where a sample is of several calls, their inputs."""

    program: Program
    call: Call | None
    once: Callable[[], object]


class Timers:
    """What is ready in one worker."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ready: dict[str, _Held] = {}

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
            self._ready[request.key] = _Held(program, call if loops > 1 else None, once)
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
        """Make the calls and return what they took; faults are not raised.

        Several calls get their inputs in fresh memory, for a call's time depends on where they lie, and follow one that is
        not timed, since the programs that had their turn before it have the caches.
        """
        if not request.loops:
            self._close(request.key)
            return Sampled()
        try:
            with stage("run", 0):
                if request.key not in self._ready:
                    raise LookupError(f"nothing is ready under {request.key!r}: the worker may be a new one")
                held = self._ready[request.key]
                if request.loops > 1 and held.call:
                    held = held._replace(once=_in_fresh_memory(held.program, held.call))
                    self._ready[request.key] = held
                    held.once()
                return Sampled(seconds=_timed(held.once, request.loops))
        except StoppedError as stopped:
            return Sampled(failure=stopped.failure)

    def _close(self, key: str) -> None:
        held = self._ready.pop(key, None)
        _close(held.program if held else None)


def _close(program: Program | None) -> None:
    with suppress(StoppedError), stage("run"):  # nothing is asked of it any more
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
        taken = _timed(once, loops)
        if taken < SAMPLE_SECONDS / 2:
            loops = max(loops * 2, min(int(loops * SAMPLE_SECONDS / max(taken, 1e-9)), loops * 16))
            last = 0.0
        elif max(taken, last) <= STEADY * min(taken, last) or time.perf_counter() > until:
            return loops
        else:
            last = taken
