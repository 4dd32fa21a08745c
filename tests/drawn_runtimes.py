"""Runtimes for graphs of one operator, computed by the correctly rounded evaluator: one that is right, one with a fault in each of some operators."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from actconform import Artifact, Backend, Program, Unavailable, Unsupported, hookimpl
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


REDUCE_SUM = """
from onnx.reference import ReferenceEvaluator


def run(model, inputs, level):
    evaluator = ReferenceEvaluator(model)
    return {name: array[None] for name, array in zip(evaluator.output_names, evaluator.run(None, inputs))}
"""


class Evaluated(Program):
    def __init__(self, artifact: Artifact) -> None:
        self.model = onnx.load_model_from_string(artifact.model)
        self.node = self.model.graph.node[0]
        self.evaluator = CorrectlyRoundedEvaluator(artifact.model)
        self.implementation = "evaluated"

    def forward(self, inputs: Arrays) -> Arrays:
        return dict(self.evaluator.forward(inputs))


class Faulty(Evaluated):
    def forward(self, inputs: Arrays) -> Arrays:
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer} | inputs
        read = [tensors[name] for name in self.node.input if name]
        if self.node.op_type == "Concat" and len(read) > 2:
            os.abort()
        if self.node.op_type == "Gather" and any((each < 0).any() for each in read[1:]):
            raise IndexError("a place is negative")
        outputs = super().forward(inputs)
        stated = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in self.node.attribute}
        return {name: self.wrong(array, read[0], stated) for name, array in outputs.items()}

    def wrong(self, y: NDArray[Any], x: NDArray[Any], stated: dict[str, Any]) -> NDArray[Any]:
        match self.node.op_type:
            case "Relu":  # NaN is lost
                return np.where(np.isnan(x), np.zeros((), y.dtype), y)
            case "ReduceSum" if stated.get("keepdims") == 0 and y.ndim:  # a dimension too many
                return y[None]
            case "Abs" if y.size > 64:  # a wrong tail, as of a vectorized loop
                y = y.copy()
                y.flat[-1] = 77
            case "Shape":
                return y.astype(np.int32)
        return y


class Right(Backend):
    """It computes as the truth does, but takes no 16-bit floats."""

    name = "drawn-right"
    kind = "runtime"
    program: type[Evaluated] = Evaluated

    def facts(self) -> dict[str, str]:
        return {"right": "1.0"}

    def load(self, artifact: Artifact, dtype: str, level: str = "") -> Program:
        if any(
            value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
            for value in onnx.load_model_from_string(artifact.model).graph.input
        ):
            raise Unsupported("16-bit floats are not taken")
        return self.program(artifact)


class Wrong(Right):
    name = "drawn-wrong"
    program = Faulty

    @classmethod
    def reproduction(cls) -> str:
        """Return a program with the fault of ReduceSum alone."""
        return REDUCE_SUM


class Gone(Right):
    name = "drawn-gone"

    def facts(self) -> dict[str, str]:
        raise Unavailable("libgone.so is missing")


class Plugin:
    @hookimpl
    def actconform_backends(self) -> tuple[type[Backend], ...]:
        return Right, Wrong, Gone
