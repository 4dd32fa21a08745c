"""A runtime that serves, as a worker sees it: one process, started once and anew where it died; graphs that are loaded in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actconform.errors import TensorFileError, Unavailable, Unsupported
from actconform.plugin.interfaces import Program
from actconform.workers.command_program import last_words, same_arrays
from actconform.workers.deadline import Deadline
from actconform.workers.last_words import speaking
from actconform.workers.process import WorkerProcess, cause_of_death
from actconform.workers.serve.frames import (
    BYE,
    CALL,
    DONE,
    ERROR,
    HELLO,
    LOAD,
    PROTOCOL,
    UNLOAD,
    UNSUPPORTED,
    Frame,
    FrameError,
    read_frame,
    write_frame,
)
from actconform.workers.session import CommandError
from actconform.workers.tensor_files import read_tensor, write_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.types import Bundle
    from actconform.workers.command_program import GraphFiles
    from actconform.workers.command_runtime import CommandSettings

END_SECONDS = 2.0
FRAME_BYTES = 16  # of the beginning of a message, and at most of that of a blob


@dataclass(eq=False)
class SentCall:
    """A call that was sent, and what came of it: outputs, a failure, neither before it is read or where the process is gone."""

    graph: int
    size: int
    """Bytes of its message, at most."""
    blobs: Mapping[str, bytes] | None = None
    failure: Exception | None = None


class ServedRuntime:
    """The process of a runtime that serves. It is started at the first request, and again at the first one after its end.

    `starts` counts that, so that a program can tell whether its graph is loaded in the process that runs.
    """

    def __init__(self, about: CommandSettings) -> None:
        self.starts = 0
        self._about = about
        self._process: WorkerProcess | None = None
        self._sent: deque[SentCall] = deque()
        """Whose answers are not read yet, in order; none of them comes where there is no process any more."""
        self._sent_bytes = 0
        self._text = ""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def about_text(self) -> str:
        """Return what the runtime says that it is, starting it if need be; raise Unavailable where it cannot be started here."""
        try:
            with self._lock:
                return self._started()[1]
        except CommandError as error:
            raise Unavailable(str(error)) from error

    def request(self, kind: int, graph: int, blobs: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Return the blobs of the answer. Raises Unsupported in the runtime's words, and CommandError where it fails or dies."""
        with self._lock:
            process, _ = self._started()
            return self._answer(process, Frame(kind, graph, blobs))

    def send_call(self, graph: int, blobs: Mapping[str, bytes]) -> SentCall | None:
        """Send a call whose answer `answer_to` reads later; return None, and send nothing, where that might wait for the process."""
        size = FRAME_BYTES + sum(FRAME_BYTES + len(name) + len(content) for name, content in blobs.items())
        with self._lock:
            process = self._process
            if process is None or self._sent_bytes + size > process.sure_bytes:
                return None
            try:
                write_frame(process, Frame(CALL, graph, blobs))
            except BrokenPipeError:
                return None  # the answers that came before it died can be read still
            self._sent.append(SentCall(graph, size))
            self._sent_bytes += size
            return self._sent[-1]

    def answer_to(self, sent: SentCall) -> Mapping[str, bytes] | None:
        """Return and raise as `request` does; None where the process died or was ended before this call, which is to be made again."""
        with self._lock:
            while sent in self._sent:
                self._read_sent()
        if sent.failure is not None:
            raise sent.failure
        return sent.blobs

    def next_number(self) -> int:
        """Return a number for a graph that no graph had before."""
        return next(self._numbers)

    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.alive()

    def close(self) -> None:
        """Say goodbye, and end the process."""
        with self._lock:
            if self._process is None:
                return
            with contextlib.suppress(OSError):  # it is gone already
                write_frame(self._process, Frame(BYE))
            self._process.end(END_SECONDS)
            self._process = None

    def _started(self) -> tuple[WorkerProcess, str]:
        """Return the process, started if need be, that owes no answer, and what it says that it is."""
        while self._sent:
            self._read_sent()
        if self._process is not None and self._process.alive():
            return self._process, self._text
        if self._process is not None:
            self._process.end(0)
            self._process = None
        words = shlex.split(self._about.serve or "")
        try:
            process = WorkerProcess(words, os.environ, self._about.folder, own_session=False)
        except OSError as error:
            raise CommandError(f"{self._about.name}: {words[0]} cannot be started: {error.strerror}") from error
        self.starts += 1
        self._process = process
        process.expect_within(self._about.version_seconds)
        answer = self._answer(process, Frame(HELLO, 0, {"protocol": PROTOCOL}))
        if answer.get("protocol") != PROTOCOL:
            raise self._broken(process, f"answers hello without protocol {PROTOCOL.decode()}")
        process.deadline = Deadline.never()  # from now on the driver's holds
        self._text = answer.get("about", b"").decode(errors="replace")
        return process, self._text

    def _read_sent(self) -> None:
        """Read the answer to the first call that was sent; those that come after it are gone with a process that is."""
        sent, process = self._sent.popleft(), self._process
        self._sent_bytes -= sent.size
        if process is None:
            return
        try:
            sent.blobs = self._answer(process, Frame(CALL, sent.graph), written=True)
        except (CommandError, Unsupported) as error:
            sent.failure = error

    def _answer(self, process: WorkerProcess, request: Frame, *, written: bool = False) -> Mapping[str, bytes]:
        name = self._about.name
        try:
            with speaking(process.last_lines):
                if not written:
                    write_frame(process, request)
                answer = read_frame(process)
        except TimeoutError:
            raise self._broken(process, f"gave no answer to hello in {self._about.version_seconds:g} s") from None
        except FrameError as error:
            if process.alive():
                raise self._broken(process, f"sent something else than an answer: {error}") from None
            raise self._broken(process, "") from None
        except (EOFError, BrokenPipeError):
            raise self._broken(process, "") from None
        if answer.kind not in (DONE, UNSUPPORTED, ERROR) or answer.graph != request.graph:
            raise self._broken(
                process, f"sent a message of kind {answer.kind} for graph {answer.graph}: wanted an answer"
            )
        if answer.kind == DONE:
            return answer.blobs
        reason = answer.blobs.get("message", b"").decode(errors="replace").strip()
        if answer.kind == UNSUPPORTED:
            raise Unsupported(reason or f"{name} gives no reason")
        raise CommandError(f"{name}: {reason}" if reason else f"{name} fails and gives no reason")

    def _broken(self, process: WorkerProcess, words: str) -> CommandError:
        """Return the fault of a process that ended, or says what cannot be understood, and end it."""
        died = process.wait(END_SECONDS) if not words else False
        code = process.end(0)
        self._process = None
        words = words or (cause_of_death(code) if died else "closed its standard output and did not end")
        return CommandError(f"{self._about.name} {words}{last_words(process.last_lines())}")


