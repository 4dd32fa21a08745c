"""JAX as a backend: what it is and where it runs, and its functions, compiled, as programs over numpy arrays."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from actconform import Library, Program
from actconform.machine.cpu import cpu_capability, level_of
from actconform.machine.onednn import onednn_settings
from actconform.plugin.framework import (
    FrameworkBackend,
    fate_of_subnormals,
    refuse_without_gradient,
    thread_count,
    versions,
)
from actconform_jax.jax_module import array_of, import_jax, numpy_of, when_done
from actconform_jax.kernels import implement
from actconform_jax.models import JaxModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array
    from numpy.typing import NDArray

    from actconform import Kernel, Model, TrainedModel
    from actconform.plugin.framework import Implementation
    from actconform.types import Bundle
    from actconform.types.trained import SourceKind, TrainedSource

ISA = "xla_cpu_max_isa"


class JaxBackend(FrameworkBackend):
    """jax.nn, jax.numpy and jax.vjp on the CPU, each program one function under jax.jit."""

    name: ClassVar[str] = "jax"
    compiles_per_shape: ClassVar[bool] = True
    extra: ClassVar[bool] = True
    opens: ClassVar[tuple[SourceKind, ...]] = ("factory",)

    def facts(self) -> dict[str, str]:
        """Return versions, what of JAX's settings may explain a number, threads and the fate of subnormals.

        `matmul_precision` "default" is float32 in full on a CPU. Raises `Unavailable` without jax.
        """
        jax = import_jax()
        tiny = jax.jit(lambda x: x + x)(np.full(1, 2.0**-140, np.float32))
        return {
            "jax": str(jax.__version__),
            "jaxlib": version("jaxlib"),
            "numpy": np.__version__,
            **versions("jax2onnx", "onnx"),
            "device": "cpu",
            "cpu_capability": _capability(),
            "onednn_settings": onednn_settings(),
            "jit": "on",
            "x64": "on" if jax.config.jax_enable_x64 else "off",
            "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
            "xla_flags": os.environ.get("XLA_FLAGS", "none"),
            "subnormals": fate_of_subnormals(float(tiny[0])),
            "threads": str(thread_count()),
        }

    def library(self) -> Library:
        """Return JAX's functions, each compiled by XLA."""
        jax = import_jax()
        functions = {
            name: getattr(jax.numpy, name) for name in ("exp", "expm1", "log", "log1p", "tanh", "sqrt", "reciprocal")
        }
        functions |= {name: getattr(jax.nn, name) for name in ("sigmoid", "softplus")}
        functions |= {name: getattr(jax.lax, name) for name in ("erf", "erfc", "rsqrt")} | {
            "division": jax.numpy.divide
        }
        compiled = {name: jax.jit(function) for name, function in functions.items()}
        return Library("xla-cpu", ("jaxlib",), {name: _over_arrays(function) for name, function in compiled.items()})

    def build(self, kernel: Kernel, dtype: str) -> Program:  # noqa: ARG002  JAX follows its input
        """Return the kernel as a program; raise `Unsupported` where there is no implementation."""
        import_jax()
        return JaxProgram(kernel, implement(kernel))

    def build_model(self, model: Model, dtype: str) -> Program:  # noqa: ARG002  JAX follows its input
        """Return the model of functions of JAX; raise `Unsupported` where it has none for a kind of layer."""
        import_jax()
        return JaxModel(model)

    def open_trained(self, source: TrainedSource) -> TrainedModel:
        """Return what a factory gives: a flax.nnx or equinox Module, or a function of arrays."""
        import_jax()
        from actconform_jax.trained_model import JaxTrainedModel
        from actconform_jax.trained_source import opened_source

        return JaxTrainedModel(opened_source(source), source.folder)

    def adopt_trained(self, model: object, example: object | None) -> TrainedModel:
        """Return a model of this process, with example inputs as a factory gives them."""
        import_jax()
        from actconform_jax.trained_model import JaxTrainedModel
        from actconform_jax.trained_source import opened_object

        return JaxTrainedModel(opened_object(model, example))


class JaxProgram(Program):
    """One kernel: numpy arrays to JAX's, the compiled function, and back. What is returned has memory of its own."""

    def __init__(self, kernel: Kernel, implementation: Implementation) -> None:
        jax = import_jax()
        self.implementation, function, _ = implementation
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
        return numpy_of(self.prepare_call(inputs)())

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` of every input by jax.vjp; raise `Unsupported` where the kernel has no gradient."""
        return numpy_of(self.prepare_call(inputs, cotangents)())

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, Array]]:
        """Return what computes "y", or with cotangents forward and jax.vjp in one compiled function, "d_<name>" of every input.

        JAX returns before it has computed: a call waits for it.
        """
        arrays = [array_of(inputs[name]) for name in self._kernel.inputs]
        if cotangents is None:
            return when_done(self._value, *arrays)
        refuse_without_gradient(self._kernel)
        return when_done(self._gradient, array_of(cotangents["y"]), *arrays)


def _over_arrays(function: Callable[..., Array]) -> Callable[..., NDArray[Any]]:
    return lambda *operands: np.array(function(*map(array_of, operands)))


def _capability() -> str:
    """Return what the processor offers, lowered by XLA's own flag."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    wanted = next((flag.partition("=")[2] for flag in reversed(flags) if flag.startswith(f"--{ISA}=")), "")
    return cpu_capability(level_of(wanted))
