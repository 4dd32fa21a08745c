"""docs/start.md is executed as it stands."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from documents import TOP, assert_shown, blocks

from actconform.cli import _cli


def test_the_first_check_prints_what_the_document_says(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (language, code), (_, shown) = blocks(TOP / "docs/start.md")
    assert language == "python"
    exec(code, {})  # noqa: S102  the document's own
    done = CliRunner().invoke(_cli, ["check", "first.onnx"], standalone_mode=False)
    assert done.exception is None
    shown, printed = (re.sub(r" · cpu · \w+", " · cpu", text) for text in (shown, done.stdout))  # on any processor
    assert_shown(shown, printed)
