"""State that outlives a call: shared by programs, by threads, by forward and vjp, or of the whole process."""
# ruff: noqa: D103, FBT003  one function a fault; what it does stands in its registration

from __future__ import annotations

import ctypes
import locale
import os
import platform
import random
import signal
import sys
import tempfile
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Program
    from actconform.types import Bundle

PROGRAMS, THREADS, PROCESS = "state of programs", "state of threads", "state of the process"
UPWARD = {"x86_64": 0x800, "AMD64": 0x800, "aarch64": 0x400000, "arm64": 0x400000}.get(platform.machine(), 0)


def register(
    into: str, family: str, name: str, description: str, case: str, inject: Callable[[Program], Program]
) -> None:
    fault(
        into, name, family, description, case, findings="nondeterministic", blames="framework" if into == "torch" else "runtime"
    )(lambda program, _: inject(program))  # fmt: skip


class LastBuilt(Answering):
    """Answers by the program that was made last: there is one of them in the process."""

    current: Program

    def __init__(self, healthy: Program) -> None:
        super().__init__(healthy)
        LastBuilt.current = healthy

    def forward(self, inputs: Bundle) -> Bundle:
        return LastBuilt.current.forward(inputs)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        return LastBuilt.current.vjp(inputs, cotangents)


class OneCache(Answering):
    """Keeps each program's first answer in a cache of all programs, by shape, for the next program."""

    cache: dict[Any, Bundle] = {}  # noqa: RUF012  of the process

    def __init__(self, healthy: Program) -> None:
        super().__init__(healthy)
        self._first: set[Any] = set()

    def forward(self, inputs: Bundle) -> Bundle:
        key = tuple(array.shape for array in inputs.values())
        outputs = super().forward(inputs)
        if key in self._first:
            return outputs
        self._first.add(key)
        return self.cache.setdefault(key, outputs)

    def close(self) -> None:
        self.cache.clear()


class SecondIsHalf(Answering):
    """Is right in the first program that is alive, and half of it in the others."""

    alive = 0

    def __init__(self, healthy: Program) -> None:
        super().__init__(healthy)
        SecondIsHalf.alive += 1
        self._factor = np.float32(1 if self.alive == 1 else 0.5)

    def forward(self, inputs: Bundle) -> Bundle:
        return {name: self._factor * array for name, array in super().forward(inputs).items()}

    def close(self) -> None:
        SecondIsHalf.alive -= 1


class ClosesAll(Answering):
    """Loses, when one of its programs is closed, what all of them hold."""

    weights: list[float] = [1.0]  # noqa: RUF012  of the process

    def forward(self, inputs: Bundle) -> Bundle:
        return {name: np.float32(sum(self.weights)) * array for name, array in super().forward(inputs).items()}

    def __init__(self, healthy: Program) -> None:
        super().__init__(healthy)
        ClosesAll.weights = [1.0]

    def close(self) -> None:
        ClosesAll.weights = []


class SpoilsForward(Answering):
    """Leaves behind, after a gradient, what makes the next answer another; with `for_ever` every later one."""

    def __init__(self, healthy: Program, *, for_ever: bool = False) -> None:
        super().__init__(healthy)
        self._for_ever, self._spoilt = for_ever, False

    def forward(self, inputs: Bundle) -> Bundle:
        outputs = super().forward(inputs)
        factor = np.float32(0.5 if self._spoilt else 1)
        self._spoilt = self._spoilt and self._for_ever
        return {name: np.asarray(factor * array) for name, array in outputs.items()}

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        self._spoilt = True
        return super().vjp(inputs, cotangents)


class SpoilsGradient(Answering):
    """Pulls back through what the answer before has left, where there is one of that shape."""

    def __init__(self, healthy: Program) -> None:
        super().__init__(healthy)
        self._saved: Bundle = {}

    def forward(self, inputs: Bundle) -> Bundle:
        self._saved = {name: -np.abs(array) for name, array in inputs.items()}
        return super().forward(inputs)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        saved, self._saved = self._saved, {}
        alike = saved and all(saved[name].shape == array.shape for name, array in inputs.items())
        return super().vjp(saved if alike else inputs, cotangents)


