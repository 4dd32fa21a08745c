"""`actconform check` and `bisect` with a trained model: a torch module of the user's own, its exports, files beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from actconform.report.check.check_json import read_json

pytest.importorskip("torch")

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.4)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.norm(self.first(x)))))


def make():
    torch.manual_seed(3)
    net = Net().eval()
    nn.init.normal_(net.norm.weight, 1, 0.3)
    nn.init.normal_(net.norm.bias, 0, 0.3)
    return net, torch.randn(4, 6)


def bare():
    return make()[0]


def raises():
    return {}["missing"]


def needs(path):
    return make()


def other():
    return 42
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> bytes:
    """The module as TorchScript's export has it, made once."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("exported")
    (folder / "net.py").write_text(NET)
    code = (
        "import net, torch; m, x = net.make(); torch.onnx.export(m, (x,), 'm.onnx', dynamo=False, input_names=['x'], "
        "output_names=['output'], dynamic_axes={'x': {0: 'n'}})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    return (folder / "m.onnx").read_bytes()


@pytest.fixture
def net(cli, exported):
    Path("net.py").write_text(NET)
    Path("model.onnx").write_bytes(exported)
    return cli


def changed(change) -> None:
    model = onnx.load("model.onnx")
    change(model.graph)
    onnx.save(model, "model.onnx")


def test_a_trained_model_is_exported_and_every_graph_is_checked(net):
    said = net("check", "net:make", "--html")
    assert said.code == 0, said.out
    assert "torch-torchscript" in said.out
    exports = json.loads(Path("actconform-check/exports.json").read_text())
    assert {export["exporter"] for export in exports["exports"]} >= {"torch-dynamo", "torch-torchscript"}
    assert exports["explained"] is True
    for export in exports["exports"]:
        folder = Path("actconform-check", export["folder"])
        result = read_json(folder)
        assert result.explained
        assert {"first", "norm", "last"} <= {match.layer for match in result.trained[0].matches}
        assert all(check.exact for check in result.trained[0].weights)
        assert (folder / "model.onnx").is_file()
        assert "blocks" not in (folder / "index.html").read_text()[:100]


def test_a_file_beside_what_was_trained_is_explained_and_its_layers_are_named(net):
    said = net("check", "model.onnx", "--against", "net:make")
    assert said.code == 0, said.out
    assert "LAYERS" in said.out
    assert "WEIGHTS" in said.out


def test_a_changed_epsilon_is_the_exporters_fault_at_its_layer(net):
    def epsilon(graph):
        (node,) = [node for node in graph.node if node.op_type == "LayerNormalization"]
        next(a for a in node.attribute if a.name == "epsilon").f = 1e-3

    changed(epsilon)
    said = net("check", "model.onnx", "--against", "net:make", "--html")
    assert said.code == 1
    fault = read_json(Path("actconform-check")).runtimes[0].fault
    assert (fault.blame, fault.layer) == ("exporter", "norm")
    assert "norm (LayerNormalization" in said.out
    assert "net:make" in Path("actconform-check/index.html").read_text()


def test_a_rounded_weight_is_named(net):
    def rounded(graph):
        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.shape == (3, 8):
                tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16).astype(np.float32), tensor.name))

    changed(rounded)
    said = net("check", "model.onnx", "--against", "net:make")
    assert said.code == 1
    fault = read_json(Path("actconform-check")).runtimes[0].fault
    assert (fault.blame, fault.layer) == ("exporter", "last")
    assert any("last.weight" in words and "float16" in words for words in fault.evidence)


def test_gradients_of_the_framework_and_of_the_graph_agree(net):
    said = net("check", "model.onnx", "--against", "net:make", "--gradients")
    assert said.code == 0, said.out
    outputs = {output.name for output in read_json(Path("actconform-check")).runtimes[0].outputs}
    assert {"output", "d_x"} < outputs
    assert len(outputs) > 4  # those of weights too


def test_two_files_are_held_against_each_other(net):
    Path("original.onnx").write_bytes(Path("model.onnx").read_bytes())
    assert net("check", "model.onnx", "--against", "original.onnx").code == 0

    def tanh(graph):
        next(node for node in graph.node if node.op_type == "Tanh").op_type = "Sigmoid"

    changed(tanh)
    assert net("check", "model.onnx", "--against", "original.onnx").code == 1
    fault = read_json(Path("actconform-check")).runtimes[0].fault
    assert (fault.blame, fault.op_type) == ("graph", "Sigmoid")


def test_agreement_over_a_data_set_with_ones_own_metric(net):
    generator = np.random.default_rng(0)
    np.savez("val.npz", x=generator.standard_normal((30, 6)).astype(np.float32), label=np.arange(30) % 3)
    Path("mine.py").write_text("def first(outputs, sample):\n    return float(outputs['output'].ravel()[0])\n")
    said = net("check", "model.onnx", "--against", "net:make", "--data", "val.npz", "--metric", "mine:first")
    assert said.code == 0, said.out + said.err
    (agreement,) = read_json(Path("actconform-check")).agreement
    assert (agreement.expected, agreement.actual, agreement.samples) == ("torch", "ort-cpu", 30)
    assert agreement.outputs[0].top_1 == 1.0
    assert "AGREES" in said.out
    assert Path(agreement.worst[0].folder, "input_0.pb").is_file()


