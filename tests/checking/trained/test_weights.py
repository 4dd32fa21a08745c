"""What became of each trained weight: the arrays are made here by the operation that must be recognized, under names that say nothing."""

from __future__ import annotations

from itertools import permutations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_graphs import GATES, compared, layer, node, numbers, onnx_gates

LINEAR, DENSE = "torch.nn.modules.linear.Linear", "keras.src.layers.core.dense.Dense"
FEW = settings(max_examples=40, deadline=None)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
@FEW
def test_transposed_weights_are_exact(shape, data):
    axes = data.draw(st.permutations(range(len(shape))))
    trained = numbers(1, *shape)
    constant = np.ascontiguousarray(trained.transpose(axes))
    checks, comparison = compared({"w": trained}, {"val_1": constant})
    if trained.size == 1:
        return  # a lone number shows nothing
    check = checks["w"]
    long = [axis for axis in axes if shape[axis] > 1]
    assert check.state == (
        "transposed" if long != sorted(long) else "identical" if constant.shape == trained.shape else "reshaped"
    )
    assert check.exact
    assert (check.differing, check.largest_difference, check.place) == (0, 0.0, ())
    assert check.initializers == ("val_1",)
    assert comparison.owners == {"val_1": "w"}
    assert comparison.foreign == ()


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), (24,), (1, 24, 1)])
def test_reshaped_weights_are_exact(shape):
    trained = numbers(2, 12, 2)
    checks, _ = compared({"w": trained}, {"c": trained.reshape(shape)})
    assert (checks["w"].state, checks["w"].exact) == ("reshaped", True)


def test_a_transposed_and_reshaped_weight_is_exact():
    trained = numbers(2, 3, 3, 4, 2)  # a depthwise kernel of Keras
    checks, _ = compared({"w": trained}, {"c": trained.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3)})
    assert (checks["w"].state, checks["w"].exact) == ("transposed", True)


def test_a_matrix_reshaped_where_it_had_to_be_transposed_is_different():
    trained = numbers(3, 4, 6)
    checks, _ = compared({"w": trained}, {"c": trained.reshape(6, 4)})
    assert (checks["w"].state, checks["w"].kind, checks["w"].exact) == ("different", "reshaped wrongly", False)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_wider_format_loses_nothing(dtype):
    trained = numbers(4, 8, 3).astype(np.float16)
    checks, _ = compared({"w": trained}, {"c": trained.astype(dtype)})
    assert (checks["w"].state, checks["w"].exact) == ("identical", True)


def test_nan_and_the_sign_of_zero_count():
    trained = numbers(4, 8)
    trained[2:4] = np.nan, 0.0
    assert compared({"w": trained}, {"c": trained.copy()})[0]["w"].state == "identical"
    signed = trained.copy()
    signed[3] = -0.0
    check = compared({"w": trained}, {"c": signed})[0]["w"]
    assert (check.state, check.differing, check.place, check.largest_difference) == ("different", 1, (3,), 0.0)


# Equal arrays


def test_equal_arrays_are_told_apart_by_the_nodes_that_read_them():
    parameters = {f"enc.{i}.norm.bias": np.zeros(8, np.float32) for i in range(3)}
    constants = {f"val_{i}": np.zeros(8, np.float32) for i in range(3)}
    nodes = [node("Add", "x", f"val_{i}", name=f"/enc.{2 - i}/norm/Add") for i in range(3)]
    checks, comparison = compared(parameters, constants, nodes)
    assert comparison.owners == {f"val_{i}": f"enc.{2 - i}.norm.bias" for i in range(3)}
    assert {check.state for check in checks.values()} == {"identical"}
    assert checks["enc.0.norm.bias"].initializers == ("val_2",)


def test_equal_arrays_without_names_go_by_order_if_there_are_as_many():
    parameters = {name: np.ones(8, np.float32) for name in ("a.weight", "b.weight")}
    constants = {name: np.ones(8, np.float32) for name in ("p", "q")}
    assert compared(parameters, constants)[1].owners == {"p": "a.weight", "q": "b.weight"}
    parameters["c.weight"] = np.ones(8, np.float32)
    checks, comparison = compared(parameters, constants)
    assert {check.state for check in checks.values()} == {"identical"}
    assert comparison.owners == {}


