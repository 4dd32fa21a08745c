"""The backends ort-cpu and ort-cuda: ONNX Runtime's execution providers as runtimes of graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Backend, Unavailable, Unsupported
from actconform.cpu import cpu_capability
from actconform_onnxruntime import cuda, session

if TYPE_CHECKING:
    from actconform import Artifact, Program

CPU_PROVIDER = "CPUExecutionProvider"


class OrtCpu(Backend):
    """ONNX Runtime on the CPU, at the optimization level that users get."""

    name = "ort-cpu"
    kind = "runtime"
    provider = CPU_PROVIDER
    levels = tuple(session.LEVELS)
    optimizers = session.OPTIMIZERS

    def facts(self) -> dict[str, str]:
        """Return versions, threads, CPU capability and what a session does to subnormals."""
        return {**_package_facts(), "device": "cpu", "subnormals": _subnormals(self._session)}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; raise `Unsupported` where ONNX Runtime refuses it."""
        return session.GraphProgram(self._session(artifact.model, level), artifact.path)

    def _session(self, model: bytes, level: str = "") -> Any:
        return session.load(model, CPU_PROVIDER, level)


class OrtCuda(Backend):
    """ONNX Runtime on the first CUDA device: every node runs there, or the graph is refused."""

    name = "ort-cuda"
    kind = "runtime"

    def facts(self) -> dict[str, str]:
        """Return the facts of ort-cpu and of the device; raise `Unavailable` with the cause of there being none."""
        facts = {**_package_facts(), **cuda.device_facts()}
        try:
            return {**facts, "subnormals": _subnormals(self._session)}
        except Exception as error:  # ONNX Runtime's exceptions share no base
            raise Unavailable(f"CUDA is there, but ONNX Runtime runs nothing on it: {error}") from error

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; raise `Unsupported` where it is refused or a node would run elsewhere."""
        return session.GraphProgram(self._session(artifact.model), artifact.path)

    def _session(self, model: bytes) -> Any:
        try:
            made = session.load(model, cuda.PROVIDER, disable_cpu_ep_fallback="1")
        except Unsupported as error:
            if "fallback to CPU EP" not in str(error):
                raise
            # The same session with fallback allowed, never run, tells which nodes would go to the CPU.
            lax = session.load(model, cuda.PROVIDER)
            _require_cuda(lax)
            _refuse_elsewhere(lax)
            raise
        _require_cuda(made)
        _refuse_elsewhere(made)
        return made


def _require_cuda(made: Any) -> None:
    """Raise RuntimeError where the session does not run on CUDA: a CPU number must never bear CUDA's name."""
    providers = made.get_providers()
    if providers[:1] != [cuda.PROVIDER]:
        raise RuntimeError(f"asked for {cuda.PROVIDER}, got a session on {', '.join(providers)}: see actconform doctor")


def _refuse_elsewhere(made: Any) -> None:
    """Raise `Unsupported`, naming the operators, where the session gave a node to another provider."""
    placement = session.assigned(made) or {}
    elsewhere = [name for provider, names in placement.items() if provider != cuda.PROVIDER for name in names]
    if elsewhere:
        raise Unsupported(f"not on CUDA: ONNX Runtime would run {', '.join(elsewhere)} on the CPU")


def _package_facts() -> dict[str, str]:
    try:
        import onnxruntime
    except ImportError as error:
        raise Unavailable('onnxruntime is not installed: pip install "actconform[ort]"') from error
    build = str(onnxruntime.get_build_info()).removeprefix("ORT Build Info: ")
    return {
        "onnxruntime": onnxruntime.__version__,
        "build": f"{onnxruntime.package_name}: {build}",
        "cpu_capability": cpu_capability(),
        "threads": str(session.threads()),
        "optimization": "all",
    }


def _subnormals(make: Any) -> str:
    """Return "kept" or "flushed": what a session makes of 2**-140 + 2**-140."""
    tiny = np.full(1, 2.0**-140, np.float32)
    (total,) = make(_doubling()).run(None, {"x": tiny})
    return "kept" if total[0] == 2.0**-139 else "flushed"


def _doubling() -> bytes:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubling", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return bytes(model.SerializeToString())
