"""docs/train.md is executed as it stands: a model is made, trained, trained further, and refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from documents import TOP, assert_shown, blocks

from actconform.cli import VERBS


def test_the_example_trains_and_prints_what_the_document_says(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("safetensors")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, words in {"python": "", "actconform": "-m actconform"}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (commands / name).chmod(0o755)
    env = {**os.environ, "PATH": os.pathsep.join([str(commands), os.environ["PATH"]]), "COLUMNS": "200"}
    printed, codes = "", []
    for language, text in blocks(TOP / "docs" / "train.md"):
        if language == "python":
            name, _, content = text.partition("\n")
            (tmp_path / name.removeprefix("# ")).write_text(content, "utf-8")
        elif language == "sh":
            done = subprocess.run(
                ["bash", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
            )
            printed = done.stderr + done.stdout
            codes.append(done.returncode)
        else:
            assert_shown(text, printed)
    assert codes == [0, 0, 2, 0]
    losses = [line.split(",") for line in (tmp_path / "actconform-train/losses.csv").read_text().splitlines()[1:]]
    assert len(losses) == 450
    assert float(losses[-1][2]) < 0.75 * float(losses[0][2])


def test_the_document_has_every_option_of_the_command_and_no_other():
    from actconform.cli.train_ import command

    assert "train" in VERBS
    text = Path(TOP / "docs" / "train.md").read_text("utf-8")
    table = text.partition("## Options")[2].partition("\n\nThe order")[0]
    options = {name for parameter in command.params for name in parameter.opts}
    named = {word for word in table.replace("`", " ").replace(",", " ").split() if word.startswith("--")}
    assert len(named) > 15
    assert named == {name for name in options if name.startswith("--")}
