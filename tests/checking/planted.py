"""Runtimes with one fault each, in operators or in an optimization, mended where $MENDED is set: ONNX Runtime on a graph that is changed first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from actconform import Artifact, Backend, Program, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

SOURCE = '''import os

import onnx
import onnxruntime

FAULT = "{fault}"


def run(model, inputs, level):
    proto = onnx.load(model)
    if not os.environ.get("MENDED"):
        plant(proto.graph, level)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs))))


def plant(graph, level):
    """Put the fault into the graph."""
    outputs = {{output.name for output in graph.output}}
    gives = {{name: node for node in graph.node for name in node.output}}
    for place, node in reversed(list(enumerate(graph.node))):
        if FAULT == "epsilon" and node.op_type == "LayerNormalization":
            node.attribute.append(onnx.helper.make_attribute("epsilon", 0.01))
        if FAULT in ("pair", "three") and level != "disabled" and node.op_type == "Add":
            product = gives.get(node.input[0])
            if product is not None and product.op_type == "MatMul" and product.output[0] not in outputs:
                if FAULT == "three" and product.input[0] not in gives:
                    continue
                factor = onnx.helper.make_node("Constant", [], ["factor-" + node.output[0]], value_float=1.001)
                scaled = onnx.helper.make_node("Mul", [node.input[0], factor.output[0]], ["scaled-" + node.output[0]])
                node.input[0] = scaled.output[0]
                graph.node.insert(place, scaled)
                graph.node.insert(place, factor)
        if FAULT == "nan" and node.op_type == "Sqrt":
            node.op_type = "Log"
'''


class Graph(Program):
    def __init__(self, artifact: Artifact, level: str, source: str) -> None:
        self.path = artifact.file
        self.level = level
        self.implementation = artifact.path
        self.module: dict[str, Any] = {}
        exec(source, self.module)  # noqa: S102  the very text that goes into repro.py

    def forward(self, inputs: Arrays) -> Arrays:
        outputs: Arrays = self.module["run"](self.path, inputs, self.level)
        return outputs


class Planted(Backend):
    kind = "runtime"
    levels = ("disabled", "all")
    loads_files = True
    packages = ("onnxruntime",)
    fault = ""

    @classmethod
    def reproduction(cls) -> str:
        return SOURCE.format(fault=cls.fault)

    def facts(self) -> dict[str, str]:
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__, "device": "cpu"}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        return Graph(artifact, level, self.reproduction())

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        graph = onnx.load(artifact.file, load_external_data=False).graph
        fused = {node.input[0] for node in graph.node if node.op_type == "Add"} if level != "disabled" else set()
        return tuple(name for node in graph.node for name in node.output if name and name not in fused)


class Epsilon(Planted):
    name = "epsilon"
    fault = "epsilon"


class EpsilonToo(Epsilon):
    name = "epsilon-too"


class Pair(Planted):
    name = "pair"
    fault = "pair"


class Three(Planted):
    name = "three"
    fault = "three"


class Nan(Planted):
    name = "nan"
    fault = "nan"


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Epsilon, EpsilonToo, Pair, Three, Nan]
