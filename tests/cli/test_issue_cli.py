"""`actconform issue`: a folder about a finding of a run, whose program shows it, and ends with 0 once it is mended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

PASSED = "linear/value/f32/authored+toy-runtime"
RUNTIME = "tanh/value/f32/authored+toy-runtime"
EXPORTER = "sigmoid/value/f32/toy-export+toy-runtime"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a folder with `conform-out`, a run of toy.py."""
    folder = tmp_path_factory.mktemp("toy")
    site = folder / "site"
    info = site / "actconform_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: actconform-toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[actconform]\ntoy = toy:Plugin\n")
    path = os.pathsep.join([str(site), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "actconform", "run", PASSED, RUNTIME, EXPORTER]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return folder / "conform-out"


@pytest.fixture
def issue(install, cli, finished, tmp_path):
    """Run `actconform issue` on that run."""
    install(toy="toy:Plugin")
    return lambda *arguments, run=finished: cli("issue", *arguments, "--run", str(run))


def program(folder: Path, **env: str) -> subprocess.CompletedProcess:
    """Run repro.py with toy.py at hand, and without the folders of actconform."""
    return subprocess.run(
        [sys.executable, "repro.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )


def test_a_runtime_gets_the_smallest_graph_and_a_program(issue, tmp_path):
    said = issue(RUNTIME, "--out", "told")
    assert said.code == 0, said.err
    assert "told/repro.py" in said.out
    shown, mended = program(tmp_path / "told"), program(tmp_path / "told", MENDED="1")
    assert (shown.returncode, mended.returncode) == (1, 0), shown.stderr + mended.stderr
    text = (tmp_path / "told" / "issue.md").read_text()
    assert "in Tanh" in text.splitlines()[0]
    assert RUNTIME in text
    assert "onnx's reference evaluator in float64" in text


def test_an_exporter_gets_its_graph_and_a_program_that_exports_anew(issue, tmp_path):
    said = issue(EXPORTER, "--out", "told")
    assert said.code == 0, said.err
    shown, mended = program(tmp_path / "told"), program(tmp_path / "told", MENDED="1")
    assert (shown.returncode, mended.returncode) == (1, 0), shown.stderr + mended.stderr
    text = (tmp_path / "told" / "issue.md").read_text()
    assert text.splitlines()[0].startswith("# toy-export: ")
    assert "def export(path):" in text
    assert "the framework itself gives" in text
    assert "`pip install onnx numpy`, and run:" in text, "no package is called as the exporter is"


def test_a_framework_gets_a_program_with_itself_alone(issue, finished, tmp_path):
    pytest.importorskip("torch")
    report = json.loads((finished / "report.json").read_text())
    finding = next(result for result in report["results"] if result["case"] == RUNTIME)["findings"][0]
    case = "sigmoid/value/f32/torch"
    result = {
        "case": case,
        "subject": "sigmoid",
        "aspect": "value",
        "dtype": "f32",
        "route": "torch",
        "verdict": "FAIL",
    }
    worst = {**finding["worst"], "input_hex": "0x3f800000", "truth": 0.7310585786300049, "got": 0.5}
    told = {**result, "implementation": "torch.sigmoid", "findings": [{**finding, "regime": "edge", "worst": worst}]}
    folder = tmp_path / "by-hand"
    folder.mkdir()
    # Of what is said of the framework, packages are what is installed as such: CUDA and Python have versions too.
    facts = {"onnxscript": "0.7.1", "numpy": "2.1.0", "cuda": "13.0", "python": "3.12.1", "device": "cpu"}
    report["facts"]["backends"]["torch"] = facts
    (folder / "report.json").write_text(json.dumps({**report, "conforms": False, "results": [told]}))
    said = issue(case, "--out", "told", run=folder)
    assert said.code == 0, said.err
    assert "`pip install onnxscript numpy`, and run:" in (tmp_path / "told" / "issue.md").read_text()
    code = (tmp_path / "told" / "repro.py").read_text()
    assert "actconform" not in code
    assert program(tmp_path / "told").returncode == 0  # torch has no such fault
    (tmp_path / "told" / "repro.py").write_text(code.replace("torch.sigmoid(x)", "torch.relu(x)"))
    assert program(tmp_path / "told").returncode == 1


@pytest.fixture
def trained(finished, tmp_path):
    """Return a function that writes the report of a training of noise-relu on a route, wrong from its third step on, and returns its folder."""
    report = json.loads((finished / "report.json").read_text())
    finding = next(result for result in report["results"] if result["case"] == RUNTIME)["findings"][0]
    evidence = "first at step 3, optimizer: dense1.kernel [0, 1] is 2, expected 1, 9 times its bound"

    def writing(route: str) -> Path:
        wrong = {**finding, "regime": "optimizer", "tensor": "dense1.kernel", "evidence": evidence}
        parts = {"subject": "noise-relu", "aspect": "training", "dtype": "f32", "route": route}
        case = {"case": "/".join(parts.values()), **parts, "verdict": "FAIL", "implementation": "Adam"}
        folder = tmp_path / "by-hand"
        folder.mkdir()
        case["curve"] = {"first": [1.0], "losses": [1.0], "validation": [1.0], "wrong_step": 3}
        later = {**finding, "regime": "free running", "tensor": "loss", "evidence": "what follows"}
        case["findings"] = [later, wrong]
        (folder / "report.json").write_text(json.dumps({**report, "conforms": False, "results": [case]}))
        return folder

    return writing


def test_of_a_training_the_first_wrong_step_is_told_with_the_command_that_repeats_it(issue, trained, tmp_path):
    case = "noise-relu/training/f32/toy-framework"
    said = issue(case, "--out", "told", run=trained("toy-framework"))
    assert said.code == 0, said.err
    assert {path.name for path in (tmp_path / "told").iterdir()} == {"finding.json", "issue.md"}
    text = (tmp_path / "told" / "issue.md").read_text().replace("\\", "")
    assert "first at step 3, optimizer: dense1.kernel" in text
    assert f"actconform run {case}" in text


def test_of_a_trained_graph_the_graph_of_a_step_is_attached(issue, trained, tmp_path):
    case = "noise-relu/training/f32/authored+toy-runtime"
    said = issue(case, "--out", "told", run=trained("authored+toy-runtime"))
    assert said.code == 0, said.err
    step = onnx.load(tmp_path / "told" / "model.onnx")
    assert {"step", "learning_rate", "dense1.kernel/m"} <= {value.name for value in step.graph.input}
    assert "next/dense1.kernel" in {value.name for value in step.graph.output}
    assert "first at step 3" in (tmp_path / "told" / "issue.md").read_text()


def test_a_folder_is_told_again_and_copied(issue, cli, tmp_path):
    assert issue(RUNTIME, "--out", "told").code == 0
    (tmp_path / "told" / "issue.md").unlink()
    assert cli("issue", "told", "--out", "copy").code == 0
    names = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert {"model.onnx", "repro.py", "issue.md", "test_data_set_0/input_0.pb", "test_data_set_0/output_0.pb"} <= names
    assert program(tmp_path / "copy").returncode == 1


def test_wrong_usage_is_told_in_words(issue, cli, tmp_path):
    for arguments, words in (
        (("tanh/value/f32/authored+toy-runtme",), f"did you mean {RUNTIME}"),
        ((PASSED,), "has no finding"),
    ):
        said = issue(*arguments)
        assert said.code == 2
        assert words in said.err
    assert "report.json" in cli("issue", RUNTIME, "--run", "nowhere").err
    (tmp_path / "empty").mkdir()
    said = cli("issue", "empty")
    assert said.code == 2
    assert "actconform check MODEL --minimize" in said.err
