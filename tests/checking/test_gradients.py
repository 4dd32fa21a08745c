"""A model with its gradients: those of torch, and of a difference quotient of the model."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from small_models import ENCODER, TOKENS, checked, made, numbers

from actconform.checking.flatten import flatten
from actconform.checking.gradients import add_cotangents, difference_note, with_gradients
from actconform.errors import UsageError

DENSE = made("(float[n, 3] x) => (float[n, 2] y) { p = MatMul (x, w)  y = Tanh (p) }", {"w": numbers(1, 3, 2)})
X = {"x": numbers(2, 4, 3)}


def test_the_model_gets_a_cotangent_for_each_output_and_a_gradient_of_each_input():
    model = with_gradients(DENSE)
    assert [value.name for value in model.graph.input] == ["x", "ct_y"]
    assert [value.name for value in model.graph.output] == ["y", "d_x"]


def test_cotangents_have_the_outputs_shape_and_dtype_and_come_from_the_seed():
    sample = add_cotangents(DENSE, X, 5)
    assert (sample["ct_y"].shape, sample["ct_y"].dtype) == ((4, 2), np.float32)
    np.testing.assert_array_equal(sample["ct_y"], add_cotangents(DENSE, X, 5)["ct_y"])
    assert not np.array_equal(sample["ct_y"], add_cotangents(DENSE, X, 6)["ct_y"])
    assert sample["x"] is X["x"]


def test_gradients_are_torchs():
    sample = add_cotangents(DENSE, X, 0)
    graph = flatten(with_gradients(DENSE), sample)
    x = torch.tensor(X["x"].astype(np.float64), requires_grad=True)
    torch.tanh(x @ torch.tensor(numbers(1, 3, 2).astype(np.float64))).backward(
        torch.tensor(sample["ct_y"].astype(np.float64))
    )
    np.testing.assert_allclose(graph.truth["d_x"], x.grad.numpy(), rtol=1e-12)


def both_numbers(note):
    return [float(text) for text in re.findall(r"-?\d\.?\d*(?:e-?\d+)?(?= |,|$)", note.replace("float64", ""))]


@pytest.mark.parametrize(("model", "inputs"), [(DENSE, X), (ENCODER, TOKENS)], ids=["dense", "encoder"])
def test_gradients_agree_with_a_difference_quotient(model, inputs):
    sample = add_cotangents(model, inputs, 0)
    slope, quotient = both_numbers(difference_note(model, flatten(with_gradients(model), sample), sample))
    assert slope == pytest.approx(quotient, rel=1e-5)


def test_gradients_of_another_model_do_not_agree():
    other = made("(float[n, 3] x) => (float[n, 2] y) { p = MatMul (x, w)  y = Sin (p) }", {"w": numbers(1, 3, 2)})
    sample = add_cotangents(DENSE, X, 0)
    slope, quotient = both_numbers(difference_note(other, flatten(with_gradients(DENSE), sample), sample))
    assert abs(slope - quotient) > 0.01 * abs(quotient)


def test_gradients_are_checked_as_outputs_of_a_runtime(runtime):
    result = checked(with_gradients(DENSE), add_cotangents(DENSE, X, 0), runtime("ort-cpu"))
    (answer,) = result.runtimes
    assert answer.status == "explained"
    assert [output.name for output in answer.outputs] == ["y", "d_x"]


def test_a_model_without_float_inputs_has_nothing_to_hold():
    model = made("(int64[n] i) => (float[n, 2] y) { y = Gather (w, i) }", {"w": numbers(1, 3, 2)})
    sample = {"i": np.int64([0, 2]), "ct_y": numbers(2, 2, 2)}
    assert "no float input" in difference_note(model, flatten(model, sample), sample)


def test_an_operator_without_a_gradient_is_named():
    model = made("(float[n, 2] x) => (float[n, 2] y) { y = ai.onnx.ml.Scaler <offset = [1.0], scale = [3.0]> (x) }")
    with pytest.raises(UsageError, match=r"--gradients: .*Scaler"):
        with_gradients(model)
