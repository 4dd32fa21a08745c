"""ONNX Runtime for actconform: the backends ort-cpu and ort-cuda."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_onnxruntime.backend import OrtCpu, OrtCuda

if TYPE_CHECKING:
    from actconform import Backend, Deviation


class OnnxRuntime:
    """What the plugin offers."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return OrtCpu, OrtCuda

    @hookimpl
    def actconform_deviations(self) -> tuple[Deviation, ...]:
        from actconform.deviations import read_deviations  # a worker needs the backends alone

        register = files(__name__) / "deviations.toml"
        return read_deviations(register.read_text(encoding="utf-8"), "actconform_onnxruntime/deviations.toml")


plugin = OnnxRuntime()
