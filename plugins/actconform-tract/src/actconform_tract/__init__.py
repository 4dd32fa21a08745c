"""tract for actconform: the backend tract, a runtime of graphs written in Rust, and the register of what is known of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser

from actconform import Artifact, Backend, Library, Program, Unsupported, hookimpl
from actconform.machine.cpu import cpu_capability
from actconform.onnx.gates import deep
from actconform.plugin.framework import fate_of_subnormals
from actconform.plugin.import_failure import imported

DOUBLING = '<ir_version: 8, opset_import: ["" : 14]> g (float[1] x) => (float[1] y) { y = Add(x, x) }'
RECURRENT = ("LSTM", "GRU", "RNN")


class Tract(Backend):
    """tract on the CPU, with the dimensions that a graph leaves open as tract's symbols."""

    name, kind, extra, packages, loads_files = "tract", "runtime", True, ("tract",), True

    def facts(self) -> dict[str, str]:
        """Return the version, what the processor offers, by which tract chooses its kernels, and the fate of subnormals."""
        version = _tract().version()
        model = onnx.parser.parse_model(DOUBLING).SerializeToString()
        y = self.load(Artifact(model, 14, ""), "f32").forward({"x": np.full(1, 2.0**-140, np.float32)})["y"]
        facts = {"tract": version, "device": "cpu", "cpu_capability": cpu_capability(), "threads": "1"}
        return facts | {"subnormals": fate_of_subnormals(float(y[0]))}

    def library(self) -> Library:
        """Return the functions that tract computes with on the CPU."""
        return Library("tract-cpu", ("tract",))

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:  # noqa: ARG002  the graph is typed
        """Return the graph as a program; raise `Unsupported` where tract refuses it."""
        with tempfile.TemporaryDirectory() as folder:  # tract reads files alone
            file = Path(folder, "model.onnx")
            if not artifact.file:
                file.write_bytes(artifact.model)
            refuse_open_batches(onnx.load(artifact.file or file, load_external_data=False))
            return Graph(str(artifact.file or file), artifact.path)


class Graph(Program):
    """A graph that tract has optimized; its state is made anew for each call."""

    def __init__(self, file: str, path: str) -> None:
        self.implementation = path
        try:
            model = _tract().onnx().load(file)
            self._inputs = [model.input_name(number) for number in range(model.input_count())]
            # tract names an output after its node; the order is the graph's.
            self._outputs = [output.name for output in onnx.load(file, load_external_data=False).graph.output]
            self._runnable = model.into_model().into_runnable()
        except _tract().TractError as error:
            raise Unsupported(words(error)) from error

    def forward(self, inputs: Any) -> dict[str, Any]:
        """Return every output by name, in memory of its own; raise `Unsupported` where tract refuses the call."""
        try:
            tensors = self._runnable.run([np.array(inputs[name], order="C") for name in self._inputs])
        except _tract().TractError as error:
            raise Unsupported(words(error)) from error
        return {name: tensor.to_numpy() for name, tensor in zip(self._outputs, tensors, strict=True)}


def refuse_open_batches(model: onnx.ModelProto) -> None:
    """Raise `Unsupported` where tract would abort the process: at an LSTM, GRU or RNN whose batch is left open."""
    recurrent = [node for node in deep(model.graph.node) if node.op_type in RECURRENT]
    if not recurrent:
        return
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
    for node in recurrent:
        axis = 0 if any(attribute.name == "layout" and attribute.i for attribute in node.attribute) else 1
        shape = shapes.get(node.input[0])
        if shape and not shape[axis].HasField("dim_value"):
            where = f"at {node.op_type} {node.output[0]!r}"
            raise Unsupported(f"tract aborts the process (UndeterminedSymbol) {where}: its batch is left open")


def words(error: Exception) -> str:
    """Return tract's reason: the last of the causes that it lists, without the stack."""
    lines = [line.strip() for line in str(error).partition("Stack backtrace")[0].splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _tract() -> Any:
    return imported("tract", "pip install actconform-tract", plugin="actconform-tract")


@hookimpl
def actconform_backends() -> tuple[type[Backend], ...]:
    """Return the one backend."""
    return (Tract,)


@hookimpl
def actconform_causes() -> tuple[Any, ...]:
    """Return the register of known causes."""
    from actconform import register_of  # a worker needs the backend alone

    return (register_of(__name__),)
