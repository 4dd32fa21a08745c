"""The framework's gradients under the names that a graph has for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from weight_graphs import graph, node, numbers

from actconform.checking.gradients import COTANGENT, GRADIENT
from actconform.checking.runs import RunFailure
from actconform.checking.trained.backward import backward, forward_part, has_gradients, inputs_of, without_padding_row
from actconform.checking.trained.names import NamedPair
from actconform.checking.trained.weights import compare_weights
from actconform.types.trained import RunMode

FIRST, LAST, KERNEL = numbers(1, 4, 3), numbers(2, 3, 2), numbers(3, 2, 2, 2)
CONSTANTS = {"a": FIRST, "k": KERNEL, "z": np.zeros(3, np.float32), "b": LAST}
PARAMETERS = {"last.w": LAST, "kernel": KERNEL, "first.w": FIRST.T.copy(), "zeros": CONSTANTS["z"]}
SAMPLE = {"x": np.ones((1, 2, 4), np.float32), "mask": np.ones(3), COTANGENT + "y": np.full((2, 2), 3.0, np.float32)}
INPUTS = [NamedPair("x", "input", (0, 2, 1)), NamedPair("mask", "mask")]
OUTPUTS = [NamedPair("y", "out", (1, 0)), NamedPair("more", "rest")]


class Framework:
    """The gradient of each array is 10 times that array."""

    def gradients(self, inputs, cotangents, mode):
        self.asked = inputs, cotangents, mode
        return {GRADIENT + name: 10 * array for name, array in {**PARAMETERS, **inputs}.items()}


def gradients(framework, constants=CONSTANTS, parameters=PARAMETERS, wanted=("x", "a", "k", "z", "b")):
    """Return the gradients of a graph that gives those of `wanted`."""
    flat = graph(constants)
    flat.outputs = ["y", *(GRADIENT + name for name in wanted)]
    weights = compare_weights(parameters, flat, [])
    return backward(framework, (INPUTS, OUTPUTS), flat, SAMPLE, RunMode("float64"), weights)


def test_the_framework_is_asked_in_its_own_names_and_layouts():
    framework = Framework()
    gradients(framework)
    inputs, cotangents, mode = framework.asked
    assert (inputs["input"].shape, inputs["mask"].shape) == ((1, 4, 2), (3,))
    assert cotangents.keys() == {"out"}
    assert mode == RunMode("float64")


def test_gradients_come_in_the_layout_of_the_graph_those_of_its_last_nodes_first():
    given = gradients(Framework())
    assert list(given) == ["d_b", "d_k", "d_a", "d_x"]
    np.testing.assert_array_equal(given["d_a"], 10 * FIRST)  # the weight lies transposed
    np.testing.assert_array_equal(given["d_b"], 10 * LAST)
    np.testing.assert_array_equal(given["d_x"], 10 * SAMPLE["x"])


def test_what_the_graph_gives_no_gradient_of_is_left_out():
    assert list(gradients(Framework(), wanted=("b",))) == ["d_b"]


def test_a_weight_whose_bits_are_others_or_that_two_share_takes_no_part():
    rounded = {**CONSTANTS, "b": LAST.astype(np.float16).astype(np.float32)}
    assert "d_b" not in gradients(Framework(), rounded)
    assert "d_b" not in gradients(Framework(), parameters={**PARAMETERS, "copy.w": LAST})
    halves = {**CONSTANTS, "b": LAST[:1], "c": LAST[1:]}
    assert not {"d_b", "d_c"} & gradients(Framework(), halves, wanted=("b", "c")).keys()


def test_a_kernel_with_its_axes_in_another_order_takes_no_part():
    assert "d_k" not in gradients(Framework(), {**CONSTANTS, "k": KERNEL.transpose(2, 1, 0).copy()})


def test_weights_that_the_framework_gives_no_gradient_of_are_left_out():
    class Frozen(Framework):
        def gradients(self, inputs, cotangents, mode):
            given = super().gradients(inputs, cotangents, mode)
            return {name: array for name, array in given.items() if name not in ("d_last.w", "d_input")}

    assert list(gradients(Frozen())) == ["d_k", "d_a"]


def test_a_framework_that_gives_none_says_why():
    class Refuses:
        def gradients(self, inputs, cotangents, mode):
            return RunFailure("refused", "none here")

    assert gradients(Refuses()) == RunFailure("refused", "none here")


def test_without_weights_the_gradients_of_inputs_are_given():
    flat = graph(CONSTANTS)
    flat.outputs = ["y", "d_x", "d_b"]
    assert list(backward(Framework(), (INPUTS, OUTPUTS), flat, SAMPLE, RunMode(), None)) == ["d_x"]


def test_the_forward_part_has_neither_gradients_nor_what_they_alone_need():
    forward = [node("Neg", "x"), node("Exp", "x'")]
    flat = replace(graph({}, [*forward, node("Mul", "ct_y", "x''"), node("Neg", "ct_y+x'''")]))
    flat.inputs, flat.outputs = ["x", "ct_y"], ["x''", "d_x"]
    part = forward_part(flat)
    assert [each.name for each in part.nodes] == [each.name for each in forward]
    assert (part.inputs, part.outputs) == (["x"], ["x''"])
    assert list(inputs_of(part, {"x": np.ones(1), "ct_y": np.ones(1)})) == ["x"]
    assert forward_part(part) is part
    assert has_gradients(SAMPLE)
    assert not has_gradients({"x": SAMPLE["x"]})


@pytest.mark.parametrize(
    ("zeros", "row"),
    [([1], 1), ([], None), ([1, 2], None)],
    ids=["a padding index", "none", "two rows are no convention"],
)
def test_one_row_of_zeros_is_the_padding_index(zeros, row):
    truth = numbers(5, 4, 3)
    gradient = truth * np.float32(1.5)
    gradient[zeros] = 0
    filled, padding_row = without_padding_row(gradient, truth)
    assert padding_row == row
    np.testing.assert_array_equal(filled[zeros], truth[zeros] if row is not None else 0 * truth[zeros])
    truth[1] = 0
    assert without_padding_row(gradient, truth)[1] == (2 if zeros == [1, 2] else None)


@pytest.mark.parametrize(("shape", "other"), [((4,), (4,)), ((1, 3), (1, 3)), ((4, 3), (3, 4))])
def test_other_shapes_have_no_padding_index(shape, other):
    gradient = np.zeros(shape, np.float32)
    assert without_padding_row(gradient, np.ones(other, np.float32)) == (gradient, None)
