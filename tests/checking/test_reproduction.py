"""What is attached to a report: a folder whose program shows the fault with the runtime alone, and ends with 0 once it is mended."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import numpy as np
import pytest
from onnx import numpy_helper, parser

from actconform.checking.part import Accepted
from actconform.checking.proof import exact_product
from actconform.checking.reproduction import Reproduction, worst_elements, write_finding, write_model
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.issue.from_check import attach, issue_of_check
from actconform.report.issue.text import issue_text
from actconform.settings import BackendConfig, Config
from actconform.workers.from_settings import configured


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


RUNTIMES = {
    "ort-cpu": ("onnxruntime", "all"),
    "openvino": ("openvino", ""),
    "onnx-reference": ("onnx", ""),
    "onnx-reference-float64": ("onnx", ""),
    "by-command": ("onnx", ""),
}
COMMAND = """import sys
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

model, inputs, outputs = sys.argv[1:]
evaluator = ReferenceEvaluator(onnx.load(model))
results = evaluator.run(None, {name: np.load(f"{inputs}/{name}.npy") for name in evaluator.input_names})
for name, array in zip(evaluator.output_names, results):
    np.save(f"{outputs}/{name}.npy", array)
"""


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_program_of_each_runtime_computes_as_the_runtime_does(name, tmp_path):
    package, level = RUNTIMES[name]
    pytest.importorskip(package)
    (tmp_path / "command.py").write_text(COMMAND)
    command = f"{sys.executable} command.py {{model}} {{inputs}} {{outputs}}"
    config = Config(backends={"by-command": BackendConfig(command=command)}, path=tmp_path / "actconform.toml")
    backend = configured(load_plugins(), config).backends[name]
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, float[1] s) => (float[2] y) { h = Mul(x, s)  y = Relu(h) }'
    )
    x, s = np.array([-1.0, 1.5], np.float32), np.array([2.0], np.float32)
    for third, code, words in ((3.0, 0, ""), (3.1, 1, "got 3.0 (0x40400000)")):
        truth = np.array([0.0, third])
        accepted = {"y": Accepted(truth, truth, truth)}
        reproduction = Reproduction(
            title='"""\\', runtime=name, source=backend.reproduction(), packages=backend.packages, level=level
        )
        write_model(tmp_path / name, model, {"x": x, "s": s}, accepted)
        write_finding(tmp_path / name, reproduction)
        done = run(tmp_path / name)
        assert done.returncode == code, done.stdout + done.stderr
        assert words in done.stdout


def test_names_of_the_runtime_that_are_taken_are_changed(tmp_path):
    source = "def _read(number):\n    return number + 1\n\n\ndef run(model, inputs, level):\n    return {'y': _read(inputs['x'])}\n"
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Neg(x) }')
    truth = np.array([3.0])
    write_model(tmp_path, model, {"x": np.array([2.0], np.float32)}, {"y": Accepted(truth, truth, truth)})
    write_finding(tmp_path, Reproduction(title="clash", runtime="mine", source=source))
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "nodes",
    ["y = MatMul(x, w)", "y = Gemm <transA = 1, transB = 1, alpha = 0.3, beta = 0.7> (x, w, b)"],
    ids=["MatMul", "Gemm"],
)
def test_products_are_summed_exactly(nodes):
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[4, 4] x) => (float[4, 4] y) {{ {nodes} }}'
    )
    generator = np.random.default_rng(3)
    for name, shape in {"w": (4, 4), "b": (4,)}.items():
        values = (generator.standard_normal(shape) * 1e8 ** generator.standard_normal(shape)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    x = generator.standard_normal((4, 4)).astype(np.float32)
    w, b = (numpy_helper.to_array(tensor).astype(np.longdouble) for tensor in model.graph.initializer)
    gemm = np.longdouble(np.float32(0.3)) * (x.T.astype(np.longdouble) @ w.T) + np.longdouble(np.float32(0.7)) * b
    expected = x.astype(np.longdouble) @ w if "MatMul" in nodes else gemm
    got = exact_product(model, {"x": x})["y"]
    np.testing.assert_allclose(got, expected.astype(np.float64), rtol=1e-15, atol=0)


def test_names_of_a_model_are_no_markup(tmp_path):
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Neg(x) }')
    model.graph.node[0].name = "```\n# <script>|\x1b[31m"
    truth = np.array([-2.0])
    accepted = {"y": Accepted(truth, truth, truth)}
    write_model(tmp_path, model, {"x": np.array([2.0], np.float32)}, accepted)
    worst = worst_elements({"y": np.array([2.0], np.float32)}, accepted, {})
    finding = Reproduction(
        title="# <b>",
        runtime="mine",
        subject="m",
        node="a`b|<i>",
        evidence=("<img src=x>",),
        worst=tuple(worst),
        facts={"<u>": "|"},
    )
    text = issue_text(finding, tmp_path)
    before, graph, after = text.split("````")  # a fence that is longer than the one in the name
    assert "<script>" in graph
    assert "<script>" not in before + after
    assert "<img" not in text
    assert "<u>" not in text
    assert "\x1b" not in text
    assert text.startswith("# \\# &lt;b&gt;")
    assert "``a`b¦<i>``" in text


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is no folder of a check"):
        issue_of_check(tmp_path, None)
    (tmp_path / "finding.json").write_text("{")
    with pytest.raises(UsageError, match="is no finding of a check"):
        issue_of_check(tmp_path, None)
