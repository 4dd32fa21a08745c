"""The healthy backends and the healthy exporter, each with one injected fault: a variant is a fault, or unusual and none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from actconform import Exporter, Program, Unsupported
from actconform_faulty.injected import INJECTED, Injected
from actconform_onnxruntime.backend import OrtCpu
from actconform_torch.backend import TorchBackend
from actconform_torch.exporters import TorchDynamo

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Artifact, Backend, Kernel, Model
    from actconform.types import Bundle
    from actconform.types.trained import SourceKind
    from actconform.types.training_run import TrainingRecord, TrainingTask


def _variants(backend: str) -> tuple[str, ...]:
    return tuple(name.partition("@")[2] for name in INJECTED if name.startswith(f"{backend}@"))


class FaultyTorch(TorchBackend):
    """torch with one fault."""

    name: ClassVar[str] = "faulty-torch"
    variants = _variants("faulty-torch")
    stands_for: ClassVar[str] = "torch"
    opens: ClassVar[tuple[SourceKind, ...]] = ()  # a user's models are none of its business
    injected: Injected | None = None

    def variant(self, name: str) -> Backend:
        backend = type(self)()
        backend.injected = _injected(f"{self.name}@{name}")
        return backend

    def build(self, kernel: Kernel, dtype: str) -> Program:
        return _with_fault(self.injected, super().build, kernel, dtype)

    def build_model(self, model: Model, dtype: str) -> Program:
        return _with_fault(self.injected, super().build_model, model, dtype)

    def train(self, task: TrainingTask) -> TrainingRecord:
        if self.injected is None or not self.injected.on_training:
            return super().train(task)
        self.facts()  # which says where torch is missing
        record: TrainingRecord = self.injected.inject(task)
        return record


class UnusualTorch(FaultyTorch):
    """torch, or what stands in for it, that computes otherwise, and well."""

    name: ClassVar[str] = "unusual-torch"
    variants = _variants("unusual-torch")
    stands_for: ClassVar[str] = ""  # none of torch's deviations is its own


class UnusualFlushing(UnusualTorch):
    """What takes and gives subnormal numbers as 0, and says so."""

    name: ClassVar[str] = "unusual-flushing"
    variants = _variants("unusual-flushing")

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "subnormals": "flushed"}


class FaultyOrt(OrtCpu):
    """ort-cpu with one fault."""

    name = "faulty-ort"
    variants = _variants("faulty-ort")
    stands_for: ClassVar[str] = "ort-cpu"
    injected: Injected | None = None

    def variant(self, name: str) -> Backend:
        backend = type(self)()
        backend.injected = _injected(f"{self.name}@{name}")
        return backend

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        injected = self.injected
        if injected is None:
            return super().load(artifact, dtype, level)
        if injected.on_graph:
            artifact = msgspec.structs.replace(artifact, model=injected.inject(artifact.model))
            return super().load(artifact, dtype, level)
        program: Program = injected.inject(super().load(artifact, dtype, level), None)
        return program


class UnusualOrt(FaultyOrt):
    """ort-cpu with other habits, none of them a fault."""

    name = "unusual-ort"
    variants = _variants("unusual-ort")


class FaultyExport(Exporter):
    """torch-dynamo with one fault: the graph is changed after it was exported."""

    name: ClassVar[str] = "faulty-export"
    source: ClassVar[str] = "torch"
    variants = _variants("faulty-export")
    stands_for: ClassVar[str] = "torch-dynamo"
    injected: Injected | None = None

    def variant(self, name: str) -> Exporter:
        exporter = type(self)()
        exporter.injected = _injected(f"{self.name}@{name}")
        return exporter

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return self._changed(_exported((kernel.name, dtype), lambda: TorchDynamo().export(kernel, dtype)))

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        form = (model.name, dtype, str(constants is None))
        return self._changed(_exported(form, lambda: TorchDynamo().export_model(model, dtype, constants)))

    def _changed(self, artifact: Artifact) -> Artifact:
        if self.injected is None:
            return artifact
        return msgspec.structs.replace(artifact, model=self.injected.inject(artifact.model))


class UnusualExport(FaultyExport):
    """torch-dynamo with graphs written otherwise, that compute the same."""

    name: ClassVar[str] = "unusual-export"
    variants = _variants("unusual-export")


_EXPORTS: dict[tuple[str, ...], Artifact] = {}


def _exported(form: tuple[str, ...], export: Callable[[], Artifact]) -> Artifact:
    """Return what the healthy exporter makes, once for all faults: it takes longer than everything else."""
    if form not in _EXPORTS:
        _EXPORTS[form] = export()
    return _EXPORTS[form]


def _injected(full: str) -> Injected:
    if full not in INJECTED:
        raise Unsupported(f"no fault is called {full}")
    return INJECTED[full]


def _with_fault(injected: Injected | None, build: Callable[[Any, str], Program], subject: Any, dtype: str) -> Program:
    if injected is None:
        return build(subject, dtype)
    if injected.on_subject:
        return build(injected.inject(subject), dtype)
    program: Program = injected.inject(build(subject, dtype), subject)
    return program
