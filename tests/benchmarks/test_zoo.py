"""`make zoo`: models out of wheels without a path leading elsewhere, what a program takes, and what a row fails for."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper, parser

from actconform.checking.flatten import flatten
from actconform.errors import UsageError
from benchmarks import zoo
from benchmarks.process_tree import run_measured
from benchmarks.zoo_models import QUANTIZED, unpack, with_8_bits


def wheel(folder: Path, *names: str) -> Path:
    path = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_only_models_are_unpacked_and_none_leaves_the_folder(tmp_path):
    path = wheel(tmp_path, "thing/a.onnx", "../../evil.onnx", "/absolute.onnx", "..\\back.onnx", "thing/code.py")
    unpack(path, tmp_path / "deep" / "er")
    assert {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()} == {
        path.name,
        *(f"deep/er/{name}.onnx" for name in ("a", "evil", "absolute", "back")),
    }


def test_two_models_of_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"two files a\.onnx"):
        unpack(wheel(tmp_path, "thing/a.onnx", "other/a.onnx"), tmp_path / "there")


def test_weights_of_convolutions_are_stored_in_8_bits():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[1, 2, 5, 5] x) => (float[1, 3, 3, 3] y) { y = Conv (x, w) }'
    )
    w = np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    changed = with_8_bits(model)
    onnx.checker.check_model(changed, full_check=True)
    assert [node.op_type for node in changed.graph.node] == ["DequantizeLinear", "Conv"]
    x = {"x": np.ones((1, 2, 5, 5), np.float32)}
    near, exact = flatten(changed, x).truth["y"], flatten(model, x).truth["y"]
    assert not np.array_equal(near, exact)
    np.testing.assert_allclose(near, exact, atol=18 * np.abs(w).max() / 254)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, which Linux has")
def test_memory_and_processor_time_of_all_processes_are_counted():
    child = "import time; held = bytearray(60 << 20); end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    program = f"import subprocess, sys; held = bytearray(40 << 20); subprocess.run([sys.executable, '-c', {child!r}]); print('done')"
    usage, words = run_measured([sys.executable, "-c", program], os.environ)
    assert words == "done\n"
    assert usage.peak_bytes > 100 << 20
    assert usage.cpu_seconds >= 0.3
    assert usage.least_seconds <= usage.seconds


def test_each_injection_is_of_a_fault_that_there_is_and_they_are_24_and_more():
    from actconform_faulty.model_runtime import FaultyModel

    assert len(set(zoo.INJECTIONS)) == len(zoo.INJECTIONS) >= 24
    assert {injection.fault for injection in zoo.INJECTIONS} <= set(FaultyModel.variants)
    assert {injection.blame for injection in zoo.INJECTIONS} == {"runtime", "runtime:optimizer"}


SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 4] x) => (float[n, 4] y) { h = Tanh (x)  y = Mul (h, h) }
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.onnx"
    onnx.save(parser.parse_model(SMALL), path)
    return path


@pytest.fixture
def canned(small, monkeypatch):
    """Have each check give what one check of the healthy model, or of one with a fault in h, gave: a process takes seconds."""

    def answer(model, runtime, *options, tensor=""):
        if runtime not in RESULTS:
            RESULTS[runtime] = measured(model, runtime, *options, tensor=tensor)
        return RESULTS[runtime]

    measured = zoo.checked
    monkeypatch.setattr(zoo, "checked", answer)
    return small


RESULTS: dict[str, tuple] = {}


def test_a_healthy_model_has_a_row_without_a_failure(canned):
    row, seconds = zoo.healthy_row(canned, "ort-cpu")
    assert row.failure == ""
    assert row.cells[:4] == ("small.onnx", "ort-cpu", "2", "0")
    assert seconds > 0


def test_limits_that_are_passed_and_a_runtime_that_is_off_fail(canned, monkeypatch):
    monkeypatch.setattr(zoo, "SECONDS", 0.0)
    monkeypatch.setattr(zoo, "MOST_BYTES", 1)
    row, _ = zoo.healthy_row(canned, "faulty-model@tanh-softsign")
    assert "not explained, runtime at Tanh:h" in row.failure
    assert "are more than 0" in row.failure


def test_a_check_without_a_result_fails_with_its_last_words(small, monkeypatch):
    monkeypatch.setattr(
        zoo, "checked", lambda *_, **__: (None, zoo.Usage(1.0, 1.0, 0), "inputs\nerror: no such runtime\n")
    )
    assert zoo.healthy_row(small, "ort-cpu")[0].failure == "error: no such runtime"
    assert zoo.injected_row(small, zoo.Injection("small.onnx", "alpha", "h")).failure == "error: no such runtime"


def test_a_fault_must_be_found_at_its_node_with_its_blame(canned, monkeypatch):
    injection = zoo.Injection("small.onnx", "tanh-softsign", "h")
    row = zoo.injected_row(canned, injection)
    assert row.failure == ""
    assert row.cells[:4] == ("small.onnx", "tanh-softsign", "h", "runtime, at 1 node")
    assert zoo.injected_row(canned, injection._replace(tensor="y")).failure == "found at Tanh:h"
    monkeypatch.setitem(RESULTS, "faulty-model@tanh-softsign-optimized", RESULTS["faulty-model@tanh-softsign"])
    optimized = injection._replace(fault="tanh-softsign-optimized")
    assert zoo.injected_row(canned, optimized).failure == "blamed on runtime"
    zoo.healthy_row(canned, "ort-cpu")
    monkeypatch.setitem(RESULTS, "faulty-model@relu-leaky", RESULTS["ort-cpu"])
    assert zoo.injected_row(canned, injection._replace(fault="relu-leaky")).failure == "explained"


def test_both_tables_are_written_and_a_failure_ends_with_1(tmp_path, canned, monkeypatch):
    monkeypatch.setattr(zoo, "fetched", lambda folder: {"small.onnx": canned})
    monkeypatch.setattr(zoo, "INJECTIONS", (zoo.Injection("small.onnx", "tanh-softsign", "y"),))
    arguments = ["--folder", str(tmp_path), "--into", str(tmp_path / "zoo.md")]
    done = CliRunner().invoke(zoo.main, arguments)
    assert done.exit_code == 1, done.output
    assert "0 of 1 faults found; 1 failures" in done.output
    text = (tmp_path / "zoo.md").read_text(encoding="utf-8")
    assert "| small.onnx | ort-cpu | 2 | 0 |" in text
    assert QUANTIZED in text
    assert CliRunner().invoke(zoo.main, [*arguments, "--no-faults"]).exit_code == 0
