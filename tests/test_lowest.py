"""The oldest versions that are taken: every requirement says one, and all of them are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from actconform.lowest import lowest, main

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]


def test_every_requirement_of_core_and_plugins_has_a_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file) for file in FILES]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"onnx==1.19", "onnxruntime==1.19", "openvino==2024.0", "onnxscript==0.5", "tf2onnx==1.16"} <= set(lines)
    assert not any(line.startswith(("actconform", "pytest", "ruff")) for line in lines)


def test_of_several_bounds_the_highest_holds_and_none_is_an_error(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text("[project]\ndependencies = ['odd>=1.2', 'actconform==0.1']\n")
    two.write_text(
        "[project]\ndependencies = []\n[project.optional-dependencies]\ncpu = ['odd>=1.10,<3']\ntest = ['x']\n"
    )
    assert lowest([one, two]) == {"odd": "1.10"}
    one.write_text("[project]\ndependencies = ['odd<3']\n")
    with pytest.raises(ValueError, match=r"one\.toml: odd<3 has no lower bound: write odd>=VERSION"):
        lowest([one])