for into, name, description, case, program_class in (
    ("torch", "second-is-half", "a second program that is alive gives the half", "relu/value/f32", SecondIsHalf),
    ("ort", "second-is-half", "a second session that is alive gives the half", "softplus/value/f32", SecondIsHalf),
    ("torch", "last-built", "all programs compute what the last one does", "sigmoid/value/f32", LastBuilt),
    ("torch", "last-built-gradient", "all programs compute what the last one does", "sigmoid/gradient/f32", LastBuilt),
    ("ort", "last-loaded", "all sessions compute what the last one does", "softplus/value/f32", LastBuilt),
    ("torch", "one-cache", "a cache of all programs, by shape", "relu/value/f32", OneCache),
    ("ort", "one-cache", "a cache of all sessions, by shape", "softplus/value/f32", OneCache),
    ("torch", "closes-all", "closing a program takes the weights of all others", "relu/value/f32", ClosesAll),
    ("torch", "vjp-spoils-forward", "the answer after a gradient is the half", "relu/gradient/f32", SpoilsForward),
    ("torch", "vjp-spoils-model", "the answer after a gradient is the half", "mlp-relu/gradient/f32", SpoilsForward),
    ("torch", "forward-spoils-vjp", "a gradient is of what the answer before has left", "tanh/gradient/f32", SpoilsGradient),
):  # fmt: skip
    register(into, PROGRAMS, name, description, case, program_class)
register(
    "torch", PROGRAMS, "vjp-spoils-for-ever", "every answer after a gradient is the half", "sigmoid/gradient/f32",
    lambda program: SpoilsForward(program, for_ever=True),
)  # fmt: skip


class Scratch(Answering):
    """Copies what it is given, or what it gives, into a buffer that all threads share, of all programs or of this one."""

    shared: dict[Any, Any] = {}  # noqa: RUF012  of the process

    def __init__(self, healthy: Program, *, outputs: bool = False, everywhere: bool = False) -> None:
        super().__init__(healthy)
        self._outputs = outputs
        self._buffers = self.shared if everywhere else {}

    def forward(self, inputs: Bundle) -> Bundle:
        if self._outputs:
            return self._kept(super().forward(inputs))
        return super().forward(self._kept(inputs))

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        return super().vjp(self._kept(inputs), cotangents)

    def _kept(self, arrays: Bundle) -> Bundle:
        for name, array in arrays.items():
            buffer = self._buffers.setdefault((name, array.shape, array.dtype), np.empty_like(array))
            buffer[...] = array
        return {name: self._buffers[name, array.shape, array.dtype] for name, array in arrays.items()}


class Counts(Answering):
    """Counts the calls that are under way, and computes something else while there are two."""

    def __init__(self, healthy: Program) -> None:
        super().__init__(healthy)
        self._busy = threading.Lock()

    def forward(self, inputs: Bundle) -> Bundle:
        free = self._busy.acquire(blocking=False)
        try:
            outputs = super().forward(inputs)
            return outputs if free else {name: np.float32(0.5) * array for name, array in outputs.items()}
        finally:
            if free:
                self._busy.release()


class Fields(Answering):
    """Keeps the arguments of a call in fields of its own while it computes."""

    _inputs: Bundle

    def forward(self, inputs: Bundle) -> Bundle:
        self._inputs = inputs
        return self._computed()

    def _computed(self) -> Bundle:
        outputs = super().forward(self._inputs)
        return {name: np.copy(array) for name, array in outputs.items()}

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        self._inputs = inputs
        return super().vjp(self._inputs, cotangents)


for into, name, description, case, inject in (
    ("torch", "scratch-of-all", "inputs go through a buffer of all programs", "sigmoid/value/f32", lambda program: Scratch(program, everywhere=True)),
    ("torch", "scratch-gradient", "inputs go through a buffer of the program", "tanh/gradient/f32", Scratch),
    ("ort", "scratch", "inputs go through a buffer of the session", "softplus/value/f32", Scratch),
    ("ort", "scratch-outputs", "outputs come in a buffer of the session", "softplus/value/f32", lambda program: Scratch(program, outputs=True)),
    ("torch", "model-scratch", "inputs go through a buffer of the program", "mlp-relu/value/f32", Scratch),
    ("torch", "counts-calls", "a call during another one gives the half", "relu/value/f32", Counts),
    ("ort", "counts-calls", "a call during another one gives the half", "softplus/value/f32", Counts),
    ("torch", "fields", "arguments are kept in fields during a call", "sigmoid/value/f32", Fields),
):  # fmt: skip
    register(into, THREADS, name, description, case, inject)


