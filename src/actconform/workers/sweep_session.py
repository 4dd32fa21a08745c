"""Chunks of all float32 numbers, one in a request: the program stays loaded in its worker between them."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.exhaustive.measure import SweptFunction, measured_chunk
from actconform.exhaustive.output_bits import outputs_of_chunk
from actconform.exhaustive.patterns import Extent  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.exhaustive.statistics import SweepStatistics  # noqa: TC001  likewise
from actconform.types import Artifact, Case, Kernel
from actconform.workers.protocol import Bundle, Failure, Job, JobResult, aligned_copy
from actconform.workers.session import StoppedError, stage, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray

    from actconform.plugin.interfaces import Program
    from actconform.workers.session import Session


class SweepJob(msgspec.Struct, frozen=True, tag=True):
    """A chunk to be swept by the case's program, loaded unless it is the one that is. With `outputs` these are wanted, and no statistics."""

    case: Case
    artifact: Artifact | None
    chunk: int
    extent: Extent
    outputs: bool = False


class SweepResult(msgspec.Struct, kw_only=True, tag=True):
    """What the chunk counts, or its one output, and the SHA-256 of the outputs; or the failure. `seconds` are those of the whole, loading left out."""

    statistics: SweepStatistics | None = None
    outputs: Bundle = {}
    sha256: str = ""
    implementation: str = ""
    failure: Failure | None = None
    seconds: float = 0.0


class SweepSession:
    """Keeps the program of the last sweep in one worker."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loaded: tuple[Case, Artifact | None] | None = None
        self._program: Program | None = None
        self._implementation = ""

    def run(self, job: SweepJob) -> SweepResult:
        """Sweep the chunk of a job; faults of the backend are not raised."""
        try:
            program = self._open(job)
            started = time.perf_counter()
            with stage("run", job.chunk):
                kernel = self._session.subject(job.case.subject)
                assert isinstance(kernel, Kernel)  # a model is not elementwise, and no driver sends one
                result = _swept(program, kernel, job)
            result.seconds = time.perf_counter() - started
        except StoppedError as stopped:
            return SweepResult(failure=stopped.failure)
        result.implementation = self._implementation
        return result

    def _open(self, job: SweepJob) -> Program:
        if self._program is not None and self._loaded == (job.case, job.artifact):
            return self._program
        if self._program is not None:
            with suppress(StoppedError), stage("run"):  # it is not used any more
                self._program.close()
            self._program = None
        outcome = JobResult()
        self._program = self._session.open(Job(job.case, job.artifact, []), outcome)
        self._loaded, self._implementation = (job.case, job.artifact), outcome.implementation
        return self._program


def _swept(program: Program, kernel: Kernel, job: SweepJob) -> SweepResult:
    function = SweptFunction.of(kernel, job.case.aspect)
    call = _call_of(program, function, graph=job.artifact is not None)
    if job.outputs:
        outputs, sha256 = outputs_of_chunk(job.chunk, job.extent, call)
        return SweepResult(outputs={function.tensor: outputs}, sha256=sha256)
    statistics, sha256 = measured_chunk(function, job.chunk, job.extent, call)
    return SweepResult(statistics=statistics, sha256=sha256)


def _call_of(
    program: Program, function: SweptFunction, *, graph: bool
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the program as a function of one array. It gets a copy of its own, so that one that writes there changes no input."""
    ones = np.empty(0, np.float32)

    def call(x: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal ones
        if function.aspect == "value":
            return _output(program.forward({"x": aligned_copy(x)}), function.tensor, x)
        if ones.shape != x.shape:
            ones = aligned_copy(np.ones_like(x))
        if not graph:
            return _output(program.vjp({"x": aligned_copy(x)}, {"y": ones}), function.tensor, x)
        from actconform.onnx.gradient_artifact import with_cotangents  # onnx, which a framework's worker need not load

        return _output(program.forward(dict(with_cotangents({"x": aligned_copy(x)}, {"y": ones}))), function.tensor, x)

    return call


def _output(returned: Mapping[str, Any], name: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the one output. Raises TypeError where there is none of its name, shape and dtype."""
    output = returned.get(name) if isinstance(returned, dict) else returned
    if not isinstance(output, np.ndarray) or output.shape != x.shape or output.dtype != np.float32:
        shown = f"{output.dtype} {list(output.shape)}" if isinstance(output, np.ndarray) else type_name(output)
        raise TypeError(f"the program returned {shown} as {name!r}: wanted float32 {list(x.shape)}")
    return output
