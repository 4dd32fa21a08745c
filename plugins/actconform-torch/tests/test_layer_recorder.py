"""The values of layers: each distinct tensor once, as it was when its layer ended, with the layers and functions that gave and read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_networks import EXAMPLES, Functional, Noisy, Residual, attention, drawn, made

from actconform.types.trained import LayerRecord, RunMode
from actconform_torch import TorchBackend

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.types.trained import TrainedRun

NATIVE, WIDE = RunMode(), RunMode("float64")


def recorded(module: nn.Module, example: Any, mode: RunMode = NATIVE) -> TrainedRun:
    model = TorchBackend().adopt_trained(module, example)
    run = model.run(model.about.example, mode, layers=True)
    alone = model.run(model.about.example, mode).outputs if not isinstance(module, Noisy) else run.outputs
    assert list(alone) == list(run.outputs)
    check_record(run)
    return run


def check_record(run: TrainedRun) -> None:
    """What holds of every record."""
    names = [layer.name for layer in run.layers]
    assert len(set(names)) == len(names)
    places = range(len(run.tensors))
    given: set[int] = set()
    for layer in run.layers:
        assert set(layer.inputs) | set(layer.outputs) <= set(places)
        given |= set(layer.outputs)
    assert run.layers[-1].name == ""
    last = [run.tensors[place] for place in run.layers[-1].outputs]
    for output in run.outputs.values():
        assert any(np.array_equal(np.sort(output, None), np.sort(tensor, None)) for tensor in last)


def layer_of(run: TrainedRun, name: str) -> LayerRecord:
    return next(layer for layer in run.layers if layer.name == name)


def value_of(run: TrainedRun, name: str) -> NDArray[Any]:
    (place,) = layer_of(run, name).outputs
    return run.tensors[place]


@pytest.mark.parametrize("mode", [NATIVE, WIDE, RunMode("bfloat16"), RunMode(training=True)], ids=str)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_network_is_recorded(name, mode):
    kind, example = EXAMPLES[name]
    run = recorded(made(kind), example, mode)
    if mode == WIDE:
        assert {tensor.dtype.name for tensor in run.tensors} <= {"float64", "int64", "bool"}
    names = {path for path, _ in made(kind).named_modules()}
    assert {layer.name.partition("#")[0].partition(":")[0] for layer in run.layers} <= names


def test_layers_are_recorded_as_they_were_when_they_ended():
    module, x = made(Residual), drawn(2, 3, 5, 5)
    run = recorded(module, x)
    with torch.no_grad():
        conv = functional.conv2d(x, module.conv.weight, module.conv.bias, padding=1)
        norm = module.norm(conv)
        act = norm.clamp(min=0)
        add = act + 1
        assigned = add.clone()
        assigned[:, 0] = 2
        last = (assigned * -1).clamp(min=0)
    for name, wanted in {
        "conv": conv,
        "norm": norm,
        "act": act,
        ":add": add,
        ":setitem": assigned,
        "act#2": last,
    }.items():
        np.testing.assert_array_equal(value_of(run, name), wanted, err_msg=name)
    assert layer_of(run, "act").inputs == layer_of(run, "norm").outputs
    assert layer_of(run, ":add").inputs == layer_of(run, "act").outputs
    assert layer_of(run, "").inputs == (0,)


def test_a_functional_network_has_its_functions_for_layers_with_the_weights_that_they_read():
    run = recorded(made(Functional), drawn(3, 6))
    assert [layer.name for layer in run.layers] == [":matmul", ":gelu", ":matmul#2", ":softmax", ""]
    assert [layer.kind for layer in run.layers][1] == "function gelu"
    assert [layer.parameters for layer in run.layers] == [("first",), (), ("second",), (), ("first", "second")]
    assert [layer.inputs for layer in run.layers[:4]] == [(0,), (1,), (2,), (3,)]


def test_a_layer_that_is_one_function_is_the_layer_alone():
    run = recorded(nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.LayerNorm(3)).eval(), drawn(2, 3))
    assert [layer.name for layer in run.layers] == ["0", "1", "2", ""]
    assert layer_of(run, "2").kind == "torch.nn.modules.normalization.LayerNorm"
    assert layer_of(run, "2").parameters == ("2.weight", "2.bias")
    assert [layer.outputs for layer in run.layers] == [(1,), (2,), (3,), (3,)]


def test_inference_does_not_go_around_the_layers_of_an_encoder():
    module, x = made(attention), drawn(2, 5, 8)
    run = recorded(module, x)
    assert torch.backends.mha.get_fastpath_enabled()
    for name in ("layers.0.self_attn", "layers.0:gelu", "layers.1.norm1", "layers.1.linear2"):
        layer_of(run, name)
    attended = layer_of(run, "layers.0.self_attn:scaled_dot_product_attention")
    assert len(attended.inputs) == 3  # queries, keys, values: of the projection that gave them all
    projection = layer_of(run, "layers.0.self_attn:linear")
    assert projection.parameters == ("layers.0.self_attn.in_proj_weight", "layers.0.self_attn.in_proj_bias")
    wanted = functional.gelu(torch.from_numpy(value_of(run, "layers.0.linear1")))
    np.testing.assert_allclose(value_of(run, "layers.0:gelu"), wanted, rtol=1e-6)


def test_a_recurrent_layer_gives_its_nested_outputs():
    kind, example = EXAMPLES["recurrent"]
    run = recorded(made(kind), example)
    lstm = layer_of(run, "lstm")
    assert lstm.inputs == (0, 1, 2)
    assert [run.tensors[place].shape for place in lstm.outputs] == [(3, 5, 12), (4, 3, 6), (4, 3, 6)]
    assert layer_of(run, "gru").inputs == lstm.outputs[:1]


def test_a_tensor_in_another_layout_is_the_same_tensor():
    class Layouts(nn.Module):
        def forward(self, x):
            y = x * 2
            z = y.transpose(1, 2).reshape(2, -1).contiguous().view(2, 4, 3).permute(0, 2, 1).clone().unsqueeze(0)
            return z + 1, y[:, :1] + 1, y.expand(5, 2, 3, 4).sum(0)

    run = recorded(Layouts(), drawn(2, 3, 4))
    assert [layer.name for layer in run.layers] == [":mul", ":add", ":getitem", ":add#2", ":sum", ""]
    assert layer_of(run, ":add").inputs == layer_of(run, ":mul").outputs
    assert layer_of(run, ":sum").inputs == layer_of(run, ":mul").outputs
    assert len(run.tensors) == 6


def test_a_view_that_is_written_to_is_another_tensor():
    class Written(nn.Module):
        def forward(self, x):
            y = x * 2
            flat = y.view(-1)
            flat.add_(1)
            return flat * 3, y * 3

    run = recorded(Written(), drawn(2, 3))
    np.testing.assert_array_equal(value_of(run, ":mul"), (drawn(2, 3) * 2).numpy())
    np.testing.assert_array_equal(value_of(run, ":add"), (drawn(2, 3) * 2 + 1).numpy().reshape(-1))
    assert layer_of(run, ":mul#2").inputs == layer_of(run, ":add").outputs
    assert layer_of(run, ":mul").outputs != layer_of(run, ":mul#3").inputs


def test_memory_that_nobody_wrote_and_constants_are_no_layers():
    class Filled(nn.Module):
        def forward(self, x):
            buffer = torch.empty(2, 3)
            buffer.copy_(x)
            return buffer + torch.zeros(2, 3) + torch.zeros_like(x) + x.shape[0]

    run = recorded(Filled(), drawn(2, 3))
    assert {layer.name for layer in run.layers} <= {":copy", ":add", ":add#2", ":add#3", ""}


def test_a_layer_called_again_has_a_number():
    kind, example = EXAMPLES["tied"]
    run = recorded(made(kind), example)
    assert [layer.name for layer in run.layers] == ["embed", "block", ":tanh", "block#2", "head", ""]
    assert layer_of(run, "block#2").parameters == ("block.weight", "block.bias")


def test_operators_by_number_are_named_as_their_functions():
    class Operators(nn.Module):
        def forward(self, x):
            return 1 - 2 / (x**2 + 3), -x.mT @ x, torch.ops.aten.relu.default(x), x.abs_()

    run = recorded(Operators(), drawn(3, 3))
    names = [layer.name.partition("#")[0] for layer in run.layers]
    assert names == [":pow", ":add", ":div", ":sub", ":neg", ":matmul", ":relu", ":abs", ""]
