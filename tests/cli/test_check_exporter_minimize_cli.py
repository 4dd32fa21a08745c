"""`actconform check --minimize` where an exporter is at fault: one layer exported alone by a program that needs no actconform, or the nodes of an edited file."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from actconform.report.issue.from_check import MINIMAL_EXPORTER

PARTS = ("inputs.npz", "allowed.npz", "finding.json", "repro.py", "issue.md")
RUNS_GRAPHS = {"numpy", "onnx", "onnxruntime", "ml_dtypes"}

# An exporter with a fault stands in the module of the user, which the programs import too.
TORCH = """
import io, os, onnx, torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 8)

    def forward(self, x, scale=None, *, flag=True):
        y = torch.nn.functional.gelu(self.mix(self.norm(x)))
        return x + (y if scale is None else y * scale)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.body = nn.ModuleDict({"a b:\u00e9#2": Block()})
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.body["a b:\u00e9#2"](x, scale=torch.sigmoid(x), flag=False))


def make():
    torch.manual_seed(3)
    return Net().eval(), torch.randn(4, 6)


def changed(model):
    fault = os.environ.get("FAULT")
    for node in list(model.graph.node):
        if fault == "gelu" and node.op_type in ("Gelu", "Erf"):
            node.op_type = "Softsign"
            del node.attribute[:]
        if fault == "norm in a block" and node.op_type == "LayerNormalization" and len(model.graph.node) > 1:
            next(a for a in node.attribute if a.name == "epsilon").f = 1e-2
    return model


export = torch.onnx.export


class Program:
    def __init__(self, model):
        self.model_proto = model

    def save(self, path):
        onnx.save(self.model_proto, path)


def faulty(module, args, f=None, **options):
    if options["dynamo"]:
        return Program(changed(export(module, args, **options).model_proto))
    written = io.BytesIO()
    export(module, args, written, **options)
    data = changed(onnx.load_from_string(written.getvalue())).SerializeToString()
    f.write(data) if hasattr(f, "write") else open(f, "wb").write(data)


torch.onnx.export = faulty
"""
KERAS = """
import os, keras, numpy as np, tf2onnx.convert

layers = keras.layers


class Mix(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(8, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x, scale=None):
        return x + keras.ops.tanh(self.inner(x)) * scale


def make():
    keras.utils.set_random_seed(3)
    a = keras.Input((8,), name="a")
    block = keras.Model(a, Mix(name="mi-x.1")(layers.BatchNormalization(name="norm")(a), scale=keras.ops.sigmoid(a)), name="block")
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(3, name="last")(block(layers.Dense(8, name="first")(x))))
    return model, np.random.default_rng(0).standard_normal((4, 6)).astype("float32")


convert = tf2onnx.convert._convert_common


def faulty(*args, output_path=None, **options):
    model, storage = convert(*args, **options)
    for node in model.graph.node:
        if node.op_type == "Tanh" and os.environ.get("FAULT"):
            node.op_type = "Softsign"
    if output_path:
        open(output_path, "wb").write(model.SerializeToString())
    return model, storage


