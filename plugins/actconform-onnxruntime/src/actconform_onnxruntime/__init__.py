"""ONNX Runtime for actconform: the backends ort-cpu and ort-cuda."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_onnxruntime.backend import OrtCpu, OrtCuda

if TYPE_CHECKING:
    from actconform import Backend, Register


class OnnxRuntime:
    """What the plugin offers."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return OrtCpu, OrtCuda

    @hookimpl
    def actconform_causes(self) -> tuple[Register, ...]:
        from actconform import register_of  # a worker needs the backend alone

        return (register_of(__name__),)


plugin = OnnxRuntime()
