"""Inputs are drawn at several sizes that a run takes, within what the graph does with them, the same for a seed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from actconform.checking.draw import Range, draw_samples, parsed_range
from actconform.checking.source import read_source
from actconform.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'


@pytest.fixture
def read(tmp_path: Path):
    def read_model(model):
        model = onnx.parser.parse_model(HEAD + model) if isinstance(model, str) else model
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return read_source(path)

    return read_model


def runtime(source):
    """ONNX Runtime as what accepts inputs, and how often it was asked."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(source.model.SerializeToString(), options)
    calls = []

    def accepts(arrays):
        calls.append(arrays)
        try:
            session.run(None, dict(arrays))
        except Exception as error:
            return str(error)
        return None

    return accepts, calls


def drawn(source, **options):
    return draw_samples(source, seed=5, accepts=runtime(source)[0], **options)


def shapes(samples, name="x"):
    return [sample.arrays[name].shape for sample in samples]


def linear(inputs, nodes, outputs, **weights):
    """A model with weights of these shapes."""
    generator = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    ends = [
        [helper.make_tensor_value_info(name, element_type, dims) for name, (element_type, dims) in each.items()]
        for each in (inputs, dict.fromkeys(outputs, (TensorProto.FLOAT, None)))
    ]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_named_dimensions_have_one_size_everywhere_and_batches_of_one_and_more(read):
    source = read("g (float[b, n] x, float[n, b] z) => (float[b, b] y) { y = MatMul(x, z) }")
    first, second = drawn(source)
    assert first.sizes["b"] == 1
    assert second.sizes["b"] > 1
    assert first.sizes["n"] != second.sizes["n"]
    for sample in (first, second):
        b, n = sample.sizes["b"], sample.sizes["n"]
        assert (sample.arrays["x"].shape, sample.arrays["z"].shape) == ((b, n), (n, b))
        assert sample.words["x"] == f"normal, {b} x {n}"


def test_fixed_dimensions_stay_and_make_one_sample(read):
    (sample,) = drawn(read("g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }"))
    assert sample.arrays["x"].shape == (2, 3)
    assert sample.arrays["x"].dtype == np.float32


def test_several_samples_of_fixed_sizes_differ(read):
    first, second, third = drawn(read("g (float[4] x) => (float[4] y) { y = Relu(x) }"), count=3)
    assert len({sample.arrays["x"].tobytes() for sample in (first, second, third)}) == 3
    assert [sample.name for sample in (first, second, third)] == ["drawn_0", "drawn_1", "drawn_2"]


def test_dimensions_without_names_that_must_agree_are_drawn_to_agree(read):
    source = read("g (float[?, ?] x, float[?, ?] z) => (float[?, ?] y) { y = Add(x, z) }".replace("?", "unk"))
    for value in (*source.model.graph.input, *source.model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    samples = drawn(read(source.model))
    assert all(sample.arrays["x"].shape == sample.arrays["z"].shape for sample in samples)
    assert len(set(shapes(samples))) == 2


def test_dimensions_without_names_that_must_differ_are_drawn_to_differ(read):
    nodes = [helper.make_node("Concat", ["x", "z"], ["c"], axis=1), helper.make_node("MatMul", ["c", "w"], ["y"])]
    inputs = {name: (TensorProto.FLOAT, [None, None]) for name in "xz"}
    source = read(linear(inputs, nodes, ["y"], w=(80, 2)))
    samples = drawn(source)
    assert all(sample.arrays["x"].shape[1] + sample.arrays["z"].shape[1] == 80 for sample in samples)


def test_a_size_that_weights_demand_is_taken_from_them(read):
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], strides=[32, 32]), helper.make_node("Relu", ["c"], ["y"])]
    source = read(linear({"x": (TensorProto.FLOAT, ["b", "c", "h", "v"])}, nodes, ["y"], w=(2, 7, 32, 32)))
    accepts, calls = runtime(source)
    samples = draw_samples(source, seed=0, accepts=accepts)
    assert {shape[1] for shape in shapes(samples)} == {7}
    assert len(calls) < 10


