"""`python -m actconform.accuracy`: libraries made here, its tables, its text for a register, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from actconform import Backend, Library, Unavailable, Unsupported
from actconform.accuracy import __main__ as command
from actconform.accuracy.library import MeasuredLibrary
from actconform.accuracy.measure import Accuracy
from actconform.accuracy.statement import merged, toml
from actconform.onnx.evaluate.reference import ReferenceEvaluator


def _no_bfloat16(x):
    if x.dtype.itemsize == 2 and x.dtype != np.float16:
        raise Unsupported("no bfloat16 here")
    return np.sqrt(x)


class Plain(Backend):
    name, kind = "plain", "framework"

    def facts(self):
        return {"plain": "1.4.2", "device": "cpu", "threads": "1"}

    def library(self):
        functions = {"sqrt": _no_bfloat16, "exp": lambda x: np.exp(x.astype(np.float64) + 1e-6).astype(x.dtype)}
        return Library("plain-math", ("plain", "device"), functions)


class Child(Plain):
    name = "child"


class Missing(Plain):
    name = "missing"

    def facts(self):
        raise Unavailable("missing is not installed")

    def library(self):
        raise NotImplementedError


class Runtime(Backend):
    name, kind = "runtime", "runtime"

    def facts(self):
        return {"runtime": "2.0", "threads": "1"}

    def library(self):
        return Library("runtime-math", ("runtime",))

    def load(self, artifact, dtype, level=""):
        evaluator = ReferenceEvaluator(artifact.model)
        return SimpleNamespace(forward=lambda inputs: {"y": evaluator.run(None, dict(inputs))[0]})


@pytest.fixture
def run(monkeypatch):
    offered = {backend.name: backend for backend in (Plain, Child, Missing, Runtime)}
    monkeypatch.setattr(command, "load_plugins", lambda: SimpleNamespace(backends=offered))
    return lambda *arguments: CliRunner().invoke(command.main, ["--points", "20000", *arguments])


def test_the_table_names_facts_figures_and_what_was_not_measured(run):
    done = run("plain", "--dtype", "f32", "--dtype", "bf16", "--primitive", "sqrt", "--primitive", "tanh")
    assert done.exit_code == 0
    assert "plain-math" in done.stdout
    assert "plain 1.4.2 · device cpu" in done.stdout
    assert next(line for line in done.stdout.splitlines() if line.startswith("sqrt")).split()[:3] == [
        "sqrt",
        "f32",
        "1",
    ]
    assert "not measured: sqrt/bf16: no bfloat16 here" in done.stdout
    assert "not measured: tanh/f32, tanh/bf16: no such function" in done.stdout


def test_a_runtime_is_asked_by_graphs_of_one_node(run):
    done = run("runtime", "--dtype", "f16", "--primitive", "exp", "--primitive", "division", "--primitive", "erfc")
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["exp", "f16", "1"] in lines
    assert ["division", "f16", "1"] in lines
    assert "not measured: erfc/f16: no such function" in done.stdout


def test_the_register_text_is_toml_with_the_injected_error(run):
    done = run("plain", "--dtype", "f32", "--primitive", "sqrt", "--primitive", "exp", "--toml")
    (table,) = tomllib.loads(done.stdout)["library"]
    assert list(table) == ["name", "when", "ulp", "absolute", "flush"]
    assert table["name"] == "plain-math"
    assert table["when"] == {"plain": ">=1.4,<1.5", "device": ["cpu"]}
    assert table["ulp"]["sqrt"] == 1
    assert 10 < table["ulp"]["exp"] <= 18  # 1e-6 are 8.4 to 16.8 steps
    assert table["absolute"] == {}
    assert table["flush"] == "kept"
    assert "plain 1.4.2" in done.stdout
    assert "f32: 2" in done.stdout


def test_figures_of_several_machines_are_merged_to_the_larger_ones(run, tmp_path):
    file = tmp_path / "here.json"
    assert run("plain", "--dtype", "f32", "--primitive", "sqrt", "--json", str(file)).exit_code == 0
    (here,) = msgspec.json.decode(file.read_bytes(), type=list[MeasuredLibrary])
    there = worse(here, ulp=3.2, stated_ulp=4, flush="always")
    (tmp_path / "there.json").write_bytes(msgspec.json.encode([there]))
    done = run("--merge", str(file), "--merge", str(tmp_path / "there.json"), "--toml")
    (table,) = tomllib.loads(done.stdout)["library"]
    assert table["ulp"] == {"sqrt": 4}
    assert table["flush"] == "may"
    assert table["when"]["plain"] == ">=1.4,<1.8"
    assert "plain 1.7" in done.stdout
    assert merged([here, here]) == [here]


def test_functions_of_several_files_stand_in_one_order(run, tmp_path):
    files = []
    for name in ("sqrt", "exp"):
        files += ["--merge", str(tmp_path / name)]
        run("plain", "--dtype", "f32", "--primitive", name, "--json", files[-1])
    (table,) = tomllib.loads(run(*files, "--toml").stdout)["library"]
    assert list(table["ulp"]) == ["exp", "sqrt"]


def worse(measured: MeasuredLibrary, **changes) -> MeasuredLibrary:
    rows = tuple(msgspec.structs.replace(row, **changes) for row in measured.accuracies)
    facts = (measured.facts[0] | {"plain": "1.7"},)
    return msgspec.structs.replace(measured, facts=facts, accuracies=rows)


def test_sixteen_bit_figures_stand_in_the_register_only_where_they_are_not_one():
    row = Accuracy(
        primitive="exp",
        dtype="f16",
        points=65536,
        ulp=0.5,
        ulp_at="0x0001",
        unit=0.5,
        unit_at="0x0001",
        stated_ulp=1,
        stated_absolute=0,
        absolute=0.0,
        high_ulp=1,
        underflow_steps=0,
        flush="kept",
        subnormal_error=0.5,
        early_overflow="",
        early_count=0,
        wrong={},
    )
    off = msgspec.structs.replace(row, primitive="tanh", ulp=2.5, stated_ulp=3)
    text = toml(MeasuredLibrary(library="a", when=(), facts=({},), accuracies=(row, off)))
    assert tomllib.loads(text)["library"][0]["ulp"] == {"tanh/f16": 3}


def test_a_backend_that_is_not_here_is_said_and_fails(run):
    done = run("missing")
    assert done.exit_code == 1
    assert "missing: missing is not installed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plane"], "there is no backend 'plane'; did you mean plain"),
        (["child"], "child shows no primitives of its own: choose from plain, missing, runtime"),
        (["plain", "--primitive", "cosine"], "'cosine' is not one of"),
        (["plain", "--dtype", "f64"], "'f64' is not one of"),
        (["plain", "--points", "3"], "3 is not in the range"),
        (["--merge", "nowhere.json"], "--merge nowhere.json"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_right(run, arguments: list[str], words: str):
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_file_of_something_else_is_refused(run, tmp_path):
    file = tmp_path / "other.json"
    file.write_text('{"library": 1}')
    done = run("--merge", str(file))
    assert done.exit_code == 2
    assert "wanted a file that --json wrote" in done.stderr


@pytest.mark.end_to_end
def test_two_real_libraries_are_measured_in_a_process_each():
    asked = ["ort-cpu", "onnx-reference", "--primitive", "sqrt", "--dtype", "f16"]
    done = subprocess.run(
        [sys.executable, "-m", "actconform.accuracy", *asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    assert ["mlas"] in lines
    assert ["numpy"] in lines
    assert lines.count(["sqrt", "f16", "1"]) == 2