def test_a_tied_weight_has_no_single_owner():
    trained = numbers(5, 20, 8)
    nodes = [node("Gather", "t", "ids"), node("MatMul", "x", "t")]
    checks, comparison = compared({"embed.weight": trained, "head.weight": trained}, {"t": trained}, nodes)
    assert [checks[name].initializers for name in checks] == [("t",), ("t",)]
    assert "tied with head.weight" in checks["embed.weight"].words
    assert comparison.owners == {}
    # Torch keeps the name of one of them.
    nodes = [node("Gather", "embed.weight", "ids"), node("MatMul", "x", "embed.weight")]
    parameters = {"embed.weight": trained, "head.weight": trained}
    assert compared(parameters, {"embed.weight": trained}, nodes)[1].owners == {}
    assert compared(parameters, {"embed.weight": trained}, nodes[:1])[1].owners == {"embed.weight": "embed.weight"}


def test_lone_numbers_and_indices_need_their_name():
    parameters = {"bn.num_batches_tracked": np.array(0), "scale": np.ones(1, np.float32)}
    checks, comparison = compared(parameters, {"axis": np.array(0), "one": np.ones(1, np.float32)})
    assert [check.state for check in checks.values()] == ["unused", "unused"]
    assert comparison.foreign == ("axis", "one")
    assert compared(parameters, {"scale": np.ones(1, np.float32)})[0]["scale"].state == "identical"


# The wrong way round


@pytest.mark.parametrize(
    ("kind", "op_type", "turned", "right"),
    [
        (LINEAR, "MatMul", True, True),
        (LINEAR, "MatMul", False, False),
        (LINEAR, "GemmB", False, True),
        (LINEAR, "GemmB", True, False),
        (DENSE, "MatMul", False, True),
        (DENSE, "MatMul", True, False),
        (DENSE, "GemmB", True, True),
    ],
)
def test_a_square_matrix_must_lie_as_its_use_needs_it(kind, op_type, turned, right):
    trained = numbers(6, 8, 8)
    reader = node("MatMul", "x", "c") if op_type == "MatMul" else node("Gemm", "x", "c", transB=1)
    constants = {"c": trained.T.copy() if turned else trained}
    checks, _ = compared({"fc.weight": trained}, constants, [reader], [layer("fc", kind, "weight")])
    expected = ("transposed" if turned else "identical", "") if right else ("different", "transposed wrongly")
    assert (checks["fc.weight"].state, checks["fc.weight"].kind) == expected
    assert bool(checks["fc.weight"].differing) is not right


def test_a_square_matrix_is_held_against_others_of_its_kind():
    parameters = {f"b{i}.w": numbers(i, 8, 8) for i in range(5)}
    layers = [layer(f"b{i}", "net.Mixer", "w") for i in range(5)]
    constants = {f"c{i}": array.T.copy() if i != 3 else array for i, array in enumerate(parameters.values())}
    nodes = [node("MatMul", "x", name) for name in constants]
    checks, _ = compared(parameters, constants, nodes, layers)
    assert [check.kind for check in checks.values()] == ["", "", "", "transposed wrongly", ""]
    # Two and three: nothing shows which are wrong.
    constants["c1"] = parameters["b1.w"]
    assert {check.kind for check in compared(parameters, constants, nodes, layers)[0].values()} == {""}


# Merged, split, reordered


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_query_key_and_value_are_found_in_one_constant(axis, turned):
    parameters = {f"attn.{name}.weight": numbers(i, 8, 8) for i, name in enumerate("qkv")}
    parts = [array.T if turned else array for array in parameters.values()]
    checks, comparison = compared(parameters, {"c": np.concatenate(parts, axis)})
    assert [check.state for check in checks.values()] == ["merged"] * 3
    assert all(check.exact for check in checks.values())
    assert "8:16" in checks["attn.k.weight"].words
    assert comparison.owners == {}, "it belongs to three layers"


