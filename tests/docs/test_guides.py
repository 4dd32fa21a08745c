"""The guides that add a kernel, a layer and an operator's rule are executed as they stand, in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from documents import TOP, assert_shown, blocks, edit

from actconform import Kernel
from actconform.oracle.arb.rows import exact_rows
from actconform.oracle.float64.rows import ROW_FORMULAS, row_formula
from actconform.tolerance.row_bounds import row_bound
from actconform.types.dtypes import DTYPES

NEEDED = ("torch", "keras", "onnxruntime", "flint")
COPIED = ("src", "plugins", "tests", "golden", "docs", "benchmarks")


@pytest.fixture
def shell(tmp_path):
    """Run commands in a copy of the checkout, whose packages are imported in place of the installed ones; return what they print."""
    for module in NEEDED:
        pytest.importorskip(module)
    top, commands = tmp_path / "checkout", tmp_path / "bin"
    for part in COPIED:
        shutil.copytree(TOP / part, top / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "pyproject.toml", top)
    commands.mkdir()
    for name, words in {"python": "", "actconform": "-m actconform"}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (commands / name).chmod(0o755)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, [top / "src", *sorted(top.glob("plugins/*/src"))])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ACTCONFORM_CACHE": str(tmp_path / "cache"),
        "COLUMNS": "160",
    }

    def run(lines):
        done = subprocess.run(["bash", "-c", lines], cwd=top, env=env, capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).replace(f"{top}/", "")

    run.top = top
    return run


@pytest.mark.parametrize("guide", ["add-a-kernel", "add-a-layer", "add-an-operator-rule"])
def test_from_nothing_to_the_passing_case(shell, guide):
    code, printed, errors = None, "", 0
    for language, text in blocks(TOP / "docs" / f"{guide}.md"):
        if language == "diff":
            edit(shell.top, text)
        elif language == "python":  # a new file, which the first line names
            path, _, content = text.partition("\n")
            (shell.top / path.removeprefix("# ")).write_text(content, "utf-8")
        elif language == "sh":
            code, printed = shell(text)
        elif language == "text":
            assert_shown(text, printed)
            errors += code != 0
    assert code == 0
    assert errors >= 2, "a guide shows what a forgotten step says"


def test_what_a_kernel_of_rows_lacks_is_named_as_the_guide_says():
    """In the order of the guide's table: formula, exact rows, bound."""
    pytest.importorskip("flint")
    text = (TOP / "docs" / "add-a-kernel.md").read_text("utf-8")
    promised = re.findall(r"`(row kernel NAME [^`]+)`", text)
    kernel, inputs = Kernel(name="NAME", definition="", source="", form="row"), {"x": np.ones((1, 2))}
    try:
        with pytest.raises(KeyError) as formula:
            exact_rows(kernel, inputs, None)
        row_formula("NAME")(lambda inputs, _: inputs["x"])
        with pytest.raises(KeyError) as exact:
            exact_rows(kernel, inputs, None)
        with pytest.raises(LookupError) as bound:
            row_bound(kernel, DTYPES["f32"], inputs, None, {"y": inputs["x"]})
    finally:
        del ROW_FORMULAS["NAME"]
    assert [str(error.value.args[0]) for error in (formula, exact, bound)] == promised
