"""A trained model beside a graph: a framework in numpy, whole and with faults, against a graph of the same model."""

import numpy as np
import pytest
from onnx import helper
from perceptron import BATCH, EPSILON, WIDE, Framework, check, graph, weights
from small_models import Silent

from actconform.checking.checked_sample import CheckedSample
from actconform.checking.low_precision import lowered
from actconform.checking.model_check import check_model
from actconform.checking.noise_columns import noise_of
from actconform.checking.result import SampleFacts
from actconform.checking.runs import RunFailure
from actconform.checking.source import source_of_model
from actconform.checking.trained.column import TrainedColumn
from actconform.checking.trained.names import NamedPair
from actconform.types.trained import RunMode, TrainedRun


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
