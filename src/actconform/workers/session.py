"""The work of a worker: one job at a time on one backend, whose every fault becomes a Failure."""

from __future__ import annotations

import re
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from actconform.errors import SourceError, Unavailable, Unsupported
from actconform.plugin.interfaces import Backend, Program
from actconform.text import shortened
from actconform.types import Artifact, Support
from actconform.types.model import Model
from actconform.workers.captured_warnings import capture_warnings
from actconform.workers.interference import Peers, ask
from actconform.workers.layouts import lay_out
from actconform.workers.process_state import StateWatch
from actconform.workers.protocol import Call, ExportResult, Failure, Job, JobResult, aligned_copy, wire_dtype, wire_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from actconform.plugin.interfaces import Exporter
    from actconform.plugin.loader import Catalog
    from actconform.types import Case, Kernel
    from actconform.workers.protocol import Bundle, ExportJob

Stage = Literal["supports", "build", "load", "open", "run", "export"]
Kind = Literal["unsupported", "unavailable", "error", "memory", "source"]

# torch and TensorFlow have errors of their own for memory; ONNX Runtime has only messages.
MEMORY_ERRORS = ("OutOfMemoryError", "ResourceExhaustedError")
MEMORY_WORDS = re.compile(r"out of memory|(not enough|can't allocate|failed to allocate) memory", re.IGNORECASE)
LONGEST_MESSAGE = 2000  # letters
NEIGHBOURS = ("tanh", "relu", "sigmoid")  # what most backends have


class CommandError(Exception):
    """A fault of a command: its message is complete without the line of code that raised it."""


