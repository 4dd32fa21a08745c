"""The healthy backends and the healthy exporter, each with one planted fault: a variant is a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from actconform import Exporter, Program, Unsupported
from actconform_faulty.planted import PLANTED, Planted
from actconform_onnxruntime.backend import OrtCpu
from actconform_torch.backend import TorchBackend
from actconform_torch.exporters import TorchDynamo

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Artifact, Backend, Kernel, Model
    from actconform.types import Bundle


def _variants(into: str) -> tuple[str, ...]:
    return tuple(name.partition("@")[2] for name, planted in PLANTED.items() if planted.into == into)


class FaultyTorch(TorchBackend):
    """torch with one fault."""

    name: ClassVar[str] = "faulty-torch"
    variants = _variants("torch")
    stands_for: ClassVar[str] = "torch"
    planted: Planted | None = None

    def variant(self, name: str) -> Backend:
        backend = FaultyTorch()
        backend.planted = _planted(f"{self.name}@{name}")
        return backend

    def build(self, kernel: Kernel, dtype: str) -> Program:
        return _with_fault(self.planted, super().build, kernel, dtype)

    def build_model(self, model: Model, dtype: str) -> Program:
        return _with_fault(self.planted, super().build_model, model, dtype)


class FaultyOrt(OrtCpu):
    """ort-cpu with one fault."""

    name = "faulty-ort"
    variants = _variants("ort")
    stands_for: ClassVar[str] = "ort-cpu"
    planted: Planted | None = None

    def variant(self, name: str) -> Backend:
        backend = FaultyOrt()
        backend.planted = _planted(f"{self.name}@{name}")
        return backend

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        planted = self.planted
        if planted is None:
            return super().load(artifact, dtype, level)
        if planted.on_graph:
            artifact = msgspec.structs.replace(artifact, model=planted.plant(artifact.model))
            return super().load(artifact, dtype, level)
        program: Program = planted.plant(super().load(artifact, dtype, level), None)
        return program


class FaultyExport(Exporter):
    """torch-dynamo with one fault: the graph is changed after it was exported."""

    name: ClassVar[str] = "faulty-export"
    source: ClassVar[str] = "torch"
    variants = _variants("export")
    stands_for: ClassVar[str] = "torch-dynamo"
    planted: Planted | None = None

    def variant(self, name: str) -> Exporter:
        exporter = FaultyExport()
        exporter.planted = _planted(f"{self.name}@{name}")
        return exporter

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return self._changed(TorchDynamo().export(kernel, dtype))

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        return self._changed(TorchDynamo().export_model(model, dtype, constants))

    def _changed(self, artifact: Artifact) -> Artifact:
        if self.planted is None:
            return artifact
        return msgspec.structs.replace(artifact, model=self.planted.plant(artifact.model))


def _planted(full: str) -> Planted:
    if full not in PLANTED:
        raise Unsupported(f"no fault is called {full}")
    return PLANTED[full]


def _with_fault(planted: Planted | None, build: Callable[[Any, str], Program], subject: Any, dtype: str) -> Program:
    if planted is None:
        return build(subject, dtype)
    if planted.on_subject:
        return build(planted.plant(subject), dtype)
    program: Program = planted.plant(build(subject, dtype), subject)
    return program
