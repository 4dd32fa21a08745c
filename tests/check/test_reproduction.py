"""What is attached to a report: a folder whose program shows the fault with the runtime alone, and ends with 0 once it is mended."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from actconform.report.issue.from_check import attach


@pytest.fixture(scope="module")
def attached(checked, tmp_path_factory):
    """Return the folder and the finding about the fault of a runtime."""
    folders = {}

    def attach_once(name):
        if name not in folders:
            result, sample, runs = checked(name)
            folder = tmp_path_factory.mktemp(name)
            folders[name] = folder / "minimal", attach(result, result.runtimes[0].fault, sample, runs, folder)
        return folders[name]

    return attach_once


def run(folder, **env):
    command = [sys.executable, "repro.py"]
    without_path = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={**without_path, **env})


@pytest.mark.parametrize("name", ["epsilon", "pair", "three", "nan"])
def test_the_program_shows_the_fault_without_actconform_until_it_is_mended(attached, name):
    folder, _ = attached(name)
    text = (folder / "repro.py").read_text()
    modules = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module.partition(".")[0] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert modules - set(sys.stdlib_module_names) <= {"onnx", "numpy", "onnxruntime"}
    shown = run(folder)
    assert shown.returncode == 1, shown.stderr
    assert "the fault is there" in shown.stdout
    assert "0x" in shown.stdout
    mended = run(folder, MENDED="1")
    assert mended.returncode == 0, mended.stdout + mended.stderr
