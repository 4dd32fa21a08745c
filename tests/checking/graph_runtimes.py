"""Runtimes for graphs with a node for each element-wise operation, which do, by their name, whatever a runtime can do wrong."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from actconform import Artifact, Backend, Program, Unavailable, Unsupported, hookimpl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

COMPUTE = {
    "Add": np.add,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Relu": lambda x: np.maximum(x, 0),
    "Identity": lambda x: x,
}


class Graph(Program):
    def __init__(self, artifact: Artifact) -> None:
        self.model = onnx.load_model_from_string(artifact.model)
        self.outputs = [value.name for value in self.model.graph.output]
        self.implementation = f"{artifact.path}, {len(self.outputs)} outputs"

    def forward(self, inputs: Arrays) -> Arrays:
        tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer} | inputs
        for node in self.model.graph.node:
            tensors[node.output[0]] = COMPUTE[node.op_type](*(tensors[name] for name in node.input))
        return {name: tensors[name] for name in self.outputs}


class Right(Backend):
    """Right in everything; at the level "fast" it computes h and y at once, so that h does not survive."""

    name = "right"
    kind = "runtime"
    levels = ("slow", "fast")
    program: type[Graph] = Graph

    def facts(self) -> dict[str, str]:
        return {"right": "1.0", "file": str(self.loads_files)}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        return self.program(artifact)

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        graph = onnx.load_model_from_string(artifact.model).graph
        return tuple(name for node in graph.node for name in node.output if level == "slow" or name != "h")


class Counting(Graph):
    """A program whose outputs depend on how often it was called."""

    calls = 0

    def forward(self, inputs: Arrays) -> Arrays:
        self.calls += 1
        outputs = super().forward(inputs)
        return {name: value + self.calls if name in ("h", "y") else value for name, value in outputs.items()}


class Mutating(Graph):
    def forward(self, inputs: Arrays) -> Arrays:
        outputs = super().forward(inputs)
        inputs["x"] += 1
        return outputs


class Fusing(Graph):
    """A program whose final outputs are others where h is marked."""

    def forward(self, inputs: Arrays) -> Arrays:
        outputs = super().forward(inputs)
        return outputs | {"y": outputs["y"] * 2} if "h" in outputs else outputs


class Forgetful(Graph):
    def forward(self, inputs: Arrays) -> Arrays:
        return {name: value for name, value in super().forward(inputs).items() if name != "h"}


class Fatal(Graph):
    """A program that a negative number kills, a huge one makes hang, and for which infinity is too large."""

    def forward(self, inputs: Arrays) -> Arrays:
        x = inputs["x"]
        if np.isinf(x).any():
            raise MemoryError("16 GiB wanted")
        if (x > 1e9).any():
            time.sleep(600)
        if (x < 0).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs)


class Upward(Graph):
    """A program that rounds sums up wherever the error stays below 2^-24 of the sum, the bound that a node has."""

    def forward(self, inputs: Arrays) -> Arrays:
        tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer} | inputs
        for node in self.model.graph.node:
            read = [tensors[name] for name in node.input]
            result = COMPUTE[node.op_type](*read)
            if node.op_type == "Add":
                exact = np.add(*read, dtype=np.float64)
                above = np.where(result < exact, np.nextafter(result, np.float32(np.inf)), result)
                result = np.where(above - exact < 2.0**-24 * np.abs(exact), above, result)
            tensors[node.output[0]] = result
        return {name: tensors[name] for name in self.outputs}


class Choosy(Graph):
    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)
        if "h" in self.outputs:
            raise Unsupported("h cannot be an output here")


class Unsteady(Right):
    name = "unsteady"
    program = Counting


class Mutates(Right):
    name = "mutates"
    program = Mutating


class Fuses(Right):
    name = "fuses"
    program = Fusing


class Forgets(Right):
    name = "forgets"
    program = Forgetful


class Dies(Right):
    name = "dies"
    program = Fatal


class RoundsUp(Right):
    name = "rounds-up"
    program = Upward


class Refuses(Right):
    name = "refuses-marks"
    program = Choosy


class Branching(Graph):
    """A program that is off by one where a node holds a branch."""

    def forward(self, inputs: Arrays) -> Arrays:
        if all(node.op_type != "If" for node in self.model.graph.node):
            return super().forward(inputs)
        evaluator = ReferenceEvaluator(self.model)
        return {name: value + 1 for name, value in zip(self.outputs, evaluator.run(None, inputs), strict=True)}


class Branches(Right):
    name = "branches"
    program = Branching


class NothingSurvives(Right):
    name = "nothing-survives"

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        return ()


class Secretive(Right):
    name = "secretive"

    def surviving_tensors(self, artifact: Artifact, dtype: str, level: str = "") -> tuple[str, ...]:
        raise Unsupported("what survives is a secret")


class Silent(Backend):
    """It takes no level, does not say what survives, and refuses all graphs."""

    name = "silent"
    kind = "runtime"

    def facts(self) -> dict[str, str]:
        return {}

    def load(self, artifact: Artifact, dtype: str) -> Program:
        raise Unsupported("no conversion rule for anything")


class NoDevice(Right):
    name = "no-accelerator"

    def facts(self) -> dict[str, str]:
        raise Unavailable("libnone.so.9 is missing: install it")


class Versioned(Right):
    """The wobble that is installed is its version."""

    name = "versioned"
    packages = ("wobble",)
    variants = ("2fast",)

    def variant(self, name: str) -> Backend:
        return Mutates()

    def facts(self) -> dict[str, str]:
        try:
            import wobble
        except ImportError as error:
            raise Unavailable("wobble is not installed") from error
        return {"wobble": wobble.__version__}


class Showing(Graph):
    """A program that computes right, and shows h otherwise than it reads it: as runtimes do that fuse past a mark."""

    def forward(self, inputs: Arrays) -> Arrays:
        outputs = super().forward(inputs)
        if "h" in outputs and len(self.model.graph.node) > 1:
            outputs["h"] = outputs["h"] * np.float32(1.25)
        return outputs


class Doubling(Graph):
    """A program that doubles each product."""

    def forward(self, inputs: Arrays) -> Arrays:
        wrong = {"Mul": lambda *factors: 2 * np.multiply(*factors)}
        COMPUTE.update(wrong)
        try:
            return super().forward(inputs)
        finally:
            COMPUTE["Mul"] = np.multiply


class RightOnce(Counting):
    """A program that is right the first time."""

    def forward(self, inputs: Arrays) -> Arrays:
        outputs = super().forward(inputs)
        return {name: value - 1 if name in ("h", "y") else value for name, value in outputs.items()}


class Widening(Graph):
    def forward(self, inputs: Arrays) -> Arrays:
        return {name: value.astype(np.float64) for name, value in super().forward(inputs).items()}


class Late(Right):
    name = "late"
    program = RightOnce


class Widens(Right):
    name = "widens"
    program = Widening


class Shows(Silent):
    name = "shows"

    def load(self, artifact: Artifact, dtype: str) -> Program:
        return Showing(artifact)


class Doubles(Silent):
    name = "doubles"

    def load(self, artifact: Artifact, dtype: str) -> Program:
        return Doubling(artifact)


class NarrowSums(Graph):
    """A program that adds 8-bit products in pairs, in 16 bits, as VPMADDUBSW does."""

    def forward(self, inputs: Arrays) -> Arrays:
        (node,), (kernel,) = self.model.graph.node, self.model.graph.initializer
        products = inputs[node.input[0]][..., None] * onnx.numpy_helper.to_array(kernel).astype(np.int32)
        pairs = products.reshape(len(products), -1, 2, products.shape[-1]).sum(2)
        return {self.outputs[0]: np.clip(pairs, -(2**15), 2**15 - 1).sum(1, dtype=np.int32)}


class OneMore(Graph):
    """A program whose sums of 8-bit products are 1 too large."""

    def forward(self, inputs: Arrays) -> Arrays:
        evaluator = ReferenceEvaluator(self.model)
        return {self.outputs[0]: evaluator.run(None, inputs)[0] + np.int32(1)}


class Saturates(Right):
    name = "saturates"
    program = NarrowSums


class AddsOne(Right):
    name = "adds-one"
    program = OneMore


class Framework(Backend):
    name = "framework"
    kind = "framework"

    def facts(self) -> dict[str, str]:
        return {}


class Plugin:
    @hookimpl
    def actconform_backends(self) -> list[type[Backend]]:
        runtimes = [Right, Unsteady, Mutates, Fuses, Forgets, Dies, RoundsUp, Refuses, Silent, NoDevice, Versioned]
        runtimes += [Shows, Doubles, Late, Widens, Branches, NothingSurvives, Secretive, Saturates, AddsOne]
        return [*runtimes, Framework]
