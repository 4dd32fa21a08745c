"""JAX for actconform: the backend jax, kernels and models as XLA computes them on the CPU, and the exporter jax2onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_jax.backend import JaxBackend
from actconform_jax.exporters import Jax2Onnx

if TYPE_CHECKING:
    from actconform import Backend, Exporter, Register


class JaxPlugin:
    """What this package offers to actconform."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return (JaxBackend,)

    @hookimpl
    def actconform_exporters(self) -> tuple[type[Exporter], ...]:
        return (Jax2Onnx,)

    @hookimpl
    def actconform_causes(self) -> tuple[Register, ...]:
        from actconform import register_of  # a worker needs the backend alone

        return (register_of(__name__),)


plugin = JaxPlugin()
