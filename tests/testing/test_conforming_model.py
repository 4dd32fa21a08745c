"""assert_conforms as a test suite uses it: it passes, or its message says what is wrong, whose fault it is and what to do."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from softmax_model import softmax_model

from actconform.cli import main
from actconform.errors import UsageError
from actconform.testing import assert_conforms

LIGHT = """
import sys
from actconform.testing import assert_conforms
assert "pytest" not in sys.modules and "onnx" not in sys.modules and "numpy" not in sys.modules
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    proto = softmax_model()
    onnx.save(proto, "model.onnx")
    return proto


def x(scale=1.0):
    return {"x": (scale * np.random.default_rng(1).standard_normal((2, 4))).astype(np.float32)}


def failed(*arguments, **named) -> str:
    with pytest.raises(AssertionError) as error:
        assert_conforms(*arguments, **named)
    return str(error.value)


def test_a_model_that_conforms_gives_its_check(model):
    checked = assert_conforms(model, x())
    assert checked.explained
    assert checked.result.runtimes[0].name == "ort-cpu"
    assert not list(Path().glob("actconform*"))


def test_the_message_has_the_layer_by_how_much_whose_fault_and_the_evidence(model, monkeypatch):
    monkeypatch.setenv("ACTCONFORM_FAULTY_TENSOR", "l")
    message = failed("model.onnx", routes=("ort-cpu", "faulty-model@epsilon"), samples=1, ranges="x=-0.01:0.01")
    first, *rest = message.splitlines()
    assert first == "model.onnx does not conform on faulty-model@epsilon"
    assert rest[0].startswith("  first: LayerNormalization:l (LayerNormalization): ")
    assert "times its bound; what it read is fine" in rest[0]
    assert any(line.startswith("  blame: runtime: the runtime's own computation") for line in rest)
    assert any(line.startswith("    - ") for line in rest)
    assert any(line.startswith("  output y: ") for line in rest)
    command = shlex.split(rest[-1].removeprefix("  a page with every layer: "))
    assert command[:3] == ["actconform", "check", "model.onnx"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert Path("actconform-check/index.html").is_file()


def test_of_a_model_in_memory_it_says_how_to_get_a_page_and_out_writes_one(model):
    wrong = {"y": np.full((2, 3), 1 / 3, np.float32)}
    message = failed(model, x(), against=wrong)
    assert "does not conform on saved outputs" in message
    assert message.splitlines()[-1] == '  a page with every layer: give assert_conforms(..., out="FOLDER")'
    message = failed(model, x(), against=wrong, out="written")
    assert message.splitlines()[-1] == "  page: written/index.html"
    assert Path("written/index.html").is_file()


def test_a_route_that_refuses_the_model_does_not_conform(model):
    model.graph.node[2].domain = "com.acme"
    model.opset_import.append(onnx.helper.make_opsetid("com.acme", 1))
    message = failed(model, x())
    assert "on ort-cpu: failed: " in message


def test_what_the_user_must_change_is_no_failure_of_the_model(model):
    with pytest.raises(UsageError, match="ort-cpo is no runtime; did you mean ort-cpu"):
        assert_conforms(model, x(), routes="ort-cpo")


def test_it_needs_no_test_framework_and_is_light_until_it_is_called():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