tf2onnx.convert._convert_common = faulty
"""


def program(folder, **env):
    """Run the program without actconform on the path, and without the fault unless it is asked for."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "FAULT")}
    command = [sys.executable, str(folder / "repro.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**kept, **env})


def imported(folder) -> set[str]:
    nodes = list(ast.walk(ast.parse((folder / "repro.py").read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def constant_in(folder, name):
    tree = ast.parse((folder / "repro.py").read_text())
    return next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == name
    )


@pytest.fixture
def torch_net(cli, monkeypatch):
    pytest.importorskip("torch")
    Path("net.py").write_text(TORCH, encoding="utf-8")

    def check(fault, *arguments):
        monkeypatch.setenv("FAULT", fault)
        return cli("check", *arguments, "--samples", "1", "--minimize")

    return check


@pytest.mark.parametrize("exporter", ["torch-dynamo", "torch-torchscript"])
def test_of_a_function_the_module_around_it_is_exported_alone(torch_net, exporter):
    said = torch_net("gelu", "net:make", "--exporter", exporter)
    folder = Path("actconform-check", exporter, MINIMAL_EXPORTER)
    assert said.code == 1
    assert f"WROTE    {folder}: inputs.npz, repro.py, issue.md" in said.out, said.out
    assert sorted(path.name for path in folder.iterdir()) == sorted(PARTS)
    assert constant_in(folder, "LAYER") == "body.a b:é#2"
    assert "return layer(input_0, scale=input_1, flag=False)" in (folder / "repro.py").read_text()
    assert imported(folder) - set(sys.stdlib_module_names) <= {"torch", *RUNS_GRAPHS}
    with np.load(folder / "inputs.npz") as file:
        assert {name: file[name].shape for name in file} == {"input_0": (4, 8), "input_1": (4, 8)}
    issue = (folder / "issue.md").read_text()
    assert issue.startswith(f"# {exporter}: Block is exported wrong")
    assert "Softsign" in issue
    mended = program(folder)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    Path("net.py").unlink()
    missing = program(folder)
    assert (missing.returncode, "No module named 'net'" in missing.stderr) == (2, True)


def test_where_a_layer_alone_is_right_the_layer_around_it_is_exported(torch_net):
    torch_net("norm in a block", "net:make", "--exporter", "torch-torchscript")
    folder = Path("actconform-check/torch-torchscript", MINIMAL_EXPORTER)
    assert constant_in(folder, "LAYER") == "body.a b:é#2"
    issue = (folder / "issue.md").read_text(encoding="utf-8")
    assert "exported alone these are right: layer body.a b:é" in issue


def test_of_an_edited_file_the_nodes_are_attached_with_what_the_trained_model_has(torch_net, cli):
    torch_net("", "net:make", "--exporter", "torch-torchscript")
    model = onnx.load("actconform-check/torch-torchscript/model.onnx")
    (node,) = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-2
    onnx.save(model, "model.onnx")
    said = torch_net("", "model.onnx", "--against", "net:make")
    folder = Path("actconform-check", MINIMAL_EXPORTER)
    assert f"WROTE    {folder}: model.onnx, test_data_set_0, repro.py, issue.md" in said.out, said.out
    part = onnx.load(folder / "model.onnx")
    assert [node.op_type for node in part.graph.node] == ["LayerNormalization"]
    assert {tuple(tensor.dims) for tensor in part.graph.initializer} == {(8,)}
    assert "exported anew it does not show" in (folder / "issue.md").read_text()
    shown = program(folder)
    assert (shown.returncode, "the fault is there" in shown.stdout) == (1, True), shown.stderr
    next(a for a in part.graph.node[0].attribute if a.name == "epsilon").f = 1e-5
    onnx.save(part, folder / "model.onnx")
    assert program(folder).returncode == 0
    assert cli("issue", "actconform-check", "--out", "again").code == 0
    assert (Path("again", "issue.md")).read_text() != ""


@pytest.mark.parametrize("exporter", ["tf2onnx", "keras-export"])
def test_a_layer_within_a_keras_model_is_exported_alone(cli, monkeypatch, exporter):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("keras")
    Path("knet.py").write_text(KERAS)
    monkeypatch.setenv("FAULT", "1")
    said = cli("check", "knet:make", "--exporter", exporter, "--samples", "1", "--minimize")
    folder = Path("actconform-check", exporter, MINIMAL_EXPORTER)
    assert f"WROTE    {folder}: inputs.npz, repro.py, issue.md" in said.out, said.out + said.err
    assert constant_in(folder, "LAYER") == "block/mi-x.1"
    assert "scale=input_1" in (folder / "repro.py").read_text()
    assert imported(folder) - set(sys.stdlib_module_names) <= {"keras", "tensorflow", "tf2onnx", *RUNS_GRAPHS}
    mended = program(folder)
    assert mended.returncode == 0, mended.stdout + mended.stderr
