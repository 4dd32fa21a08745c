"""What a worker makes of what a framework's `train` returns: a record that is sound in its types, or a failure that names what is not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from faulty_training import trained

from actconform import Backend
from actconform.types import Case
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
    ],
)
def test_what_is_no_array_is_named_with_its_field(changes, words):
    _, record = trained("blobs-sgd")
    result = result_of(msgspec.structs.replace(record, **changes))
    assert result.record is None
    assert (result.failure.kind, result.failure.stage) == ("error", "run")
    assert words in result.failure.message


def test_what_is_no_record_is_named():
    result = result_of({"losses": []})
    assert "train returned a dict: wanted an actconform TrainingRecord" in result.failure.message
