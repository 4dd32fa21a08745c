"""Behaviour: answers that depend on when they are asked for, inputs that are written to, processes that die, hang or raise."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Program
from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from typing import NoReturn

    from actconform.types import Bundle

FAMILY = "behaviour"


class Noisy:
    """Add at most one ULP of noise, other at every call."""

    def __init__(self) -> None:
        self._random = np.random.default_rng()

    def __call__(self, _: Bundle, outputs: Bundle) -> Bundle:
        up = self._random.random(outputs["y"].shape) < 0.5
        with np.errstate(over="ignore"):
            return {"y": np.where(up, np.nextafter(outputs["y"], np.float32(np.inf)), outputs["y"])}


class Stale:
    """Give the answer of the call before, where that had the same shape."""

    def __init__(self) -> None:
        self._last: Bundle = {}

    def __call__(self, _: Bundle, outputs: Bundle) -> Bundle:
        last, self._last = self._last, outputs
        return last if last and last["y"].shape == outputs["y"].shape else outputs


class Counting:
    """Scale the answer by what `factor` says of the number of the call, from 0."""

    def __init__(self, first: float, later: float) -> None:
        self._factor, self._later = np.float32(first), np.float32(later)

    def __call__(self, _: Bundle, outputs: Bundle) -> Bundle:
        factor, self._factor = self._factor, self._later
        with np.errstate(invalid="ignore"):  # a signalling NaN
            return {"y": outputs["y"] * factor}


class Replying(Program):
    """A program that answers every call with whatever `reply` returns or does."""

    def __init__(self, reply: object) -> None:
        self._reply = reply

    def forward(self, inputs: Bundle) -> Bundle:
        tensors: Bundle = self._reply(inputs) if callable(self._reply) else self._reply
        return tensors


def write_into(name: str) -> object:
    """Return what overwrites the last element of one array of its inputs."""

    def write(tensors: Bundle, outputs: Bundle) -> Bundle:
        tensors[name].ravel()[-1:] = 7.0
        return outputs

    return write


def spoil_odd_lengths(_: Bundle, outputs: Bundle) -> Bundle:
    """Lose the last element of arrays of odd length, as a loop over pairs does."""
    y = outputs["y"].copy()
    if y.size % 2:
        y.ravel()[-1] = 0.0
    return {"y": y}


def _segfault(_: Bundle) -> Bundle:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def _abort(_: Bundle) -> NoReturn:
    os.abort()


class Hoard:
    """Keeps as much at every call as a cache without a limit does."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def __call__(self, _: Bundle, outputs: Bundle) -> Bundle:
        self._kept.append(np.ones(1 << 20))
        return outputs


def _leave(_: Bundle) -> NoReturn:
    os._exit(0)


def _hang(_: Bundle) -> Bundle:
    threading.Event().wait()
    return {}


def _raise(error: Exception) -> NoReturn:
    raise error


@fault(
    "torch", "input-written", FAMILY, "the last element of the input is overwritten",
    "relu/value/f32", findings="mutates-input", blames="framework", tensor="x",
)  # fmt: skip
def input_written(program: Program, _: object) -> Program:
    return Answering(program, write_into("x"))


@fault(
    "torch", "cotangent-written", FAMILY, "the last element of the cotangent is overwritten",
    "relu/gradient/f32", findings="mutates-input", blames="framework", tensor="cotangent y",
)  # fmt: skip
def cotangent_written(program: Program, _: object) -> Program:
    return Answering(program, vjp=write_into("ct_y"))


@fault(
    "torch", "noise", FAMILY, "up to one ULP of noise, other at every call",
    "sigmoid/value/f32", findings="nondeterministic", blames="framework",
)  # fmt: skip
def noise(program: Program, _: object) -> Program:
    return Answering(program, Noisy())


@fault(
    "torch", "previous-answer", FAMILY, "a cache keyed by shape gives the answer of the call before",
    "tanh/value/f32", findings="position-dependent scaled-error nan-made nan-lost", blames="framework",
)  # fmt: skip
def previous_answer(program: Program, _: object) -> Program:
    return Answering(program, Stale())


@fault(
    "torch", "right-once", FAMILY, "the first call is right, every later one is half",
    "relu/value/f32", findings="nondeterministic", blames="framework",
)  # fmt: skip
def right_once(program: Program, _: object) -> Program:
    return Answering(program, Counting(1.0, 0.5))