def test_sizes_that_a_reshape_needs_are_found_by_trying(read):
    source = read(
        "g (float[b, n] x) => (float[b, q, 36] y) { s = Constant<value_ints = [0, -1, 36]>() y = Reshape(x, s) }"
    )
    samples = drawn(source)
    assert samples
    assert all(shape[1] % 36 == 0 for shape in shapes(samples))


def test_a_model_without_a_declared_rank_gets_one(read):
    source = read(
        linear({"x": (TensorProto.FLOAT, None)}, [helper.make_node("Conv", ["x", "w"], ["y"])], ["y"], w=(2, 5, 3, 3))
    )
    assert all(len(shape) == 4 and shape[1] == 5 for shape in shapes(drawn(source)))


def test_a_size_that_is_a_sum_of_others_follows_from_them(read):
    text = "g (float[b, past] x, float[b, now] z, float[b, all] w) => (float[b, all] y) { c = Concat<axis = 1>(x, z) y = Add(c, w) }"
    source = read(text)
    source.model.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + now"
    for sample in drawn(read(source.model)):
        past, now, total = (sample.arrays[name].shape[1] for name in "xzw")
        assert past + now == total


def test_integers_are_rows_of_what_they_pick(read):
    source = read(
        "g (int64[b, n] ids) => (float[b, n, 4] y) <float[11, 4] table = {"
        + ", ".join(["0.5"] * 44)
        + "}> { shifted = Constant<value_int = 2>() i = Add(ids, shifted) j = Cast<to = 6>(i) y = Gather(table, j) }"
    )
    samples = drawn(source)
    values = np.concatenate([sample.arrays["ids"].ravel() for sample in samples])
    assert (values.min(), values.max()) == (-2, 8)
    assert "rows of Gather's table" in samples[0].words["ids"]


def test_large_tables_that_the_analysis_leaves_out_still_say_their_rows(read):
    source = read(
        linear(
            {"ids": (TensorProto.INT64, ["b", 2])},
            [helper.make_node("Gather", ["table", "ids"], ["y"])],
            ["y"],
            table=(3000, 2),
        )
    )
    assert max(sample.arrays["ids"].max() for sample in drawn(source, count=40)) > 2000


def test_rows_of_what_is_computed_are_known_at_the_sizes_drawn(read):
    source = read("g (float[n, 3] x, int64[k] ids) => (float[k, 3] y) { a = Relu(x) y = Gather(a, ids) }")
    for sample in drawn(source):
        assert sample.arrays["ids"].max() < sample.sizes["n"]
        assert f"integers 0 to {sample.sizes['n'] - 1}" in sample.words["ids"]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("g (int64[8] i) => (float[8, 6] y) <int64 depth = {6}, float[2] v = {0.0, 1.0}> { y = OneHot(i, depth, v) }", 0, 5),
        (("g (int32[64] i) => (int32[64, 9] y) <int32[1, 9] k = {0, 1, 2, 3, 4, 5, 6, 7, 8}> { s = Constant<value_ints = [64, 1]>()"
         " r = Reshape(i, s) e = Equal(r, k) y = Cast<to = 6>(e) }"), 0, 8),
        ("g (int8[8] i) => (float[8] y) { y = Cast<to = 1>(i) }", -128, 127),
        ("g (uint8[8] i) => (float[8] y) { y = Cast<to = 1>(i) }", 0, 255),
        ("g (int64[1, 8] i, float[1, 8] x) => (float[1, 8] y) { c = Cast<to = 9>(i) z = Neg(x) y = Where(c, x, z) }", 0, 1),
        (("g (int64[1, 8] i) => (float[1, 8] y) { one = Constant<value_float = 1.0>() big = Constant<value_float = -10000.0>()"
         " f = Cast<to = 1>(i) m = Sub(one, f) y = Mul(m, big) }"), 0, 1),
        ("g (float[8] i) => (float[8] y) { y = Acos(i) }", -1, 1),
        ("g (float[8] i) => (float[8] y) { y = Log(i) }", 0, 9),
        ("g (float[8] i) => (float[8] y) <float c = {255.0}> { y = Div(i, c) }", 0, 255),
        ("g (float[8] i) => (float[8] y) <float c = {0.007843137}, float d = {1.0}> { e = Mul(i, c) y = Sub(e, d) }", 0, 255),
        ("g (int64[1, 8] i) => (bool[1, 8] y) { zero = Constant<value_int = 0>() e = Equal(i, zero) y = Not(e) }", 0, 1),
        (("g (int64[30] i) => (bool[30, 20] y) <int64 a = {0}, int64 b = {20}, int64 c = {1}> { r = Range(a, b, c)"
         " s = Constant<value_ints = [30, 1]>() j = Reshape(i, s) y = Less(r, j) }"), 1, 20),
        (("g (float[1, 3, 8] i) => (float[1, 3, 8] y) <float[3, 1] m = {0.485, 0.456, 0.406}, float[3, 1] d = {0.229, 0.224, 0.225}>"
         " { e = Sub(i, m) y = Div(e, d) }"), 0, 1),
        ("g (float[8] i) => (float[8] y) <float c = {127.5}> { e = Sub(i, c) y = Div(e, c) }", 0, 255),
    ],
)  # fmt: skip
def test_values_stay_in_the_domain_that_the_graph_suggests(read, text, low, high):
    samples = drawn(read(text), count=60)
    values = np.concatenate([sample.arrays["i"].ravel() for sample in samples]).astype(np.float64)
    assert low <= values.min() < low + 0.15 * (high - low)
    assert low + 0.3 * (high - low) < values.max() <= high


