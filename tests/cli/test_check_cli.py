"""`actconform check`: what it takes, refuses, prints and writes, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from softmax_model import softmax_model

from actconform.report.check.check_json import read_json


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """It lies in model.onnx of the folder in which the command runs."""
    monkeypatch.chdir(tmp_path)
    proto = softmax_model()
    onnx.save(proto, "model.onnx")
    return proto


def x(rows: int = 2) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, 4)).astype(np.float32)


def test_a_healthy_model_is_explained_and_its_files_are_written(cli, model):
    said = cli("check", "model.onnx", "--samples", "2", "--html")
    assert said.code == 0, said.err
    assert "explained by rounding" in said.out
    folder = Path("actconform-check")
    names = {path.name for path in folder.iterdir()}
    assert {"check.json", "test_data_set_0", "test_data_set_1"} <= names
    assert any(name.endswith(".html") for name in names)
    assert "node_data.json" in names
    result = read_json(folder)
    assert result.explained
    assert (result.model, result.opset, result.nodes, result.seed) == ("model.onnx", 17, 3, 0)
    assert [level.unjudged for level in result.runtimes[0].levels] == [[]] * len(result.runtimes[0].levels)


def test_json_alone_is_on_standard_output(cli, model):
    said = cli("check", "model.onnx", "--samples", "1", "--json", "--out", "there")
    assert said.code == 0, said.err
    content = json.loads(said.out)
    assert content["explained"] is True
    assert content == json.loads(Path("there/check.json").read_text(encoding="utf-8"))
    assert "explained by rounding" in said.err


def test_a_fault_is_named_with_whose_it_is_and_the_exit_code_is_1(cli, model, monkeypatch):
    monkeypatch.setenv("ACTCONFORM_FAULTY_TENSOR", "l")
    said = cli("check", "model.onnx", "--samples", "1", "--runtime", "faulty-model@epsilon", "--range", "x=-0.01:0.01")
    assert said.code == 1, said.err
    fault = read_json(Path("actconform-check")).runtimes[0].fault
    assert (fault.blame, fault.op_type) == ("runtime", "LayerNormalization")
    assert "LayerNormalization" in said.out


def test_what_was_drawn_can_be_given_again_and_gives_the_same(cli, model):
    assert cli("check", "model.onnx", "--samples", "1", "--seed", "7", "--out", "first").code == 0
    assert cli("check", "model.onnx", "--samples", "1", "--seed", "7", "--out", "second").code == 0
    saved = cli("check", "model.onnx", "--inputs", "first/test_data_set_0", "--out", "third")
    assert saved.code == 0, saved.err
    first, second, third = (read_json(Path(name)) for name in ("first", "second", "third"))
    assert first.runtimes[0].outputs == second.runtimes[0].outputs == third.runtimes[0].outputs
    assert [level.tensors for level in first.runtimes[0].levels] == [
        level.tensors for level in third.runtimes[0].levels
    ]
    assert (first.seed, third.seed) == (7, None)
    assert not Path("third/test_data_set_0").exists()
    assert (
        Path("first/test_data_set_0/input_0.pb").read_bytes() == Path("second/test_data_set_0/input_0.pb").read_bytes()
    )


def test_saved_outputs_are_held_against_the_graph(cli, model):
    np.savez("in.npz", x=x())
    np.savez("wrong.npz", y=np.full((2, 3), 1 / 3, np.float32))
    said = cli("check", "model.onnx", "--inputs", "in.npz", "--reference", "wrong.npz")
    assert said.code == 1, said.err
    runtime, saved = read_json(Path("actconform-check")).runtimes
    assert runtime.status == "explained"
    assert (saved.name, saved.fault.blame) == ("saved outputs", "graph")


def test_float16_and_gradients_are_checked_too(cli, model):
    half = cli("check", "model.onnx", "--samples", "1", "--dtype", "f16", "--out", "half")
    assert half.code in (0, 1), half.err
    assert {weight.dtype for weight in read_json(Path("half")).weights} == {"float16"}
    gradients = cli("check", "model.onnx", "--samples", "1", "--gradients", "--out", "gradients")
    assert gradients.code == 0, gradients.err
    result = read_json(Path("gradients"))
    assert [output.name for output in result.runtimes[0].outputs] == ["y", "d_x"]
    assert any("difference quotient" in note for note in result.notes)


def test_the_smallest_part_that_shows_a_fault_is_written(cli, model):
    said = cli("check", "model.onnx", "--samples", "1", "--runtime", "faulty-model@weight-f16", "--minimize")
    assert said.code == 1, said.err
    assert any(path.name == "model.onnx" for path in Path("actconform-check").rglob("model.onnx"))


def test_a_runtime_that_is_not_explained_beside_one_that_is_ends_with_1(cli, model):
    said = cli("check", "model.onnx", "--samples", "1", "--runtime", "ort-cpu", "--runtime", "faulty-model@weight-f16")
    assert said.code == 1
    assert [runtime.status for runtime in read_json(Path("actconform-check")).runtimes] == [
        "explained",
        "not explained",
    ]


WRONG = {
    "missing": (["gone.onnx"], ["gone.onnx"]),
    "folder": (["."], ["."]),
    "no-model": (["text.onnx"], ["text.onnx"]),
    "truncated": (["cut.onnx"], ["cut.onnx"]),
    "runtime": (["model.onnx", "--runtime", "ort-cpo"], ["ort-cpo", "did you mean ort-cpu"]),
    "framework": (["model.onnx", "--runtime", "torch"], ["torch is a framework"]),
    "no-inputs": (["model.onnx", "--inputs", "gone.npz"], ["gone.npz"]),
    "name": (["model.onnx", "--inputs", "other-name.npz"], ["xx", "x"]),
    "shape": (["model.onnx", "--inputs", "other-shape.npz"], ["'x'", "2 x 5", "[n, 4]"]),
    "dtype": (["model.onnx", "--inputs", "other-dtype.npz"], ["x", "int64"]),
    "range-and-inputs": (["model.onnx", "--inputs", "in.npz", "--range", "x=0:1"], ["--range", "--inputs"]),
    "samples-and-inputs": (["model.onnx", "--inputs", "in.npz", "--samples", "2"], ["--samples", "--inputs"]),
    "reference-alone": (["model.onnx", "--reference", "in.npz"], ["outputs that were saved", "--inputs"]),
    "reference-and-gradients": (
        ["model.onnx", "--inputs", "in.npz", "--reference", "in.npz", "--gradients"],
        ["--reference", "--gradients"],
    ),
    "range-of-none": (["model.onnx", "--range", "z=0:1"], ["no input", "'z'"]),
    "range": (["model.onnx", "--range", "x=1:0"], ["1 is larger than 0"]),
    "out": (["model.onnx", "--out", "text.onnx"], ["text.onnx", "is a file"]),
    "empty-out": (["model.onnx", "--out", ""], ["--out"]),
    "dtype-of-none": (["model.onnx", "--dtype", "f8"], ["f8", "f16"]),
    "seed": (["model.onnx", "--seed", "-1"], ["-1"]),
    "memory": (["model.onnx", "--max-memory", "0"], ["0"]),
    "config": (["model.onnx", "--config", "gone.toml"], ["gone.toml"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_a_line_or_two_with_exit_code_2(cli, model, name):
    Path("text.onnx").write_text("no model at all\n" * 20)
    Path("cut.onnx").write_bytes(Path("model.onnx").read_bytes()[:-40])
    np.savez("in.npz", x=x())
    np.savez("other-name.npz", xx=x())
    np.savez("other-shape.npz", x=np.zeros((2, 5), np.float32))
    np.savez("other-dtype.npz", x=np.zeros((2, 4), np.int64))
    arguments, expected = WRONG[name]
    said = cli("check", *arguments)
    assert said.code == 2, said.out
    assert "Traceback" not in said.err
    assert len(said.err.splitlines()) < 9
    assert all(words in said.err for words in expected), said.err
    assert not said.out
    assert not Path("actconform-check").exists()


def test_no_model_is_named_with_how_to_call_it(cli):
    said = cli("check")
    assert said.code == 2
    assert "SOURCE" in said.err


def test_nan_in_the_inputs_is_noted_and_judged(cli, model):
    array = x()
    array[0, 0] = np.nan
    np.savez("in.npz", x=array)
    said = cli("check", "model.onnx", "--inputs", "in.npz")
    assert said.code == 0, said.out
    assert any("NaN" in note for note in read_json(Path("actconform-check")).notes)


def test_the_command_by_itself_shows_progress_on_standard_error_alone(model):
    command = [str(Path(sys.executable).with_name("actconform")), "check", "model.onnx", "--samples", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["explained"] is True
    assert "ort-cpu: outputs" in done.stderr
