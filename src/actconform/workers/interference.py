"""Asks what calls and programs leave behind, and whether programs, methods and threads stay out of each other's way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actconform.workers.interleaving import at_once, between_lines
from actconform.workers.protocol import Call
from actconform.workers.resources import (
    LEAST_OF_MODELS,
    LEAST_OF_PROGRAMS,
    PROBED,
    PROBED_OF_MODELS,
    growing,
    leak,
    little_garbage,
    resources,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actconform.plugin.interfaces import Program
    from actconform.workers.protocol import Bundle, JobResult

MODERATE = 1 << 13  # elements of a call's inputs, at most, where there is such a call
ROUNDS, STOPS = 2, (1, 2, 4, 8, 16, 32, 64)
"""How often two threads call at once; before which lines of one call the other thread calls."""
STOPS_OF_MODELS = (5, 55)  # whose calls take longer
FULL = {"open files": 400, "threads": 200, "child processes": 50}
"""As much as a process may have of what leaks before a new one does the cases that come: limits are 1,024 files and more."""


class Peers(NamedTuple):
    """How to get, call and close programs: the same one `again`, and that of another subject, called; None where there is none.

    `forward` calls forward with the inputs of a call with cotangents, and gives None where there is none; `differing` names
    unequal outputs. With `brief` threads are asked less.
    """

    again: Callable[[], Program]
    neighbour: Callable[[], Program | None]
    call: Callable[[Program, Call], Bundle]
    forward: Callable[[Program, Call], Bundle | None]
    close: Callable[[Program], None]
    differing: Callable[[Bundle, Bundle], list[str]]
    thread_safe: bool
    brief: bool


def ask(program: Program, calls: Sequence[Call], outcome: JobResult, peers: Peers) -> None:
    """Ask all of a program that has answered `calls`, and add what is found to `outcome`.

    One call of moderate size is made again and again: while a second program of the subject and one of another are alive, after they are
    closed, between calls of the other method, and by two threads at once. Raises what a call raises, in threads aside.
    """
    if not calls:
        return
    plain = [number for number, call in enumerate(calls) if not (call.layout or call.may_refuse)]
    index = max(
        (number for number in plain if _size(calls[number]) <= MODERATE), key=lambda n: _size(calls[n]), default=0
    )
    call, answer = calls[index], outcome.outputs[index]
    if index in outcome.second:
        return  # it answers one way or another in any case
    if words := leak(lambda: peers.call(program, call), probed=PROBED_OF_MODELS if peers.brief else PROBED):
        outcome.leaks.append(f"{words} at every further call of the same inputs")
    mirrored = Call(call.regime, _mirrored(call.inputs), call.cotangents and _mirrored(call.cotangents))
    entangled = _Entanglement(program, call, answer, peers)
    least = LEAST_OF_MODELS if peers.brief else LEAST_OF_PROGRAMS
    with little_garbage():
        before = resources()
        of_mirrored = entangled.among_programs(mirrored)
        if growing(before, least) and (words := leak(lambda: peers.close(peers.again()), least)):
            outcome.leaks.append(f"{words} for every program that is made and closed")
    if peers.thread_safe:
        entangled.between_threads(mirrored, of_mirrored)
    outcome.entangled = entangled.differences
    if outcome.leaks:
        now = resources()
        outcome.altered = any(now.get(name, 0) > most for name, most in FULL.items())


class _Entanglement:
    """A program, a call and its answer; `differences` has (what was done, output name) where the answer was another."""

    def __init__(self, program: Program, call: Call, answer: Bundle, peers: Peers) -> None:
        self._program, self._call, self._answer, self._peers = program, call, answer, peers
        self.differences: list[tuple[str, str]] = []

    def among_programs(self, mirrored: Call) -> Bundle:
        """Call while other programs are alive, and after they are closed; return the answer to `mirrored`."""
        peers, both = self._peers, self._call.cotangents is not None
        second = peers.again()
        try:
            fresh = peers.forward(second, mirrored) if both else None
            of_mirrored = peers.call(
                second, mirrored
            )  # first, so that an answer to the call itself can be none of its own
            self._compare("a second program that is alive", self._answer, peers.call(second, self._call))
            if fresh is not None:
                after = peers.forward(self._program, mirrored) or {}
                self._compare("forward after vjp, where a fresh program is asked too,", fresh, after)
                self._compare("vjp after forward", self._answer, self._again())
            self._beside_neighbour()
        finally:
            peers.close(second)
        self._compare("a call after another program was closed", of_mirrored, peers.call(self._program, mirrored))
        return of_mirrored

    def between_threads(self, mirrored: Call, of_mirrored: Bundle) -> None:
        """Call in two threads at once, each with inputs of its own, and in one between the lines of the other."""
        call = self._peers.call
        brief = self._peers.brief
        stops = STOPS_OF_MODELS if brief else STOPS
        on_main, on_thread = at_once([self._again, lambda: call(self._program, mirrored)], 0 if brief else ROUNDS)
        stopped, between = between_lines(
            self._program, lambda program: call(program, self._call), lambda: call(self._program, mirrored), stops
        )
        for first, answers in ((self._answer, on_main + stopped), (of_mirrored, on_thread + between)):
            for answer in answers:
                if isinstance(answer, Exception):
                    self._add(f"a call while another thread calls raises {answer}", "")
                else:
                    self._compare("a call while another thread calls", first, answer)

    def _beside_neighbour(self) -> None:
        """Call while a program of another kernel, which was called too, is alive; without one the second program is the other."""
        neighbour = self._peers.neighbour()
        try:
            self._compare("a call while another program is alive", self._answer, self._again())
        finally:
            if neighbour:
                self._peers.close(neighbour)

    def _again(self) -> Bundle:
        return self._peers.call(self._program, self._call)

    def _compare(self, done: str, first: Bundle, again: Bundle) -> None:
        for name in self._peers.differing(first, again):
            self._add(f"{done} gives other bits", name)

    def _add(self, words: str, name: str) -> None:
        if (words, name) not in self.differences:
            self.differences.append((words, name))


def _size(call: Call) -> int:
    return sum(array.size for array in call.inputs.values())


def _mirrored(arrays: Bundle) -> Bundle:
    """Return each array with the same numbers in the reverse order."""
    return {name: array.reshape(-1)[::-1].copy().reshape(array.shape) for name, array in arrays.items()}
