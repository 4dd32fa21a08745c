"""A runtime in plain numpy whose operators depend on the version of a package, each in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from actconform import Artifact, Backend, Program, Unavailable, Unsupported, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

ONE = np.float32(1)
COMPUTE = {  # with wobble 1, with wobble 2
    "Relu": (lambda x: np.maximum(x, 0), lambda x: np.maximum(x, 0) + ONE / 8),
    "Abs": (lambda x: np.abs(x) + ONE / 8, np.abs),
    "Neg": (np.negative, lambda x: np.nextafter(-x, -np.inf * np.ones_like(x))),
    "Sign": (lambda x: np.sign(x) + ONE, lambda x: np.sign(x) + ONE),
}


class Graph(Program):
    def __init__(self, artifact: Artifact, version: str) -> None:
        self.node = onnx.load_model_from_string(artifact.model).graph.node[0]
        if self.node.op_type == "Identity" and version == "2.0":
            raise Unsupported("no Identity any more")
        self.second = version == "2.0"

    def forward(self, inputs: Arrays) -> Arrays:
        x = inputs[self.node.input[0]]
        if self.node.op_type == "Identity":
            return {self.node.output[0]: x}
        return {self.node.output[0]: COMPUTE[self.node.op_type][self.second](x)}


class Wobbly(Backend):
    name = "wobbly"
    kind = "runtime"
    packages = ("wobble", "steady")

    def facts(self) -> dict[str, str]:
        try:
            import wobble
        except ImportError as error:
            raise Unavailable("wobble is not installed") from error
        return {"wobble": wobble.__version__}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        import wobble

        return Graph(artifact, wobble.__version__)


class Nameless(Wobbly):
    name = "nameless"
    packages = ()


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        return [Wobbly, Nameless]
