"""A framework in plain numpy for kernels of the real catalog: right, but for the faults that it is known for.

FAULTS says which kernel suffers from what, as long as ACTCONFORM_TEST_HEALTHY is not set.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Backend, Kernel, Program, Support, Unavailable, Unsupported, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform import Case

    Array = NDArray[Any]
    Arrays = dict[str, Array]


def relu(x: Array) -> Array:
    return np.where(np.isnan(x), x, np.where(x > 0, x, 0.0))


def sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(x: Array) -> Array:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def keep_nan(x: Array, y: Array) -> Array:
    return np.where(np.isnan(x), x, y)


RIGHT: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "tanh": np.tanh,
    "linear": lambda x: x,
    "relu6": lambda x: np.minimum(6.0, relu(x)),
    "hard-tanh": lambda x: np.clip(x, -1.0, 1.0),
    "leaky-relu": lambda x: keep_nan(x, np.where(x > 0, x, np.float64(np.float32(0.01)) * x)),
    "leaky-relu-0.2": lambda x: keep_nan(x, np.where(x > 0, x, np.float64(np.float32(0.2)) * x)),
    "leaky-relu-0.3": lambda x: keep_nan(x, np.where(x > 0, x, np.float64(np.float32(0.3)) * x)),
    "relu-squared": lambda x: relu(x) ** 2,
    "thresholded-relu": lambda x: keep_nan(x, np.where(x > 1.0, x, 0.0)),
    "threshold": lambda x: keep_nan(x, np.where(x > 0.5, x, -1.0)),
    "hard-shrink": lambda x: keep_nan(x, np.where(np.abs(x) > 0.5, x, 0.0)),
}
SLOPES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: keep_nan(x, np.where(x > 0, 1.0, 0.0)),
    "sigmoid": lambda x: sigmoid(x) * sigmoid(-x),
}


def die(with_signal: int) -> Callable[[Array, Array], Arrays]:
    def fault(x: Array, y: Array) -> Arrays:
        os.kill(os.getpid(), with_signal)
        return {}

    return fault


def segfault(x: Array, y: Array) -> Arrays:
    ctypes.string_at(0)
    return {}


def leave(x: Array, y: Array) -> Arrays:
    print("the library says goodbye", file=sys.stderr, flush=True)
    os._exit(3)


def hang(x: Array, y: Array) -> Arrays:
    time.sleep(600)
    return {}


def no_memory(x: Array, y: Array) -> Arrays:
    raise MemoryError("16 GiB wanted")


def divide(x: Array, y: Array) -> Arrays:
    return {"y": y / (1 // 0)}


def refuse(x: Array, y: Array) -> Arrays:
    raise Unsupported('"stand_in" not implemented for Float')


def mutate(x: Array, y: Array) -> Arrays:
    if x.size:
        x.reshape(-1)[0] = 3.0
    return {"y": y}


def waver(x: Array, y: Array) -> Arrays:
    waver.calls += 1  # type: ignore[attr-defined]
    return {"y": np.nextafter(y, np.float32(waver.calls % 2), where=np.isfinite(y), out=y.copy())}  # type: ignore[attr-defined]


waver.calls = 0  # type: ignore[attr-defined]


def flip_one(x: Array, y: Array) -> Arrays:
    between = np.flatnonzero((x > 1) & (x < 2))
    if 150 < between.size < 250:  # in one regime
        y.view(np.uint32)[between[0]] ^= np.uint32(1 << 21)
    return {"y": y}


FAULTS: dict[str, Callable[[Array, Array], Arrays]] = {
    "elu": segfault,
    "elu-half": die(signal.SIGKILL),
    "selu": leave,
    "celu": hang,
    "softsign": no_memory,
    "gelu-erf": divide,
    "silu": refuse,
    "linear": lambda x, y: {"out": y},
    "relu6": lambda x, y: {"y": y[None]},
    "hard-tanh": lambda x, y: {"y": y.astype(np.float64)},
    "threshold": lambda x, y: {"y": np.full(y.shape, "text")},
    "leaky-relu": mutate,
    "leaky-relu-0.2": waver,
    "leaky-relu-0.3": flip_one,
    "thresholded-relu": lambda x, y: {"y": np.nan_to_num(y, nan=0.0, posinf=np.inf, neginf=-np.inf)},
}


class Numpy(Program):
    implementation = "numpy in float64, rounded once"

    def __init__(self, kernel: Kernel) -> None:
        self.name = kernel.name
        healthy = os.environ.get("ACTCONFORM_TEST_HEALTHY")
        self.fault = None if healthy else FAULTS.get(kernel.name)

    def forward(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        if marks := os.environ.get("ACTCONFORM_TEST_MARKS"):
            Path(marks, self.name).touch()  # at work on it
            time.sleep(float(os.environ["ACTCONFORM_TEST_CALL_SECONDS"]))
        with np.errstate(all="ignore"):
            wide = RIGHT.get(self.name, np.tanh)(x.astype(np.float64))
            y = wide.astype(x.dtype)
            return self.fault(x, y) if self.fault else {"y": y}

    def vjp(self, inputs: Arrays, cotangents: Arrays) -> Arrays:
        x = inputs["x"]
        with np.errstate(all="ignore"):
            slope = SLOPES[self.name](x.astype(np.float64))
            return {"d_x": (slope * cotangents["y"].astype(np.float64)).astype(x.dtype)}


class StandIn(Backend):
    name = "stand-in"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        time.sleep(float(os.environ.get("ACTCONFORM_TEST_START_SECONDS", "0")))
        return {"numpy": np.__version__, "cpu_capability": "TESTED"}

    def supports(self, case: Case) -> Support:
        time.sleep(float(os.environ.get("ACTCONFORM_TEST_CASE_SECONDS", "0")))
        if case.subject not in {*RIGHT, *FAULTS} or (case.aspect == "gradient" and case.subject not in SLOPES):
            return Support(yes=False, reason=f"numpy has no {case.subject} {case.aspect}")
        return Support(yes=True)

    def build(self, kernel: Kernel, dtype: str) -> Program:
        return Numpy(kernel)


class NoDevice(Backend):
    name = "no-device"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        raise Unavailable("no device: libnone.so.9 missing: install it; libmore.so.1 missing: pip install more")


class DiesAtStart(Backend):
    name = "dies-at-start"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        os.abort()


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [StandIn, NoDevice, DiesAtStart]


class Broken:
    def __init__(self) -> None:
        raise ImportError("libbroken.so.1 is missing")
