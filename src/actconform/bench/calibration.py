"""What this machine can do, by numpy: copying and multiplying matrices, in a worker of its own, like any other backend."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.errors import Unsupported
from actconform.machine.cpu import cpu_capability
from actconform.plugin.hookspecs import hookimpl
from actconform.plugin.interfaces import Backend, Program
from actconform.types import Kernel
from actconform.workers.protocol import aligned_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from actconform.types import Bundle

NAME = "calibration"
PLUGIN = "actconform.bench.calibration:Calibrations"
SIDE = 512
MATMUL_FLOPS = 2 * SIDE**3
LEAST_PART = 1 << 16  # elements that are worth a thread of their own
PAGE = 4096  # bytes
_SOURCE = "numpy"
COPY = Kernel(name="calibration-copy", definition="y = x", source=_SOURCE, differentiable=False)
MATMUL = Kernel(name="calibration-matmul", definition="y = x x, (512, 512)", source=_SOURCE, differentiable=False)


class CalibrationBackend(Backend):
    """numpy's copyto and matmul in float32, with as many threads as the routes."""

    name = NAME
    kind = "framework"

    def facts(self) -> dict[str, str]:
        """Return numpy's version, its BLAS, the CPU capability and the threads."""
        blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        words = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
        return {
            "numpy": np.__version__,
            "blas": words,
            "cpu_capability": cpu_capability(),
            "threads": str(_threads()),
        }

    def build(self, kernel: Kernel, dtype: str) -> Program:
        """Return one of the two; raise `Unsupported` for anything else."""
        if dtype != "f32" or kernel.name not in (COPY.name, MATMUL.name):
            raise Unsupported(f"numpy calibrates with {COPY.name} and {MATMUL.name} in f32 alone")
        return Copying() if kernel.name == COPY.name else Multiplying()


class Copying(Program):
    """x copied into an array that is there already, in as many parts as there are threads."""

    implementation = "numpy.copyto"

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_threads()) if _threads() > 1 else None

    def forward(self, inputs: Bundle) -> Bundle:
        return {"y": inputs["x"].copy()}

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], object]:  # noqa: ARG002
        x, y = _half_a_page_apart(inputs["x"])
        pool, parts = self._pool, min(_threads(), x.size // LEAST_PART)
        if pool is None or parts < 2:
            return lambda: np.copyto(y, x)
        pairs = list(zip(np.array_split(y, parts), np.array_split(x, parts), strict=True))
        return lambda: list(pool.map(_copy, pairs))

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown()


def _half_a_page_apart(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a copy of an array at the start of a page, and room for another half a page off.

    A processor takes a load for one of what was just stored where both addresses agree modulo 4096, and waits: a copy of
    1 K elements takes 0.39 ns an element or 0.85 ns, by where the two came to lie.
    """
    offset = array.nbytes + -array.nbytes % PAGE + PAGE // 2
    buffer = aligned_bytes(offset + array.nbytes, PAGE)
    x, y = (buffer[at : at + array.nbytes].view(array.dtype).reshape(array.shape) for at in (0, offset))
    x[...] = array
    return x, y


class Multiplying(Program):
    """A square matrix times itself, into an array that is there already."""

    implementation = "numpy.matmul"

    def forward(self, inputs: Bundle) -> Bundle:
        return {"y": inputs["x"] @ inputs["x"]}

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], object]:  # noqa: ARG002
        x = inputs["x"]
        y = np.empty_like(x)
        return lambda: np.matmul(x, x, out=y)


class Calibrations:
    """The plugin, given to the worker of that name alone."""

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [CalibrationBackend]

    @hookimpl
    def actconform_kernels(self) -> list[Kernel]:
        return [COPY, MATMUL]


def _copy(pair: tuple[NDArray[Any], NDArray[Any]]) -> None:
    np.copyto(*pair)


def _threads() -> int:
    return int(os.environ.get("ACTCONFORM_THREADS", "1"))