class Setting(Answering):
    """Changes a setting of the process when `method` is called, or it is made; closing puts it back."""

    def __init__(
        self, healthy: Program, change: Callable[[], object], back: Callable[[], object], method: str = "forward"
    ) -> None:
        super().__init__(healthy)
        self._change, self._back, self._method = change, back, method
        self._at("build")

    def forward(self, inputs: Bundle) -> Bundle:
        self._at("forward")
        return super().forward(inputs)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        self._at("vjp")
        return super().vjp(inputs, cotangents)

    def close(self) -> None:
        self._at("close")
        self._back()

    def _at(self, method: str) -> None:
        if method == self._method:
            self._change()


def torch_call(name: str, *arguments: Any) -> Callable[[], object]:
    def call() -> object:
        import torch

        values = [getattr(torch, word) if word in ("float32", "float64") else word for word in arguments]
        return getattr(torch, name)(*values)

    return call


def rounding(mode: int) -> Callable[[], object]:
    return lambda: ctypes.CDLL(None).fesetround(mode)


def nothing() -> None:
    """Nothing is to be put back."""


def environment(value: str | None) -> Callable[[], object]:
    name = "ACTCONFORM_FAULTY"
    return lambda: os.environ.pop(name, None) if value is None else os.environ.update({name: value})


DEFAULT_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
HERE = os.getcwd()  # noqa: PTH109  a constant of the process
FILTERS = list(warnings.filters)
USUAL_LOCALE = locale.setlocale(locale.LC_CTYPE)
for into, name, description, case, change, back, method in (
    ("torch", "flushes", "a call switches flushing of subnormals on", "relu/value/f32", torch_call("set_flush_denormal", True), torch_call("set_flush_denormal", False), "forward"),
    ("torch", "flushes-at-build", "building switches flushing of subnormals on", "relu/gradient/f32", torch_call("set_flush_denormal", True), torch_call("set_flush_denormal", False), "build"),
    ("ort", "rounds-up", "a call leaves the rounding mode upward", "relu/value/f32", rounding(UPWARD), rounding(0), "forward"),
    ("torch", "errors-raise", "building makes numpy raise for overflow", "relu/value/f32", lambda: np.seterr(over="raise"), lambda: np.seterr(**DEFAULT_ERRORS), "build"),
    ("torch", "seeds-numpy", "a call seeds numpy's random numbers", "relu/value/f32", lambda: np.random.seed(3), nothing, "forward"),  # noqa: NPY002
    ("ort", "draws-python", "a call draws from Python's random numbers", "softplus/value/f32", random.random, nothing, "forward"),
    ("torch", "draws-torch", "a gradient draws from torch's random numbers", "relu/gradient/f32", torch_call("rand", 1), nothing, "vjp"),
    ("torch", "default-float64", "building makes float64 torch's default", "relu/value/f32", torch_call("set_default_dtype", "float64"), torch_call("set_default_dtype", "float32"), "build"),
    ("torch", "records-no-gradients", "a call switches torch's recording of gradients off", "relu/value/f32", torch_call("set_grad_enabled", False), torch_call("set_grad_enabled", True), "forward"),
    ("torch", "sets-variable", "a call sets a variable of the environment", "relu/value/f32", environment("1"), environment(None), "forward"),
    ("ort", "changes-folder", "loading changes the working folder", "softplus/value/f32", lambda: os.chdir(tempfile.gettempdir()), lambda: os.chdir(HERE), "build"),
    ("torch", "takes-signal", "a call puts a handler of its own in place of a signal's", "relu/value/f32", lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN), lambda: signal.signal(signal.SIGUSR2, signal.SIG_DFL), "forward"),
    ("torch", "hides-warnings", "building hides all warnings", "relu/value/f32", lambda: warnings.simplefilter("ignore"), lambda: warnings.filters.__setitem__(slice(None), FILTERS), "build"),
    ("ort", "deepens-recursion", "a call changes the limit of recursion", "softplus/value/f32", lambda: sys.setrecursionlimit(4321), lambda: sys.setrecursionlimit(1000), "forward"),
    ("torch", "sets-locale", "a call sets the locale", "relu/value/f32", lambda: locale.setlocale(locale.LC_CTYPE, "POSIX" if USUAL_LOCALE == "C" else "C"), lambda: locale.setlocale(locale.LC_CTYPE, USUAL_LOCALE), "forward"),
    ("torch", "close-flushes", "closing switches flushing of subnormals on", "sigmoid/value/f32", torch_call("set_flush_denormal", True), nothing, "close"),
):  # fmt: skip
    register(
        into, PROCESS, name, description, case,
        lambda program, change=change, back=back, method=method: Setting(program, change, back, method),
    )  # fmt: skip
