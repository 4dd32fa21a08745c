"""The keras backends of actconform: the kernels as Keras on TensorFlow computes them, values and gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_keras.backend import KerasBackend
from actconform_keras.exporters import KerasExport, Tf2Onnx
from actconform_keras.gpu import KerasGpu
from actconform_keras.others import KerasJax, KerasTorch, KerasXla

if TYPE_CHECKING:
    from actconform import Backend, Exporter, Register


class KerasPlugin:
    """What this package offers to actconform."""

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [KerasBackend, KerasGpu, KerasXla, KerasJax, KerasTorch]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [KerasExport, Tf2Onnx]

    @hookimpl
    def actconform_causes(self) -> tuple[Register, ...]:
        from actconform import register_of  # a worker needs the backend alone

        return (register_of(__name__),)


plugin = KerasPlugin()

__all__ = [
    "KerasBackend",
    "KerasExport",
    "KerasGpu",
    "KerasJax",
    "KerasPlugin",
    "KerasTorch",
    "KerasXla",
    "Tf2Onnx",
    "plugin",
]
