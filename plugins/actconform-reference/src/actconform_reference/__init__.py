"""onnx's reference evaluator for actconform: the backends onnx-reference and onnx-reference-float64."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from actconform import hookimpl
from actconform_reference.backend import OnnxReference, OnnxReferenceFloat64

if TYPE_CHECKING:
    from actconform import Backend, Deviation


class ReferencePlugin:
    """What the plugin offers."""

    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return OnnxReference, OnnxReferenceFloat64

    @hookimpl
    def actconform_deviations(self) -> tuple[Deviation, ...]:
        from actconform.deviations import read_deviations  # a worker needs the backends alone

        register = files(__name__) / "deviations.toml"
        return read_deviations(register.read_text(encoding="utf-8"), "actconform-reference/deviations.toml")


plugin = ReferencePlugin()
