"""actconform.check: models, inputs and outputs in memory, what it returns, what it leaves behind, what it refuses."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from softmax_model import softmax_model

import actconform
from actconform.errors import UsageError
from actconform.report.check.check_json import read_json

TWO = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 3] a, float[n, 3] b) => (float[n, 3] y) { y = Sub(a, b) }'


def x(rows=2):
    return np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Run in an empty folder, with temporary files in another."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert not list(temporary.glob("actconform-given*")), "files in memory are left behind"


def test_a_model_in_memory_is_checked_and_nothing_is_left_behind():
    checked = actconform.check(softmax_model(), samples=1)
    assert checked
    assert checked.first is None
    assert checked.result.runtimes[0].status == "explained"
    assert "ort-cpu   " in str(checked)
    assert "explained by rounding" in str(checked)
    assert list(Path().iterdir()) == []


def test_the_first_fault_is_named_with_its_column(monkeypatch):
    onnx.save(softmax_model(), "model.onnx")
    monkeypatch.setenv("ACTCONFORM_FAULTY_TENSOR", "l")
    checked = actconform.check(
        "model.onnx",
        runtimes=["ort-cpu", "faulty-model@epsilon"],
        samples=1,
        ranges="x=-0.01:0.01",
        out="written",
        minimize=True,
    )
    assert not checked
    first = checked.first
    assert (first.column.name, first.fault.op_type, first.fault.blame) == (
        "faulty-model@epsilon",
        "LayerNormalization",
        "runtime",
    )
    assert "FIRST    LayerNormalization:l" in str(checked)
    assert read_json(Path("written")).runtimes[1].fault == first.fault
    assert {Path(path).name for path in checked.wrote} == {"check.json", "test_data_set_0", "minimal"}
    assert Path("written/minimal/model.onnx").is_file()


INPUTS = {
    "dict": ({"x": x()}, [[2, 4]]),
    "array": (x(), [[2, 4]]),
    "tuple": ((x(),), [[2, 4]]),
    "dicts": ([{"x": x()}, {"x": x(3)}], [[2, 4], [3, 4]]),
    "none": (None, None),
}


@pytest.mark.parametrize(("inputs", "shapes"), INPUTS.values(), ids=INPUTS)
def test_inputs_in_memory_are_taken_in_every_form(inputs, shapes):
    checked = actconform.check(softmax_model(), inputs=inputs, out="written", html=True)
    assert checked
    got = [list(sample.shapes["x"]) for sample in checked.result.samples]
    assert shapes is None or got == shapes
    drawn = [path for path in checked.wrote if "test_data_set" in path]
    assert len(drawn) == (len(got) if inputs is None else 0)
    assert Path("written/index.html").is_file()


def test_a_tuple_is_in_the_order_of_the_model():
    a, b = np.float32([[3, 2, 1]]), np.float32([[1, 1, 1]])
    checked = actconform.check(parser.parse_model(TWO), inputs=(a, b), against={"y": np.float32([[2, 1, 0]])})
    assert checked, str(checked)


def test_formats_that_files_do_not_know_arrive():
    proto = parser.parse_model(TWO.replace("float[", "bfloat16["))
    a = np.ones((1, 3), ml_dtypes.bfloat16)
    checked = actconform.check(proto, inputs={"a": a, "b": a}, against={"y": np.zeros((1, 3), ml_dtypes.bfloat16)})
    saved = next(column for column in checked.result.runtimes if column.name == "saved outputs")
    assert saved.status == "explained"


def test_saved_outputs_in_memory_are_held_against_the_graph():
    checked = actconform.check(softmax_model(), inputs=x(), against={"y": np.full((2, 3), 1 / 3, np.float32)})
    assert (checked.first.column.name, checked.first.fault.blame) == ("saved outputs", "graph")


def test_another_model_in_memory_stands_beside_it():
    other = softmax_model()
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((4, 3), np.float32), "w"))
    assert actconform.check(softmax_model(), inputs=x(), against=softmax_model())
    checked = actconform.check(softmax_model(), inputs=x(), against=[other])
    assert not checked
    assert checked.first.fault.op_type in ("MatMul", "Softmax")


WRONG = {
    "name": ({"inputs": {"z": x()}}, "inputs.npz: the model has no input 'z'"),
    "shape": ({"inputs": x()[0]}, "inputs.npy: input 'x' has 1 dimension"),
    "dtype": ({"inputs": x().astype(np.float64)}, "input 'x' is float64"),
    "objects": ({"inputs": {"x": object()}}, "x is of type object"),
    "runtime": ({"runtimes": "ort-cpo"}, "did you mean ort-cpu"),
    "minimize": ({"minimize": True}, "name one with out="),
    "both": ({"inputs": x(), "samples": 3}, "leave out --inputs"),
    "against": ({"against": 3}, "int of this process: is no model"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_the_user_must_change_is_told_without_files_that_nobody_has_seen(arguments, words):
    with pytest.raises(UsageError) as refusal:
        actconform.check(softmax_model(), **arguments)
    assert words in str(refusal.value)
    assert "actconform-given" not in str(refusal.value)


def test_a_path_that_is_not_there_is_told():
    with pytest.raises(UsageError, match=r"gone\.onnx: there is no such file"):
        actconform.check(Path("gone.onnx"))


def test_an_option_that_there_is_none_of_is_told_with_the_nearest():
    with pytest.raises(TypeError, match=r"check\(\) has no option 'runtime'; did you mean runtimes"):
        actconform.check(softmax_model(), runtime="ort-cpu")
