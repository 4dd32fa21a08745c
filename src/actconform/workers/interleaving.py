"""Two threads that call one program: all at once, and one of them between two lines of the other's Python."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from actconform.plugin.interfaces import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from actconform.workers.protocol import Bundle

    Answer = Bundle | Exception

STOPPED, ENDED = True, False  # what a call that is stopped says
SWITCH_SECONDS = 1e-6  # between threads while they call at once: the usual 5 ms are longer than most calls
DEPTH = 4  # of calls within the program's own, whose lines a call is stopped at
BLOCKED_SECONDS = 0.2  # after which the other call waits for a lock that this one holds: such calls are in order anyway


def at_once(calls: Sequence[Callable[[], Bundle]], rounds: int) -> list[list[Answer]]:
    """Return what each of the calls gives, or raises, in each round; in a round each has a thread, and all begin together."""
    together = threading.Barrier(len(calls))
    answers: list[list[Answer]] = [[] for _ in calls]

    def repeat(number: int) -> None:
        for _ in range(rounds):
            together.wait()
            answers[number].append(_answer(calls[number]))

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(1, len(calls))]
    with _switching_often():
        for thread in threads:
            thread.start()
        repeat(0)
        for thread in threads:
            thread.join()
    return answers


def between_lines(
    program: Program, first: Callable[[Program], Bundle], second: Callable[[], Bundle], stops: Sequence[int]
) -> tuple[list[Answer], list[Answer]]:
    """Return what `first` gives in a thread of its own that is stopped, and `second` in this one at each of the stops.

    `first` calls the program that it is given. It is stopped before the lines of these numbers, as far as there are so many, counted
    over all that the program's methods, and what they call, execute. Where `second` waits for the stopped call, that goes on and
    is stopped no more.
    """
    answers_first: list[Answer] = []
    answers_second: list[Answer] = []
    requests: SimpleQueue[bool] = SimpleQueue()
    done: SimpleQueue[None] = SimpleQueue()

    def stop() -> None:
        requests.put(STOPPED)
        try:
            done.get(timeout=BLOCKED_SECONDS)
        except Empty:
            stopped.at = frozenset()

    def run() -> None:
        answers_first.append(_answer(lambda: first(stopped)))
        requests.put(ENDED)

    stopped = _Stopped(program, frozenset(stops), stop)
    thread = threading.Thread(target=run)
    thread.start()
    while requests.get():
        answers_second.append(_answer(second))
        done.put(None)
    thread.join()
    return answers_first, answers_second


class _Stopped(Program):
    """Calls on, counts the lines that the program executes, from 1, and does `stop` before those `at`."""

    def __init__(self, program: Program, at: frozenset[int], stop: Callable[[], None]) -> None:
        self.at = at
        self._program, self._stop, self._lines = program, stop, 0
        self._frames: list[FrameType] = []

    def forward(self, inputs: Bundle) -> Bundle:
        with self._traced():
            return self._program.forward(inputs)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        with self._traced():
            return self._program.vjp(inputs, cotangents)

    @contextmanager
    def _traced(self) -> Iterator[None]:
        usual = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(usual)

    def _call(self, frame: FrameType, _: str, __: Any) -> Any:
        if len(self._frames) < DEPTH and (not self._frames or frame.f_back is self._frames[-1]):
            self._frames.append(frame)
            return self._step
        return None

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self._lines += 1
            if self._lines in self.at:
                self._stop()
        elif event == "return" and self._frames and self._frames[-1] is frame:
            self._frames.pop()
        return self._step


def _answer(call: Callable[[], Bundle]) -> Answer:
    try:
        return call()
    except Exception as error:  # noqa: BLE001  whatever a backend raises here is its answer
        return error


@contextmanager
def _switching_often() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
