"""Which tensor of a graph is which of a trained model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actconform.checking.trained.names import (
    NamedPair,
    arrays_in_graph_layout,
    arrays_in_trained_layout,
    differing_shapes,
    nearest_by_values,
    paired,
)
from actconform.errors import UsageError
from actconform.types.trained import TensorSpec


def spec(name, dims=(None, 3), dtype="float32"):
    return TensorSpec(name, dtype, dims)


def partners(graph, trained, what="input", **options):
    pairs, notes = paired(graph, trained, what, **options)
    return {pair.graph: pair.trained for pair in pairs}, notes


def test_equal_names_decide_whatever_the_order():
    assert partners([spec("a"), spec("b")], [spec("b"), spec("a")]) == ({"a": "a", "b": "b"}, [])


@pytest.mark.parametrize("exported", ["x:0", "serving_default_x", "model/x:0", "X"])
def test_what_exporters_add_to_a_name_does_not_hide_it(exported):
    named, notes = partners([spec(exported)], [spec("x")])
    assert named == {exported: "x"}
    assert not notes


def test_other_names_are_paired_by_their_order_which_is_noted():
    named, notes = partners([spec("in"), spec("mask", dtype="int64")], [spec("x"), spec("m", dtype="int32")])
    assert named == {"in": "x", "mask": "m"}
    assert [note for note in notes if "in of the graph is x" in note and "order" in note]


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        ([spec("p"), spec("q"), spec("r")], "cannot be told apart.*; rename one side's"),
        ([spec("p"), spec("q", dtype="int64")], "differ in type or shape.*; name the model that"),
        ([spec("p"), spec("q", dims=(None, 3, 4))], "differ in type or shape.*; name the model that"),
        ([spec("p")], "differ in number.*; name the model that"),
    ],
    ids=["more", "another-type", "another-rank", "fewer"],
)
def test_inputs_that_find_no_partner_are_refused_with_both_lists_and_what_helps(trained, words):
    with pytest.raises(UsageError, match=words) as refused:
        paired([spec("a"), spec("b")], trained, "input")
    assert "the graph has a (float32" in str(refused.value)
    assert "the trained model p (float32" in str(refused.value)


def test_shapes_that_no_order_of_axes_brings_together_are_named():
    graph = [spec("x", ("n", 3, 8, 6)), spec("y", (None, 4)), spec("z", (2, 5)), spec("w", None)]
    trained = [spec("x", (None, 8, 6, 3)), spec("y", (7, 4)), spec("z", (2, 9)), spec("w", (3,))]
    pairs, _ = paired(graph, trained, "input")
    assert differing_shapes(graph, trained, pairs) == ["z is [2, 5] in the graph and [2, 9] in the trained model"]


def test_an_output_that_the_trained_model_does_not_give_is_left_out_and_noted():
    named, notes = partners([spec("y"), spec("hidden")], [spec("y")], "output", complete=False)
    assert named == {"y": "y"}
    assert any("hidden" in note for note in notes)


def test_outputs_with_names_that_say_nothing_are_paired_by_their_values():
    graph = [spec("StatefulPartitionedCall:2"), spec("StatefulPartitionedCall:1")]
    trained = [spec("contour"), spec("note")]
    named, notes = partners(
        graph,
        trained,
        "output",
        by_values=lambda: {"StatefulPartitionedCall:2": "note", "StatefulPartitionedCall:1": "contour"},
    )
    assert named == {"StatefulPartitionedCall:2": "note", "StatefulPartitionedCall:1": "contour"}
    assert sum("by their values" in note for note in notes) == 2
    assert any("ANOTHER ORDER" in note for note in notes)


def test_the_nearest_array_of_the_same_shape_is_the_partner():
    a, b = np.zeros(3), np.ones(3)
    assert nearest_by_values({"p": a + 0.1, "q": b}, {"one": b, "zero": a, "long": np.zeros(4)}) == {
        "p": "zero",
        "q": "one",
    }
    assert nearest_by_values({"p": a, "q": a}, {"zero": a, "one": b}) == {}
    assert nearest_by_values({"p": np.zeros(5)}, {"zero": a}) == {}
    assert nearest_by_values({"p": np.full(3, np.nan)}, {"zero": a}) == {}


def test_no_output_in_common_is_refused():
    with pytest.raises(UsageError, match="outputs differ in type or shape"):
        paired([spec("y"), spec("z")], [spec("p", dims=(2, 2, 2))], "output", complete=False)


def test_channels_first_and_last_are_recognized_by_their_sizes():
    (pair,), notes = paired([spec("x", ("n", 3, 8, 6))], [spec("x", (None, 8, 6, 3))], "input")
    assert pair.permutation == (0, 3, 1, 2)
    assert any("layout" in note for note in notes)
    image = np.arange(2 * 8 * 6 * 3).reshape(2, 8, 6, 3)
    assert pair.to_graph(image).shape == (2, 3, 8, 6)
    assert np.array_equal(pair.to_trained(pair.to_graph(image)), image)


def test_equal_sizes_are_no_reason_for_another_layout():
    (pair,), _ = paired([spec("x", ("n", 8, 8, 8))], [spec("x", (None, 8, 8, 8))], "input")
    assert pair.permutation == ()


@given(st.permutations(range(4)))
def test_layouts_go_there_and_back(permutation):
    pair = NamedPair("g", "t", tuple(permutation))
    array = np.arange(24).reshape(1, 2, 3, 4)
    there = arrays_in_graph_layout([pair], {"t": array, "other": array})
    assert set(there) == {"g"}
    assert np.array_equal(arrays_in_trained_layout([pair], there)["t"], array)


def test_outputs_paired_by_their_values_in_the_same_order_are_no_warning():
    named, notes = partners(
        [spec("p"), spec("q")], [spec("one"), spec("two")], "output", by_values=lambda: {"p": "one", "q": "two"}
    )
    assert named == {"p": "one", "q": "two"}
    assert not any("ANOTHER ORDER" in note for note in notes)


def test_a_name_to_the_letter_goes_before_one_without_what_exporters_add():
    graph = [spec("a/x"), spec("x"), spec("b/x")]
    assert partners(graph, [spec("b/x"), spec("x"), spec("a/x")])[0] == {"a/x": "a/x", "x": "x", "b/x": "b/x"}


def test_a_short_name_that_two_tensors_bear_decides_nothing():
    assert partners([spec("m/x"), spec("n/x")], [spec("y"), spec("x")])[0] == {"m/x": "y", "n/x": "x"}


@pytest.mark.parametrize(("graph", "trained"), [(None, (None, 3)), ((None, 3), None), (None, None)])
def test_a_shape_that_nobody_states_fits_every_rank(graph, trained):
    assert partners([spec("a", graph)], [spec("b", trained)])[0] == {"a": "b"}


@pytest.mark.parametrize(
    ("trained", "graph", "permutation"),
    [
        (
            (None, 3, 3, 8),
            ("n", 3, 8, 3),
            (0, 2, 3, 1),
        ),  # two orders fit: channels go to the end, and nothing else moves
        ((None, 3, 8, 6), ("n", 8, 3, 6), (0, 2, 1, 3)),
        ((None, 4, 7), ("n", 3, 5), ()),
        ((None, 3, 8, 6), ("n", 3, "h", "w"), ()),
        ((None, 3, 8, 6), ("n", "h", "w", 3), (0, 2, 3, 1)),
        ((None, 1, 2, 3, 4, 5), ("n", 5, 4, 3, 2, 1), ()),
        (None, ("n", 3), ()),
        ((None, 3), None, ()),
    ],
)
def test_the_layout_is_told_by_sizes_alone(trained, graph, permutation):
    (pair,), _ = paired([spec("x", graph)], [spec("x", trained)], "input")
    assert pair.permutation == permutation


def test_a_refusal_shows_shapes_as_far_as_they_are_stated():
    with pytest.raises(UsageError, match=r"a \(float32 \[\?, n, 3\]\), b \(float32 of any shape\).* model none"):
        paired([spec("a", (None, "n", 3)), spec("b", None)], [], "input")