class ServedProgram(Program):
    """A graph that a runtime which serves has loaded; it is loaded again where the process is another one."""

    def __init__(self, runtime: ServedRuntime, graph: GraphFiles, path: str, implementation: str) -> None:
        self.implementation = implementation
        self._runtime, self._graph, self._path = runtime, graph, path
        self._number = runtime.next_number()
        self._start = -1
        self._coming: deque[Bundle] = deque()
        self._sent: deque[tuple[Bundle, SentCall]] = deque()
        self._load()

    def expect(self, calls: Sequence[Bundle]) -> None:
        """Send calls ahead, as many at a time as surely fit into the pipe: the runtime computes while the answers before are read."""
        self._coming = deque(calls)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return every output by name. Raises `Unsupported` in the runtime's words, and CommandError where it fails, dies, or
        answers with anything else than the outputs.
        """
        answer = self._sent_answer(inputs)
        if answer is None:
            self._load()
            try:
                answer = self._runtime.request(CALL, self._number, _blobs(inputs))
            except FrameError as error:
                raise CommandError(str(error)) from error
        types = self._graph.output_types
        if answer.keys() != types.keys():
            names = [", ".join(sorted(names)) or "nothing" for names in (answer, types)]
            raise CommandError(f"the answer has {names[0]}: wanted {names[1]}, no more")
        outputs = {}
        for name, content in answer.items():
            try:
                outputs[name] = read_tensor(content, "npy", types[name])
            except TensorFileError as error:
                raise CommandError(f"the answer's {name} is no tensor: {error}") from error
        return outputs

    def _sent_answer(self, inputs: Bundle) -> Mapping[str, bytes] | None:
        """Return the answer to the call that was sent ahead; None where it was not, or is lost."""
        if not self._sent:
            self._send_ahead()
        if self._sent and same_arrays(self._sent[0][0], inputs):
            _, sent = self._sent.popleft()
            return self._runtime.answer_to(sent)
        if not self._sent and self._coming and same_arrays(self._coming[0], inputs):
            self._coming.popleft()  # it is too large to be sent ahead
        return None

    def _send_ahead(self) -> None:
        if self._coming:
            self._load()
        while self._coming and (sent := self._runtime.send_call(self._number, _blobs(self._coming[0]))):
            self._sent.append((self._coming.popleft(), sent))

    def close(self) -> None:
        """Have the runtime forget the graph, and let go of the files."""
        if self._runtime.running() and self._start == self._runtime.starts:
            self._runtime.request(UNLOAD, self._number, {})
        self._coming.clear()
        del self._graph

    def _load(self) -> None:
        if not self._runtime.running() or self._start != self._runtime.starts:
            self._runtime.request(LOAD, self._number, {"path": os.fsencode(self._path)})
            self._start = self._runtime.starts


def _blobs(inputs: Bundle) -> dict[str, bytes]:
    return {name: write_tensor(name, array, "npy") for name, array in inputs.items()}
