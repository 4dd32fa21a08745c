"""OpenVINO for actconform: the backend openvino, a runtime of graphs, and the register of what is known of it."""

from __future__ import annotations

import re
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser

from actconform import Artifact, Backend, Library, Program, Unsupported, hookimpl
from actconform.machine.onednn import onednn_facts
from actconform.plugin.framework import per_thread, thread_count
from actconform.plugin.import_failure import imported

# Left alone, it computes graphs of float32 in bfloat16 where the processor can.
OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
# Handed out as float16 or uint8, and taken for these.
BITS = {"bf16": ml_dtypes.bfloat16, "f8e4m3": ml_dtypes.float8_e4m3fn, "f8e5m2": ml_dtypes.float8_e5m2}
DOUBLING = '<ir_version: 8, opset_import: ["" : 14]> g (float[1] x) => (float[1] y) { y = Add(x, x) }'
_NOISE = r"(Exception from|Check '|FrontEnd API|Model wasn't|While validating|Shape inference|Summary).*|-- "


class OpenVino(Backend):
    """OpenVINO on the CPU, told to compute in float32 whatever the graph's types; what comes out has them."""

    name, kind, extra, packages = "openvino", "runtime", True, ("openvino",)

    def facts(self) -> dict[str, str]:
        """Return the version, the options as compiled, threads, what the CPU offers, and the fate of subnormals.

        `capabilities` are the formats that OpenVINO says it computes in here.
        """
        ov = _openvino()
        compiled = _compile(ov.Core().read_model(onnx.parser.parse_model(DOUBLING).SerializeToString()))
        fate = "kept" if compiled([np.full(1, 2.0**-140, np.float32)])[0] == 2.0**-139 else "flushed"
        hint, mode, threads = (compiled.get_property(name) for name in (*OPTIONS, "INFERENCE_NUM_THREADS"))
        facts = {"openvino": ov.__version__.partition("-")[0], "device": "cpu", **onednn_facts(), "subnormals": fate}
        facts |= {"capabilities": " ".join(sorted(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")))}
        return facts | {"precision_hint": hint.to_string(), "execution_mode": mode.name, "threads": str(threads)}

    @classmethod
    def reproduction(cls) -> str:
        """Return the text of `standalone`."""
        from pathlib import Path

        return Path(__file__).with_name("standalone.py").read_text(encoding="utf-8")

    def library(self) -> Library:
        """Return the functions that OpenVINO compiles for the CPU."""
        return Library("openvino-cpu", ("openvino",))

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; raise `Unsupported` where OpenVINO refuses it."""
        try:
            return Graph(_compile(_openvino().Core().read_model(artifact.model)), artifact)
        except RuntimeError as error:
            raise Unsupported(words(error)) from error

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:  # noqa: ARG002
        """Return the tensors that an operation of the compiled graph gives: of fused operations the last one's."""
        from actconform_openvino.compiled import surviving_tensors

        try:
            return surviving_tensors(onnx.load_model_from_string(artifact.model), _openvino().Core(), _compile)
        except RuntimeError as error:
            raise Unsupported(words(error)) from error


class Graph(Program):
    """A compiled graph; inputs are read where they lie."""

    def __init__(self, compiled: Any, artifact: Artifact) -> None:
        # A request that one thread waits for raises "busy" in another, as OpenVINO documents.
        self._request, self.implementation = per_thread(compiled.create_infer_request), artifact.path
        graph = onnx.load_model_from_string(artifact.model).graph
        # OpenVINO names an output after any of the tensors that are one to it; the order is the graph's.
        self._names = [output.name for output in graph.output]
        # It drops an input that no node reads, and refuses its name.
        self._dropped = {each.name for each in graph.input}.difference(*(port.get_names() for port in compiled.inputs))

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Return every output by name, in memory of its own; OpenVINO raises where names, ranks or types are wrong."""
        # Held until it has answered: a tensor of OpenVINO before 2025 does not hold the memory that it reads.
        arrays = {name: np.asarray(x, order="C") for name, x in inputs.items() if name not in self._dropped}
        pairs = zip(self._names, self._request().infer({n: _tensor(x) for n, x in arrays.items()}).items(), strict=True)
        return {name: y.view(BITS.get(port.element_type.to_string(), y.dtype)) for name, (port, y) in pairs}


def words(error: Exception) -> str:
    """Return what OpenVINO says without places in its source: "No conversion rule found for operations: Det-20"."""
    lines = list(filter(None, map(str.strip, re.sub(_NOISE, "", str(error)).splitlines()))) or ["no reason given"]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def _openvino() -> Any:
    return imported("openvino", "pip install actconform-openvino", plugin="actconform-openvino")


def _compile(model: Any) -> Any:
    return _openvino().Core().compile_model(model, "CPU", OPTIONS | {"INFERENCE_NUM_THREADS": thread_count()})


def _tensor(x: Any) -> Any:
    ov, bits = _openvino(), next((name for name, dtype in BITS.items() if x.dtype == dtype), "")
    kind = getattr(ov.Type, bits) if bits else ov.Type(x.dtype)
    # 2024.0 takes no 0-d array
    return ov.Tensor(np.atleast_1d(x.view(f"u{x.dtype.itemsize}") if bits else x), list(x.shape), kind)


@hookimpl
def actconform_backends() -> tuple[type[Backend], ...]:
    """Return the one backend."""
    return (OpenVino,)


@hookimpl
def actconform_causes() -> tuple[Any, ...]:
    """Return the register of known causes."""
    from actconform import register_of  # a worker needs the backend alone

    return (register_of(__name__),)
