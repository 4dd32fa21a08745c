"""What is told of a constant that is not the trained weight: what kind of difference, and what a kind is not."""

from __future__ import annotations

import numpy as np
import pytest
from weight_graphs import compared, layer, node, numbers

TRAINED = numbers(7, 32, 20, scale=0.1)


def difference(constant, trained=TRAINED):
    return compared({"fc.weight": trained}, {"val_3": constant.astype(np.float32)})[0]["fc.weight"]


def test_an_element_that_differs_in_several_bits_has_no_flipped_one():
    constant = TRAINED.copy()
    constant[4, 5] += np.float32(0.25)
    check = difference(constant)
    assert check.kind == "one element"
    assert "flipped" not in check.words


def test_zeros_of_the_other_sign_are_told_as_that():
    trained = TRAINED.copy()
    trained[3, :4] = 0.0
    constant = trained.copy()
    constant[3, :4] = -0.0
    check = difference(constant, trained)
    assert (check.state, check.kind, check.differing) == ("different", "sign of zero", 4)


@pytest.mark.parametrize(("rows", "words"), [(32, "of all values"), (3, "of 60 of 640 values")])
def test_whether_all_signs_are_flipped_is_told(rows, words):
    constant = TRAINED.copy()
    constant[:rows] *= -1
    check = difference(constant)
    assert check.kind == "sign flipped"
    assert words in check.words


def test_a_weight_that_became_zeros_is_not_multiplied():
    check = difference(np.zeros_like(TRAINED))
    assert (check.state, check.kind) == ("different", "")
    assert "differ, by up to" in check.words


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_what_was_one_number_throughout_and_is_not_found_cannot_be_told_from_others(value):
    check = difference(TRAINED, np.full_like(TRAINED, value))
    assert (check.state, check.initializers) == ("indistinct", ())


def test_few_values_are_not_called_uncorrelated():
    trained, other = numbers(1, 5, 4), numbers(2, 5, 4)
    assert difference(other, trained).kind == ""
    assert difference(numbers(2, 10, 8), numbers(1, 10, 8)).kind == "uncorrelated"


def test_values_on_a_grid_that_are_not_the_nearest_are_not_truncated():
    step = np.abs(TRAINED).max() / np.float32(127)
    constant = np.rint(TRAINED / step) * step
    assert difference(constant).kind == "truncated to 8 bits"
    constant[:8] = np.rint((TRAINED[:8] + 2 * step) / step).clip(-127, 127) * step
    assert difference(constant).kind == ""


def test_a_grid_between_the_smallest_and_the_largest_value_is_recognized():
    trained = np.abs(TRAINED) + np.float32(1)
    lowest, highest = trained.min(), trained.max()
    step = (highest - lowest) / np.float32(255)
    assert difference(np.rint((trained - lowest) / step) * step + lowest, trained).kind == "truncated to 8 bits"


@pytest.mark.parametrize(
    ("factor", "state"),
    [
        (32**-0.5, "folded"),
        (32**0.5, "folded"),
        (-(32**-0.5), "different"),  # the sign is another
        (7**-0.5, "different"),  # 7 divides no dimension
        (1 + 2.0**-21, "different"),  # 1 / sqrt(1) is no factor
    ],
)
def test_factors_that_exporters_fold_are_positive_roots_of_what_divides_a_dimension(factor, state):
    trained = numbers(1, 32, 32)
    check = compared({"q.weight": trained}, {"c": trained.T * np.float32(factor)})[0]["q.weight"]
    assert (check.state, check.exact) == (state, False)


def test_a_weight_that_no_layer_owns_takes_no_constant():
    parameters = {"fc.weight": numbers(1, 8, 8), "unused.weight": numbers(2, 8, 8)}
    layers = [layer("fc", "torch.nn.modules.linear.Linear", "weight")]
    constants = {"c": parameters["fc.weight"].T, "other": numbers(3, 8, 8)}
    nodes = [node("MatMul", "x", "c"), node("MatMul", "c", "other")]
    checks, comparison = compared(parameters, constants, nodes, layers)
    assert checks["unused.weight"].state == "unused"
    assert comparison.foreign == ("other",)


# Quantized otherwise


def codes(array, step):
    return np.clip(np.rint(array / step), -127, 127).astype(np.int8)


