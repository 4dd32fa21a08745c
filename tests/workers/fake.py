"""A backend in plain numpy whose kernels do, on request, whatever a backend can do wrong."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from actconform import Artifact, Backend, Exporter, Kernel, Program, Support, Unavailable, Unsupported, hookimpl
from actconform.catalog.models.builder import describe, layer
from actconform.types.model import Input

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform import Case, Model

    Arrays = dict[str, NDArray[Any]]


def relu(inputs: Arrays) -> Arrays:
    return {"y": np.maximum(inputs["x"], inputs["x"].dtype.type(0))}


def segfault(_: Arrays) -> Arrays:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def killed(_: Arrays) -> Arrays:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def leave(_: Arrays) -> Arrays:
    print("the library says goodbye", file=sys.stderr, flush=True)
    os._exit(3)


def hang_here(_: Arrays) -> Arrays:
    time.sleep(600)
    return {}


def no_memory(_: Arrays) -> Arrays:
    raise MemoryError("16 GiB wanted")


def no_memory_in_words(_: Arrays) -> Arrays:
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")


def chatty(inputs: Arrays) -> Arrays:
    os.write(1, b"ACF1 straight to the descriptor\n" * 10_000)
    print("and through sys.stdout", flush=True)
    os.system("echo and from a child")  # noqa: S605
    if sys.stdin.read():
        raise RuntimeError("a library was given the frames to read")
    return relu(inputs)


def mutate(inputs: Arrays) -> Arrays:
    if inputs["x"].size > 2:
        inputs["x"][0] = -0.0
    return {"y": inputs["x"]}


def random(inputs: Arrays) -> Arrays:
    noise = np.random.default_rng().random(inputs["x"].shape, np.float32)
    payload = np.frombuffer(os.urandom(4 * inputs["x"].size), np.uint32) & 0x3FFFFF | 0x7FC00000
    return {"y": noise, "steady": inputs["x"], "nan": payload.view(np.float32).reshape(inputs["x"].shape)}


class Reused(Program):
    """Returns the same buffer each time, as some runtimes do, and remembers how often it was called."""

    def __init__(self, counting: bool) -> None:
        self.counting, self.count, self.buffer = counting, 0, np.zeros(3, np.float32)

    def forward(self, inputs: Arrays) -> Arrays:
        self.count += 1
        self.buffer[...] = self.count if self.counting else inputs["x"][:3]
        return {"y": self.buffer}


def many_dtypes(_: Arrays) -> Arrays:
    return {
        "bf16": np.array([1.5, -0.0], ml_dtypes.bfloat16),
        "f64": np.array(0.1),
        "i32": np.array([[1, 2]], np.int32),
        "bool": np.array([True, False]),
        "c64": np.array([1 + 2j], np.complex64),
        "big": np.array([1.0, 2.0], ">f4"),
        "strided": np.arange(12.0, dtype=np.float32).reshape(3, 4).T[::2],
        "empty": np.zeros((0, 3), np.float16),
    }


def divide(_: Arrays) -> Arrays:
    return {"y": np.float32(1 // 0)}


def refuse(_: Arrays) -> Arrays:
    raise Unsupported('"fake_cpu" not implemented for Half')


class PanicError(BaseException):
    """As libraries in Rust raise it."""


def panic(_: Arrays) -> Arrays:
    raise PanicError("called unwrap on a None")


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def wordless(_: Arrays) -> Arrays:
    raise WordlessError


def stop(_: Arrays) -> Arrays:
    sys.exit("the library left")


BEHAVIOURS: dict[str, Callable[[Arrays], Any]] = {
    "relu": relu,
    "segfault": segfault,
    "killed": killed,
    "leave": leave,
    "hang": hang_here,
    "no-memory": no_memory,
    "no-memory-in-words": no_memory_in_words,
    "chatty": chatty,
    "mutate": mutate,
    "random": random,
    "many-dtypes": many_dtypes,
    "divide": divide,
    "refuse": refuse,
    "stop": stop,
    "panic": panic,
    "wordless": wordless,
    "list": lambda inputs: [inputs["x"]],
    "scalar": lambda _: {"y": 3.0},
    "objects": lambda _: {"y": np.array([None])},
    "environment": lambda _: {
        name: np.array(int(os.environ[name])) for name in ("ACTCONFORM_THREADS", "OMP_NUM_THREADS")
    },
    "pid": lambda _: {"pid": np.array(os.getpid())},
}


class Plain(Program):
    implementation = "numpy"

    def __init__(self, behaviour: Callable[[Arrays], Any]) -> None:
        self.behaviour = behaviour

    def forward(self, inputs: Arrays) -> Any:
        return self.behaviour(inputs)

    def vjp(self, inputs: Arrays, cotangents: Arrays) -> Arrays:
        gradient = cotangents["y"] * (inputs["x"] > 0)
        cotangents["y"][...] = 0
        return {"d_x": gradient}


DOUBLED = describe(
    "doubled",
    "tests",
    [Input(name="x", shape=(2,), draw="normal"), Input(name="target", shape=(2,), draw="normal", role="target")],
    [layer("twice", "affine", "x", scale=2.0), layer("loss", "mean-squared-error", "twice", "target")],
    output="twice",
    batch=2,
)


class Doubling(Program):
    def forward(self, inputs: Arrays) -> Arrays:
        layers = self.intermediates(inputs)
        return {"y": layers["twice"], "loss": layers["loss"]}

    def intermediates(self, inputs: Arrays) -> Arrays:
        twice = 2 * inputs["x"]
        return {"twice": twice, "loss": np.asarray(np.mean((twice - inputs["target"]) ** 2))}


class BadClose(Plain):
    def close(self) -> None:
        raise RuntimeError("cannot free")


class Fake(Backend):
    name = "fake"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def supports(self, case: Case) -> Support:
        if case.dtype == "bf16":
            return Support(yes=False, reason="fake has no bf16")
        return Support(yes=True)

    def build(self, kernel: Kernel, dtype: str) -> Program:
        if kernel.name == "unbuilt":
            raise Unsupported("fake has no function for it")
        if kernel.name in ("reused", "counting"):
            return Reused(kernel.name == "counting")
        if kernel.name == "bad-close":
            return BadClose(relu)
        if kernel.name == "no-program":
            return relu  # type: ignore[return-value]
        return Plain(BEHAVIOURS[kernel.name])

    def build_model(self, model: Model, dtype: str) -> Program:
        return Doubling()


class FakeExporter(Exporter):
    name = "fake-exporter"
    source = "fake"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        if kernel.name == "refuse":
            raise Unsupported("SymbolicValueError: no symbol for refuse")
        if kernel.name == "no-program":
            return b"graph"  # type: ignore[return-value]
        BEHAVIOURS[kernel.name]({"x": np.ones(3, np.float32)})
        return Artifact(f"{kernel.name} in {dtype}".encode(), 20, "traced", ("its own",))

    def export_model(self, model: Model, dtype: str, constants: Arrays | None) -> Artifact:
        told = constants and {
            name: [str(array.dtype), list(array.shape), array.tobytes().hex()] for name, array in constants.items()
        }
        return Artifact(json.dumps(told).encode(), 20, "traced")


class Grumbling(Exporter):
    name = "grumbling"
    source = "fake"

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        for _ in range(2):
            warnings.warn("\x1b[93m\nthe trace is a constant\nsee the manual", RuntimeWarning, stacklevel=1)
            warnings.warn("use export2", DeprecationWarning, stacklevel=1)
            logger = logging.getLogger("fake.quiet")
            logger.propagate = False
            logger.error("operator [%s] is not supported", "Erfc")
            logger.info("exporting")
        return Artifact(b"graph", 15, "converted")


class Elsewhere(FakeExporter):
    name = "elsewhere"
    source = "no-device"


class FakeRuntime(Backend):
    name = "fake-runtime"
    kind = "runtime"

    def facts(self) -> dict[str, str]:
        return {}

    def load(self, artifact: Artifact, dtype: str) -> Program:
        return Plain(lambda _: {"model": np.frombuffer(artifact.model, np.uint8)})


class Levelled(FakeRuntime):
    name = "levelled"
    levels = ("none", "all")

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        return Plain(lambda _: {"level": np.frombuffer(f"<{level}>".encode(), np.uint8)})


class NoDevice(Backend):
    name = "no-device"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        raise Unavailable("libcudnn.so.9 is missing: install nvidia-cudnn-cu12")


class NoPackage(Backend):
    name = "no-package"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        import a_framework_that_nobody_has  # noqa: F401

        return {}


class BadFacts(Backend):
    name = "bad-facts"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return ["numpy"]  # type: ignore[return-value]


class DiesAtStart(Backend):
    name = "dies-at-start"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        os.abort()


class HangsAtStart(Backend):
    name = "hangs-at-start"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        time.sleep(600)
        return {}


class Plugin:
    @hookimpl
    def actconform_kernels(self) -> list[Kernel]:
        own = (*BEHAVIOURS, "unbuilt", "reused", "counting", "bad-close", "no-program")
        return [Kernel(name=name, definition=name, source="tests") for name in own if name != "relu"]

    @hookimpl
    def actconform_models(self) -> list[Model]:
        return [DOUBLED]

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Fake, FakeRuntime, Levelled, NoDevice, NoPackage, BadFacts, DiesAtStart, HangsAtStart]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [FakeExporter, Grumbling, Elsewhere]


class Broken:
    def __init__(self) -> None:
        raise ImportError("libfake.so.1 is missing")


class Mistyped:
    @hookimpl
    def actconform_kernel(self) -> list[Kernel]:
        return []
