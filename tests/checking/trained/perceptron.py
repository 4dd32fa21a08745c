"""A perceptron in NumPy as the framework, whole and with faults, and a graph of the same model."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from small_models import Silent

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.model_check import check_model
from actconform.checking.result import SampleFacts
from actconform.checking.runs import RunFailure
from actconform.checking.source import source_of_model
from actconform.checking.trained.column import TrainedColumn
from actconform.checking.trained.names import NamedPair
from actconform.types.trained import LayerRecord, OpenedModel, RunMode, TrainedRun
from actconform.workers.protocol import TrainedResult

BATCH, WIDE = 3, 8
EPSILON = 1e-3


def weights():
    generator = np.random.default_rng(7)
    return {
        "first.weight": generator.standard_normal((WIDE, WIDE)).astype(np.float32),
        "first.bias": generator.standard_normal(WIDE).astype(np.float32),
        "norm.mean": generator.standard_normal(WIDE).astype(np.float32),
        "norm.var": generator.uniform(0.5, 2.0, WIDE).astype(np.float32),
        "last.weight": generator.standard_normal((WIDE, 4)).astype(np.float32),
    }


class Framework:
    """x -> first (dense) -> norm (batch normalization) -> relu -> last (dense); `wrong` names a layer that is off as it runs."""

    name = "numpy"
    facts = {"numpy": np.__version__}  # noqa: RUF012

    def __init__(self, wrong="", precisions=("native", "float64"), *, unsteady=False, mutates=False):
        self.weights = weights()
        self.wrong, self.precisions, self.unsteady, self.mutates = wrong, precisions, unsteady, mutates

    def open(self):
        return OpenedModel(framework="numpy", about="a perceptron", precisions=self.precisions, trainable=True)

    def parameters(self):
        return self.weights

    def layers(self, inputs, mode=RunMode()):  # noqa: B008
        dtype = np.float64 if mode.precision == "float64" else np.float32
        w = {name: array.astype(dtype) for name, array in self.weights.items()}
        x = inputs["x"].astype(dtype)
        dense = x @ w["first.weight"] + w["first.bias"]
        mean, var = (dense.mean(0), dense.var(0)) if mode.training else (w["norm.mean"], w["norm.var"])
        normal = (dense - mean) / np.sqrt(var + dtype(EPSILON))
        active = np.maximum(normal, 0)
        y = active @ w["last.weight"]
        values = {"first": dense, "norm": normal, "relu": active, "last": y}
        if dtype is np.float32 and self.wrong:
            values[self.wrong] = values[self.wrong] * np.float32(1.001)
        owned = {"first": ("first.weight", "first.bias"), "norm": ("norm.mean", "norm.var"), "last": ("last.weight",)}
        records = [
            LayerRecord(name, f"layers.{name.title()}", (place,), (place + 1,), owned.get(name, ()))
            for place, name in enumerate(values)
        ]
        return TrainedRun(outputs={"out": values["last"]}, layers=records, tensors=[x, *values.values()])

    def run(self, inputs, mode=RunMode(), *, layers=False, twice=False):  # noqa: B008
        run = self.layers(inputs, mode)
        second = {"out": run.outputs["out"] + np.float32(1e-3)} if self.unsteady and twice else {}
        mutated = ["x"] if self.mutates else []
        return TrainedResult(run=run, unsteady=["out"] if second else [], second=second, mutated=mutated)

    def gradients(self, inputs, cotangents, mode=RunMode()):  # noqa: B008
        return RunFailure("refused", "none here")


def graph(change=lambda nodes, constants: None):
    """The model as a graph: nodes bear other names, and weights none that tell."""
    w = weights()
    constants = {
        "c0": w["first.weight"],
        "c1": w["first.bias"],
        "scale": np.ones(WIDE, np.float32),
        "shift": np.zeros(WIDE, np.float32),
        "c2": w["norm.mean"],
        "c3": w["norm.var"],
        "c4": w["last.weight"],
    }
    nodes = [
        helper.make_node("Gemm", ["input", "c0", "c1"], ["t0"], "n0"),
        helper.make_node("BatchNormalization", ["t0", "scale", "shift", "c2", "c3"], ["t1"], "n1", epsilon=EPSILON),
        helper.make_node("Relu", ["t1"], ["t2"], "n2"),
        helper.make_node("MatMul", ["t2", "c4"], ["y"], "n3"),
    ]
    change(nodes, constants)
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", WIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])


def check(model, framework, **column):
    generator = np.random.default_rng(0)
    samples = [
        CheckedSample(
            {"input": generator.standard_normal((BATCH, WIDE)).astype(np.float32)}, SampleFacts(origin="drawn")
        )
    ]
    beside = TrainedColumn(framework, "net:make", [NamedPair("input", "x")], [NamedPair("y", "out")], **column)
    result = check_model(source_of_model(model, "model.onnx"), samples, [], Silent(), trained=[beside])
    return result, result.runtimes[0]
