"""Workers as the driver sees them: one process a backend, kept alive over cases, replaced when it dies or hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, TypeVar

from actconform._version import __version__
from actconform.errors import ProtocolError, WorkerCrash, WorkerError, WorkerTimeout
from actconform.plugin.loader import plugin_versions
from actconform.settings import table_name
from actconform.workers.graph_session import GraphResult
from actconform.workers.process import WorkerProcess, cause_of_death
from actconform.workers.protocol import (
    ExportResult,
    Handshake,
    JobResult,
    TrainedResult,
    TrainingResult,
    read_message,
    write_message,
)
from actconform.workers.step_session import StepResult
from actconform.workers.sweep_session import SweepResult
from actconform.workers.timing import Prepared, Sampled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from actconform.workers.graph_session import GraphJob
    from actconform.workers.protocol import ExportJob, Job, TrainedJob, TrainingJob
    from actconform.workers.server import Request
    from actconform.workers.step_session import StepJob
    from actconform.workers.sweep_session import SweepJob
    from actconform.workers.timing import Prepare, TakeSample

Answer = TypeVar(
    "Answer",
    Handshake,
    JobResult,
    ExportResult,
    TrainedResult,
    TrainingResult,
    StepResult,
    GraphResult,
    SweepResult,
    Prepared,
    Sampled,
)
START_SECONDS = 120.0  # a cold import of TensorFlow from a slow disk
DEATH_SECONDS = 2.0
TOO_OLD = "unknown option: -p"  # Python before 3.11 has no -P


class Worker:
    """One backend's process. Each method may be called from any thread; `run` and `export` do one job at a time.

        with Worker("torch") as worker:
            print(worker.start(timeout=60).facts)
            outcome = worker.run(job, timeout=30)

    `python` is another interpreter, which has the same versions of actconform and its plugins; `plugins` are further
    ones, "module:attribute". It may take `start_seconds` to start. The process gets `threads` as ACTCONFORM_THREADS and
    OMP_NUM_THREADS, then `env` on top; the attribute `env` has both. Where no worker can be started, `unavailable` is
    the reason, and every method raises it as a WorkerError of that kind.
    """

    def __init__(
        self,
        backend: str,
        *,
        python: str | None = None,
        threads: int = 1,
        env: Mapping[str, str] | None = None,
        plugins: Sequence[str] = (),
        unavailable: str = "",
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.backend = backend
        self._unavailable = unavailable
        self.python = python or sys.executable
        self.hello: Handshake | None = None
        self.env = {"ACTCONFORM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), **(env or {})}
        self._plugins = tuple(plugins)
        self._process: WorkerProcess | None = None
        self._start_seconds = start_seconds
        self._lock = threading.Lock()
        self._closed = False

    def start(self, timeout: float | None = None) -> Handshake:
        """Start the process, unless it runs, and return its handshake; its framework is imported then.

        A backend that cannot run here is no error: `Handshake.unavailable` is the reason. Raises WorkerError of kind "handshake"
        (versions differ, no such backend, no actconform), WorkerCrash or WorkerTimeout.
        """
        with self._lock:
            self._start_seconds = timeout or self._start_seconds
            return self._started()[1]

    def run(self, job: Job, timeout: float) -> JobResult:
        """Have the worker do `job` and return the outcome, starting the process first where it is not running.

        `timeout` seconds hold for the job alone; a start has the time last given to `start`. Raises WorkerCrash or
        WorkerTimeout, after which the next call begins with a new process, and WorkerError as `start` does.
        """
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, job, JobResult, timeout, f"while it ran {job.name or job.case.id}")

    def export(self, job: ExportJob, timeout: float) -> ExportResult:
        """Have the worker make the graph of `job` with one of its backend's exporters; all else is as in `run`."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, job, ExportResult, timeout, f"while it exported {job.id}")

    def trained(self, job: TrainedJob, timeout: float) -> TrainedResult:
        """Have the worker do `job` with a user's trained model; all else is as in `run`."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, job, TrainedResult, timeout, f"while it did: {job.id}")

    def train(self, job: TrainingJob, timeout: float) -> TrainingResult:
        """Have the worker do a training; all else is as in `run`."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, job, TrainingResult, timeout, f"while it ran {job.case.id}")

    def make_steps(self, job: StepJob, timeout: float) -> StepResult:
        """Have the worker do `job` with the training that is loaded in it; all else is as in `run`. It is gone when the process is."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, job, StepResult, timeout, "while it trained the model")

    def run_graphs(self, job: GraphJob, timeout: float) -> GraphResult:
        """Have the worker load and call the graphs of `job`, one after another; all else is as in `run`."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, job, GraphResult, timeout, f"while it ran {job.name}")

    def sweep(self, job: SweepJob, timeout: float) -> SweepResult:
        """Have the worker sweep a chunk of all float32 numbers; all else is as in `run`."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, job, SweepResult, timeout, f"in chunk {job.chunk} of {job.case.id}")

    def prepare(self, request: Prepare, timeout: float) -> Prepared:
        """Have the worker get a program ready to be timed; all else is as in `run`. It is gone when the process is."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, request, Prepared, timeout, f"while it got {request.key} ready")

    def sample(self, request: TakeSample, timeout: float) -> Sampled:
        """Have the worker time what is ready; all else is as in `run`."""
        with self._lock:
            process, _ = self._started()
            return self._exchange(process, request, Sampled, timeout, f"while it timed {request.key}")

    def renew(self) -> None:
        """End the process between two jobs; the next call begins with a new one."""
        with self._lock:
            if self._process is not None:
                self._discard(self._process)

    def close(self) -> None:
        """End the process, at once where a job runs: that is a WorkerError, kind "closed", and so is every later one."""
        self._closed = True
        idle = self._lock.acquire(blocking=False)
        if not idle and (process := self._process) is not None:
            process.kill()
        # The thread that runs the job sees the end and releases the process.
        if idle or self._lock.acquire(timeout=DEATH_SECONDS):
            try:
                if self._process is not None:
                    self._process.end(DEATH_SECONDS if idle else 0.0)
                    self._process = None
            finally:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> tuple[WorkerProcess, Handshake]:
        if self._unavailable:
            raise WorkerError("unavailable", self._unavailable)
        self._refuse_if_closed()
        if self._process is not None and self.hello is not None and self._process.alive():
            return self._process, self.hello
        if self._process is not None:
            self._discard(self._process)
        command = [self.python, "-P", "-m", "actconform.workers.server", "--backend", self.backend]
        command += [word for plugin in self._plugins for word in ("--plugin", plugin)]
        try:
            process = self._process = WorkerProcess(command, {**os.environ, **self.env})
        except OSError as error:
            advice = f"set python of {table_name(self.backend)} to an interpreter that has actconform"
            raise WorkerError("handshake", f"cannot start the {self.backend} worker: {error}; {advice}") from None
        self._refuse_if_closed()  # by a close() that came before there was a process to kill
        hello = self._exchange(process, None, Handshake, self._start_seconds, "while it started")
        if problem := self._problem(hello):
            self._discard(process)
            raise WorkerError("handshake", problem)
        self.hello = hello
        return process, hello

    def _refuse_if_closed(self) -> None:
        if self._closed:
            if self._process is not None:
                self._discard(self._process)
            raise WorkerError("closed", f"the {self.backend} worker is closed: make a new one")

    def _problem(self, hello: Handshake) -> str:
        if hello.actconform != __version__:
            return self._unequal("actconform", hello.actconform, __version__)
        for name, version in plugin_versions().items():
            installed = hello.plugins.get(name, version)  # a plugin that is missing in the worker is not compared
            if installed != version:
                return self._unequal(name, installed, version)
        return hello.problem

    def _unequal(self, name: str, worker_version: str, driver_version: str) -> str:
        advice = f"{self.python} -m pip install {name}=={driver_version}"
        return f"the {self.backend} worker ({self.python}) has {name} {worker_version}, the driver has {driver_version}: {advice}"

    def _exchange(
        self, process: WorkerProcess, job: Request | None, answer: type[Answer], seconds: float, when: str
    ) -> Answer:
        process.expect_within(seconds)
        try:
            if job is not None:
                write_message(process, job)
            return read_message(process, answer)
        except TimeoutError:
            process.dump_stack()
            self._discard(process)
            stderr_lines = _lines(process.last_lines())
            longer = "" if job is not None else f"; {_longer_start(seconds)}"
            waited = process.deadline.words
            text = f"the {self.backend} worker gave no answer in {waited} {when}, and was killed{longer}{stderr_lines}"
            raise WorkerTimeout(text, seconds) from None
        except (EOFError, BrokenPipeError, ProtocolError) as error:
            raise self._post_mortem(process, error, when) from None
        except BaseException:
            self._discard(process)  # half an exchange: what the process sends next is undefined
            raise

    def _post_mortem(self, process: WorkerProcess, error: Exception, when: str) -> WorkerError:
        died = not self._closed and process.wait(DEATH_SECONDS)
        code = self._discard(process)
        words = process.last_lines()
        if self._closed:
            return WorkerError("closed", f"the {self.backend} worker was closed {when}")
        if any("No module named 'actconform" in line for line in words):
            advice = f"{self.python} -m pip install actconform=={__version__}, and the plugin"
            return WorkerError("handshake", f"{self.python} has no actconform for the {self.backend} worker: {advice}")
        if any(TOO_OLD in line.lower() for line in words):
            advice = f"actconform needs 3.11 or newer: set python of {table_name(self.backend)} to such an interpreter"
            return WorkerError("handshake", f"{self.python} is {_version(self.python)}; {advice}")
        cause = cause_of_death(code) if died else f"sent something else than an answer ({error or 'an early end'})"
        return WorkerCrash(f"the {self.backend} worker {cause} {when}{_lines(words)}", cause)

    def _discard(self, process: WorkerProcess) -> int:
        self._process = None
        return process.end(0)


def _version(python: str) -> str:
    """Return the version that an interpreter prints: "Python 3.9.18"."""
    try:
        done = subprocess.run([python, "--version"], capture_output=True, text=True, timeout=DEATH_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return "an old Python"
    return (done.stdout or done.stderr).strip() or "an old Python"


def _longer_start(seconds: float) -> str:
    longer = 2 * max(seconds, START_SECONDS)
    return (
        f"on a busy or slow machine let a start take longer: --timeout {longer:g} of the command, or, where it has none, "
        f"timeout = {longer:g} in actconform.toml"
    )


def _lines(words: Sequence[str]) -> str:
    return "; its last words:" + "".join(f"\n  {line}" for line in words) if words else "; it said nothing"
