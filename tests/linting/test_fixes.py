"""Repairs: what they change, that the result is valid and lints clean, and what stays as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from linted import codes_of, linted_model
from small_models import made, numbers

from actconform.checking.flatten import flatten
from actconform.linting.fixes import fixed_model, output_changes
from actconform.linting.registry import OWN_RULES
from actconform.linting.session import rule_findings

NORM = {"scale": numbers(1, 3), "shift": numbers(2, 3), "mean": numbers(3, 3), "variance": np.full(3, 2, np.float32)}
BROKEN = {
    "norm": (
        """(float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) {
        y, m, v = BatchNormalization <training_mode = 1> (x, scale, shift, mean, variance) }""",
        NORM,
    ),
    "dropout": (
        "(float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) { y = Dropout (x, ratio, mode) }",
        {"ratio": np.float32(0.5), "mode": np.array(True)},
    ),
    "reshape": ("(float[n, 3, 4, 4] x) => (float[a, 48] y) { y = Reshape (x, s) }", {"s": np.array([2, 48])}),
    "double": (
        "(float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y) { c = Cast <to = 1> (third)  y = Mul (x, c) }",
        {"third": np.array(1 / 3)},
    ),
}


def broken(name: str) -> onnx.ModelProto:
    text, constants = BROKEN[name]
    return made(text, constants)


def repaired(name: str):
    model = linted_model(broken(name))
    return model, fixed_model(model, list(rule_findings(OWN_RULES, model)))


@pytest.mark.parametrize("name", BROKEN)
def test_a_repaired_model_is_valid_and_lints_clean(name):
    before = broken(name)
    model, fixed = repaired(name)
    assert len(fixed.fixes) == 1
    onnx.checker.check_model(fixed.model, full_check=True)
    assert codes_of(fixed.model) == []
    assert model.source.model == before, "the model itself is not touched"


@pytest.mark.parametrize("name", ["reshape", "double"])
def test_an_exact_repair_leaves_outputs_as_they_were_in_the_runtime_too(name):
    runtime = pytest.importorskip("onnxruntime")
    model, fixed = repaired(name)
    assert fixed.fixes[0].exact
    sample = {"x": numbers(5, 2, 3, 4, 4)}
    outputs = [
        runtime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, sample)[0]
        for each in (broken(name), fixed.model)
    ]
    np.testing.assert_array_equal(*outputs)
    assert [change.words for change in output_changes(model, fixed, sample)] == ["the same before and after"]


def test_a_repaired_reshape_takes_other_batches():
    _, fixed = repaired("reshape")
    assert flatten(fixed.model, {"x": numbers(5, 7, 3, 4, 4)}).truth["y"].shape == (7, 48)


def test_a_repaired_norm_gives_each_example_the_same_answer_in_any_batch():
    model, fixed = repaired("norm")
    x = numbers(5, 6, 3, 4, 4)
    together = flatten(fixed.model, {"x": x}).truth["y"]
    alone = flatten(fixed.model, {"x": x[:1]}).truth["y"]
    np.testing.assert_array_equal(together[:1], alone)
    expected = (x - NORM["mean"][:, None, None]) / np.sqrt(2 + 1e-5) * NORM["scale"][:, None, None] + NORM["shift"][
        :, None, None
    ]
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-5)
    (change,) = output_changes(model, fixed, {"x": x})
    assert change.words.startswith("moved by up to ")


def test_a_repaired_dropout_passes_its_input_on():
    _, fixed = repaired("dropout")
    x = numbers(5, 2, 3, 4, 4)
    np.testing.assert_array_equal(flatten(fixed.model, {"x": x}).truth["y"], x)


def test_a_norm_whose_statistics_are_read_is_left_alone():
    text = """(float[n, 3, 4, 4] x) => (float[n, 3, 4, 4] y, float[3] m) {
        y, m, v = BatchNormalization <training_mode = 1> (x, scale, shift, mean, variance) }"""
    model = linted_model(made(text, NORM))
    assert fixed_model(model, list(rule_findings(OWN_RULES, model))).fixes == ()


def test_what_is_ignored_is_not_repaired():
    model = linted_model(broken("norm"))
    assert fixed_model(model, []).fixes == ()
