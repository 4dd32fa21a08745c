"""The pytest plugin in a test run of its own, as others have it."""

from __future__ import annotations

import os
import subprocess
import sys

import onnx
import pytest
from softmax_model import softmax_model

TESTS = """
import numpy as np
import pytest
from actconform.testing import assert_conforms as plain

X = {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}


def test_by_fixture(assert_conforms):
    assert_conforms("model.onnx", X)


@pytest.mark.actconform
@pytest.mark.parametrize("name", ["a/" * 100])
def test_by_import(name):
    plain("model.onnx", X)
    with pytest.raises(AssertionError):
        plain("model.onnx", X, against={"y": np.zeros((2, 3), np.float32)})


def test_of_something_else():
    pass
"""


@pytest.fixture
def run_pytest(tmp_path):
    onnx.save(softmax_model(), tmp_path / "model.onnx")
    (tmp_path / "test_net.py").write_text(TESTS)

    def run(*words):
        # The plugin comes by its entry point where actconform is installed, else by its name.
        installed = subprocess.run(
            [sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, cwd=tmp_path, check=True
        )
        named = [] if "--actconform-report" in installed.stdout else ["-p", "actconform.testing.pytest_plugin"]
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "--strict-markers",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                *named,
                *words,
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTEST_ADDOPTS": ""},
            check=False,
        )

    return run


def test_every_assertion_leaves_a_page_in_a_folder_of_its_test(run_pytest, tmp_path):
    done = run_pytest("--actconform-report", "pages", "-m", "actconform")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed, 1 deselected" in done.stdout
    pages = sorted((tmp_path / "pages").glob("*/index.html"))
    assert len(pages) == 3
    for page in pages:
        assert f": {page.relative_to(tmp_path)}" in done.stdout
        assert len(page.parent.name) < 130
    assert all((page.parent / "check.json").is_file() for page in pages)


def test_without_the_option_nothing_is_written(run_pytest, tmp_path):
    done = run_pytest("-k", "not import")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"model.onnx", "test_net.py"}
