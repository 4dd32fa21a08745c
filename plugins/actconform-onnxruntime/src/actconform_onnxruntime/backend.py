"""The backends ort-cpu and ort-cuda: ONNX Runtime's execution providers as runtimes of graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Backend, Library, Unavailable
from actconform.machine.cpu import cpu_capability
from actconform.plugin.framework import thread_count
from actconform.plugin.import_failure import imported
from actconform_onnxruntime import cuda, session
from actconform_onnxruntime.optimized import surviving_tensors
from actconform_onnxruntime.program import GraphProgram

if TYPE_CHECKING:
    from actconform import Artifact, Program

CPU_PROVIDER = "CPUExecutionProvider"
PACKAGES = ("onnxruntime", "onnxruntime-gpu")


class OrtCpu(Backend):
    """ONNX Runtime on the CPU, at the optimization level that users get."""

    name = "ort-cpu"
    kind = "runtime"
    provider = CPU_PROVIDER
    levels = tuple(session.LEVELS)
    optimizers = session.OPTIMIZERS
    loads_files = True
    packages = PACKAGES

    def facts(self) -> dict[str, str]:
        """Return versions, threads, CPU capability and what a session does to subnormals."""
        return {**_package_facts(), "device": "cpu", "subnormals": _subnormals(self._session(_doubling()))}

    @classmethod
    def reproduction(cls) -> str:
        """Return the text of `standalone`, on this execution provider."""
        return _standalone(cls.provider)

    def library(self) -> Library:
        """Return MLAS, ONNX Runtime's own functions."""
        return Library("mlas", ("onnxruntime",))

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; raise `Unsupported` where ONNX Runtime refuses it."""
        return GraphProgram(self._session(artifact.file or artifact.model, level), artifact, self.provider)

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:  # noqa: ARG002
        """Return the tensors that nodes of the optimized graph give as those of `artifact` do, all but NCHWc's own."""
        return surviving_tensors(artifact, self.provider, level)

    def _session(self, model: bytes | str, level: str = "") -> Any:
        return session.load(model, CPU_PROVIDER, level)


class OrtCuda(Backend):
    """ONNX Runtime on the first CUDA device, with the provider's options as users get them."""

    name = "ort-cuda"
    kind = "runtime"
    provider = cuda.PROVIDER
    optional = True
    loads_files = True
    packages = PACKAGES[1:]

    def facts(self) -> dict[str, str]:
        """Return the facts of ort-cpu and of the device; raise `Unavailable` with the cause of there being none."""
        facts = {**_package_facts(), **cuda.device_facts()}
        try:
            doubling = self._session(_doubling())
            options = doubling.get_provider_options()[self.provider]
            return {**facts, **cuda.option_facts(options), "subnormals": _subnormals(doubling)}
        except Unavailable:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base
            raise Unavailable(f"CUDA is there, but ONNX Runtime runs nothing on it: {error}") from error

    @classmethod
    def reproduction(cls) -> str:
        """Return the text of `standalone`, on this execution provider."""
        return _standalone(cls.provider)

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program, whose `placement` tells what went to the CPU; raise `Unsupported` where it is refused.

        Raises `Unavailable` where the session as a whole is not on CUDA: a CPU's number must never bear CUDA's name.
        """
        return GraphProgram(self._session(artifact.file or artifact.model), artifact, self.provider)

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:  # noqa: ARG002
        """Return the tensors that nodes of the optimized graph give as those of `artifact` do."""
        cuda.preload()
        return surviving_tensors(artifact, self.provider, level)

    def _session(self, model: bytes | str) -> Any:
        cuda.preload()
        made = session.load(model, self.provider)
        providers = made.get_providers()
        if providers[:1] != [self.provider]:
            cuda.device_facts()  # knows the cause, and raises it
            raise Unavailable(
                f"asked for {self.provider}, ONNX Runtime made a session on {', '.join(providers)} and does not say why"
            )
        return made


def _standalone(provider: str) -> str:
    text = Path(__file__).with_name("standalone.py").read_text(encoding="utf-8")
    return text.replace(CPU_PROVIDER, provider, 1)


def _package_facts() -> dict[str, str]:
    onnxruntime = imported(
        "onnxruntime", 'pip install "actconform[ort]"', plugin="actconform-onnxruntime", packages=PACKAGES
    )
    build = str(onnxruntime.get_build_info()).removeprefix("ORT Build Info: ")
    return {
        "onnxruntime": onnxruntime.__version__,
        "build": f"{onnxruntime.package_name or 'onnxruntime'}: {build}",  # releases before 1.21 do not say which
        "cpu_capability": cpu_capability(),
        "threads": str(thread_count()),
        "optimization": "all",
    }


def _subnormals(doubling: Any) -> str:
    """Return "kept" or "flushed": what a session makes of 2**-140 + 2**-140."""
    (total,) = doubling.run(None, {"x": np.full(1, 2.0**-140, np.float32)})
    return "kept" if total[0] == 2.0**-139 else "flushed"


def _doubling() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())
