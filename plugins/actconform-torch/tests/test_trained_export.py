"""A user's torch model exported: ONNX Runtime gives what the module gives, under the same names, at other batches too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch_networks import EXAMPLES, Keywords, Residual, UNet, drawn, made

from actconform import Unsupported
from actconform.types.trained import RunMode
from actconform_torch import TorchBackend, TorchDynamo, TorchScript

if TYPE_CHECKING:
    from actconform import Artifact, Exporter, TrainedModel

ort = pytest.importorskip("onnxruntime")

# Exporters warn of what they do not follow, and that they are deprecated: no matter here.
pytestmark = pytest.mark.filterwarnings("default")
EXPORTERS = [TorchDynamo, TorchScript]
# An export by way of torch.export takes seconds: one of each kind of inputs and outputs.
DYNAMO = ("keywords", "tied")


def opened(name: str) -> tuple[nn.Module, TrainedModel]:
    kind, example = EXAMPLES[name]
    module = made(kind)
    return module, TorchBackend().adopt_trained(module, example)


def exported(exporter: type[Exporter], model: TrainedModel, **options: Any) -> Artifact:
    return exporter().export_trained(model, model.about.example, **options)


def answers(artifact: Artifact, inputs: dict[str, Any]) -> dict[str, Any]:
    session = ort.InferenceSession(artifact.model, providers=["CPUExecutionProvider"])
    taken = {entry.name: inputs[entry.name] for entry in session.get_inputs()}
    return dict(zip([entry.name for entry in session.get_outputs()], session.run(None, taken), strict=True))


def agree(artifact: Artifact, model: TrainedModel, inputs: dict[str, Any]) -> None:
    wanted = model.run(inputs, RunMode()).outputs
    outputs = answers(artifact, inputs)
    assert list(outputs) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("exporter", "name"),
    [(TorchDynamo, name) for name in DYNAMO] + [(TorchScript, name) for name in EXAMPLES if name != "narrow"],
)
def test_the_graph_computes_the_model_under_its_names(exporter, name):
    _, model = opened(name)
    artifact = exported(exporter, model)
    inputs = dict(model.about.example)
    agree(artifact, model, inputs)
    if not artifact.warnings and name != "recurrent":
        agree(artifact, model, {key: np.concatenate([array, array, array]) for key, array in inputs.items()})


def test_the_batch_of_recurrent_states_is_dynamic_too():
    _, model = opened("recurrent")
    graph = onnx.load_from_string(exported(TorchScript, model).model).graph
    dims = {
        entry.name: [dim.dim_param or dim.dim_value for dim in entry.type.tensor_type.shape.dim]
        for entry in graph.input
    }
    assert dims == {"x": ["batch", 5, 4], "state.0": [4, "batch", 6], "state.1": [4, "batch", 6]}


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_batch_of_one_is_dynamic_too(exporter):
    model = TorchBackend().adopt_trained(made(Residual), drawn(1, 3, 5, 5))
    artifact = exported(exporter, model)
    assert artifact.warnings == ()
    agree(artifact, model, {"x": drawn(4, 3, 5, 5).numpy()})


def test_where_no_batch_can_be_dynamic_a_warning_says_so():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(2, 6) @ torch.ones(6, x.shape[0] * 3)

    model = TorchBackend().adopt_trained(Fixed(), drawn(2, 6))
    artifact = exported(TorchDynamo, model)
    assert any("batch" in warning for warning in artifact.warnings)
    agree(artifact, model, dict(model.about.example))


def test_what_fails_at_another_batch_is_exported_at_that_of_the_example():
    class Single(nn.Module):
        def forward(self, x):
            if x.shape[0] != 1:
                raise ValueError("one at a time")
            return x * 2

    model = TorchBackend().adopt_trained(Single(), drawn(1, 6))
    artifact = exported(TorchScript, model)
    (warning,) = artifact.warnings
    assert warning == "the batch is fixed: otherwise the export fails: ValueError: one at a time"
    agree(artifact, model, dict(model.about.example))


def test_names_of_layers_lie_in_the_graph():
    model = TorchBackend().adopt_trained(made(UNet), drawn(2, 1, 8, 8))
    graph = onnx.load_from_string(exported(TorchDynamo, model).model).graph
    scopes = {entry.value for node in graph.node for entry in node.metadata_props if "name_scopes" in entry.key}
    assert any("'middle'" in scope for scope in scopes)
    assert {"up.weight", "middle.bias"} <= {entry.name for entry in graph.initializer}
    names = {node.name for node in onnx.load_from_string(exported(TorchScript, model).model).graph.node}
    assert "/middle/Conv" in names


def test_training_mode_is_exported():
    module = nn.Sequential(nn.BatchNorm1d(3)).eval()
    with torch.no_grad():
        module[0].running_mean.fill_(7)
    model = TorchBackend().adopt_trained(module, drawn(8, 3))
    outputs = answers(exported(TorchScript, model, training=True), dict(model.about.example))
    wanted = model.run(model.about.example, RunMode(training=True)).outputs["output"]
    np.testing.assert_allclose(next(iter(outputs.values())), wanted, rtol=1e-4, atol=1e-5)
    assert abs(wanted.mean()) < 1e-5
    assert module[0].running_mean[0] == 7


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_operator_that_onnx_lacks_is_named(exporter):
    class Lacking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(Eigenvalues())

        def forward(self, x):
            return self.inner(x + 1)

    model = TorchBackend().adopt_trained(Lacking(), drawn(3, 3))
    with pytest.raises(Unsupported, match="linalg_eig") as raised:
        exported(exporter, model)
    assert str(raised.value).endswith(" (in layer inner.0)")


class Eigenvalues(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x).real


def test_inputs_that_no_exporter_takes_are_flattened():
    class Holder:
        """What torch cannot look into, as a cache is."""

        def __init__(self, value: torch.Tensor) -> None:
            self.value = value

    class Cached(nn.Module):
        def forward(self, x, cache):
            return x + cache.value, Holder(x * 2)

    model = TorchBackend().adopt_trained(Cached(), (drawn(2, 3), Holder(drawn(2, 3))))
    assert [spec.name for spec in model.about.inputs] == ["x", "cache.value"]
    artifact = exported(TorchScript, model)
    agree(artifact, model, dict(model.about.example))


def test_exporting_leaves_no_trace():
    module = made(Keywords).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    kept = dict(module.named_parameters())
    model = TorchBackend().adopt_trained(module, EXAMPLES["keywords"][1])
    for exporter in EXPORTERS:
        exported(exporter, model)
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter is kept[name] for name, parameter in module.named_parameters())