class StoppedError(Exception):
    """A fault of a backend, as a Failure: raised inside a worker alone."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Session:
    """A backend and its exporters: does jobs, and turns their faults into Failures.

    Under a `name` of its own, "BASE@LABEL", the routes of its cases bear that label, and so do its exporters.
    """

    def __init__(self, backend: Backend, catalog: Catalog, unavailable: str = "", name: str = "") -> None:
        self.backend = backend
        self.name = name or backend.name
        self._label = self.name.removeprefix(backend.name)
        self.catalog = catalog
        self.exporters = {
            name: exporter for name, exporter in catalog.exporters.items() if exporter.source == backend.name
        }
        self.unavailable = unavailable

    def run(self, job: Job) -> JobResult:
        """Build or load the program, make the calls, then those that are to be repeated; faults of the backend are not raised.

        Calls with cotangents go to `vjp`, others to `forward`, each time on copies of the inputs. `timings` has the seconds
        of "build" or "load", of "run" (inside the program's calls alone) and of the "worker" altogether.
        """
        started = time.perf_counter()
        outcome = JobResult(timings={"run": 0.0})
        try:
            if job.surviving:
                outcome.surviving = self._surviving(job)
            else:
                self._run(job, outcome)
        except StoppedError as stopped:
            outcome.failure = stopped.failure
        outcome.timings["worker"] = time.perf_counter() - started
        return outcome

    def _run(self, job: Job, outcome: JobResult) -> None:
        watch = StateWatch() if job.side_effects else None
        program = self.open(job, outcome)
        try:
            if watch:
                watch.after("building")
            self._call_all(program, job, outcome)
            if job.intermediates:
                outcome.intermediates = _shown(program, "intermediates", job.calls[0])
            if job.statistics:
                outcome.statistics = _shown(program, "statistics", job.calls[0])
            if watch:
                watch.after("a call", drawing=True)
                if not self.backend.process_per_case:
                    ask(program, job.calls, outcome, self._peers(job))
        finally:
            _close(program, outcome)
            if watch:
                watch.after("closing")
                outcome.changed, outcome.altered = watch.changed, outcome.altered or watch.left_changed

    def export(self, job: ExportJob) -> ExportResult:
        """Make the graph, with the warnings captured meanwhile; faults of the exporter are not raised."""
        started = time.perf_counter()
        outcome = ExportResult()
        try:
            self.require_available()
            with stage("export"), capture_warnings() as captured:
                subject = job.model or self.subject(job.subject)
                artifact = _exported(self.exporter_of(job.exporter), subject, job)
                if not isinstance(artifact, Artifact):
                    raise TypeError(f"export returned {type_name(artifact)}: wanted an actconform.Artifact")
            outcome.artifact = msgspec.structs.replace(artifact, warnings=(*artifact.warnings, *captured))
        except StoppedError as stopped:
            outcome.failure = stopped.failure
        outcome.seconds = time.perf_counter() - started
        return outcome

    def exporter_of(self, full_name: str) -> Exporter:
        name, _, variant = full_name.removesuffix(self._label).partition("@")
        if name not in self.exporters:
            exporters = ", ".join(sorted(self.exporters)) or "none"
            raise LookupError(f"the {self.name} worker has no exporter {name!r}; it has {exporters}")
        exporter = self.exporters[name]()
        return exporter.variant(variant) if variant else exporter

    def require_available(self) -> None:
        with stage("load"):
            if self.unavailable:
                raise Unavailable(self.unavailable)

    def open(self, job: Job, outcome: JobResult) -> Program:
        """Return the program of a job, and record in `outcome` what it is; raise StoppedError where there is none."""
        case = job.case
        backend = self.taking(case)
        started = time.perf_counter()
        name: Stage = "build" if backend.kind == "framework" else "load"
        with stage(name):
            if name == "build":
                subject = self.subject(case.subject)
                if isinstance(subject, Model):
                    subject = msgspec.structs.replace(subject, batch=job.batch or subject.batch)
                    program = backend.build_model(subject, case.dtype)
                else:
                    program = backend.build(subject, case.dtype)
            else:
                program = backend.load(*_load_arguments(job, backend))
            if not isinstance(program, Program):
                raise TypeError(f"{name} returned {type_name(program)}: wanted an actconform.Program")
        outcome.timings[name] = time.perf_counter() - started
        outcome.implementation = str(program.implementation)
        outcome.placement = {str(name): tuple(nodes) for name, nodes in program.placement.items()}
        return program

    def taking(self, case: Case) -> Backend:
        """Return the backend, or its variant, that takes the case."""
        self.require_available()
        variant = case.backend.removesuffix(self._label).partition("@")[2]
        with stage("supports"):
            backend = self.backend.variant(variant) if variant else self.backend
            support = backend.supports(case)
            if not isinstance(support, Support):
                raise TypeError(f"supports returned {type_name(support)}: wanted actconform.Support")
            if not support.yes:
                raise Unsupported(support.reason or f"{case.backend} gives no reason")
        return backend

    def _surviving(self, job: Job) -> tuple[str, ...]:
        backend = self.taking(job.case)
        with stage("load"):
            names = backend.surviving_tensors(*_load_arguments(job, backend))
            if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
                raise TypeError(f"surviving_tensors returned {type_name(names)}: wanted a tuple of names")
        return tuple(names)

    def subject(self, name: str) -> Kernel | Model:
        """Return the kernel or model of the worker's catalog; raise LookupError, with advice, where there is none."""
        try:
            return self.catalog.subject(name)
        except KeyError:
            advice = f"install the plugin that gives it for {sys.executable} too"
            raise LookupError(f"the {self.name} worker knows no kernel or model {name!r}: {advice}") from None

    def _call_all(self, program: Program, job: Job, outcome: JobResult) -> None:
        calls = list(job.calls)
        _announce(program, job, outcome.timings)
        for index, call in enumerate(calls):
            try:
                outputs, mutated = _call(program, call, index, outcome.timings)
            except StoppedError as stopped:
                if not (call.layout or call.may_refuse):
                    raise
                outputs, mutated = {}, []
                if not call.may_refuse:
                    calls[index] = msgspec.structs.replace(call, layout="")
                    # what raises here too is no refusal
                    outputs, mutated = _call(program, calls[index], index, outcome.timings)
                outcome.refused[index] = stopped.failure.message
            outcome.outputs.append(outputs)
            outcome.mutated.extend((index, name) for name in mutated)
        repeated = [index for index in job.repeated if not (index in outcome.refused and calls[index].may_refuse)]
        _repeat(program, calls, repeated if calls else (), outcome)

    def _peers(self, job: Job) -> Peers:
        return Peers(
            again=lambda: self.open(job, JobResult()),
            neighbour=lambda: self._neighbour(job.case),
            call=_answer,
            forward=_forward_of,
            close=lambda program: _close(program, JobResult()),
            differing=differing_names,
            thread_safe=self.backend.thread_safe,
            brief=job.case.subject in self.catalog.models,
        )

    def _neighbour(self, case: Case) -> Program | None:
        """Return the program of another kernel, once called, the first that answers; None where none does."""
        from actconform.onnx.author.exporter import author  # onnx, which not everybody who measures a function needs

        inputs = {"x": np.linspace(-2, 2, 17).astype(wire_dtype(case.dtype))}
        for name in NEIGHBOURS:
            if name == case.subject:
                continue
            try:
                artifact = None if self.backend.kind == "framework" else author(self.catalog.kernels[name], case.dtype)
                neighbour = self.open(Job(msgspec.structs.replace(case, subject=name), artifact, []), JobResult())
                _answer(neighbour, Call("", inputs))
            except (StoppedError, Unsupported):
                continue  # what it does there is a case of its own
            return neighbour
        return None


def _announce(program: Program, job: Job, timings: dict[str, float]) -> None:
    """Tell the program which calls of `forward` come; it may compute them now."""
    calls = [*job.calls, *(job.calls[index] for index in job.repeated if job.calls)]
    if calls and all(call.cotangents is None for call in calls):
        with stage("run", 0):
            started = time.perf_counter()
            program.expect([call.inputs for call in calls])
            timings["run"] += time.perf_counter() - started


def _repeat(program: Program, calls: Sequence[Call], indices: Sequence[int], outcome: JobResult) -> None:
    """Make calls again, after all others: state that any of them left behind must not show in the outputs."""
    for index in indices:
        outputs, mutated = _call(program, calls[index], index, outcome.timings)
        outcome.mutated.extend((index, name) for name in mutated if (index, name) not in outcome.mutated)
        for name in differing_names(outcome.outputs[index], outputs):
            second = outcome.second.setdefault(index, outputs)
            if (index, name) not in outcome.unsteady:
                outcome.unsteady.append((index, name))
                second.update({name: outputs[name]} if name in outputs else {})


def _load_arguments(job: Job, backend: Backend) -> tuple[Any, ...]:
    """Return the arguments of `load`: a level only where the job has one, a file only where the backend reads it itself."""
    case, artifact = job.case, job.artifact
    if artifact is None:
        raise ValueError(f"{case.backend} loads graphs, and the job of route {case.route!r} brings none")
    if artifact.file and not backend.loads_files:
        artifact = msgspec.structs.replace(artifact, model=Path(artifact.file).read_bytes(), file="")
    return artifact, case.dtype, *([job.level] if job.level else [])


def _exported(exporter: Exporter, subject: Kernel | Model, job: ExportJob) -> Artifact:
    if isinstance(subject, Model):
        return exporter.export_model(subject, job.dtype, job.constants)
    return exporter.export(subject, job.dtype)


def _shown(
    program: Program, method: Literal["intermediates", "statistics"], call: Call
) -> dict[str, NDArray[Any]] | None:
    """Return what `intermediates` or `statistics` of a program gives for a call; None where it shows none."""
    with stage("run", 0):
        try:
            inputs = {name: aligned_copy(array) for name, array in call.inputs.items()}
            return checked_arrays(getattr(program, method)(inputs), method)
        except Unsupported:
            return None


@contextmanager
def stage(name: Stage, call: int | None = None) -> Iterator[None]:
    """Turn whatever is raised within into a StoppedError at that stage."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  whatever the backend raises costs one case; a panic in Rust is no Exception
        raise StoppedError(Failure(name, _kind(error), fault_message(error), call)) from None


def _close(program: Program, outcome: JobResult) -> None:
    try:
        with stage("run"):
            program.close()
    except StoppedError as stopped:
        if outcome.failure is None:
            outcome.failure = stopped.failure


def _call(
    program: Program, call: Call, index: int, timings: dict[str, float]
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Call the program on copies; return copies of its outputs, which it may reuse, and the names of changed inputs."""
    method = "forward" if call.cotangents is None else "vjp"  # a graph of gradients has cotangents among its inputs
    with stage("run", index):
        inputs, cotangents, changed = _copies(call)
        started = time.perf_counter()
        try:
            returned = (
                program.forward(dict(inputs)) if method == "forward" else program.vjp(dict(inputs), dict(cotangents))
            )
        finally:
            timings["run"] += time.perf_counter() - started
        outputs = checked_arrays(returned, method)
    return outputs, changed()


def _copies(call: Call) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]], Callable[[], list[str]]]:
    """Return copies of a call's inputs and cotangents, laid out as it says, and what names those that were written to."""
    arrays = [*call.inputs.items(), *((f"cotangent {name}", array) for name, array in (call.cotangents or {}).items())]
    laid_out = {
        name: lay_out(array, call.layout)
        for number, (name, array) in enumerate(arrays)
        if call.layout and (number or not call.first_plain)
    }
    copies = {name: laid_out[name].array if name in laid_out else aligned_copy(array) for name, array in arrays}

    def changed() -> list[str]:
        return [
            name
            for name, array in arrays
            if (laid_out[name].changed() if name in laid_out else not same_bytes(copies[name], array))
        ]

    cotangents = {name: copies[f"cotangent {name}"] for name in call.cotangents or {}}
    return {name: copies[name] for name in call.inputs}, cotangents, changed