def test_masks_begin_with_ones_so_that_nothing_is_masked_altogether(read):
    text = "g (int64[b, n] m, float[b, n] x) => (float[b, n] y) { c = Cast<to = 9>(m) z = Neg(x) y = Where(c, x, z) }"
    for sample in drawn(read(text), count=20):
        mask = sample.arrays["m"]
        assert (mask[:, 0] == 1).all()
        assert (np.diff(mask, axis=1) <= 0).all()


def test_a_value_that_the_graph_compares_takes_both_sides_each_at_its_own_sizes(read):
    text = (
        "g (float[n] x, int64 rate) => (float[m] y) { r = Constant<value_int = 16000>() c = Equal(rate, r) y = If (c) <"
        "then_branch = t () => (float[m] p) { s = Constant<value_ints = [512]>() p = Reshape(x, s) },"
        "else_branch = e () => (float[m] q) { s = Constant<value_ints = [256]>() q = Reshape(x, s) }> }"
    )
    samples = drawn(read(text))
    assert {(int(sample.arrays["rate"]), *sample.arrays["x"].shape) for sample in samples} == {
        (16000, 512),
        (16001, 256),
    }


def test_a_flag_takes_both_values(read):
    text = (
        "g (float[n] x, bool flag) => (float[n] y) { y = If (flag) <"
        "then_branch = t () => (float[n] p) { p = Neg(x) }, else_branch = e () => (float[n] q) { q = Relu(x) }> }"
    )
    assert {bool(sample.arrays["flag"]) for sample in drawn(read(text))} == {True, False}


def test_values_are_followed_into_functions_and_bodies(read):
    table = ", ".join(["1.0"] * 7)
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>'
        "g (int64[5] ids, bool flag) => (float[5] y) { a = Identity(ids) y = If (flag) <"
        "then_branch = t () => (float[5] p) { p = mine.pick(a) }, else_branch = e () => (float[5] q) { q = Cast<to = 1>(a) }> }"
        f' <domain: "mine", opset_import: ["" : 17]> pick (i) => (o) {{ w = Constant<value_floats = [{table}]>() o = Gather(w, i) }}'
    )
    for sample in drawn(read(onnx.parser.parse_model(text)), count=30):
        assert 0 <= sample.arrays["ids"].min() <= sample.arrays["ids"].max() <= 6


