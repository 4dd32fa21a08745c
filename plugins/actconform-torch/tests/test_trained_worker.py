"""A user's torch model in a worker of its own, as `actconform check` runs it."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest

from actconform.checking.runs import RunFailure
from actconform.checking.trained.runs import TrainedRuns
from actconform.settings import Config
from actconform.types.trained import RunMode, TrainedSource
from actconform.workers.from_settings import configured_worker

MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, ids, scale=None):
        y = self.drop(self.norm(self.embed(ids)))
        return {"hidden": y, "pooled": y.mean(1)}

class Careless(Net):
    def forward(self, ids):
        return torch.nn.functional.dropout(super().forward(ids)["hidden"], 0.5)

def make():
    torch.manual_seed(1)
    return Net().eval(), {"ids": torch.tensor([[1, 2, 3], [4, 5, 6]])}

def careless():
    return Careless()

def failing():
    return open("weights.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("user")
    (path / "usernet.py").write_text(MODULE)
    return path


@pytest.fixture(scope="module")
def worker():
    with configured_worker("torch", Config()) as running:
        yield running


def runs_of(worker, folder, name):
    return TrainedRuns("torch", TrainedSource("factory", f"usernet:{name}", str(folder)), worker, 300.0)


def test_a_model_is_opened_run_recorded_differentiated_and_exported(worker, folder):
    runs = runs_of(worker, folder, "make")
    about = runs.open()
    assert not isinstance(about, RunFailure), about
    assert about.about == "Net (torch.nn.Module), 36 weights"
    assert msgspec.json.decode(msgspec.json.encode(about.inputs)) == [
        {"name": "ids", "dtype": "int64", "dims": [None, None]}
    ]
    result = runs.run(about.example, RunMode("float64"), layers=True, twice=True)
    assert not isinstance(result, RunFailure), result
    assert result.unsteady == []
    assert result.mutated == []
    assert [layer.name for layer in result.run.layers] == ["embed", "norm", "drop", ":mean", ""]
    assert result.run.outputs["hidden"].dtype == np.float64
    parameters = runs.parameters()
    assert set(parameters) == {"embed.weight", "norm.weight", "norm.bias"}
    cotangents = {"pooled": np.ones((2, 4)), "hidden": np.zeros((2, 3, 4))}
    gradients = runs.gradients(about.example, cotangents, RunMode("float64"))
    np.testing.assert_allclose(gradients["d_norm.bias"], np.full(4, 2.0))
    artifact = runs.export("torch-torchscript", about.example)
    assert not isinstance(artifact, RunFailure), artifact
    graph = onnx.load_from_string(artifact.model).graph
    assert [entry.name for entry in graph.output] == ["hidden", "pooled"]


def test_dropout_that_is_left_on_is_unsteady(worker, folder):
    result = runs_of(worker, folder, "careless").run({"ids": np.array([[1, 2, 3, 4]] * 8)}, twice=True)
    assert not isinstance(result, RunFailure), result
    assert result.unsteady == ["output"]


@pytest.mark.parametrize(
    ("name", "inputs", "kind", "words"),
    [
        ("failing", {}, "source", "usernet:failing raised FileNotFoundError"),
        ("make", {"ids": np.array([[1, 70]])}, "source", "layer embed (Embedding) raised IndexError: index out of range in self"),
        ("make", {"idz": np.array([[1]])}, "source", "no input 'ids'"),
    ],
)  # fmt: skip
def test_what_the_user_must_change_is_told(worker, folder, name, inputs, kind, words):
    failure = runs_of(worker, folder, name).run(inputs)
    assert isinstance(failure, RunFailure)
    assert failure.kind == kind
    assert words in failure.message
