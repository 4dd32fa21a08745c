"""The keras backends of actconform: the kernels as Keras on TensorFlow computes them, values and gradients."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_keras.backend import KerasBackend
from actconform_keras.exporters import KerasExport, Tf2Onnx
from actconform_keras.gpu import KerasGpu
from actconform_keras.others import KerasJax, KerasTorch, KerasXla

if TYPE_CHECKING:
    from actconform import Backend, Deviation, Exporter


class KerasPlugin:
    """What this package offers to actconform."""

    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [KerasBackend, KerasGpu, KerasXla, KerasJax, KerasTorch]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [KerasExport, Tf2Onnx]

    @hookimpl
    def actconform_deviations(self) -> tuple[Deviation, ...]:
        from actconform.deviations import read_deviations

        text = files("actconform_keras").joinpath("deviations.toml").read_text(encoding="utf-8")
        return read_deviations(text, "actconform-keras/deviations.toml")


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
