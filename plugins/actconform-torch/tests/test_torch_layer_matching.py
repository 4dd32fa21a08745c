"""Layers of real torch modules in what torch's exporters make of them."""

import copy
import io
import warnings

import onnx
import pytest
import torch
from torch import nn

from actconform.checking.flatten import flatten
from actconform.checking.trained.layer_matching import match_layers
from actconform.types.trained import TrainedRun
from actconform_torch.layer_recorder import LayerRecorder


class Net(nn.Module):
    """A convolution with a batch norm, an attention, a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(8, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm1d(16)
        self.norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.act = nn.GELU()
        self.rnn = nn.LSTM(16, 12, batch_first=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x))).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(self.drop(self.rnn(self.act(x))[0]))


LAYERS = {"bn", "norm", "attention", "act", "rnn", "drop", "head"}


def recorded(module, x, dtype):
    module = copy.deepcopy(module).to(dtype)
    recorder = LayerRecorder(module, [x := x.to(dtype)])
    with torch.no_grad(), recorder:
        y = module(x)
    return TrainedRun(outputs={"output": y.numpy()}, layers=recorder.layers, tensors=recorder.tensors)


@pytest.fixture(scope="module", params=["torch-torchscript", "torch-dynamo"])
def exported(request):
    torch.manual_seed(0)
    module, x = Net().eval(), torch.randn(2, 8, 6)
    for weight in module.parameters():
        nn.init.normal_(weight, 0, 0.3)
    nn.init.normal_(module.bn.running_mean)
    if request.param == "torch-dynamo":
        return module, x, torch.onnx.export(module, (x,), dynamo=True, verbose=False).model_proto
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, and its tracer warns of every decision
        torch.onnx.export(module, (x,), file, dynamo=False)
    return module, x, onnx.load_from_string(file.getvalue())


def matched(model, x, run):
    sample = {model.graph.input[0].name: x.numpy()}
    return match_layers(flatten(model, sample), sample, run, {})


def names(matching):
    return {name for match in matching.matches for name in (match.layer, *match.aliases)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "native"])
def test_the_layers_of_an_export_match_by_value(exported, dtype):
    module, x, model = exported
    matching = matched(model, x, recorded(module, x, dtype))
    assert names(matching) >= LAYERS
    assert {match.by for match in matching.matches} == {"value"}
    assert "conv and bn are one Conv" in matching.folded
    assert {gone.layer for gone in matching.unmatched} == {"conv"}


def test_a_changed_epsilon_is_found_at_its_layer(exported):
    module, x, model = exported
    changed = copy.deepcopy(model)
    node = next(node for node in changed.graph.node if node.op_type == "LayerNormalization")
    next(attribute for attribute in node.attribute if attribute.name == "epsilon").f = 0.05
    matching = matched(changed, x, recorded(module, x, torch.float64))
    assert names(matching) >= LAYERS
    assert {match.layer: (match.by, match.node) for match in matching.matches if match.by != "value"} == {
        "norm": ("source", node.name)
    }
