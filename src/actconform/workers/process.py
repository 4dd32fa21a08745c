"""A worker's process in the driver: pipes whose reads and writes end by a deadline, and the last lines of its stderr."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING

from actconform.errors import UsageError
from actconform.workers.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PIPE_BYTES = 1 << 20
LEAST_PIPE_BYTES = 1 << 12
AHEAD_BYTES = 1 << 16  # read beyond what is asked for, where they have come: a message is many small parts
TAIL_BYTES = 32 * 1024
LONGEST_LINE = 200
MOST_LINES = 8
LOOK_AGAIN_SECONDS = 0.5
STACK_SECONDS = 0.3
NO_PIPE_SIZE = (ImportError, AttributeError, OSError)  # Linux alone lets a pipe be larger
STACK_MARK = "(most recent call first)"  # faulthandler's


class WorkerProcess:
    """A child process; a raw stream of frames to and from it. With `own_session` Ctrl-C does not reach it; otherwise it ends with those of this session.

    It runs in `folder`. Until its `deadline` is past, `readinto` and `write` wait; then they raise TimeoutError.
    Raises UsageError on Windows, whose pipes cannot be waited for so.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], folder: str | None = None, *, own_session: bool = True
    ) -> None:
        if not hasattr(select, "poll"):
            raise UsageError(
                "workers need Linux or macOS: on Windows run actconform in the Windows Subsystem for Linux"
            )
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(  # noqa: S603  the command is the interpreter that the user configured
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=dict(env),
            cwd=folder,
            bufsize=0,
            start_new_session=own_session,
        )
        if self._popen.stdin is None or self._popen.stdout is None or self._popen.stderr is None:
            raise RuntimeError("subprocess gave no pipes")
        self.deadline = Deadline.never()
        self._stdin, self._stdout, self._stderr = self._popen.stdin, self._popen.stdout, self._popen.stderr
        for stream in (self._stdin, self._stdout):
            # A larger pipe means fewer changes between the two processes; where it is refused, the small one does.
            with contextlib.suppress(*NO_PIPE_SIZE):
                fcntl = importlib.import_module("fcntl")
                fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.sure_bytes = _capacity(self._stdin) // 4  # a page of a pipe may be half empty
        """As much as can be written without waiting while the process reads nothing."""
        os.set_blocking(self._stdin.fileno(), False)
        self._spare = bytearray(AHEAD_BYTES)
        self._ahead = memoryview(b"")  # what of it was read and not asked for yet
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._stdout, select.POLLIN)
        self._writable.register(self._stdin, select.POLLOUT)
        self._tail = bytearray()
        # Read at all times: a worker that fills this pipe would wait for ever.
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what has come, at least a byte; return 0 at the end."""
        if not self._ahead:
            self._wait(self._readable)
            count = os.readv(self._stdout.fileno(), [buffer, self._spare])
            self._ahead = memoryview(self._spare)[: max(count - len(buffer), 0)]
            return min(count, len(buffer))
        count = min(len(self._ahead), len(buffer))
        buffer[:count] = self._ahead[:count]
        self._ahead = self._ahead[count:]
        return count

    def write(self, data: memoryview, /) -> int:
        """Write what fits into the pipe; raise BrokenPipeError where nobody reads it any more."""
        try:
            return os.write(self._stdin.fileno(), data)
        except BlockingIOError:
            self._wait(self._writable)
            return 0

    def expect_within(self, seconds: float) -> None:
        """Set the deadline of what comes next: after `seconds`, later where other processes leave this one too little of a processor."""
        self.deadline = Deadline(self._popen.pid, seconds)

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._popen.poll() is None

    def kill(self) -> None:
        """Kill the process and all that it started; from any thread; the one that waits for it sees the end."""
        # The first where it has no session of its own, the last where the system has none.
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.kill()  # should it have left its group

    def dump_stack(self) -> None:
        """Have the process write its Python stack to its stderr, even if it hangs in native code."""
        if self.alive() and hasattr(signal, "SIGUSR1"):
            self._popen.send_signal(signal.SIGUSR1)
            time.sleep(STACK_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Return whether the process ends by itself within `seconds`."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, grace: float) -> int:
        """End the process by closing its input, by force after `grace` seconds; return its exit code."""
        self._stdin.close()
        self.wait(grace)
        self.kill()
        code = self._popen.wait()
        self._listener.join(1.0)  # a process that it detached may hold the pipe open
        self._stdout.close()
        return code

    def last_lines(self) -> list[str]:
        """Return the last lines of stderr, or the innermost ones of the stack where Python wrote one."""
        lines = [line[:LONGEST_LINE] for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        stacks = [index for index, line in enumerate(lines) if STACK_MARK in line]
        if stacks:
            start = max(stacks[-1] - 1, 0)
            return lines[start : start + MOST_LINES]
        return lines[-MOST_LINES:]

    def _wait(self, poll: select.poll) -> None:
        while (left := self.deadline.left()) > 0:
            if poll.poll(1000 * min(left, LOOK_AGAIN_SECONDS)):
                return
            if not self.alive() and not poll.poll(0):
                raise EOFError  # dead, and a process that it started holds the pipe open
        raise TimeoutError

    def _listen(self) -> None:
        with self._stderr:
            while chunk := os.read(self._stderr.fileno(), 1 << 16):
                self._tail += chunk
                del self._tail[:-TAIL_BYTES]


def _capacity(pipe: IO[bytes]) -> int:
    with contextlib.suppress(*NO_PIPE_SIZE):
        fcntl = importlib.import_module("fcntl")
        return int(fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ))
    return LEAST_PIPE_BYTES


def cause_of_death(code: int) -> str:
    """Return an exit code of subprocess in words: "was killed by SIGSEGV", "ended with exit code 3"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (nobody here sent it: most likely the system ran out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
