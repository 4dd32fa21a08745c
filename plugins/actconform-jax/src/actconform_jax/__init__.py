"""JAX for actconform: the backend jax, kernels and models as XLA computes them on the CPU, and the exporter jax2onnx."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_jax.backend import JaxBackend
from actconform_jax.exporters import Jax2Onnx

if TYPE_CHECKING:
    from actconform import Backend, Deviation, Exporter


class JaxPlugin:
    """What this package offers to actconform."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return (JaxBackend,)

    @hookimpl
    def actconform_exporters(self) -> tuple[type[Exporter], ...]:
        return (Jax2Onnx,)

    @hookimpl
    def actconform_deviations(self) -> tuple[Deviation, ...]:
        from actconform.deviations import read_deviations  # a worker needs the backend alone

        text = files("actconform_jax").joinpath("deviations.toml").read_text(encoding="utf-8")
        return read_deviations(text, "actconform-jax/deviations.toml")


plugin = JaxPlugin()