def test_the_same_seed_draws_the_same_in_another_process(read, tmp_path: Path):
    source = read("g (float[b, 3] x, int64[b] i) => (float[b, 3] y) { y = Gather(x, i) }")
    code = (
        "import sys, hashlib; from pathlib import Path; from actconform.checking.source import read_source;"
        "from actconform.checking.draw import draw_samples;"
        "samples = draw_samples(read_source(Path(sys.argv[1])), seed=5);"
        "print(hashlib.sha256(b''.join(array.tobytes() for s in samples for array in s.arrays.values())).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code, source.path], capture_output=True, text=True, check=True).stdout
    again = draw_samples(source, seed=5)
    content = b"".join(array.tobytes() for sample in again for array in sample.arrays.values())
    assert there.strip() == hashlib.sha256(content).hexdigest()
    other = draw_samples(source, seed=6)
    assert again[0].arrays["x"].tobytes() != other[0].arrays["x"].tobytes()


def test_the_numbers_of_a_seed_stay_the_same_over_machines(read):
    (sample,) = draw_samples(read("g (int64[4] x) => (int64[4] y) { y = Identity(x) }"), seed=1)
    assert sample.arrays["x"].tolist() == [6, 9, 3, 9]


def test_a_range_is_kept_and_said(read):
    source = read("g (float[50] x, int64[50] k) => (float[50] y, int64[50] z) { y = Relu(x) z = Identity(k) }")
    (sample,) = drawn(source, ranges={"x": Range(3, 4), "k": Range(7, 7)})
    assert 3 <= sample.arrays["x"].min() <= sample.arrays["x"].max() <= 4
    assert set(sample.arrays["k"].tolist()) == {7}
    assert sample.words["x"] == "uniform from 3 to 4, 50, by --range"
    with pytest.raises(UsageError, match="no input 'X'"):
        drawn(source, ranges={"X": Range(0, 1)})


def test_ranges_are_parsed():
    assert parsed_range("x=0:255") == ("x", Range(0, 255))
    assert parsed_range("a=b:0=-1.5:2e3") == ("a=b:0", Range(-1.5, 2000))
    assert parsed_range("sr=16000") == ("sr", Range(16000, 16000))


@pytest.mark.parametrize("text", ["x", "x=", "=1:2", "x=a:b", "x=1:2:3", "x=nan:1", "x=0:inf", "x=2:1", ""])
def test_a_text_that_is_no_range_is_refused(text):
    with pytest.raises(UsageError, match=r"--range .*NAME=LOW:HIGH"):
        parsed_range(text)


def test_where_no_sizes_are_taken_the_words_of_the_first_refusal_are_told(read):
    source = read("g (float[b, n] x) => (float[b, n] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match=r"no inputs were found that are taken.*b = 1, n = 16: bad shape.*--inputs"):
        draw_samples(source, seed=0, accepts=lambda arrays: "bad\x1b shape".replace("\x1b", ""))


def test_sizes_that_need_too_much_memory_are_not_run(read):
    source = read(f"g (float[b, {2**22}] x) => (float[b, {2**22}] y) {{ y = Relu(x) }}")
    ran = []
    with pytest.raises(UsageError, match=r"GiB .*--max-memory"):
        draw_samples(source, seed=0, accepts=lambda arrays: ran.append(1), max_memory=2**28 + 2**20)
    assert ran == []


def test_strings_are_not_drawn(read):
    source = read("g (string[2] x) => (int64[1] y) { y = Shape(x) }")
    with pytest.raises(UsageError, match=r"takes strings.*--inputs"):
        draw_samples(source, seed=0)


def test_values_that_a_run_refuses_at_sizes_that_it_takes_are_drawn_again(read):
    source = read("g (int64[3] x) => (int64[3] y) { y = Identity(x) }")
    taken = draw_samples(source, seed=0)[0].arrays["x"]
    samples = draw_samples(
        source, seed=0, count=2, accepts=lambda arrays: None if (arrays["x"] == taken).all() else "no such values"
    )
    assert all((sample.arrays["x"] == taken).all() for sample in samples)


def test_a_model_that_may_train_is_not_asked_to(read):
    source = read(
        "g (float[4] x, bool train) => (float[4] y) { r = Constant<value_float = 0.5>() y = Dropout(x, r, train) }"
    )
    assert not any(sample.arrays["train"] for sample in drawn(source))


def test_the_first_axis_of_a_recurrent_layer_is_time(read):
    inputs = {"x": (TensorProto.FLOAT, ["t", "n", 3]), "h": (TensorProto.FLOAT, [1, "n", 4])}
    node = helper.make_node("GRU", ["x", "w", "r", "", "", "h"], ["y"], hidden_size=4)
    first, second = drawn(read(linear(inputs, [node], ["y"], w=(1, 12, 3), r=(1, 12, 4))))
    assert first.sizes["n"] == 1
    assert min(first.sizes["t"], second.sizes["t"]) > 2


@pytest.mark.parametrize(("rows", "others"), [(11, 5), (5, 11)])
def test_integers_that_pick_from_two_tables_are_rows_of_both(read, rows, others):
    nodes = [helper.make_node("Gather", ["a", "ids"], ["y"]), helper.make_node("Gather", ["b", "ids"], ["z"])]
    source = read(linear({"ids": (TensorProto.INT64, [200])}, nodes, ["y", "z"], a=(rows, 2), b=(others, 2)))
    (sample,) = drawn(source)
    assert sample.arrays["ids"].max() == 4


def test_values_are_followed_through_the_rounds_of_a_loop(read):
    text = (
        "g (int64[50] ids) => (int64[50] y) <int64 n = {2}, float[3] table = {2.0, 1.0, 0.0}> { c = Constant<value_int = 1>()"
        " go = Cast<to = 9>(c) y = Loop (n, go, ids) <body = b (int64 i, bool k, int64[50] v) => (bool k2, int64[50] w)"
        " { k2 = Identity(k) t = Gather(table, v) w = Cast<to = 7>(t) }> }"
    )
    (sample,) = drawn(read(text))
    assert set(sample.arrays["ids"].tolist()) == {0, 1, 2}


def test_a_runtime_that_refuses_everything_is_asked_a_few_hundred_times_at_most(read):
    source = read(
        linear(dict.fromkeys("xz", (TensorProto.FLOAT, None)), [helper.make_node("Add", ["x", "z"], ["y"])], ["y"])
    )
    calls = []
    with pytest.raises(UsageError, match=r"the batch = 1.*: never"):
        draw_samples(source, seed=0, accepts=lambda arrays: calls.append(1) or "never")
    assert len(calls) <= 400


def test_what_accepts_raises_ends_the_search(read):
    def accepts(arrays):
        raise UsageError("the runtime refuses the model")

    with pytest.raises(UsageError, match=r"^the runtime refuses the model$"):
        draw_samples(read("g (float[b] x) => (float[b] y) { y = Relu(x) }"), seed=0, accepts=accepts)


@pytest.mark.parametrize(
    ("dtype", "ends"),
    [
        ("int8", (0, 200)),
        ("int64", (0, 1e30)),
        ("int64", (0.5, 3)),
        ("float16", (0, 1e6)),
        ("bool", (0, 2)),
        ("string", (0, 1)),
    ],
)
def test_a_range_that_the_input_cannot_hold_is_refused(read, dtype, ends):
    source = read(f"g ({dtype}[2] x) => (int64[1] y) {{ y = Shape(x) }}")
    with pytest.raises(UsageError, match=r"--range x=.*expected .*numbers that it holds"):
        draw_samples(source, seed=0, ranges={"x": Range(*ends)})


def test_a_range_may_be_all_of_a_type(read):
    source = read("g (uint64[99] x, int8[99] z) => (uint64[99] y, int8[99] w) { y = Identity(x) w = Identity(z) }")
    (sample,) = drawn(source, ranges={"x": Range(0, 2**63), "z": Range(-128, 127)})
    assert sample.arrays["x"].max() > 2**62
    assert sample.arrays["z"].min() < -64