def test_stacked_weights_are_merged():
    parameters = {f"attn.{name}": numbers(i, 6, 4) for i, name in enumerate("qkv")}
    checks, comparison = compared(parameters, {"c": np.stack(list(parameters.values()))})
    assert [check.state for check in checks.values()] == ["merged"] * 3
    assert comparison.owners == {"c": "attn.q"}


def test_heads_of_merged_weights_may_alternate():
    q, k = numbers(1, 12, 5), numbers(2, 12, 5)
    merged = np.stack([q.reshape(4, 3, 5), k.reshape(4, 3, 5)], 1).reshape(24, 5)
    checks, _ = compared({"q": q, "k": k}, {"c": merged})
    assert [(check.state, check.exact) for check in checks.values()] == [("merged", True)] * 2


def test_a_weight_is_split():
    trained, bias = numbers(1, 24, 8), numbers(2, 24)
    constants = {f"w{i}": trained[8 * i : 8 * i + 8].T for i in range(3)} | {
        f"b{i}": bias[8 * i : 8 * i + 8] for i in range(3)
    }
    checks, comparison = compared({"a.in_proj_weight": trained, "a.in_proj_bias": bias}, constants)
    for name in checks:
        assert (checks[name].state, checks[name].exact, len(checks[name].initializers)) == ("split", True, 3)
    assert comparison.owners["w2"] == "a.in_proj_weight"
    assert comparison.foreign == ()


def test_what_is_left_of_a_cropped_weight_is_told():
    trained = numbers(1, 32, 8)
    checks, _ = compared({"positions": trained}, {"c": trained[:10]})
    assert (checks["positions"].state, checks["positions"].exact) == ("split", False)
    assert "only 10 of 32" in checks["positions"].words


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("directions", [1, 2])
def test_gates_of_torch_are_reordered(cell, directions):
    size = GATES[cell][0] * 5
    shapes = {"weight_ih": (size, 6), "weight_hh": (size, 5), "bias_ih": (size,), "bias_hh": (size,)}
    parameters = {
        f"rnn.{name}_l0{suffix}": numbers(10 * place + len(suffix), *shape)
        for suffix in ("", "_reverse")[:directions]
        for place, (name, shape) in enumerate(shapes.items())
    }
    arrays = [
        [onnx_gates(parameters[f"rnn.{name}_l0{suffix}"], cell) for suffix in ("", "_reverse")[:directions]]
        for name in shapes
    ]
    biases = [np.concatenate(pair) for pair in zip(*arrays[2:], strict=True)]
    constants = {"W": np.stack(arrays[0]), "R": np.stack(arrays[1]), "B": np.stack(biases)}
    checks, comparison = compared(parameters, constants, [node(cell, "x", "W", "R", "B")])
    assert {check.state for check in checks.values()} <= {"merged", "reordered"}
    assert all(check.exact for check in checks.values())
    assert all("gates" in check.words for check in checks.values())
    assert comparison.owners == {"W": "rnn.weight_ih_l0", "R": "rnn.weight_hh_l0", "B": "rnn.bias_ih_l0"}


def test_gates_of_keras_are_reordered_and_its_bias_of_zeros_and_ones_found():
    bias = np.repeat(np.float32([0, 1, 0, 0]), 5)  # the forget gate begins at 1
    parameters = {"cell/kernel": numbers(1, 6, 20), "cell/recurrent_kernel": numbers(2, 5, 20), "cell/bias": bias}
    constants = {
        "W": onnx_gates(parameters["cell/kernel"].T, "LSTM")[None],
        "R": onnx_gates(parameters["cell/recurrent_kernel"].T, "LSTM")[None],
        "B": np.concatenate([onnx_gates(bias, "LSTM"), np.zeros(20, np.float32)])[None],
    }
    checks, _ = compared(parameters, constants, [node("LSTM", "x", "W", "R", "B")])
    assert [check.state for check in checks.values()] == ["reordered", "reordered", "merged"]
    assert "B[:, 0:20]" in checks["cell/bias"].words
    parameters["cell/bias"] = np.zeros(20, np.float32)
    constants["B"] = np.zeros((1, 40), np.float32)
    check = compared(parameters, constants, [node("LSTM", "x", "W", "R", "B")])[0]["cell/bias"]
    assert (check.state, check.initializers) == ("merged", ("B",))


