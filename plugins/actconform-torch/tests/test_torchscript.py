"""Models of TorchScript: in float64 with the values of their layers, beside graphs, and left as they were."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch_networks import Casting, drawn, made

import actconform
from actconform import Unsupported
from actconform.types.trained import RunMode
from actconform_torch import TorchBackend

EXACT = RunMode("float64")


class Stateful(nn.Module):
    """Keeps the state of its LSTM in attributes, as models of streams do, and is called by methods of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 5)
        self.h = torch.zeros(2, 5)
        self.c = torch.zeros(2, 5)
        self.count = torch.zeros(1)

    @torch.jit.export
    def step(self, x):
        self.h, self.c = self.cell(x, (self.h, self.c))
        self.count += 0.1
        return self.h * self.count

    def forward(self, x):
        y = self.step(x[:, 0])
        for i in range(1, x.shape[1]):
            y = self.step(x[:, i])
        return y


def opened(module: nn.Module) -> Any:
    return TorchBackend().adopt_trained(module, None)


def loaded(module: nn.Module) -> torch.jit.ScriptModule:
    """Return a module of TorchScript as it comes from a file."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    return torch.jit.load(file)


def forms(module: nn.Module, x: torch.Tensor) -> dict[str, torch.jit.ScriptModule]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (x,))
    return {
        "scripted": loaded(torch.jit.script(module)),
        "traced": loaded(traced),
        "frozen": torch.jit.freeze(loaded(torch.jit.script(module))),
    }


@pytest.mark.parametrize("form", ["scripted", "traced", "frozen"])
def test_in_float64_it_gives_what_the_module_gives_that_it_was_made_of(form):
    module, x = made(Casting), drawn(2, 3, 10)
    script = forms(module, x)[form]
    wanted = opened(module).run({"x": x.numpy()}, EXACT).outputs["output"]
    for layers in (True, False):
        run = opened(script).run({"x": x.numpy()}, EXACT, layers=layers)
        np.testing.assert_allclose(run.outputs["output"], wanted, rtol=1e-13, atol=1e-13)
    native = opened(script).run({"x": x.numpy()}, RunMode(), layers=True).outputs["output"]
    np.testing.assert_allclose(native, script(x).detach(), rtol=1e-5, atol=1e-6)
    assert {tensor.dtype for tensor in script.state_dict().values()} <= {torch.float32}


def test_its_layers_are_those_of_the_module_that_it_was_made_of():
    module, x = made(Casting), drawn(2, 3, 10)
    script = loaded(torch.jit.script(module))
    for mode in (RunMode(), EXACT):
        wanted = opened(module).run({"x": x.numpy()}, mode, layers=True)
        run = opened(script).run({"x": x.numpy()}, mode, layers=True)
        names = [layer.name for layer in run.layers]
        assert names == [layer.name for layer in wanted.layers]
        assert names[:4] == ["conv", "norm", ":gelu", "layers.0"]
        for layer, other in zip(run.layers, wanted.layers, strict=True):
            assert layer.parameters == other.parameters
            assert layer.kind == other.kind or not layer.name
            for place, other_place in zip(layer.outputs, other.outputs, strict=True):
                np.testing.assert_allclose(run.tensors[place], wanted.tensors[other_place], rtol=1e-5, atol=1e-6)


def test_a_state_in_attributes_is_in_float64_too_and_starts_anew_at_every_call():
    x = drawn(2, 3, 4)
    module = made(Stateful)
    wanted = opened(module).run({"x": x.numpy()}, EXACT).outputs["output"]
    model = opened(loaded(torch.jit.script(module)))
    for _ in range(2):
        for layers in (True, False):
            run = model.run({"x": x.numpy()}, EXACT, layers=layers)
            np.testing.assert_allclose(run.outputs["output"], wanted, rtol=1e-14)
            native = model.run({"x": x.numpy()}, RunMode(), layers=layers).outputs["output"]
            np.testing.assert_allclose(native, wanted, rtol=1e-5, atol=1e-6)
    assert {"cell", "cell#2", "cell#3", ""} <= {
        layer.name for layer in model.run({"x": x.numpy()}, EXACT, layers=True).layers
    }


def test_a_module_of_torchscript_within_another_is_treated_alike():
    class Outer(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner.step(x[:, 0].float()) + self.inner(x)

    x = drawn(2, 3, 4)
    module = made(Stateful)
    script = loaded(torch.jit.script(module))
    wanted = opened(Outer(module)).run({"x": x.numpy()}, EXACT).outputs["output"]
    outer = Outer(script)
    run = opened(outer).run({"x": x.numpy()}, EXACT, layers=True)
    np.testing.assert_allclose(run.outputs["output"], wanted, rtol=1e-14)
    assert {"inner.cell", "inner", ":add", ""} <= {layer.name for layer in run.layers}
    assert outer.inner is script
    assert not script.count.any()


def test_gradients_in_float64():
    module, x = made(Casting), drawn(2, 3, 10)
    given = {"x": x.numpy()}, {"output": np.ones((2, 4, 6))}, EXACT
    wanted = opened(module).gradients(*given)
    gradients = opened(loaded(torch.jit.script(module))).gradients(*given)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == np.float64
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-10, atol=1e-12)


class AsksForDtype(nn.Module):
    def forward(self, x):
        if x.dtype == torch.float32:
            return x * 2
        return x


class WritesNarrow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept = [torch.zeros(3)]

    def forward(self, x):
        self.kept[0].add_(x)
        return self.kept[0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (AsksForDtype, "the code of .*AsksForDtype asks whether a tensor has a certain dtype"),
        (WritesNarrow, r"does not run in float64: aten.add_.Tensor writes to a tensor that is kept in float32"),
    ],
)
def test_what_cannot_be_computed_in_float64_is_told_as_that(kind, words):
    model = opened(loaded(torch.jit.script(kind())))
    x = drawn(3)
    np.testing.assert_array_equal(model.run({"x": x.numpy()}, RunMode()).outputs["output"], kind()(x))
    with pytest.raises(Unsupported, match=words):
        model.run({"x": x.numpy()}, EXACT)


def test_a_frozen_one_does_not_train():
    model = opened(torch.jit.freeze(loaded(torch.jit.script(made(Casting)))))
    assert not model.about.trainable
    with pytest.raises(Unsupported, match="a frozen module of TorchScript does not train"):
        model.run({"x": drawn(2, 3, 10).numpy()}, RunMode(training=True))


@pytest.fixture(scope="module")
def graph() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            made(Casting), (drawn(2, 3, 10),), file, dynamo=False, input_names=["x"], output_names=["output"]
        )
    return file.getvalue()


def checked(graph: bytes, change: Any = None) -> Any:
    model = onnx.load_from_string(graph)
    if change:
        change(model.graph)
    script = loaded(torch.jit.script(made(Casting)))
    return actconform.check(model, against=script, inputs={"x": drawn(2, 3, 10).numpy()}, runtimes=("onnx-reference",))


def test_beside_its_graph_rounding_explains_all(graph):
    result = checked(graph)
    assert result, result.first
    trained = result.result.trained[0]
    assert {"conv", "norm", "layers.0", "layers.1"} <= {match.layer for match in trained.matches}
    assert not any("float64" in note for note in trained.notes)


def test_a_changed_epsilon_is_the_exporters_fault_at_its_layer(graph):
    def change(model):
        (node,) = [node for node in model.node if node.op_type == "LayerNormalization"]
        next(item for item in node.attribute if item.name == "epsilon").f = 1e-2

    fault = checked(graph, change).first.fault
    assert (fault.blame, fault.layer) == ("exporter", "norm")


def test_a_rounded_weight_is_the_exporters_fault(graph):
    def change(model):
        tensor = next(tensor for tensor in model.initializer if list(tensor.dims) == [4, 3, 3])
        rounded = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))

    fault = checked(graph, change).first.fault
    assert (fault.blame, fault.layer) == ("exporter", "conv")
    assert any("conv.weight" in words and "rounded to float16" in words for words in fault.evidence)
