"""Each rule on outputs beside losses, targets and sample inputs, where it finds its mistake and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from linted import codes_of, findings_of
from small_models import made, numbers

from actconform.errors import UsageError
from actconform.linting.losses import LOSS_NAMES, named_loss

WEIGHTS = {"w": numbers(1, 4, 8), "b": numbers(2, 8), "v": numbers(3, 8, 3), "c": numbers(4, 3)}


def ending_in(operator: str, units: int = 3):
    end = f"y = {operator} (g)" if operator else "y = Identity (g)"
    weights = WEIGHTS | {"v": numbers(3, 8, units), "c": numbers(4, units)}
    return made(
        f"(float[n, 4] x) => (float[n, {units}] y) {{ h = Gemm (x, w, b)  r = Relu (h)  g = Gemm (r, v, c)  {end} }}",
        weights,
    )


SOFTMAX, LOG_SOFTMAX = "Softmax <axis = -1>", "LogSoftmax <axis = -1>"


@pytest.mark.parametrize(
    ("operator", "loss", "codes"),
    [
        (SOFTMAX, "CrossEntropyLoss", ["AC111"]),
        ("Sigmoid", "BCEWithLogitsLoss", ["AC111"]),
        (SOFTMAX, "categorical_crossentropy", []),
        ("Sigmoid", "BCELoss", []),
        ("", "CrossEntropyLoss", []),
        ("", "BCEWithLogitsLoss", []),
        (LOG_SOFTMAX, "NLLLoss", []),
        (LOG_SOFTMAX, "CrossEntropyLoss", ["AC111"]),  # a note: it changes nothing
        ("", "categorical_crossentropy", ["AC112"]),
        ("", "NLLLoss", ["AC112"]),
        (SOFTMAX, "NLLLoss", ["AC112"]),
        ("", "BCELoss", ["AC112"]),
        (SOFTMAX, "binary_crossentropy", ["AC113"]),
        ("", "mse", []),
        ("Sigmoid", "mse", ["AC114"]),  # a note: the targets are not known
    ],
)
def test_an_output_fits_its_loss_or_not(operator, loss, codes):
    findings = findings_of(ending_in(operator), losses=[named_loss(loss)])
    assert [finding.code for finding in findings] == codes
    notes = {(LOG_SOFTMAX, "CrossEntropyLoss"), ("Sigmoid", "mse")}
    assert all((finding.severity == "note") == ((operator, loss) in notes) for finding in findings)


def test_binary_cross_entropy_of_two_classes_is_cross_entropy_and_a_note():
    (finding,) = findings_of(ending_in(SOFTMAX, 2), losses=[named_loss("BCELoss")])
    assert (finding.code, finding.severity) == ("AC113", "note")


def test_logits_that_are_an_output_too_may_be_those_of_the_loss():
    two = made(
        "(float[n, 4] x) => (float[n, 8] y, float[n, 8] h) { h = Gemm (x, w, b)  y = Softmax <axis = -1> (h) }", WEIGHTS
    )
    assert codes_of(two, losses=[named_loss("CrossEntropyLoss")]) == []


@pytest.mark.parametrize(
    ("operator", "targets", "outside"),
    [
        ("Sigmoid", [0.0, 0.5, 1.0], 0),
        ("Sigmoid", [0.0, 0.5, 1.5], 1),
        ("Tanh", [-1.0, 0.5, 1.0], 0),
        ("Tanh", [-2.0, 0.5, 2.0], 2),
        ("Relu", [0.0, 7.0, 90.0], 0),
        ("Relu", [-0.1, 7.0, 90.0], 1),
        ("", [-9.0, 9.0], 0),
        (SOFTMAX, [0, 1, 2], 0),  # numbers of classes
    ],
)
def test_targets_outside_the_range_of_an_output_are_counted(operator, targets, outside):
    findings = findings_of(ending_in(operator), targets={"y": np.array(targets)})
    assert [finding.numbers["outside"] for finding in findings if finding.code == "AC114"] == (
        [outside] if outside else []
    )
    assert all(f"{outside} of {len(targets)} targets lie outside" in finding.message for finding in findings)


def units(operator: str, bias: list[float]):
    """Return a layer of 8 units of which the given biases decide some, behind which a linear one follows."""
    weights = {
        "w": numbers(1, 4, 8, scale=0.1),
        "b": np.array(bias + [0.0] * (8 - len(bias)), np.float32),
        "v": numbers(3, 8, 3),
    }
    return made(
        f"(float[n, 4] x) => (float[n, 3] y) {{ h = Gemm (x, w, b)  a = {operator} (h)  y = MatMul (a, v) }}", weights
    )


@pytest.mark.parametrize(
    ("code", "operator", "bias"),
    [("AC121", "Relu", [-50.0, -50.0]), ("AC122", "Tanh", [50.0, -50.0]), ("AC122", "Sigmoid", [50.0, -50.0])],
)
def test_units_that_sample_inputs_leave_at_an_end_are_counted(code, operator, bias):
    samples = [{"x": numbers(7, 40, 4)}, {"x": numbers(8, 24, 4)}]
    (finding,) = findings_of(units(operator, bias), samples)
    assert (finding.code, finding.severity, finding.node) == (code, "warning", "a")
    assert finding.numbers == {"units": 8, "count": 2, "share": 0.25, "values": 64}
    assert codes_of(units(operator, []), samples) == []


def test_with_few_values_dead_units_are_a_note():
    (finding,) = findings_of(units("Relu", [-50.0]), [{"x": numbers(7, 4, 4)}])
    assert (finding.code, finding.severity) == ("AC121", "note")
    assert "may be chance" in finding.message


def test_channels_are_the_units_of_a_convolution():
    weights = {"k": numbers(1, 5, 3, 3, 3, scale=0.05), "kb": np.array([-90, 0, 0, 0, 0], np.float32)}
    images = made(
        "(float[n, 3, 8, 8] x) => (float[n, 5, 6, 6] y) { h = Conv (x, k, kb)  r = Relu (h)  y = Identity (r) }",
        weights,
    )
    (finding,) = findings_of(images, [{"x": numbers(7, 2, 3, 8, 8)}])
    assert finding.numbers == {"units": 5, "count": 1, "share": 0.2, "values": 72}


def test_gates_and_outputs_may_saturate():
    samples = [{"x": numbers(7, 64, 4)}]
    weights = {"w": numbers(1, 4, 8, scale=0.1), "b": np.full(8, 50, np.float32)}
    silu = made("(float[n, 4] x) => (float[n, 8] y) { h = Gemm (x, w, b)  s = Sigmoid (h)  y = Mul (h, s) }", weights)
    end = made("(float[n, 4] x) => (float[n, 8] y) { h = Gemm (x, w, b)  y = Sigmoid (h) }", weights)
    assert codes_of(silu, samples) == codes_of(end, samples) == []


def test_all_names_of_losses_are_taken_and_others_are_refused_with_the_nearest():
    assert {named_loss(name).kind for name in LOSS_NAMES} == {
        "cross-entropy", "binary cross-entropy", "negative log-likelihood", "regression",
    }  # fmt: skip
    with pytest.raises(UsageError, match="BCEWithLogitsLoss"):
        named_loss("BCEWithLogitLoss")
