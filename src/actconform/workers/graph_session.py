"""Graphs with inputs of any ONNX type, many in one request: loaded, called and closed one after another in a worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray  # noqa: TC002  msgspec reads the annotations when it decodes

from actconform.errors import ProtocolError, Unsupported
from actconform.types import Artifact, Case  # noqa: TC001  likewise
from actconform.workers.protocol import Failure, aligned_copy
from actconform.workers.session import StoppedError, stage, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.plugin.interfaces import Backend, Program
    from actconform.workers.session import Session

# A tensor, of strings too (an object array), a sequence as a list, or None for an optional without a value.
OnnxValue: TypeAlias = Any


class WireValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value of an ONNX type as it travels: a tensor of numbers, one of strings with its shape, a sequence, or nothing at all."""

    array: NDArray[Any] | None = None
    strings: list[bytes] | None = None
    shape: tuple[int, ...] = ()
    items: list[WireValue] | None = None


class GraphCalls(msgspec.Struct, frozen=True):
    """One graph, and the inputs of each call of it by name."""

    artifact: Artifact
    inputs: list[dict[str, WireValue]]


class GraphJob(msgspec.Struct, frozen=True, tag=True):
    """Graphs to be loaded and called, one after another; a fault of one of them costs that one. `case` names the backend."""

    case: Case
    graphs: list[GraphCalls]
    name: str = "graphs"


class GraphAnswer(msgspec.Struct, kw_only=True):
    """The outputs of each call by name, up to the failure where there was one."""

    outputs: list[dict[str, WireValue]] = []
    failure: Failure | None = None
    seconds: float = 0.0
    """Of loading and calling."""


class GraphResult(msgspec.Struct, kw_only=True, tag=True):
    """The answers of a GraphJob, in its order."""

    answers: list[GraphAnswer] = []


def on_wire(value: OnnxValue) -> WireValue:
    """Return a value as it travels; raise ProtocolError for what is no tensor, no sequence of such, and not None."""
    if value is None:
        return WireValue()
    if isinstance(value, list | tuple):
        return WireValue(items=[on_wire(item) for item in value])
    if not isinstance(value, np.ndarray | np.generic):
        raise ProtocolError(f"{type_name(value)} cannot be sent: wanted a tensor, a sequence of tensors or None")
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        return WireValue(strings=[_encoded(item) for item in array.reshape(-1).tolist()], shape=array.shape)
    return WireValue(array=array)


def off_wire(wire: WireValue) -> OnnxValue:
    """Return a value that has travelled: tensors of strings as object arrays."""
    if wire.items is not None:
        return [off_wire(item) for item in wire.items]
    if wire.strings is not None:
        strings = np.empty(len(wire.strings), object)
        strings[:] = [text.decode(errors="surrogateescape") for text in wire.strings]
        return strings.reshape(wire.shape)
    return wire.array


def run_graphs(session: Session, job: GraphJob) -> GraphResult:
    """Load and call the graphs of a job; faults of the backend are not raised."""
    try:
        backend = session.taking(job.case)
    except StoppedError as stopped:
        return GraphResult(answers=[GraphAnswer(failure=stopped.failure) for _ in job.graphs])
    return GraphResult(answers=[_answer(backend, graph, job.case.dtype) for graph in job.graphs])


def _answer(backend: Backend, graph: GraphCalls, dtype: str) -> GraphAnswer:
    answer = GraphAnswer()
    started = time.perf_counter()
    try:
        with stage("load"):
            program = backend.load(graph.artifact, dtype)
        try:
            for number, inputs in enumerate(graph.inputs):
                with stage("run", number):
                    answer.outputs.append(_outputs(program, {name: off_wire(wire) for name, wire in inputs.items()}))
        finally:
            with stage("run"):
                program.close()
    except StoppedError as stopped:
        answer.failure = stopped.failure
    answer.seconds = time.perf_counter() - started
    return answer


def _outputs(program: Program, inputs: Mapping[str, OnnxValue]) -> dict[str, WireValue]:
    """Return the outputs of a call as they travel; raise Unsupported where a program that takes no such inputs raises."""
    numbers = all(isinstance(value, np.ndarray) and value.dtype.kind != "O" for value in inputs.values())
    copies = {name: aligned_copy(value) if numbers else value for name, value in inputs.items()}
    try:
        returned = program.forward(copies)
    except (TypeError, AttributeError, ValueError) as error:
        if numbers:
            raise
        raise Unsupported(f"takes tensors of numbers alone, and not these inputs: {error}") from error
    if not isinstance(returned, dict) or not all(isinstance(name, str) for name in returned):
        raise TypeError(f"forward returned {type_name(returned)}: wanted a dict of output name to value")
    return {name: on_wire(value) for name, value in returned.items()}


def _encoded(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode(errors="surrogateescape")
