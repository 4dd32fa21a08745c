"""A trained model beside a graph: a framework in numpy, whole and with faults, against a graph of the same model."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.low_precision import lowered
from actconform.checking.model_check import check_model
from actconform.checking.noise_columns import noise_of
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


class Silent:
    def stage(self, name, total=0): ...
    def step(self, count=1): ...
    def outputs(self, runtime, outputs): ...


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


def test_a_faithful_export_is_explained_with_every_layer_and_weight_accounted_for():
    result, column = check(graph(), Framework())
    assert column.status == "explained"
    assert result.explained
    assert [match.tensor for match in result.trained[0].matches] == ["t0", "t1", "t2", "y"]
    assert not result.trained[0].unmatched
    assert {check.parameter: check.state for check in result.trained[0].weights} == dict.fromkeys(
        weights(), "identical"
    )
    assert {level.name for level in column.levels} == {"float64", ""}


def set_epsilon(nodes, constants):
    nodes[1].attribute[0].f = 10 * EPSILON


def set_relu(nodes, constants):
    nodes[2].op_type = "LeakyRelu"


def round_weight(nodes, constants):
    constants["c4"] = constants["c4"].astype(np.float16).astype(np.float32)


def drop_bias(nodes, constants):
    del nodes[0].input[2]


FAULTS = {set_epsilon: "norm", set_relu: "relu", round_weight: "last", drop_bias: "first"}


@pytest.mark.parametrize("change", FAULTS, ids=lambda change: change.__name__)
def test_a_fault_of_the_export_is_named_at_its_layer_and_nothing_behind_it(change):
    _, column = check(graph(change), Framework(), exporter="an-exporter")
    assert column.status == "not explained"
    fault = column.fault
    assert (fault.blame, fault.layer, fault.level) == ("exporter", FAULTS[change], "float64")
    wrong = {
        tensor.node
        for level in column.levels
        if level.name == "float64"
        for tensor in level.tensors
        if not tensor.explained
    }
    assert wrong == {fault.node}
    assert any("an-exporter" in sentence for sentence in fault.evidence)


def test_a_rounded_weight_is_named_in_the_evidence():
    _, column = check(graph(round_weight), Framework())
    assert any("last.weight" in sentence and "float16" in sentence for sentence in column.fault.evidence)


@pytest.mark.parametrize("layer", ["first", "norm", "relu", "last"])
def test_a_framework_that_computes_wrong_as_it_runs_is_to_blame_itself(layer):
    _, column = check(graph(), Framework(wrong=layer))
    assert (column.fault.blame, column.fault.layer, column.fault.level) == ("framework", layer, "")


def test_without_float64_nobody_is_accused():
    _, column = check(graph(set_epsilon), Framework(precisions=("native",)))
    assert (column.fault.blame, column.fault.layer) == ("undetermined", "norm")


def test_an_export_in_training_mode_is_told_as_that():
    def train(nodes, constants):
        mean = helper.make_node("ReduceMean", ["t0"], ["m"], "m", axes=[0], keepdims=0)
        centred = helper.make_node("Sub", ["t0", "m"], ["d"], "d")
        square = helper.make_node("Mul", ["d", "d"], ["d2"], "d2")
        var = helper.make_node("ReduceMean", ["d2"], ["v"], "v", axes=[0], keepdims=0)
        nodes[1:1] = [mean, centred, square, var]
        nodes[5].input[3], nodes[5].input[4] = "m", "v"

    _, column = check(graph(train), Framework())
    assert (column.fault.blame, column.fault.layer) == ("exporter", "norm")
    assert any("training mode" in sentence for sentence in column.fault.evidence)
    _, column = check(graph(train), Framework(), mode=RunMode(training=True))
    assert column.status == "explained"


def test_weights_of_another_checkpoint_are_no_exporters_fault():
    def other(nodes, constants):
        generator = np.random.default_rng(99)
        for name in ("c0", "c1", "c2", "c4"):
            constants[name] = generator.standard_normal(constants[name].shape).astype(np.float32)

    _, column = check(graph(other), Framework())
    assert column.fault.blame == "graph"
    assert any("another checkpoint" in sentence for sentence in column.fault.evidence)


def test_a_framework_that_does_not_give_the_same_twice_is_told_and_judged_by_the_worse():
    _, column = check(graph(), Framework(unsteady=True))
    assert column.unsteady == ("y",)
    assert column.status == "not explained"


def test_a_framework_that_changes_its_inputs_is_not_explained():
    _, column = check(graph(), Framework(mutates=True))
    assert (column.status, column.mutated) == ("not explained", ("x",))


def test_a_framework_that_dies_costs_its_column_alone():
    class Dies(Framework):
        def run(self, inputs, mode=RunMode(), *, layers=False, twice=False):  # noqa: B008
            return RunFailure("crash", "the torch worker was killed by SIGSEGV")

    _, column = check(graph(), Dies())
    assert (column.status, column.fault) == ("failed", None)
    assert "SIGSEGV" in column.reason


def test_an_output_alone_that_is_off_is_told_where_no_layer_shows_it():
    class Bare(Framework):
        def layers(self, inputs, mode=RunMode()):  # noqa: B008
            run = super().layers(inputs, mode)
            return TrainedRun(outputs=run.outputs, tensors=run.tensors[:1])

    _, column = check(graph(set_epsilon), Bare())
    assert column.fault.blame == "exporter"
    assert column.fault.node == "n3"


def test_the_noise_of_a_format_is_held_against_the_runs_of_the_check_itself():
    class Counts(Framework):
        calls = 0

        def layers(self, inputs, mode=RunMode()):  # noqa: B008
            self.calls += 1
            return super().layers(inputs, mode)

    framework = Counts()
    inputs = {"input": np.random.default_rng(0).standard_normal((BATCH, WIDE)).astype(np.float16)}
    sample = CheckedSample(inputs, SampleFacts(origin="drawn"))
    beside = TrainedColumn(framework, "net:make", [NamedPair("input", "x")], [NamedPair("y", "out")])
    source = source_of_model(lowered(graph()).model, "model.onnx")
    result = check_model(source, [sample], [], Silent(), trained=[beside])
    calls = framework.calls
    noise = noise_of(sample, [], [beside], result, None)
    assert framework.calls == calls
    assert (noise.format, noise.truth) == ("f16", "net:make in float64")
    assert {layer.tensor: [got.name for got in layer.got] for layer in noise.layers} == {
        name: ["numpy native"] for name in ("t0", "t1", "t2", "y")
    }


def test_the_result_goes_to_json_and_back(tmp_path):
    from actconform.report.check.check_json import read_json, write_json

    result, _ = check(graph(set_epsilon), Framework())
    write_json(result, tmp_path)
    assert read_json(tmp_path) == result


def test_an_onnx_model_is_sound():
    onnx.checker.check_model(graph(), full_check=True)
