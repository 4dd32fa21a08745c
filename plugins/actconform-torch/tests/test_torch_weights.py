"""What becomes of trained weights in the graphs that torch's exporters write."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import actconform
from actconform.checking.flatten import flatten
from actconform.checking.trained.weights import compare_weights
from actconform.types.trained import LayerRecord
from actconform_torch import torch_module as module

pytest.importorskip("onnxscript")

EXPORTERS = {"dynamo": True, "torchscript": False}


@pytest.fixture(scope="module")
def torch() -> Any:
    return module.import_torch()


def conv_net(nn):
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8, eps=1e-3)),
        *(nn.ConvTranspose2d(8, 4, 2, stride=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 24 * 24, 7)),
    ), (2, 3, 16, 16)


def encoder(nn):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (2, 5, 8)


def recurrent(kind):
    def make(nn):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = getattr(nn, kind)(6, 5, num_layers=2, bidirectional=True, batch_first=True)
                self.out = nn.Linear(10, 10)

            def forward(self, x):
                return self.out(self.rnn(x)[0])

        return Net(), (2, 7, 6)

    return make


MODELS = {"conv net": conv_net, "encoder": encoder, "lstm": recurrent("LSTM"), "gru": recurrent("GRU")}


def trained(torch, name):
    """Return a module with weights drawn by chance, which no two layers share, and a sample for it."""
    made, shape = MODELS[name](torch.nn)
    generator = torch.Generator().manual_seed(3)
    for path, tensor in made.state_dict().items():
        if path.endswith("running_var"):
            tensor.uniform_(0.1, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(1.0 if path.endswith("norm1.weight") else 0.0, 0.5, generator=generator)
    return made.eval(), torch.randn(shape, generator=generator)


@cache  # an export by way of torch.export takes seconds
def exported(torch, name, exporter):
    """Return a trained module, a sample, and the graph that an exporter writes."""
    made, sample = trained(torch, name)
    return made, sample, written(torch, made, sample, exporter)


def written(torch, made, sample, exporter):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if EXPORTERS[exporter]:
            return torch.onnx.export(made, (sample,), dynamo=True, verbose=False).model_proto
        torch.onnx.export(made, (sample,), file, dynamo=False)
    return onnx.load_from_string(file.getvalue())


def layers_of(made):
    return [
        LayerRecord(
            path,
            f"{type(inner).__module__}.{type(inner).__qualname__}",
            (),
            (),
            tuple(
                f"{path}.{name}".lstrip(".")
                for name in (*dict(inner.named_parameters(recurse=False)), *dict(inner.named_buffers(recurse=False)))
            ),
        )
        for path, inner in made.named_modules()
    ]


def weights_in(made, sample, graph, *, layers=True):
    flat = flatten(graph, {graph.graph.input[0].name: sample.numpy()})
    parameters = {name: tensor.numpy() for name, tensor in made.state_dict().items()}
    comparison = compare_weights(parameters, flat, layers_of(made) if layers else [])
    return {check.parameter: check for check in comparison.checks}, comparison


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("layers", [True, False])
def test_a_conv_net_with_its_batch_norms_folded(torch, exporter, layers):
    made, sample, graph = exported(torch, "conv net", exporter)
    checks, comparison = weights_in(made, sample, graph, layers=layers)
    states = {name: check.state for name, check in checks.items()}
    counters = {name for name in states if name.endswith("num_batches_tracked")}
    assert {states[name] for name in counters} == {"unused"}
    assert states["0.weight"] == states["0.bias"] == states["1.weight"] == states["1.running_var"] == "folded"
    assert states["3.weight"] == states["4.bias"] == "folded"
    assert set(states.values()) <= {"identical", "transposed", "folded", "unused"}, states
    assert {"0.weight", "0.bias", "3.weight", "5.weight", "5.bias", "8.weight", "8.bias"} <= set(
        comparison.owners.values()
    )


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_encoder_loses_no_bit(torch, exporter):
    made, sample, graph = exported(torch, "encoder", exporter)
    checks, comparison = weights_in(made, sample, graph)
    assert {check.state for check in checks.values()} <= {"identical", "transposed", "reshaped"}, checks
    assert all(check.exact for check in checks.values())
    assert set(comparison.owners.values()) == set(checks)
    # One weight in float16: it alone is told.
    (name,) = checks["layers.1.linear1.weight"].initializers
    graph = onnx.load_from_string(graph.SerializeToString())
    for tensor in graph.graph.initializer:
        if tensor.name == name:
            rounded = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, name))
    checks, _ = weights_in(made, sample, graph)
    inexact = [check for check in checks.values() if not check.exact]
    assert [(check.parameter, check.state, check.kind) for check in inexact] == [
        ("layers.1.linear1.weight", "different", "rounded and back")
    ]
    assert inexact[0].layer == "layers.1.linear1"


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gates_of_recurrent_layers_are_reordered_and_no_bit_is_lost(torch, exporter, name):
    made, sample, graph = exported(torch, name, exporter)
    checks, comparison = weights_in(made, sample, graph)
    for path, check in checks.items():
        assert check.exact, check
        if path.startswith("rnn"):
            assert check.state == "merged"
            assert "gates" in check.words
    assert set(comparison.owners.values()) >= {
        f"rnn.{part}_l{i}" for part in ("weight_ih", "weight_hh", "bias_ih") for i in (0, 1)
    }


def test_one_changed_element_of_a_gru_is_named_and_blamed(torch):
    made, sample, graph = exported(torch, "gru", "torchscript")
    graph = onnx.load_from_string(graph.SerializeToString())
    (first,) = [node for node in graph.graph.node if node.op_type == "GRU"][:1]
    (tensor,) = [tensor for tensor in graph.graph.initializer if tensor.name == first.input[1]]
    array = numpy_helper.to_array(tensor).copy()
    array[1, 7, 3] *= np.float32(1.001)  # the reverse direction, gate r: row 2 as torch has it
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    inputs = {graph.graph.input[0].name: sample.numpy()}
    checked = actconform.check(graph, against=made, inputs=inputs, runtimes=("onnx-reference",))
    fault = checked.first.fault
    assert (fault.blame, fault.layer) == ("exporter", "rnn")
    words = next(words for words in fault.evidence if words.startswith("weight"))
    assert words.startswith("weight rnn.weight_ih_l0_reverse: one of 90 values, at [2, 3]: ")