def _answer(program: Program, call: Call) -> dict[str, NDArray[Any]]:
    return _call(program, call, 0, {"run": 0.0})[0]


def _forward_of(program: Program, call: Call) -> dict[str, NDArray[Any]] | None:
    """Return what `forward` gives for the inputs of a call with cotangents; None where the backend has gradients alone."""
    try:
        return _answer(program, msgspec.structs.replace(call, cotangents=None))
    except StoppedError as stopped:
        if stopped.failure.kind == "unsupported":
            return None
        raise


def checked_arrays(returned: object, method: str) -> dict[str, NDArray[Any]]:
    """Return aligned copies of the arrays that `method` of a plugin returned; raise TypeError where it is no dict of names to arrays."""
    wanted = "wanted a dict of output name to numpy array"
    if not isinstance(returned, dict):
        raise TypeError(f"{method} returned {type_name(returned)}: {wanted}")
    for name, array in returned.items():
        if not isinstance(name, str):
            raise TypeError(f"{method} returned the key {name!r}: {wanted}")
        if not isinstance(array, np.ndarray | np.generic):  # numpy's functions return a number of its own for rank 0
            raise TypeError(f"{method} returned {type_name(array)} as {name!r}: {wanted}; convert it first")
        wire_name(array.dtype)
    return {name: aligned_copy(array) for name, array in returned.items()}


