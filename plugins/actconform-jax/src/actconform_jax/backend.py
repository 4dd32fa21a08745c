"""JAX as a backend: what it is and where it runs, and its functions, compiled, as programs over numpy arrays."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from actconform import Backend, Library, Program, Support, Unsupported
from actconform.machine.cpu import cpu_capability, level_of
from actconform.machine.onednn import onednn_settings
from actconform.plugin.import_failure import imported
from actconform.types.dtypes import DTYPES
from actconform_jax.kernels import Implementation, implement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from jax import Array
    from numpy.typing import NDArray

    from actconform import Case, Kernel, Model
    from actconform.types import Bundle

    Function = Callable[..., dict[str, Array]]

ISA = "xla_cpu_max_isa"


class JaxBackend(Backend):
    """jax.nn, jax.numpy and jax.vjp on the CPU, each program one function under jax.jit."""

    name: ClassVar[str] = "jax"
    kind: ClassVar[Literal["framework", "runtime"]] = "framework"
    extra: ClassVar[bool] = True

    def facts(self) -> dict[str, str]:
        """Return versions, what of JAX's settings may explain a number, threads and the fate of subnormals.

        `matmul_precision` "default" is float32 in full on a CPU. Raises `Unavailable` without jax.
        """
        jax = _jax()
        tiny = jax.jit(lambda x: x + x)(np.full(1, 2.0**-140, np.float32))
        return {
            "jax": str(jax.__version__),
            "jaxlib": version("jaxlib"),
            "numpy": np.__version__,
            **_versions("jax2onnx", "onnx"),
            "device": "cpu",
            "cpu_capability": _capability(),
            "onednn_settings": onednn_settings(),
            "jit": "on",
            "x64": "on" if jax.config.jax_enable_x64 else "off",
            "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
            "xla_flags": os.environ.get("XLA_FLAGS", "none"),
            "subnormals": "kept" if float(tiny[0]) else "flushed",
            "threads": str(_threads()),
        }

    def library(self) -> Library:
        """Return JAX's functions, each compiled by XLA."""
        jax = _jax()
        functions = {
            name: getattr(jax.numpy, name) for name in ("exp", "expm1", "log", "log1p", "tanh", "sqrt", "reciprocal")
        }
        functions |= {name: getattr(jax.nn, name) for name in ("sigmoid", "softplus")}
        functions |= {name: getattr(jax.lax, name) for name in ("erf", "erfc", "rsqrt")} | {
            "division": jax.numpy.divide
        }
        compiled = {name: jax.jit(function) for name, function in functions.items()}
        return Library("xla-cpu", ("jaxlib",), {name: _over_arrays(function) for name, function in compiled.items()})

    def supports(self, case: Case) -> Support:
        """Say no to dtypes that are none of ours; a kernel or model that jax has not is refused when it is built."""
        if case.dtype not in DTYPES:
            return Support(yes=False, reason=f"{self.name} runs {', '.join(DTYPES)} here, not {case.dtype}")
        return Support(yes=True)

    def build(self, kernel: Kernel, dtype: str) -> Program:  # noqa: ARG002  JAX follows its input
        """Return the kernel as a program; raise `Unsupported` where there is no implementation."""
        _jax()
        return JaxProgram(kernel, implement(kernel))

    def build_model(self, model: Model, dtype: str) -> Program:  # noqa: ARG002  JAX follows its input
        """Return the model of functions of JAX; raise `Unsupported` where it has none for a kind of layer."""
        _jax()
        from actconform_jax.models import JaxModel

        return JaxModel(model)


class JaxProgram(Program):
    """One kernel: numpy arrays to JAX's, the compiled function, and back. What is returned has memory of its own."""

    def __init__(self, kernel: Kernel, implementation: Implementation) -> None:
        jax = _jax()
        self.implementation, function = implementation
        self._kernel = kernel
        names = kernel.inputs

        def value(*inputs: Array) -> dict[str, Array]:
            return {"y": function(*inputs)}

        def gradient(cotangent: Array, *inputs: Array) -> dict[str, Array]:
            _, pull = jax.vjp(function, *inputs)
            return {f"d_{name}": pulled for name, pulled in zip(names, pull(cotangent), strict=True)}

        self._value, self._gradient = jax.jit(value), jax.jit(gradient)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return "y", in whatever dtype JAX returns it."""
        return _arrays(self.ready(inputs)())

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` of every input by jax.vjp; raise `Unsupported` where the kernel has no gradient."""
        return _arrays(self.ready(inputs, cotangents)())

    def ready(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, Array]]:
        """Return what computes "y", or with cotangents forward and jax.vjp in one compiled function, "d_<name>" of every input.

        JAX returns before it has computed: a call waits for it.
        """
        arrays = [_array(inputs[name]) for name in self._kernel.inputs]
        if cotangents is None:
            return when_done(self._value, *arrays)
        if not self._kernel.differentiable:
            raise Unsupported(f"kernel {self._kernel.name} has no gradient, by declaration")
        return when_done(self._gradient, _array(cotangents["y"]), *arrays)


def when_done(function: Function, *arguments: Any) -> Callable[[], dict[str, Array]]:
    """Return a call of `function` that returns when all is computed."""
    jax = _jax()

    def whole() -> dict[str, Array]:
        found: dict[str, Array] = jax.block_until_ready(function(*arguments))
        return found

    return whole


def _over_arrays(function: Callable[..., Array]) -> Callable[..., NDArray[Any]]:
    return lambda *operands: np.array(function(*map(_array, operands)))


def _array(array: NDArray[Any]) -> Array:
    # A copy: JAX would share the memory of a numpy array, and count on its never changing.
    found: Array = _jax().numpy.array(array, copy=True)
    return found


def _arrays(found: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    return {name: np.array(array) for name, array in found.items()}


@cache
def _jax() -> ModuleType:
    """Return jax, on the CPU with the number of threads asked for; raise `Unavailable` where it cannot be imported.

    XLA takes its threads from the environment, once, when it makes its device.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _threads() == 1 and "multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("NPROC", str(_threads()))
    jax = imported("jax", "pip install actconform-jax", plugin="actconform-jax")
    jax.config.update("jax_platforms", "cpu")
    return jax


def _capability() -> str:
    """Return what the processor offers, lowered by XLA's own flag."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    wanted = next((flag.partition("=")[2] for flag in reversed(flags) if flag.startswith(f"--{ISA}=")), "")
    return cpu_capability(level_of(wanted))


def _versions(*packages: str) -> dict[str, str]:
    """Return the version of each package that is installed: what the exporter's graphs depend on. Nothing is imported."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _threads() -> int:
    text = os.environ.get("ACTCONFORM_THREADS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"ACTCONFORM_THREADS is {text!r}: give the number of threads, 1 or more")
    return int(text)