def test_summed_biases_are_told_as_lost():
    parameters = {f"rnn.bias_{name}_l0": numbers(i, 20) for i, name in enumerate(("ih", "hh"))}
    total = onnx_gates(sum(parameters.values()), "LSTM")
    constants = {"B": np.concatenate([total, np.zeros(20, np.float32)])[None]}
    checks, _ = compared(parameters, constants, [node("LSTM", "x", "B")])
    for check in checks.values():
        assert (check.state, check.exact) == ("merged", False)
        assert "sum" in check.words


@given(st.permutations(range(6)), st.integers(0, 1))
@FEW
def test_any_other_order_is_different(order, axis):
    trained = numbers(1, 6, 7 - axis)[:, : 6 if axis else 7]
    constant = np.take(trained, order, axis)
    check = compared({"w": trained}, {"c": constant})[0]["w"]
    if list(order) == sorted(order):
        assert check.state == "identical"
    else:
        assert (check.state, check.kind) == ("different", "permuted")


def test_slices_of_a_merged_weight_must_keep_their_order():
    trained, other = numbers(1, 12, 5), numbers(2, 12, 5)
    checks, _ = compared({"q": trained, "k": other}, {"c": np.concatenate([trained[6:], trained[:6], other])})
    assert [(check.state, check.kind) for check in checks.values()] == [("different", "permuted"), ("merged", "")]


@pytest.mark.parametrize(
    ("kind", "cell", "right"),
    [
        ("torch.nn.modules.rnn.LSTM", "LSTM", False),
        ("torch.nn.modules.rnn.GRU", "GRU", False),
        ("keras.src.layers.rnn.lstm.LSTMCell", "LSTM", False),
        ("keras.src.layers.rnn.gru.GRUCell", "GRU", True),
        ("onnx LSTM", "LSTM", True),
    ],
)
def test_gates_in_the_order_of_the_framework_are_wrong_for_onnx(kind, cell, right):
    parameters = {"rnn.weight_ih": numbers(1, 60, 6), "rnn.bias_ih": numbers(2, 60), "rnn.bias_hh": numbers(3, 60)}
    _, bias, state_bias = parameters.values()
    constants = {"W": parameters["rnn.weight_ih"][None], "B": np.concatenate([bias, state_bias])[None]}
    layers = [layer("rnn", kind, "weight_ih", "bias_ih", "bias_hh")]
    checks, _ = compared(parameters, constants, [node(cell, "x", "W", "B")], layers)
    assert {(check.kind, check.exact) for check in checks.values()} == {("", True) if right else ("permuted", False)}
    if not right:
        assert "order" in checks["rnn.weight_ih"].words


# Rounded


@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("axes", permutations(range(2)), ids=str)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_rounded_weights(narrow, axes, seed):
    trained = numbers(seed, 9, 5)
    rounded = trained.astype(narrow)
    check = compared({"w": trained}, {"c": rounded.transpose(axes)})[0]["w"]
    error = np.abs(trained.astype(float) - rounded.astype(float))
    assert (check.state, check.exact) == ("rounded", False)
    assert check.differing == np.count_nonzero(error)
    assert check.largest_difference == error.max()
    assert error[check.place] == error.max()
    check = compared({"w": trained}, {"c": rounded.astype(np.float32).transpose(axes)})[0]["w"]
    assert (check.state, check.kind, check.largest_difference) == ("different", "rounded and back", error.max())


def test_the_one_rounded_weight_is_named():
    parameters = {f"l{i}.weight": numbers(i, 8, 6) for i in range(4)}
    constants = {f"c{i}": array.T for i, array in enumerate(parameters.values())}
    constants["c2"] = constants["c2"].astype(np.float16).astype(np.float32)
    layers = [layer(f"l{i}", LINEAR, "weight") for i in range(4)]
    checks, _ = compared(parameters, constants, layers=layers)
    assert [check.state for check in checks.values()] == ["transposed", "transposed", "different", "transposed"]
    assert checks["l2.weight"].layer == "l2"
    assert "float16" in checks["l2.weight"].words


