"""Rules by which a constant is, or is not, a trained weight: one case for each, beside one in which it must not apply."""

from __future__ import annotations

import numpy as np
import pytest
from weight_graphs import compared, layer, node, numbers

LINEAR = "torch.nn.modules.linear.Linear"
MIXER = "net.Mixer"


# The wrong way round


def squares(count=5, turned=(), kind=MIXER, mark="b"):
    """Return weights, constants, readers and layers: squares that all lie transposed but those of `turned`."""
    parameters = {f"{mark}{i}.w": numbers(ord(mark) + i, 8, 8) for i in range(count)}
    constants = {f"{mark}c{i}": w if i in turned else w.T.copy() for i, w in enumerate(parameters.values())}
    nodes = [node("MatMul", "x", name) for name in constants]
    return parameters, constants, nodes, [layer(f"{mark}{i}", kind, "w") for i in range(count)]


def kinds(*groups):
    parameters, constants, nodes, layers = {}, {}, [], []
    for group in groups:
        parameters |= group[0]
        constants |= group[1]
        nodes += group[2]
        layers += group[3]
    return {name: check.kind for name, check in compared(parameters, constants, nodes, layers)[0].items() if check.kind}


def test_only_layers_of_the_same_kind_are_held_against_each_other():
    assert kinds(squares(turned=(3,))) == {"b3.w": "transposed wrongly"}
    assert kinds(squares(), squares(turned=range(5), kind="net.Other", mark="d")) == {}


def test_one_weight_alone_is_held_against_nothing():
    assert kinds(squares(1, turned=(0,))) == {}


def test_weights_that_are_not_square_decide():
    parameters, constants, nodes, layers = squares(3, turned=(0, 1, 2))
    for i in range(2):
        parameters[f"r{i}.w"] = numbers(50 + i, 8, 4)
        constants[f"rc{i}"] = parameters[f"r{i}.w"].T.copy()
        nodes.append(node("MatMul", "x", f"rc{i}"))
        layers.append(layer(f"r{i}", MIXER, "w"))
    assert kinds((parameters, constants, nodes, layers)) == dict.fromkeys(
        ("b0.w", "b1.w", "b2.w"), "transposed wrongly"
    )


def test_weights_that_are_read_otherwise_are_no_comparison():
    parameters, constants, nodes, layers = squares(4, turned=(3,))
    nodes[3] = node("Gemm", "x", "bc3", transB=1)
    assert kinds((parameters, constants, nodes, layers)) == {}
    nodes[3] = node("Gemm", "x", "bc3", transB=0)
    nodes[:3] = [node("Gemm", "x", f"bc{i}") for i in range(3)]
    assert kinds((parameters, constants, nodes, layers)) == {"b3.w": "transposed wrongly"}
    nodes[3] = node("Transpose", "bc3", perm=[1, 0])
    assert kinds((parameters, constants, nodes, layers)) == {}


def test_weights_without_a_layer_are_held_against_nothing():
    parameters, constants, nodes, _ = squares(turned=(3,))
    assert kinds((parameters, constants, nodes, [])) == {}


# Gates


@pytest.mark.parametrize(
    ("op_type", "kind", "right"),
    [
        ("LSTM", "torch.nn.modules.rnn.LSTM", False),
        ("LSTM", "other.rnn.LSTM", True),  # nothing tells the order of that framework
        ("GRU", "keras.src.layers.rnn.gru.GRU", True),
        ("MatMul", "torch.nn.modules.rnn.LSTM", True),  # written out, gates may stand in any order
    ],
)
def test_gates_are_wrong_only_where_a_recurrent_node_reads_them(op_type, kind, right):
    parameters = {"rnn.weight_ih_l0": numbers(1, 60, 6)}
    checks, _ = compared(
        parameters,
        {"W": parameters["rnn.weight_ih_l0"][None]},
        [node(op_type, "x", "W")],
        [layer("rnn", kind, "weight_ih_l0")],
    )
    assert checks["rnn.weight_ih_l0"].exact is right


def test_rows_in_the_order_of_gates_are_permuted_where_no_layer_has_gates():
    trained = numbers(1, 20, 6)
    reordered = np.concatenate([trained[i * 5 : i * 5 + 5] for i in (0, 3, 1, 2)])
    lstm = node("LSTM", "x", "W")
    assert compared({"rnn.weight": trained}, {"W": reordered[None]}, [lstm])[0]["rnn.weight"].state == "reordered"
    for name, nodes in (("fc.weight", [lstm]), ("rnn.weight", [node("MatMul", "x", "W")])):
        layers = [layer(name.partition(".")[0], LINEAR, "weight")]
        check = compared({name: trained}, {"W": reordered[None]}, nodes, layers)[0][name]
        assert (check.state, check.kind) == ("different", "permuted")


def test_the_sum_of_biases_names_its_gates_and_its_owner():
    biases = {f"rnn.bias_{name}_l0": numbers(i, 20) for i, name in enumerate(("ih", "hh"))}
    total = sum(biases.values())
    ordered = np.concatenate([total[i * 5 : i * 5 + 5] for i in (0, 3, 1, 2)])
    checks, comparison = compared(
        biases, {"B": np.concatenate([ordered, np.ones(4, np.float32)])}, [node("LSTM", "x", "B")]
    )
    assert all("B[0:20], gates i, f, c, o as ONNX's i, o, f, c" in check.words for check in checks.values())
    assert comparison.owners == {"B": "rnn.bias_ih_l0"}
    checks, _ = compared({"a.bias": biases["rnn.bias_ih_l0"], "b.bias": biases["rnn.bias_hh_l0"]}, {"B": total})
    assert "sum" not in checks["a.bias"].words


