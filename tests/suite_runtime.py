"""A runtime of graphs, onnx's own evaluator, that does to a graph what the graph's name says: dies, hangs, refuses, raises, doubles."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from actconform import Backend, Program, Unsupported, hookimpl


class Graph(Program):
    implementation = "onnx.reference"

    def __init__(self, model: onnx.ModelProto) -> None:
        self._name = model.graph.name
        self._evaluator = ReferenceEvaluator(model)

    def forward(self, inputs):
        if self._name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._name == "hangs":
            time.sleep(3600)
        if self._name == "raises":
            raise RuntimeError("a kernel failed")
        if self._name == "dies once" and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        with np.errstate(all="ignore"):
            outputs = dict(zip(self._evaluator.output_names, self._evaluator.run(None, dict(inputs)), strict=True))
        if self._name == "doubles":
            return {name: array * array.dtype.type(2) for name, array in outputs.items()}
        return outputs


class SuiteRuntime(Backend):
    name = "suite-runtime"
    kind = "runtime"

    def facts(self):
        return {"onnx": onnx.__version__, "device": "cpu"}

    def load(self, artifact, dtype, level=""):
        model = onnx.load_model_from_string(artifact.model)
        if model.graph.name == "refuses":
            raise Unsupported("takes no such graph")
        return Graph(model)


class Plugin:
    @hookimpl
    def actconform_backends(self):
        return (SuiteRuntime,)