def test_a_part_of_a_weight_rounded_and_back_is_told_as_that():
    trained = numbers(1, 40, 10)
    constant = trained.copy()
    constant[3:9] = constant[3:9].astype(ml_dtypes.bfloat16)
    check = compared({"w": trained}, {"c": constant})[0]["w"]
    assert (check.kind, check.differing) == ("rounded and back", np.count_nonzero(trained != constant))


def test_what_is_beyond_float16_is_told():
    trained = numbers(1, 30) * np.float32(1e5)
    with np.errstate(over="ignore"):
        rounded = trained.astype(np.float16)
    check = compared({"w": trained}, {"c": rounded})[0]["w"]
    assert (check.state, check.largest_difference) == ("rounded", np.inf)
    assert "beyond its range" in check.words


def test_merged_weights_may_be_rounded():
    parameters = {name: numbers(i, 8, 8) for i, name in enumerate("qkv")}
    checks, _ = compared(parameters, {"c": np.concatenate(list(parameters.values())).astype(np.float16)})
    assert [check.state for check in checks.values()] == ["rounded"] * 3
    assert "c[8:16, :]" in checks["k"].words


def test_float64_weights_are_rounded_to_float32():
    trained = np.random.default_rng(0).standard_normal((5, 4))
    check = compared({"w": trained}, {"c": trained.astype(np.float32)})[0]["w"]
    assert (check.state, check.kind) == ("rounded", "")
    assert check.largest_difference == np.abs(trained - trained.astype(np.float32)).max()


# Different


def changed(kind):
    trained = numbers(7, 32, 20, scale=0.1)
    constant = trained.copy()
    if kind == "one element":
        constant[4, 5] += 0.25
    elif kind == "one huge element":
        constant[4, 5] = 3e30
    elif kind == "sign flipped":
        constant = -constant
    elif kind == "scaled":
        constant *= np.float32(1.1)
    elif kind == "truncated to 8 bits":
        step = np.abs(constant).max() / np.float32(127)
        constant = np.rint(constant / step) * step
    elif kind == "truncated by rows":
        step = np.abs(constant).max(1, keepdims=True) / np.float32(127)
        constant = np.rint(constant / step) * step
    elif kind == "not finite":
        constant[3, :2] = np.inf, np.nan
    elif kind == "nan":
        constant[3, :2] = np.nan
    elif kind == "uncorrelated":
        constant = numbers(8, 32, 20, scale=0.1)
    elif kind == "noise":
        constant += numbers(9, 32, 20, scale=1e-3)
    return trained, constant


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("one element", "one element"),
        ("one huge element", "one element"),
        ("sign flipped", "sign flipped"),
        ("scaled", "scaled"),
        ("truncated to 8 bits", "truncated to 8 bits"),
        ("truncated by rows", "truncated to 8 bits"),
        ("not finite", "not finite"),
        ("nan", "not finite"),
        ("uncorrelated", "uncorrelated"),
        ("noise", ""),
    ],
)
def test_the_kind_of_a_difference(change, kind, turned):
    trained, constant = changed(change)
    shaped = np.ascontiguousarray(constant.T) if turned else constant
    check = compared({"fc.weight": trained}, {"val_3": shaped})[0]["fc.weight"]
    gaps = np.abs(trained.astype(float) - constant)
    gaps[np.isnan(gaps)] = np.inf
    assert (check.state, check.kind, check.initializers) == ("different", kind, ("val_3",))
    assert (check.differing, check.largest_difference) == (np.count_nonzero(gaps), gaps.max())
    assert gaps[check.place] == gaps.max()


@pytest.mark.parametrize("bit", [0, 20, 27, 31])
def test_a_flipped_bit_is_told(bit):
    trained = numbers(1, 6, 4)
    constant = trained.copy()
    constant.view(np.uint32)[2, 3] ^= np.uint32(1 << bit)
    check = compared({"w": trained}, {"c": constant})[0]["w"]
    assert (check.kind, check.place) == ("one element", (2, 3))
    assert f"bit {bit} is flipped" in check.words