# Parts


def test_a_part_is_written_as_python_writes_it():
    trained, other = numbers(1, 4, 5), numbers(2, 6, 5)
    checks, _ = compared({"w": trained, "v": other}, {"c": np.concatenate([other, trained])})
    assert checks["w"].words == "c[6:10, :] of [10, 5]"
    stacked = np.stack([numbers(3, 4, 5), trained])
    assert compared({"w": trained}, {"c": stacked})[0]["w"].words == "c[1:2, :, :] of [2, 4, 5]"


def test_many_ranges_are_cut_short():
    q, k = numbers(1, 20, 5), numbers(2, 20, 5)
    merged = np.stack([q, k], 1).reshape(40, 5)
    words = compared({"q": q, "k": k}, {"c": merged})[0]["q"].words
    assert words.startswith("c[0:1 and 2:3 and 4:5 and 6:7 ..., :]")


def test_split_weights_may_be_rounded():
    trained = numbers(1, 12, 5)
    check = compared({"w": trained}, {"a": trained[:6].astype(np.float16), "b": trained[6:].astype(np.float16)})[0]["w"]
    assert (check.state, check.initializers) == ("rounded", ("a", "b"))
    assert check.words.endswith("split along axis 0 into 2 constants")
    assert check.largest_difference == np.abs(trained - trained.astype(np.float16).astype(np.float32)).max()


def test_one_number_throughout_lies_only_in_what_is_read_with_its_layer():
    parameters = {"a.kernel": numbers(1, 5, 4), "a.bias": np.full(4, 0.5, np.float32), "b.kernel": numbers(2, 5, 4)}
    constants = {"p": parameters["a.kernel"], "q": parameters["b.kernel"], "r": np.full(9, 0.5, np.float32)}
    beside = [node("Gemm", "x", "p", "r"), node("MatMul", "x", "q")]
    elsewhere = [node("MatMul", "x", "p"), node("Gemm", "x", "q", "r")]
    checks, comparison = compared(parameters, constants, beside)
    assert (checks["a.bias"].state, checks["a.bias"].words) == ("merged", "0.5 throughout, as a part of r [9]")
    assert comparison.owners["r"] == "a.bias"
    assert compared(parameters, constants, elsewhere)[0]["a.bias"].state == "indistinct"
    constants["r"] = np.float32([0.5, 0.5, 0.5, 1, 1, 1])
    assert compared(parameters, constants, beside)[0]["a.bias"].state == "indistinct"


# Absent


@pytest.mark.parametrize(
    ("name", "array", "state"),
    [
        ("fc.seed_generator_state", np.array([1, 2, 3]), "unused"),
        ("fc.steps", np.array(3), "unused"),
        ("fc.table", np.array([1, 2, 3]), "missing"),
        ("fc.seed", numbers(1, 8), "missing"),
        ("fc.bias", np.zeros(8, np.float32), "unused"),
        ("fc.gamma", np.ones(8, np.float32), "unused"),
        ("fc.matrix", np.zeros((8, 8), np.float32), "indistinct"),
    ],
)
def test_what_the_graph_need_not_have(name, array, state):
    layers = [layer("fc", LINEAR, name.partition(".")[2])]
    assert compared({name: array}, {"c": numbers(3, 5)}, layers=layers)[0][name].state == state


def test_attention_computes_with_the_weights_of_a_layer_that_it_does_not_call():
    parameters = {"attn.out_proj.weight": numbers(1, 8, 8), "other.out.weight": numbers(2, 8, 8)}
    layers = [layer("attn", "torch.nn.modules.activation.MultiheadAttention"), layer("other", "net.Block")]
    checks, _ = compared(parameters, {"c": numbers(3, 5)}, layers=layers)
    assert [check.state for check in checks.values()] == ["missing", "unused"]


# Rounded, tied, of one value


def test_the_format_of_a_constant_that_loses_nothing_is_told():
    trained = numbers(4, 8, 3).astype(np.float16)
    assert compared({"w": trained}, {"c": trained.astype(np.float32)})[0]["w"].words == "identical, as float32"
    assert compared({"w": trained}, {"c": trained})[0]["w"].words == "identical"


def test_a_rounded_weight_is_told_with_its_loss_and_its_layout():
    trained = numbers(1, 9, 5)
    rounded = trained.astype(np.float16)
    count = np.count_nonzero(trained != rounded)
    words = compared({"w": trained}, {"c": rounded.T})[0]["w"].words
    assert f"float16: {count} of 45 values, by up to" in words
    assert words.endswith("; transposed to [5, 9]")
    assert "beyond" not in words
    assert "transposed" not in compared({"w": trained}, {"c": rounded})[0]["w"].words


def test_copies_of_one_number_are_not_called_tied():
    for value, tied in ((numbers(1, 8), True), (np.ones(8, np.float32), False)):
        parameters = {"a.weight": value, "b.weight": value}
        checks, _ = compared(parameters, {"a.weight": value, "b.weight": value})
        assert ("tied" in checks["a.weight"].words) is tied


def test_a_tied_weight_that_came_out_otherwise_is_told_for_both():
    trained = numbers(1, 12, 20)
    check = compared({"a.w": trained, "b.w": trained}, {"c": trained * np.float32(1.5)})[0]["b.w"]
    assert (check.state, check.parameter, check.initializers) == ("different", "b.w", ("c",))
    assert "tied with a.w" in check.words
