"""The backend `faulty-model`: ONNX Runtime on the CPU with a fault in one node of the model that it is given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import msgspec
import onnx

from actconform import Unsupported
from actconform_faulty.model_faults import MODEL_FAULTS, inject_into
from actconform_onnxruntime.backend import OrtCpu

if TYPE_CHECKING:
    from actconform import Artifact, Backend, Program

PLACE = "ACTCONFORM_FAULTY_TENSOR"
OPTIMIZED = "-optimized"
UNOPTIMIZED = OrtCpu.levels[0]


class FaultyModel(OrtCpu):
    """ort-cpu with a fault of `model_faults`, the variant, in the node that gives the tensor named by ACTCONFORM_FAULTY_TENSOR.

    Without that variable it is the first node that can have the fault. NAME-optimized has it only where graphs are optimized:
    a fault of the optimizer.
    """

    name = "faulty-model"
    variants = (*MODEL_FAULTS, *(f"{name}{OPTIMIZED}" for name in MODEL_FAULTS))
    stands_for: ClassVar[str] = "ort-cpu"
    extra = True
    fault = ""
    in_optimizer = False

    @classmethod
    def reproduction(cls) -> str:
        return ""  # no program without this package has the fault

    def variant(self, name: str) -> Backend:
        backend = FaultyModel()
        backend.fault, backend.in_optimizer = name.removesuffix(OPTIMIZED), name.endswith(OPTIMIZED)
        if backend.fault not in MODEL_FAULTS:
            raise Unsupported(f"no fault is called {name}")
        return backend

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        return super().load(self._changed(artifact, level), dtype, level)

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        return super().surviving_tensors(self._changed(artifact, level), dtype, level)

    def _changed(self, artifact: Artifact, level: str) -> Artifact:
        if not self.fault or (self.in_optimizer and level == UNOPTIMIZED):
            return artifact
        model = onnx.load(artifact.file) if artifact.file else onnx.load_from_string(artifact.model)
        inject_into(model, self.fault, os.environ.get(PLACE, ""))
        return msgspec.structs.replace(artifact, file="", model=model.SerializeToString())
