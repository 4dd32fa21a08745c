"""What a worker makes of what a framework's `train` returns: a record that is sound in its types, or a failure that names what is not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from faulty_training import trained
from onnx import parser

from actconform import Artifact, Backend, Program
from actconform.types import Case
from actconform.types.training import Forms
from actconform.workers.protocol import TrainingJob
from actconform.workers.training_session import do_training

CASE = Case("blobs-sgd", "training", "f32", "torch")


class Returning(Backend):
    name, kind = "torch", "framework"

    def __init__(self, returned):
        self.returned = returned

    def facts(self):
        return {}

    def train(self, task):
        return self.returned


class Taking:
    def __init__(self, backend):
        self.backend = backend

    def taking(self, case):
        return self.backend


def result_of(returned):
    task, _ = trained("blobs-sgd")
    return do_training(Taking(Returning(returned)), TrainingJob(CASE, task))


def test_a_record_comes_through_as_copies():
    _, record = trained("blobs-sgd")
    result = result_of(record)
    assert result.failure is None
    np.testing.assert_array_equal(result.record.losses, record.losses)
    assert result.record.final["dense1.kernel"] is not record.final["dense1.kernel"]
    assert result.record.forms == record.forms


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"losses": [1.0, 2.0]}, "list as 'losses'"),
        ({"validation_losses": None}, "None as 'validation_losses'"),
        ({"final": None}, "train, in final of its record, returned None"),
        ({"predictions": {"examples": [[1.0]]}}, "train, in predictions of its record, returned a list as 'examples'"),
        ({"states": {3: np.zeros(1)}}, "train, in states of its record, returned the key 3"),
        ({"seconds": "long"}, "str as 'seconds': wanted a number"),
        ({"seconds": None}, "None as 'seconds': wanted a number"),
        ({"implementation": 3}, "int as 'implementation': wanted a text"),
        ({"forms": "x"}, "in forms of its record: wanted an actconform Forms"),
        ({"forms": Forms(variance="odd")}, "in forms of its record: wanted an actconform Forms"),
    ],
)
def test_what_is_no_array_is_named_with_its_field(changes, words):
    _, record = trained("blobs-sgd")
    result = result_of(msgspec.structs.replace(record, **changes))
    assert result.record is None
    assert (result.failure.kind, result.failure.stage) == ("error", "run")
    assert words in result.failure.message


def test_seconds_of_numpy_can_be_sent():
    _, record = trained("blobs-sgd")
    result = result_of(msgspec.structs.replace(record, seconds=np.float64(1.5)))
    assert msgspec.json.decode(msgspec.json.encode(result.record.seconds)) == 1.5


def test_what_is_no_record_is_named():
    result = result_of({"losses": []})
    assert "train returned a dict: wanted an actconform TrainingRecord" in result.failure.message


EMPTY = parser.parse_model(
    '<ir_version: 9, opset_import: ["" : 18]> g (float[n] x) => (float[n] loss) { loss = Tanh (x) }'
)
GRAPH = Artifact(EMPTY.SerializeToString(), 18, "model")


class Raising(Program):
    """A program that raises when it is called or closed, where it is told to."""

    def __init__(self, closing, *, refuses):
        self.closing, self.refuses, self.closed = closing, refuses, False

    def forward(self, inputs):
        if self.refuses:
            raise RuntimeError("no step")
        return {"loss": np.zeros(()), "y": np.zeros(1)}

    def close(self):
        self.closed = True
        if self.closing:
            raise RuntimeError("no end")


class Loading(Backend):
    name, kind = "ort-cpu", "runtime"

    def __init__(self, *, loads=2, closing=False, refuses=False):
        self.loads, self.closing, self.refuses, self.programs = loads, closing, refuses, []

    def facts(self):
        return {}

    def load(self, artifact, dtype):
        if len(self.programs) == self.loads:
            raise RuntimeError("no graph")
        self.programs.append(Raising(self.closing, refuses=self.refuses))
        return self.programs[-1]


@pytest.mark.parametrize(
    ("how", "stage", "words"),
    [
        ({"loads": 0}, "load", "no graph"),
        ({"loads": 1}, "load", "no graph"),
        ({"refuses": True}, "run", "no step"),
        ({"refuses": True, "closing": True}, "run", "no step"),
        ({"closing": True}, "run", "no end"),
    ],
)
def test_a_training_by_graphs_fails_where_it_fails_and_closes_what_was_loaded(how, stage, words):
    backend = Loading(**how)
    task, _ = trained("blobs-sgd")
    result = do_training(Taking(backend), TrainingJob(CASE, task, step=GRAPH, inference=GRAPH))
    assert result.record is None
    assert (result.failure.stage, words in result.failure.message) == (stage, True)
    assert [program.closed for program in backend.programs] == [True] * how.get("loads", 2)