@pytest.mark.parametrize(("factor", "state"), [(8**-0.5, "folded"), (8**-0.25, "folded"), (0.7, "different")])
def test_a_factor_of_attention_is_folded_and_another_is_not(factor, state):
    trained = numbers(1, 32, 32)
    check = compared({"q.weight": trained}, {"c": trained.T * np.float32(factor)})[0]["q.weight"]
    assert (check.state, check.exact) == (state, False)


def test_the_likest_layout_of_a_nearly_symmetric_matrix_is_taken():
    half = numbers(1, 16, 16)
    trained = half + half.T + numbers(2, 16, 16, scale=0.5)
    check = compared({"w": trained}, {"c": trained.T + numbers(3, 16, 16, scale=1e-3)})[0]["w"]
    assert check.words.endswith("transposed")
    assert check.largest_difference < 1e-2


def test_each_of_many_alike_finds_its_own_constant():
    parameters = {f"l{i}.weight": numbers(i, 16, 16) for i in range(12)}
    noisy = {f"c{11 - i}": array.T + numbers(99, 16, 16, scale=1e-3) for i, array in enumerate(parameters.values())}
    _, comparison = compared(parameters, noisy)
    assert comparison.owners == {f"c{11 - i}": f"l{i}.weight" for i in range(12)}


def test_a_small_bias_that_came_out_otherwise_is_found_by_its_neighbour():
    parameters = {
        "a.weight": numbers(1, 4, 4),
        "a.bias": numbers(2, 4),
        "b.weight": numbers(3, 4, 4),
        "b.bias": numbers(4, 4),
    }
    constants = {"p": parameters["b.weight"], "q": numbers(5, 4), "r": parameters["a.weight"], "s": numbers(6, 4)}
    nodes = [node("Gemm", "x", "p", "q", transB=1), node("Gemm", "x", "r", "s", transB=1)]
    checks, comparison = compared(parameters, constants, nodes)
    assert comparison.owners == {"p": "b.weight", "q": "b.bias", "r": "a.weight", "s": "a.bias"}
    assert checks["a.bias"].state == "different"


# Absent


def test_absent_weights_are_unused_or_missing():
    parameters = {
        "bn.num_batches_tracked": np.array(7),
        "pooler.weight": numbers(1, 8, 8),
        "fc.weight": numbers(2, 8, 9),
        "fc.bias": np.zeros(8, np.float32),
    }
    layers = [layer("fc", LINEAR, "weight", "bias")]
    checks, comparison = compared(parameters, {"shape": np.array([1, 2, 3]), "c": numbers(3, 5)}, layers=layers)
    assert [check.state for check in checks.values()] == ["unused", "unused", "missing", "unused"]
    assert comparison.foreign == ("shape", "c")


@pytest.mark.parametrize("broken", [False, True])
def test_a_layer_on_which_no_output_depends_is_unused(broken):
    parameters = {"first.weight": numbers(1, 8, 4), "fc.weight": numbers(2, 8, 8), "pooler.weight": numbers(3, 8, 8)}
    layers = [
        layer("first", LINEAR, "weight", reads=0, gives=1),
        layer("fc", LINEAR, "weight", reads=9 if broken else 1, gives=2),
        layer("pooler", LINEAR, "weight", reads=2, gives=3),
        layer("", "Net", reads=0, gives=2),
    ]
    constants = {"a": parameters["first.weight"], "b": parameters["fc.weight"]}
    checks, _ = compared(parameters, constants, layers=layers)
    assert checks["pooler.weight"].state == ("missing" if broken else "unused")
    checks, _ = compared(parameters, {"a": constants["a"]}, layers=layers)
    assert checks["fc.weight"].state == "missing"


def test_no_weights_and_no_constants():
    assert compared({}, {"c": numbers(1, 3)})[1].foreign == ("c",)
    assert compared({"w": numbers(1, 3)}, {})[0]["w"].state == "missing"
    assert compared({"w": np.zeros((0, 3), np.float32)}, {})[0]["w"].state == "unused"
