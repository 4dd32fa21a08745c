"""`actconform suite drawn`: what it prints and writes, and that it writes nothing where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper


@pytest.fixture
def drawn(cli, install):
    """Run the command with the runtimes of tests/drawn_runtimes.py."""
    install(drawn="drawn_runtimes:Plugin")
    return lambda *arguments: cli("suite", "drawn", *arguments)


def test_a_finding_is_test_data_of_onnx_with_a_program_and_a_text(drawn):
    said = drawn(
        "--runtime",
        "drawn-wrong",
        "--runtime",
        "drawn-right",
        "--op",
        "ReduceSum",
        "--examples",
        "60",
        "--out",
        "out",
        "--html",
    )
    assert said.code == 1, said.err
    assert said.out.splitlines()[-1] == "out/index.html"
    assert "FINDING" in said.out
    report = json.loads(Path("out/drawn.json").read_text())
    assert [tally["runtime"] for tally in report["tallies"]] == ["drawn-wrong", "drawn-right"]
    assert report["tallies"][1]["wrong"] == 0
    assert report["not_run"] == []
    assert report["versions"].keys() == {"actconform", "hypothesis", "numpy", "onnx"}
    assert {finding["kind"] for finding in report["findings"]} == {"shape"}
    folder = Path("out") / report["findings"][0]["folder"]
    assert folder.parent == Path("out/ReduceSum")
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    data = folder / "test_data_set_0"
    inputs = sorted(path.name for path in data.glob("input_*.pb"))
    assert inputs == [f"input_{k}.pb" for k in range(len(model.graph.input))]
    x = numpy_helper.to_array(onnx.TensorProto.FromString((data / "input_0.pb").read_bytes()))
    y = numpy_helper.to_array(onnx.TensorProto.FromString((data / "output_0.pb").read_bytes()))
    assert y.ndim <= x.ndim
    shown = subprocess.run([sys.executable, folder / "repro.py"], capture_output=True, text=True, check=False)
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "got the shape" in shown.stdout
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert report["findings"][0]["folder"] in page
    assert "--examples 60 --out out --html" in page
    text = (folder / "issue.md").read_text()
    assert "actconform suite drawn --runtime drawn-wrong --op ReduceSum --examples 60 --seed 0" in text


def test_a_right_runtime_conforms_and_what_it_refuses_is_counted(drawn):
    said = drawn("--runtime", "drawn-right", "--op", "Transpose", "--examples", "20", "--json")
    assert said.code == 0, said.err
    (tally,) = json.loads(said.out)["tallies"]
    assert tally["examples"] == 20
    assert tally["within"] + tally["refused"] == 20
    assert tally["refused"] >= 1
    assert [path.name for path in Path("actconform-drawn").iterdir()] == ["drawn.json"]


def test_operators_whose_turn_did_not_come_are_told_and_do_not_conform(drawn, monkeypatch):
    ticks = iter(range(0, 10_000, 50))
    monkeypatch.setattr("actconform.cli._suite_drawn.now", lambda: float(next(ticks)))
    said = drawn(
        "--runtime",
        "drawn-right",
        "--op",
        "Transpose",
        "--op",
        "Identity",
        "--op",
        "Tile",
        "--examples",
        "2",
        "--minutes",
        "1",
    )
    assert said.code == 1, said.err
    assert len(json.loads(Path("actconform-drawn/drawn.json").read_text())["not_run"]) == 2
    assert "NOT RUN" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--op", "ReduceSums"], "--op ReduceSums: no operator that is drawn; did you mean ReduceSum"),
        (["--runtime", "drawn-rihgt"], "drawn-rihgt is no runtime"),
        (["--runtime", "drawn-rihgt", "--op", "ReduceSums"], "drawn-rihgt is no runtime"),
        (["--out", "file"], "--out file: is a file: name a folder"),
        (["--examples", "0"], "--examples"),
        (["--runtime", "drawn-gone"], "--runtime drawn-gone: cannot run here: libgone.so is missing"),
    ],
)
def test_wrong_usage_ends_with_2_and_writes_nothing(drawn, arguments, words):
    Path("file").write_text("")
    defaults = [] if "--runtime" in arguments else ["--runtime", "drawn-right"]
    said = drawn(*defaults, *arguments)
    assert said.code == 2, said.out
    assert words in said.err
    assert "Traceback" not in said.err
    assert [path.name for path in Path().iterdir() if path.name not in ("site", "file")] == []


def test_without_hypothesis_the_error_says_how_to_install_it(drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    said = drawn("--runtime", "drawn-right")
    assert said.code == 2
    assert 'pip install "actconform[suite]"' in said.err


def test_the_same_seed_writes_the_same_findings(drawn):
    texts = []
    for out in ("first", "second"):
        earlier = Path(out, "Shape/0-drawn-wrong")
        earlier.mkdir(parents=True)
        (earlier / "finding.json").write_text("{}")
        drawn("--runtime", "drawn-wrong", "--op", "Shape", "--examples", "8", "--seed", "4", "--out", out)
        texts.append(Path(out, "drawn.json").read_bytes())
        assert not earlier.exists()
    assert texts[0] == texts[1]
    assert np.unique([finding["operator"] for finding in json.loads(texts[0])["findings"]]).tolist() == ["Shape"]


def test_what_came_before_an_interruption_is_written(drawn, monkeypatch):
    from actconform.cli import _suite_drawn

    examine = _suite_drawn.examine

    def interrupted(strategy, *arguments):
        if strategy.op_type == "Tile":
            raise KeyboardInterrupt
        return examine(strategy, *arguments)

    monkeypatch.setattr(_suite_drawn, "examine", interrupted)
    said = drawn("--runtime", "drawn-right", "--op", "Identity", "--op", "Tile", "--examples", "2")
    assert said.code == 1
    assert said.err.endswith("interrupted\n")
    report = json.loads(Path("actconform-drawn/drawn.json").read_text())
    assert [tally["operator"] for tally in report["tallies"]] == ["Identity"]
    assert report["not_run"] == ["Tile"]