def differing_names(first: Bundle, second: Bundle) -> list[str]:
    """Return the names of arrays that only one has, or whose bits differ, NaN payloads aside."""
    return [name for name in sorted({*first, *second}) if not same_numbers(first.get(name), second.get(name))]


def same_numbers(first: NDArray[Any] | None, second: NDArray[Any] | None) -> bool:
    """Whether both are the same bits, or NaN in the same places."""
    if first is None or second is None or (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    if same_bytes(first, second) or first.dtype.kind in "biuSUmM":
        return same_bytes(first, second)
    nan = np.isnan(first)
    return bool(np.array_equal(nan, np.isnan(second))) and same_bytes(first[~nan], second[~nan])


def same_bytes(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Return whether both hold the same bytes."""
    if first.nbytes != second.nbytes:
        return False
    unit = np.uint64 if first.nbytes % 8 == 0 else np.uint8
    bits = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).view(unit) for array in (first, second)]
    return bool((bits[0] == bits[1]).all())


def _kind(error: BaseException) -> Kind:
    if isinstance(error, Unsupported):
        return "unsupported"
    if isinstance(error, Unavailable):
        return "unavailable"
    if isinstance(error, SourceError):
        return "source"
    text = "".join(traceback.format_exception_only(error))  # its own __str__ may fail
    if isinstance(error, MemoryError) or type(error).__name__ in MEMORY_ERRORS or MEMORY_WORDS.search(text):
        return "memory"
    return "error"


def fault_message(error: BaseException) -> str:
    """Return the backend's message for an outcome; for a fault its type, message, and innermost line outside this file."""
    if isinstance(error, Unsupported | Unavailable | SourceError | CommandError):
        return _sendable(shortened(str(error), LONGEST_MESSAGE))
    text = "".join(traceback.format_exception_only(error)).strip()
    text = shortened(text, LONGEST_MESSAGE)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    return _sendable(f"{text} (at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else text)


def _sendable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def type_name(value: object) -> str:
    """Return what `value` is, as a message says it: "None", "a list", "a torch.Tensor"."""
    kind = type(value)
    return "None" if value is None else f"a {kind.__module__}.{kind.__name__}".replace("builtins.", "")