@fault(
    "torch", "wrong-once", FAMILY, "the first call is half, before all is warm",
    "relu/value/f32", findings="nondeterministic", blames="framework",
)  # fmt: skip
def wrong_once(program: Program, _: object) -> Program:
    return Answering(program, Counting(0.5, 1.0))


@fault(
    "torch", "odd-length", FAMILY, "the last element of an array of odd length is lost",
    "sigmoid/value/f32", findings="position-dependent", blames="framework",
)  # fmt: skip
def odd_length(program: Program, _: object) -> Program:
    return Answering(program, spoil_odd_lengths)


@fault("torch", "segfault", FAMILY, "the process dies of SIGSEGV", "relu/value/f32", verdict="CRASH")
def segfault(_: Program, __: object) -> Program:
    return Replying(_segfault)


@fault(
    "torch",
    "abort",
    FAMILY,
    "the process aborts, as after a failed assertion in C++",
    "relu/value/f32",
    verdict="CRASH",
)
def abort(_: Program, __: object) -> Program:
    return Replying(_abort)


@fault("torch", "leaves", FAMILY, "the process ends itself with exit code 0", "relu/value/f32", verdict="CRASH")
def leaves(_: Program, __: object) -> Program:
    return Replying(_leave)


@fault("torch", "hang", FAMILY, "a call that never returns", "relu/value/f32", verdict="TIMEOUT")
def hang(_: Program, __: object) -> Program:
    return Replying(_hang)


@fault("torch", "raises", FAMILY, "a call raises RuntimeError", "relu/value/f32", verdict="ERROR")
def raises(_: Program, __: object) -> Program:
    return Replying(lambda _: _raise(RuntimeError("expected scalar type Float but found Double")))


@fault("torch", "no-memory", FAMILY, "a call raises MemoryError", "relu/value/f32", verdict="CRASH")
def no_memory(_: Program, __: object) -> Program:
    return Replying(lambda _: _raise(MemoryError("Unable to allocate 96.0 GiB")))


@fault("torch", "no-answer", FAMILY, "a call returns None", "relu/value/f32", verdict="ERROR")
def no_answer(_: Program, __: object) -> Program:
    return Replying(None)


@fault(
    "ort", "input-written", FAMILY, "the last element of the input is overwritten",
    "relu/value/f32", findings="mutates-input", blames="runtime", tensor="x",
)  # fmt: skip
def runtime_input_written(program: Program, _: object) -> Program:
    return Answering(program, write_into("x"))


@fault(
    "ort", "noise", FAMILY, "up to one ULP of noise, other at every call",
    "softplus/value/f32", findings="nondeterministic", blames="runtime",
)  # fmt: skip
def runtime_noise(program: Program, _: object) -> Program:
    return Answering(program, Noisy())


@fault(
    "ort", "odd-length", FAMILY, "the last element of an array of odd length is lost",
    "softplus/value/f32", findings="position-dependent", blames="runtime",
)  # fmt: skip
def runtime_odd_length(program: Program, _: object) -> Program:
    return Answering(program, spoil_odd_lengths)


@fault("ort", "segfault", FAMILY, "the process dies of SIGSEGV", "relu/value/f32", verdict="CRASH")
def runtime_segfault(_: Program, __: object) -> Program:
    return Replying(_segfault)


@fault(
    "torch", "keeps-memory", FAMILY, "every call leaves 8 MiB behind",
    "tanh/value/f32", findings="memory-growth", blames="framework",
)  # fmt: skip
def keeps_memory(program: Program, _: object) -> Program:
    return Answering(program, Hoard())


@fault(
    "ort", "keeps-memory", FAMILY, "every call leaves 8 MiB behind",
    "softplus/value/f32", findings="memory-growth", blames="runtime",
)  # fmt: skip
def runtime_keeps_memory(program: Program, _: object) -> Program:
    return Answering(program, Hoard())


@fault(
    "ort", "silent-placement", FAMILY, "a node goes to another execution provider, and nothing is said",
    "softplus/value/f32", findings="placement", blames="runtime",
)  # fmt: skip
def silent_placement(program: Program, _: object) -> Program:
    moved = Answering(program)
    moved.placement = {"XnnpackExecutionProvider": ("Softplus",)}
    return moved
