"""onnx's reference evaluator for actconform: the backends onnx-reference and onnx-reference-float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_reference.backend import OnnxReference, OnnxReferenceFloat64

if TYPE_CHECKING:
    from actconform import Backend, Register


class ReferencePlugin:
    """What the plugin offers."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return OnnxReference, OnnxReferenceFloat64

    @hookimpl
    def actconform_causes(self) -> tuple[Register, ...]:
        from actconform import register_of  # a worker needs the backend alone

        return (register_of(__name__),)


plugin = ReferencePlugin()
