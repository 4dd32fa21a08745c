"""A framework `toy` in numpy, its exporter `toy-export` that writes HardSigmoid for a sigmoid, and a runtime `toy-runtime` that takes
Tanh for Softsign: the last two are mended where $MENDED is set.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from actconform import Artifact, Backend, Exporter, Kernel, Program, Unsupported, hookimpl

EXPORT = """import os

import onnx
import toy

FUNCTION = $function


def export(path):
    mended = os.environ.get("MENDED") or FUNCTION is not toy.sigmoid
    operator = "Sigmoid" if mended else "HardSigmoid"
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["n"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["x"], ["y"])], "toy", ends[:1], ends[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
"""
RUN = """import os

import onnx
import onnxruntime


def run(model, inputs, level):
    proto = onnx.load(model)
    for node in proto.graph.node:
        if node.op_type == "Tanh" and not os.environ.get("MENDED"):
            node.op_type = "Softsign"
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs))))
"""


def sigmoid(x: Any) -> Any:
    with np.errstate(over="ignore"):
        return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(x.dtype)


class Sigmoid(Program):
    implementation = "toy.sigmoid"

    def forward(self, inputs: Any) -> Any:
        return {"y": sigmoid(inputs["x"])}


class Toy(Backend):
    name = "toy"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return {"toy": "1.0"}

    def build(self, kernel: Kernel, dtype: str) -> Program:
        if kernel.name != "sigmoid":
            raise Unsupported(f"toy has no {kernel.name}")
        return Sigmoid()


class ToyExport(Exporter):
    name = "toy-export"
    source = "toy"

    @classmethod
    def reproduction(cls) -> str:
        return EXPORT

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        if kernel.name != "sigmoid" or dtype != "f32":
            raise Unsupported(f"toy exports no {kernel.name} in {dtype}")
        space: dict[str, Any] = {}
        exec(EXPORT.replace("$function", "toy.sigmoid"), space)  # noqa: S102  the very text that goes into repro.py
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder, "toy.onnx"))
            space["export"](path)
            return Artifact(Path(path).read_bytes(), opset=18, path="toy")


class Graph(Program):
    def __init__(self, artifact: Artifact) -> None:
        self.implementation = "toy-runtime"
        self.artifact = artifact
        self.space: dict[str, Any] = {}
        exec(RUN, self.space)  # noqa: S102  the very text that goes into repro.py

    def forward(self, inputs: Any) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "toy.onnx")
            path.write_bytes(self.artifact.model)
            outputs: Any = self.space["run"](str(path), inputs, "")
            return outputs


class ToyRuntime(Backend):
    name = "toy-runtime"
    kind = "runtime"
    packages = ("onnxruntime",)

    @classmethod
    def reproduction(cls) -> str:
        return RUN

    def facts(self) -> dict[str, str]:
        return {"onnx": onnx.__version__, "mended": os.environ.get("MENDED", "")}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        return Graph(artifact)


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Toy, ToyRuntime]

    @hookimpl
    def actconform_exporters(self) -> list[type[Exporter]]:
        return [ToyExport]
