"""Which elements rounding leaves undecided, and that a flip of each gives the gradient of the other side."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.catalog.models.builder import describe, layer
from actconform.oracle.training.trajectory import passed_through
from actconform.testdata.undecided import MOST, TOGETHER, flips
from actconform.types.model import Input

X = np.array([[1e-8, 2.0], [1.0, -1e-8]])


def model_of(*layers, shape=(2,), target=(2,), loss="mean-squared-error"):
    inputs = [
        Input(name="x", shape=shape, draw="normal"),
        Input(name="target", shape=target, draw="normal", role="target"),
    ]
    read = layers[-1].name
    return describe("tried", "a test", inputs, [*layers, layer("loss", loss, read, "target")], output=read, batch=2)


def flipped(model, tensors, moves):
    """Return the gradients by x of the truth and of each flip, where layer values move by `moves`."""
    truth = passed_through(model, tensors)
    moved = [
        {name: array + moves.get(name, 0.0) * sign for name, array in truth.layers.items()} for sign in (-1.0, 1.0)
    ]
    alternatives = flips(model, tensors, truth.layers, moved)
    return truth.gradients["d_x"], [
        passed_through(model, tensors, flip.touch).gradients["d_x"] for flip in alternatives
    ]


RELU = model_of(layer("z", "affine", "x", scale=1.0, shift=0.0), layer("y", "activation", "z", kernel="relu"))


def test_a_number_beside_the_kink_of_a_relu_may_have_either_slope():
    tensors = {"x": X, "target": np.ones((2, 2))}
    truth, others = flipped(RELU, tensors, {"z": 1e-8})
    assert len(others) == 2
    assert [np.argwhere(truth != other).tolist() for other in others] == [[[0, 0]], [[1, 1]]]
    assert (truth[[0, 1], [0, 1]] != 0.0).tolist() == [True, False]
    assert [others[0][0, 0] != 0.0, others[1][1, 1] != 0.0] == [False, True]


def test_a_number_that_rounding_does_not_bring_across_is_decided():
    assert flipped(RELU, {"x": X, "target": np.ones((2, 2))}, {"z": 1e-10})[1] == []


def test_all_that_lies_on_a_kink_has_the_other_slope_together():
    x = np.array([[0.0, 2.0], [0.0, 0.0]])
    truth, others = flipped(RELU, {"x": x, "target": np.ones((2, 2))}, {})
    assert len(others) == 1
    assert np.argwhere(truth != others[0]).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert not truth[x == 0.0].any()


def test_many_elements_flip_in_groups_and_none_is_left_out():
    model = model_of(
        layer("z", "affine", "x", scale=1.0, shift=0.0),
        layer("y", "activation", "z", kernel="relu"),
        shape=(99,),
        target=(99,),
    )
    tensors = {"x": np.full((2, 99), 1e-9), "target": np.ones((2, 99))}
    truth, others = flipped(model, tensors, {"z": 1e-8})
    assert len(others) == MOST
    assert np.sum([truth != other for other in others], axis=0).min() == 1
    layers = passed_through(model, tensors).layers
    moved = [{name: array + sign * 1e-8 for name, array in layers.items()} for sign in (-1.0, 1.0)]
    assert {flip.factor for flip in flips(model, tensors, layers, moved)} == {TOGETHER}


def test_a_prediction_beside_its_target_may_have_an_error_of_either_sign():
    model = model_of(layer("y", "affine", "x", scale=1.0, shift=0.0), loss="mean-absolute-error")
    truth, others = flipped(model, {"x": X, "target": X + np.array([[1e-9, 1.0], [1.0, 1.0]])}, {"y": 1e-9})
    assert len(others) == 1
    assert others[0][0, 0] == -truth[0, 0] != 0.0


@pytest.mark.parametrize(("p", "t", "count"), [(1e-7, 1.0, 1), (1e-7, 0.0, 0), (1.0 - 1.2e-7, 0.0, 1), (0.5, 1.0, 0)])
def test_a_certain_wrong_probability_at_the_end_of_the_clip_may_have_a_gradient_or_none(p, t, count):
    model = model_of(
        layer("y", "affine", "x", scale=1.0, shift=0.0), shape=(1,), target=(1,), loss="binary-cross-entropy"
    )
    tensors = {"x": np.array([[p], [0.5]]), "target": np.array([[t], [1.0]])}
    truth, others = flipped(model, tensors, {"y": 1e-8 * p})
    assert len(others) == count
    assert all((other[0, 0] == 0.0) != (truth[0, 0] == 0.0) for other in others)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_next_to_the_largest_of_a_window_may_get_its_gradient(padding):
    model = model_of(
        layer("z", "affine", "x", scale=1.0, shift=0.0),
        layer("y", "max-pool", "z", size=(2, 2), strides=(2, 2), padding=padding),
        shape=(3, 4, 1),
        target=((1, 2, 1) if padding == "valid" else (2, 2, 1)),
    )
    x = np.arange(24, dtype=np.float64).reshape(2, 3, 4, 1)
    x[1, 0, 2] = x[1, 1, 3] - 1e-9
    truth, others = flipped(model, {"x": x, "target": np.zeros((2, *model.shapes["y"]))}, {"z": 1e-9})
    assert len(others) == 1
    assert np.argwhere(truth != others[0])[:, 1:3].tolist() == [[0, 2], [1, 3]]
    assert truth[1, 0, 2, 0] == 0.0 == others[0][1, 1, 3, 0]
