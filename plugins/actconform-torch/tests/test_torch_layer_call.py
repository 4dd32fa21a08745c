"""The call of one layer in a run of a torch module: which layer it is, what it read, how it is called, and what it gives alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from actconform import Unsupported  # noqa: E402
from actconform.types.trained import RunMode  # noqa: E402
from actconform_torch.backend import TorchBackend  # noqa: E402


class Cache:
    """An argument that no program can write down."""


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Any, cache: Any) -> Any:
        return self.linear(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.layers.add_module("a:b#2", nn.Linear(4, 4))
        self.inner = Inner()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        for layer in (self.layers[0], self.layers[1], self.layers.get_submodule("a:b#2"), self.layers[0]):
            x = torch.tanh(layer(x)).add_(1)
        return self.attention(self.inner(x, Cache()), x, x, need_weights=False)[0]


@pytest.fixture(scope="module")
def called() -> Any:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 3, 4)
    model = TorchBackend().adopt_trained(net, (x,))
    inputs = {"x": x.numpy()}
    return net, model.run(inputs, RunMode(), layers=True), lambda name: model.layer_call(inputs, name)


@pytest.mark.parametrize("name", ["layers.0", "layers.0#2", "layers.a:b#2", "layers.1"])
def test_a_call_is_that_of_the_run(called: Any, name: str) -> None:
    net, run, call_of = called
    record = next(each for each in run.layers if each.name == name)
    call = call_of(name)
    assert call.path == ("layers.0" if name == "layers.0#2" else name)
    assert call.arguments == "input_0"
    (read,) = call.inputs
    (given,) = call.outputs
    np.testing.assert_array_equal(read, run.tensors[record.inputs[0]])
    np.testing.assert_array_equal(given, run.tensors[record.outputs[0]])
    np.testing.assert_allclose(call.exact[0], given, rtol=1e-5, atol=1e-6)
    assert call.exact[0].dtype == np.float64
    assert net.layers[0].weight.dtype == torch.float32


def test_of_a_function_the_module_that_calls_it_is_meant(called: Any) -> None:
    assert called[2]("inner.linear:linear").path == "inner.linear"
    assert called[2](":tanh#3").path == ""


def test_keywords_and_a_tensor_that_is_given_more_than_once_are_kept(called: Any) -> None:
    call = called[2]("attention")
    assert call.arguments == "input_0, input_1, input_2, need_weights=False"
    assert call.around == ""


def test_what_cannot_be_called_by_itself_is_passed_over(called: Any) -> None:
    assert called[2]("layers").path == ""  # a list of layers is never called
    assert called[2]("inner").path == ""  # it is given an object


def test_a_model_that_no_program_can_call_is_refused() -> None:
    class Bare(nn.Module):
        def forward(self, x: Any, cache: Any) -> Any:
            return x

    model = TorchBackend().adopt_trained(Bare().eval(), (torch.ones(2), Cache()))
    with pytest.raises(Unsupported, match="Cache"):
        model.layer_call({"x": np.ones(2, np.float32)}, "")