def test_a_conversion_to_float16_tells_its_noise_beside_the_trained_model(net):
    said = net("check", "model.onnx", "--against", "net:make", "--dtype", "f16")
    assert "FORMAT" in said.out, said.out
    noise = read_json(Path("actconform-check")).noise
    assert noise.format == "f16"
    assert {got.name for layer in noise.layers for got in layer.got} >= {"torch float16"}


@pytest.mark.parametrize("options", [("--dtype", "bf16"), ("--autocast", "bf16")], ids=" ".join)
def test_no_framework_is_accused_of_what_a_format_does_to_a_healthy_model(net, options):
    net("check", "model.onnx", "--against", "net:make", *options)
    column = read_json(Path("actconform-check")).runtimes[0]
    assert (column.name, column.status) == ("torch", "explained")


def test_a_weight_that_these_inputs_do_not_show_is_told(cli):
    Path("table.py").write_text(
        "import torch\n\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.Embedding(50, 4).eval(), torch.tensor([[1, 2, 3]])\n"
    )
    assert cli("check", "table:make", "--exporter", "torch-torchscript", "--range", "input=0:9").code == 0
    model = onnx.load("actconform-check/torch-torchscript/model.onnx")
    (tensor,) = [tensor for tensor in model.graph.initializer if numpy_helper.to_array(tensor).shape == (50, 4)]
    array = numpy_helper.to_array(tensor).copy()
    array[40] *= 1.5
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, "model.onnx")
    np.savez("in.npz", **{model.graph.input[0].name: np.array([[1, 2, 3]])})
    said = cli("check", "model.onnx", "--against", "table:make", "--inputs", "in.npz")
    assert said.code == 1, said.out
    fault = read_json(Path("actconform-check")).runtimes[0].fault
    assert (fault.blame, fault.op_type) == ("exporter", "Gather")
    assert "weight" in fault.evidence[0]


def test_the_example_of_the_factory_is_used_beside_a_file(net):
    net("check", "model.onnx", "--against", "net:make")
    origins = [sample.origin for sample in read_json(Path("actconform-check")).samples]
    assert origins[0] == "example of net:make"


WRONG = {
    "raises": ("net:raises", ["KeyError", "net.py", "missing"]),
    "needs-arguments": ("net:needs", ["path"]),
    "no-model": ("net:other", ["int"]),
    "no-such-function": ("net:mak", ["mak", "make"]),
    "no-such-module": ("nets:make", ["nets"]),
    "no-inputs": ("net:bare", ["inputs"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_factory_is_told_with_exit_code_2(net, name):
    source, expected = WRONG[name]
    said = net("check", source)
    assert said.code == 2, said.out
    assert all(words in said.err for words in expected), said.err
    assert "site-packages" not in said.err
    assert not Path("actconform-check").exists()


OPTIONS = {
    "outputs-first": (["out.npz"], ["name the model first"]),
    "metric-alone": (["model.onnx", "--metric", "mine:f"], ["--data"]),
    "no-exporter": (["net:make", "--exporter", "tf2onnx"], ["tf2onnx", "torch-dynamo"]),
    "pickled": (["model.onnx", "--against", "weights.pt"], ["pickled", "factory"]),
    "two-outputs": (
        ["model.onnx", "--against", "out.npz", "--against", "out.npz", "--inputs", "in.npz"],
        ["more than one"],
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_sources_and_options_that_do_not_fit_are_refused(net, name):
    np.savez("out.npz", output=np.zeros((4, 3), np.float32))
    np.savez("in.npz", x=np.zeros((4, 6), np.float32))
    Path("weights.pt").write_bytes(b"\x80\x02}q")
    arguments, expected = OPTIONS[name]
    said = net("check", *arguments)
    assert said.code == 2, said.out
    assert all(words in said.err for words in expected), said.err


def test_bisect_names_the_first_layer_alone(net):
    said = net("bisect", "net:make", "model.onnx+ort-cpu")
    assert said.code == 0, said.out + said.err
    assert "rounding explains every layer" in said.out

    def last(graph):
        for tensor in graph.initializer:
            if numpy_helper.to_array(tensor).shape == (3, 8):
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))

    changed(last)
    said = net("bisect", "net:make", "model.onnx+ort-cpu")
    assert said.code == 1
    assert "last (Gemm" in said.out
    assert not Path("actconform-check").exists()


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        (("net:make", "net:make"), "both routes are the same"),
        (("net:make", "model.onnx+ort-gpu"), "neither an exporter nor a runtime"),
        (("net:make", "net:make+torch-dynamo+ort-cpu+ort-cpu"), "ort-cpu"),
    ],
)
def test_routes_that_are_none_are_refused(net, routes, words):
    said = net("bisect", *routes)
    assert said.code == 2
    assert words in said.err
