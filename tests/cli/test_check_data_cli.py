"""`actconform check --data`: columns compared over a data set, with a metric of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

MODEL = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 6] x) => (float[n, 6] y) { y = Softmax <axis = -1> (x) }'
ROWS = 30


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(1).standard_normal((ROWS, 6)).astype(np.float32)
    onnx.save(parser.parse_model(MODEL), "model.onnx")
    np.savez("val.npz", x=x, label=x.argmax(axis=1))


def test_the_command_takes_them_by_name_and_writes_the_worst_samples(cli):
    Path("own_metric.py").write_text(
        "def accuracy(outputs, sample):\n    return (outputs['y'].argmax(axis=1) == sample['label']).mean()\n"
    )
    arguments = ["--samples", "1", "--data", "val.npz", "--metric", "own_metric:accuracy", "--worst", "2"]
    done = cli("check", "model.onnx", *arguments)
    assert done.code == 0, done.err
    assert "top-1 100 %" in done.out
    assert "own_metric:accuracy: 1 against 1" in done.out
    (agreement,) = json.loads(Path("actconform-check/check.json").read_text())["agreement"]
    assert agreement["samples"] == ROWS
    assert [Path(sample["folder"], "input_0.pb").is_file() for sample in agreement["worst"]] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "vol.npz"], "vol.npz: there is no such file or folder"),
        (["--data", "val.npz", "--metric", "no_module:accuracy"], "there is no module no_module"),
        (["--metric", "own_metric:accuracy"], "name it with --data"),
    ],
    ids=["data", "metric", "no-data"],
)
def test_what_is_wrong_is_told_before_the_check(cli, arguments, words):
    done = cli("check", "model.onnx", "--samples", "1", *arguments)
    assert done.code == 2
    assert words in done.err
