"""A data set and a metric of the user's, in memory, beside a check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import parser

import actconform
from actconform.errors import UsageError

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 6] x) => (float[n, 6] y) { y = Softmax <axis = -1> (x) }'
ROWS = 30


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def x():
    return np.random.default_rng(1).standard_normal((ROWS, 6)).astype(np.float32)


def labels():
    return x().argmax(axis=1)


def batches():
    for k in range(0, ROWS, 10):
        yield {"x": x()[k : k + 10], "label": labels()[k : k + 10]}


def accuracy(outputs, sample):
    return float(np.mean(outputs["y"].argmax(axis=1) == sample["label"]))


DATA = {
    "dict": ({"x": x(), "label": labels()}, 10),
    "function": (batches, None),
    "list": (list(batches()), None),
}


@pytest.mark.parametrize(("data", "batch"), DATA.values(), ids=DATA)
def test_data_and_metric_in_memory(data, batch):
    checked = actconform.check(parser.parse_model(MODEL), samples=1, data=data, batch=batch, metric=accuracy)
    (agreement,) = checked.result.agreement
    assert (agreement.expected, agreement.actual, agreement.samples) == ("the graph in float64", "ort-cpu", 3)
    (output,) = agreement.outputs
    assert (output.rows, output.top_1) == (ROWS, 1.0)
    assert output.largest_error < 1e-6
    assert (agreement.metric.name, agreement.metric.actual, agreement.metric.differing) == ("accuracy", 1.0, 0)


def test_in_half_precision_the_converted_model_is_held_against_the_model_as_it_is():
    checked = actconform.check(parser.parse_model(MODEL), samples=1, dtype="f16", data={"x": x()}, batch=ROWS)
    (output,) = checked.result.agreement[0].outputs
    assert 1e-5 < output.largest_error < 1e-2
    assert output.elements == ROWS * 6


def test_with_gradients_the_data_set_is_for_the_model_itself():
    checked = actconform.check(parser.parse_model(MODEL), samples=1, gradients=True, data={"x": x()}, batch=ROWS)
    assert [output.name for output in checked.result.agreement[0].outputs] == ["y"]


def test_an_iterator_is_refused_since_it_ends():
    with pytest.raises(UsageError, match="ends after one pass over it: give the function that makes it"):
        actconform.check(parser.parse_model(MODEL), samples=1, data=batches())


def test_what_is_wrong_with_a_data_set_is_told_before_the_check(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.npz: there is no such file or folder"):
        actconform.check(parser.parse_model(MODEL), samples=1, data="gone.npz", out="written")
    assert not Path("written").exists()
    with pytest.raises(UsageError, match="--metric and --batch are for a data set"):
        actconform.check(parser.parse_model(MODEL), metric=accuracy)
