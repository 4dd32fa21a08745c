"""Resources that a program takes and does not give back: files, threads, processes, memory, at each call or for each program."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Program
    from actconform.types import Bundle

FAMILY = "resources"
Taken = tuple[object, "Callable[[], object]"]  # a resource, and what gives it back


class Taking(Answering):
    """Takes a resource at every call of one of its methods, and gives all of them back when it is closed."""

    def __init__(self, healthy: Program, take: Callable[[Bundle], Taken], method: str = "forward") -> None:
        super().__init__(healthy)
        self._take, self._method = take, method
        self._resources: list[Taken] = []

    def forward(self, inputs: Bundle) -> Bundle:
        return self._after("forward", inputs, super().forward(inputs))

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        return self._after("vjp", inputs, super().vjp(inputs, cotangents))

    def close(self) -> None:
        for _, give_back in self._resources:
            give_back()

    def _after(self, method: str, inputs: Bundle, outputs: Bundle) -> Bundle:
        if method == self._method:
            self._resources.append(self._take({**inputs, **outputs}))
        return outputs


def nothing() -> None:
    """Give back what nobody else sees."""


def descriptor(_: Bundle) -> Taken:
    opened = os.open(os.devnull, os.O_RDONLY)
    return opened, lambda: os.close(opened)


def pipe(_: Bundle) -> Taken:
    ends = os.pipe()
    return ends, lambda: [os.close(end) for end in ends]


def sockets(_: Bundle) -> Taken:
    pair = socket.socketpair()
    return pair, lambda: [end.close() for end in pair]


def thread(_: Bundle) -> Taken:
    over = threading.Event()
    started = threading.Thread(target=over.wait, daemon=True)
    started.start()
    return started, over.set


def temporary_file(_: Bundle) -> Taken:
    file, name = tempfile.mkstemp(prefix="actconform-faulty-")
    os.close(file)
    return name, lambda: os.unlink(name)  # noqa: PTH108  nothing but a name is at hand


def temporary_folder(_: Bundle) -> Taken:
    folder = tempfile.mkdtemp(prefix="actconform-faulty-")
    return folder, lambda: shutil.rmtree(folder)


def child(_: Bundle) -> Taken:
    process = subprocess.Popen(["sleep", "60"])  # noqa: S607

    def end() -> None:
        process.kill()
        process.wait()

    return process, end


def unmourned_child(_: Bundle) -> Taken:
    pid = os.posix_spawnp("true", ["true"], {})
    return pid, lambda: os.waitpid(pid, 0)


def memory(size: int) -> Callable[[Bundle], Taken]:
    return lambda _: (np.ones(size, np.uint8), nothing)


def mapped(_: Bundle) -> Taken:
    pages = mmap.mmap(-1, 128 << 10)
    pages.write(bytes([1]) * (128 << 10))
    return pages, pages.close


def tensors(arrays: Bundle) -> Taken:
    return {name: array.copy() for name, array in arrays.items()}, nothing


class EveryThird:
    """Takes at each third call alone."""

    def __init__(self, take: Callable[[Bundle], Taken]) -> None:
        self._take, self._calls = take, 0

    def __call__(self, arrays: Bundle) -> Taken:
        self._calls += 1
        return self._take(arrays) if self._calls % 3 == 0 else (None, nothing)


for into, name, description, case, take, method in (
    ("torch", "leaks-file", "every call leaves a file open", "relu/value/f32", descriptor, "forward"),
    ("ort", "leaks-file", "every call leaves a file open", "softplus/value/f32", descriptor, "forward"),
    ("torch", "leaks-pipe-in-vjp", "every gradient leaves a pipe open", "relu/gradient/f32", pipe, "vjp"),
    ("ort", "leaks-sockets", "every call leaves two sockets open", "softplus/value/f32", sockets, "forward"),
    ("torch", "leaks-thread", "every call leaves a thread waiting", "relu/value/f32", thread, "forward"),
    ("ort", "leaks-thread", "every call leaves a thread waiting", "softplus/value/f32", thread, "forward"),
    ("torch", "leaks-temporary-file", "every call leaves a temporary file", "relu/value/f32", temporary_file, "forward"),
    ("ort", "leaks-temporary-folder", "every call leaves a temporary folder", "softplus/value/f32", temporary_folder, "forward"),
    ("torch", "leaks-child", "every call leaves a process running", "relu/value/f32", child, "forward"),
    ("torch", "leaks-dead-child", "every call leaves a process that has ended", "relu/value/f32", unmourned_child, "forward"),
    ("torch", "keeps-64-KiB", "every call leaves 64 KiB behind", "relu/value/f32", memory(64 << 10), "forward"),
    ("ort", "keeps-64-KiB", "every call leaves 64 KiB behind", "softplus/value/f32", memory(64 << 10), "forward"),
    ("torch", "keeps-64-KiB-in-vjp", "every gradient leaves 64 KiB behind", "relu/gradient/f32", memory(64 << 10), "vjp"),
    ("torch", "keeps-tensors", "every call's inputs and outputs are kept", "relu/value/f32", tensors, "forward"),
    ("torch", "keeps-pages", "every call leaves 128 KiB of mapped memory behind", "relu/value/f32", mapped, "forward"),
    ("torch", "keeps-every-third", "every third call leaves 192 KiB behind", "relu/value/f32", EveryThird(memory(192 << 10)), "forward"),
    ("torch", "model-keeps-64-KiB", "every call of a model leaves 64 KiB behind", "mlp-relu/value/f32", memory(64 << 10), "forward"),
    ("torch", "model-leaks-file", "every gradient of a model leaves a file open", "mlp-relu/gradient/f32", descriptor, "vjp"),
    ("ort", "model-keeps-tensors", "every call's inputs and outputs are kept", "mlp-relu/value/f32", tensors, "forward"),
):  # fmt: skip
    fault(
        into, name, FAMILY, description, case, findings="memory-growth", blames="framework" if into == "torch" else "runtime"
    )(lambda program, _, take=take, method=method: Taking(program, take, method))  # fmt: skip


class ForEver(Answering):
    """Takes a resource when it is made, which no program after it, and no closing, gives back."""

    resources: list[Any] = []  # noqa: RUF012  of the process

    def __init__(self, healthy: Program, take: Callable[[Bundle], Taken]) -> None:
        super().__init__(healthy)
        self.resources.append((healthy, take({})))


class Unclosed(Answering):
    """Fails to give back, when it is closed, what it took when it was made."""

    resources: list[Any] = []  # noqa: RUF012  of the process

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.resources.append(os.open(os.devnull, os.O_RDONLY))


for into, name, description, case, take in (
    ("torch", "program-leaks-file", "every program leaves a file open", "relu/value/f32", descriptor),
    ("ort", "program-leaks-file", "every session leaves a file open", "softplus/value/f32", descriptor),
    ("torch", "program-leaks-thread", "every program leaves a thread waiting", "relu/gradient/f32", thread),
    ("ort", "program-keeps-256-KiB", "every session leaves 256 KiB behind", "softplus/value/f32", memory(256 << 10)),
    ("torch", "program-keeps-64-KiB", "every program leaves 64 KiB behind", "relu/value/f32", memory(64 << 10)),
    ("torch", "program-leaks-pipe", "every program leaves a pipe open", "tanh/gradient/f32", pipe),
):
    fault(
        into, name, FAMILY, description, case, findings="memory-growth", blames="framework" if into == "torch" else "runtime"
    )(lambda program, _, take=take: ForEver(program, take))  # fmt: skip


@fault(
    "torch", "close-leaks-file", FAMILY, "closing a program leaves a file open",
    "relu/value/f32", findings="memory-growth", blames="framework",
)  # fmt: skip
def close_leaks_file(program: Program, _: object) -> Program:
    return Unclosed(program)