STEP = np.float32(np.abs(TRAINED).max() / 127)


@pytest.mark.parametrize("turned", [False, True])
def test_whether_a_quantized_weight_lies_transposed_is_told(turned):
    stored = np.ascontiguousarray(TRAINED.T) if turned else TRAINED
    check = compared({"w": TRAINED}, {"q": codes(stored, STEP), "s": STEP}, [node("DequantizeLinear", "q", "s")])[0][
        "w"
    ]
    assert check.state == "quantized"
    assert check.words.endswith("; transposed") is turned


@pytest.mark.parametrize("left", [False, True])
def test_either_factor_of_a_quantized_product_may_be_the_weight(left):
    axis = 0 if left else 1  # each row of the left one, each column of the right one has a scale
    steps = np.float32(np.abs(TRAINED).max(1 - axis) / 127)
    stored = codes(TRAINED, np.expand_dims(steps, 1 - axis))
    constants = {"q": stored, "s": steps, "z": np.zeros(len(steps), np.int8), "xs": np.float32(0.1), "xz": np.int8(0)}
    weight, other = ("q", "s", "z"), ("x", "xs", "xz")
    inputs = (*weight, *other) if left else (*other, *weight)
    check = compared({"w": TRAINED}, constants, [node("QLinearMatMul", *inputs, "xs", "xz")])[0]["w"]
    assert (check.state, check.initializers) == ("quantized", ("q",))
    assert f"for each index along axis {axis}: every value within half a step" in check.words


@pytest.mark.parametrize("missing", ["s", "xs"])
def test_a_quantized_bias_whose_step_is_computed_is_not_judged(missing):
    bias = numbers(3, 32)
    input_step = np.float32(0.02)
    constants = {"q": codes(TRAINED, STEP), "s": STEP, "z": np.int8(0), "xs": input_step, "xz": np.uint8(0)}
    constants["b"] = np.rint(bias.astype(float) / (float(STEP) * float(input_step))).astype(np.int32)
    nodes = [node("QGemm", "x", "xs", "xz", "q", "s", "z", "b")]
    parameters = {"fc.weight": TRAINED, "fc.bias": bias}
    assert {check.state for check in compared(parameters, constants, nodes)[0].values()} == {"quantized"}
    del constants[missing]
    check = compared(parameters, constants, nodes)[0]["fc.bias"]
    assert (check.state, check.initializers) == ("missing", ())


@pytest.mark.parametrize("zero", ["none", "packed", "floats"])
def test_blocks_of_four_bits_have_zero_points_in_every_form(zero):
    trained = numbers(1, 6, 64)
    blocks = trained.reshape(6, 2, 32)
    step = np.abs(blocks).max(-1, keepdims=True) / np.float32(6)
    centre = np.full((6, 2), 8) if zero == "none" else np.tile([[7, 9]], (6, 1))
    stored = np.clip(np.rint(blocks / step) + centre[..., None], 0, 15).astype(np.uint8)
    constants = {"q": (stored[..., ::2] | (stored[..., 1::2] << 4)).astype(np.uint8), "s": step.reshape(-1)}
    if zero == "packed":
        constants["z"] = (centre[:, ::2] | (centre[:, 1::2] << 4)).astype(np.uint8).reshape(-1)
    elif zero == "floats":
        constants["z"] = centre.astype(np.float32).reshape(-1)
    names = [name for name in ("q", "s", "z") if name in constants]
    nodes = [node("MatMulNBits", "x", *names, N=6, K=64, bits=4, block_size=32)]
    check = compared({"w": trained}, constants, nodes)[0]["w"]
    assert check.state == "quantized"
    assert "every value within half a step" in check.words


def test_a_constant_far_from_what_fits_is_not_taken_for_the_step():
    stored = codes(TRAINED, STEP)
    nodes = [node("MatMulInteger", "x", "q", "xz", "z"), node("Mul", "xs", "s")]
    constants = {"q": stored, "z": np.int8(0), "s": STEP * np.float32(1.5)}
    check = compared({"w": stored * STEP}, constants, nodes)[0]["w"]
    assert check.state == "quantized"
    assert check.words.endswith(f"every value within half a step of {STEP:.3g}")
