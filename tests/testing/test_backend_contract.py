"""BackendContract as an author uses it: subclassed, in a test file of its own, run by pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILE = """
from actconform.testing import BackendContract

class TestContract(BackendContract):
    {backend}
    subjects = ("relu",)
"""


@pytest.fixture
def run(tmp_path):
    """Run a test file about a backend of contract/liars.py, which is installed; return pytest's exit code and output."""
    info = tmp_path / "site" / "actconform_liars-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: actconform-liars\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[actconform]\nliars = liars:Plugin\n")

    def pytest_said(backend):
        (tmp_path / "test_contract.py").write_text(FILE.format(backend=backend))
        path = os.pathsep.join([str(info.parent), str(TESTS / "contract"), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "pytest", "-rsf", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    return pytest_said


def test_an_honest_backend_passes_and_what_does_not_apply_is_skipped_with_the_reason(run):
    code, said = run('backend = "honest"')
    assert code == 0, said
    assert "11 passed, 2 skipped" in said
    assert "not applicable: claims no execution provider" in said


def test_a_lie_fails_its_clause_with_the_breaches_and_the_mend(run):
    code, said = run('backend = "other-dtype"')
    assert code == 1
    assert "FAILED test_contract.py::TestContract::test_clause[dtypes]" in said
    assert "1 failed, 10 passed, 2 skipped" in said
    assert "relu/value/bf16/other-dtype: y: dtype float32, expected bfloat16" in said
    assert "What to do: return f32 for f32" in said


def test_a_framework_that_is_not_installed_is_skipped_with_what_to_install(run):
    code, said = run('backend = "not-installed"')
    assert code == 0
    assert "13 skipped" in said
    assert "UNAVAILABLE: honestlib is not installed: pip install honestlib" in said


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("pass", 'TestContract names no backend: set backend = "NAME"'),
        ('backend = "honnest"', "no installed plugin gives a backend 'honnest'; did you mean honest"),
    ],
)
def test_a_test_class_that_is_wrong_says_so(run, backend, words):
    code, said = run(backend)
    assert code == 1
    assert words in said
