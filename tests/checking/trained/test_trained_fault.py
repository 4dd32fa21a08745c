"""Whose fault it is where a trained model and a graph part, and the sentences that show it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from perceptron import Framework, check, graph

from actconform.types.trained import RunMode


def sentences(column, *words):
    return [sentence for sentence in column.fault.evidence if all(word in sentence for word in words)]


def set_relu(nodes, constants):
    nodes[2].op_type = "LeakyRelu"


def set_epsilon(nodes, constants):
    nodes[1].attribute[0].f = 0.1


def off(*names, by=0.1):
    def change(nodes, constants):
        for name in names:
            constants[name] = constants[name] + np.float32(by) * np.abs(constants[name])

    return change


def test_two_graphs_that_part_are_the_graphs():
    _, column = check(graph(set_relu), Framework(), is_graph=True)
    assert (column.fault.blame, column.fault.layer) == ("graph", "relu")
    assert sentences(column, "both graphs were evaluated in float64", "net:make")
    assert "" not in {level.name for level in column.levels}, "a graph does not run as it is"


@pytest.mark.parametrize("exporter", ["", "an-exporter"])
def test_an_exporter_is_named_where_the_graph_was_made_just_now(exporter):
    _, column = check(graph(set_relu), Framework(), exporter=exporter)
    assert column.fault.blame == "exporter"
    assert len(sentences(column, "no runtime is involved")) == 1
    assert bool(sentences(column, "exported by an-exporter: ")) is bool(exporter)


def test_the_weights_of_the_layer_tell_whether_they_are_at_fault():
    _, column = check(graph(set_epsilon), Framework())
    assert sentences(column, "the weights of the layer itself are in the graph as they were trained")
    _, column = check(graph(set_relu), Framework())
    assert sentences(column, "it has no weights of its own")
    _, column = check(graph(off("c1")), Framework())
    assert sentences(column, "weight first.bias: 8 of 8 values differ")
    assert not sentences(column, "last.weight")
    assert not sentences(column, "as they were trained")


def test_one_other_weight_of_five_is_the_exporters_fault_and_three_are_of_another_checkpoint():
    assert check(graph(off("c0")), Framework())[1].fault.blame == "exporter"
    _, column = check(graph(off("c0", "c1", "c4")), Framework())
    assert column.fault.blame == "graph"
    assert sentences(column, "3 of 5 weights", "another checkpoint")


def test_weights_that_differ_in_their_last_bits_alone_are_told_as_those_of_another_call():
    def nudged(nodes, constants):
        generator = np.random.default_rng(3)
        for name in ("c0", "c1", "c4"):
            noise = generator.uniform(-2e-6, 2e-6, constants[name].shape)
            constants[name] = (constants[name] + noise).astype(np.float32)

    _, column = check(graph(nudged), Framework())
    assert column.fault.blame == "graph"
    assert sentences(column, "does the factory give the same weights at each call?")
    assert not sentences(column, "another checkpoint")


def test_a_weight_that_these_inputs_do_not_show_is_a_fault_all_the_same():
    """One element that differs by so little that rounding would explain what comes of it."""

    def one_bit(nodes, constants):
        constants["c0"] = constants["c0"].copy()
        constants["c0"].view(np.uint32)[0, 0] ^= np.uint32(1)

    _, column = check(graph(one_bit), Framework(), exporter="an-exporter")
    assert column.status == "not explained"
    assert (column.fault.blame, column.fault.layer, column.fault.node) == ("exporter", "first", "n0")
    assert sentences(column, "weight first.weight", "bit 0 is flipped")
    assert sentences(column, "at these inputs rounding would explain what comes of it")


def test_an_operator_that_the_standard_does_not_have_is_the_exporters_fault():
    def unknown(nodes, constants):
        nodes[2] = helper.make_node("Relux", ["t1"], ["t2"], "n2")

    for exporter, words in (("", "the file has the operator Relux"), ("an-exporter", "an-exporter wrote the operator")):
        _, column = check(graph(unknown), Framework(), exporter=exporter)
        assert (column.fault.blame, column.fault.op_type, column.fault.node) == ("exporter", "Relux", "n2")
        assert sentences(column, words, "opset 17")


def test_a_batch_norm_in_training_mode_is_named():
    def train(nodes, constants):
        nodes[1].attribute.append(helper.make_attribute("training_mode", 1))
        nodes[1].output.extend(["mean", "var"])

    _, column = check(graph(train), Framework())
    assert (column.fault.blame, column.fault.layer) == ("exporter", "norm")
    assert sentences(column, "n1 is a BatchNormalization in training mode")
    assert sentences(column, "with Dropout and BatchNorm in training mode the trained model gives what the graph gives")
    assert not sentences(check(graph(set_epsilon), Framework())[1], "training mode")


def test_a_dropout_that_drops_is_told_with_what_to_do():
    def drop(nodes, constants):
        constants["ratio"], constants["train"] = np.float32(0.5), np.array(True)
        nodes[2] = helper.make_node("Dropout", ["t1", "ratio", "train"], ["t2"], "n2")

    _, column = check(graph(drop), Framework(), exporter="an-exporter")
    assert (column.fault.blame, column.fault.op_type, column.fault.node) == ("exporter", "Dropout", "n2")
    assert sentences(column, "exported by an-exporter in training mode")
    assert sentences(column, "model.eval()")
    _, column = check(graph(drop), Framework(), mode=RunMode(training=True))
    assert column.fault is None or column.fault.op_type != "Dropout"


def test_the_nodes_between_two_layers_are_all_suspects():
    def split(nodes, constants):
        constants["slope"] = np.float32(0.01)
        nodes[2:3] = [
            helper.make_node("Mul", ["t1", "slope"], ["low"], "n2a"),
            helper.make_node("Max", ["t1", "low"], ["t2"], "n2b"),
        ]

    _, column = check(graph(split), Framework())
    assert column.fault.layer == "relu"
    assert sentences(column, "at fault is one of Mul n2a, Max n2b")
    assert not sentences(check(graph(set_relu), Framework())[1], "at fault is one of")


@pytest.mark.parametrize("changed", [False, True])
def test_without_float64_other_weights_are_the_exporters_fault(changed):
    _, column = check(graph(off("c1") if changed else set_epsilon), Framework(precisions=("native",)))
    assert column.fault.blame == ("exporter" if changed else "undetermined")
    assert bool(sentences(column, "cannot compute it in float64, so it may be either's")) is not changed


def test_what_is_off_in_float64_too_is_not_blamed_on_the_framework_as_it_runs():
    class Half(Framework):
        """Its float64 shows no layer, so that only the run as it is names one."""

        def layers(self, inputs, mode=RunMode()):  # noqa: B008
            run = super().layers(inputs, mode)
            if mode.precision == "float64":
                run.layers, run.tensors = [], run.tensors[:1]
            return run

    _, column = check(graph(set_epsilon), Half())
    assert column.fault.blame == "exporter"


def test_weights_that_could_not_be_had_are_noted_and_the_layers_judged():
    from actconform.checking.runs import RunFailure

    class Bare(Framework):
        def parameters(self):
            return RunFailure("refused", "it holds no weights")

    result, column = check(graph(set_relu), Bare())
    assert column.fault.layer == "relu"
    assert result.trained[0].notes == ("weights were not compared: it holds no weights",)
    assert result.trained[0].weights == []
