"""A checkpoint gives back what was written, to other readers too, and nothing else passes for one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from actconform.errors import UsageError
from actconform.training.checkpoint import (
    TrainIdentity,
    TrainProgress,
    expect_free_names,
    read_checkpoint,
    write_checkpoint,
)
from actconform.training.request import TrainSettings
from actconform.types.training import EarlyStopping, Optimizer

safetensors = pytest.importorskip("safetensors")

SETTINGS = TrainSettings(
    loss="mean-squared-error",
    optimizer=Optimizer(kind="sgd", learning_rate=0.1, momentum=0.9),
    output="y",
    target="t",
    batch=8,
    parameters=("w",),
    validation=0.2,
    stopping=EarlyStopping(min_delta=0.0, patience=4),
    runtime="ort-cpu",
    seed=0,
)
IDENTITY = TrainIdentity(model="a" * 64, data="b" * 64, settings=SETTINGS)
STATE = {"w": np.array([[0.1, -0.0], [1e-40, 3.0]], np.float32), "w/momentum": np.ones((2, 2), np.float32)}
PROGRESS = TrainProgress(
    step=7,
    state=STATE,
    losses=np.linspace(3, 1, 7, dtype=np.float32),
    validation=np.array([2.5, 1.5], np.float32),
    best={"w": np.full((2, 2), 5, np.float32)},
    best_loss=1.5,
    waited=3,
    ended=True,
)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    write_checkpoint(file, IDENTITY, PROGRESS, 2)
    return file


def test_any_reader_of_safetensors_finds_weights_and_what_they_are_of(path):
    with safetensors.safe_open(path, "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("w"), STATE["w"])
        about = msgspec.json.decode(file.metadata()["actconform"])
    assert (about["step"], about["epoch"]) == (7, 2)
    assert about["identity"]["settings"]["optimizer"]["learning_rate"] == 0.1
    assert about["identity"]["model"] == "a" * 64


def assert_the_same(progress):
    for field in ("state", "best"):
        stored, given = getattr(progress, field), getattr(PROGRESS, field)
        assert list(stored) == list(given)
        assert all(stored[name].tobytes() == given[name].tobytes() for name in given)
    for field in ("losses", "validation"):
        np.testing.assert_array_equal(getattr(progress, field), getattr(PROGRESS, field))
    assert [progress.step, progress.best_loss, progress.waited, progress.ended] == [7, 1.5, 3, True]


def test_what_was_written_is_read_bit_for_bit(path):
    assert_the_same(read_checkpoint(path, IDENTITY, STATE))


def test_a_byte_that_has_changed_changes_no_number_unnoticed(path):
    content = path.read_bytes()
    refused = 0
    places = range(0, len(content), 5)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        try:
            progress = read_checkpoint(path, IDENTITY, STATE)
        except UsageError:
            refused += 1
        else:
            assert_the_same(progress)  # a key of a setting whose default is the same
    assert refused > 0.9 * len(places)


def test_a_file_that_ends_early_is_damaged(path):
    content = path.read_bytes()
    for length in (0, 5, 8, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UsageError, match="damaged"):
            read_checkpoint(path, IDENTITY, STATE)


def changed(**settings):
    return msgspec.structs.replace(IDENTITY, settings=msgspec.structs.replace(SETTINGS, **settings))


OTHERS = {
    "model": (msgspec.structs.replace(IDENTITY, model="c" * 64), ["another model", "aaaa", "cccc"]),
    "data": (msgspec.structs.replace(IDENTITY, data="c" * 64), ["other data", "bbbb", "cccc"]),
    "batch": (changed(batch=9), ["--batch is 9", "checkpoint has 8"]),
    "parameters": (changed(parameters=("w", "v")), ["--parameters is w, v", "checkpoint has w"]),
    "stopping": (changed(stopping=None), ["--stop-", "not given"]),
    "momentum": (
        changed(optimizer=Optimizer(kind="sgd", learning_rate=0.1, momentum=0.8)),
        ["--momentum is 0.8", "checkpoint has 0.9"],
    ),
}


@pytest.mark.parametrize(("identity", "expected"), OTHERS.values(), ids=OTHERS.keys())
def test_another_training_is_refused_with_both_named(path, identity, expected):
    with pytest.raises(UsageError) as raised:
        read_checkpoint(path, identity, STATE)
    for text in expected:
        assert text in str(raised.value)


def test_a_foreign_file_of_safetensors_is_no_checkpoint(path):
    from safetensors.numpy import save_file

    save_file({"w": STATE["w"]}, path)
    with pytest.raises(UsageError, match="no checkpoint"):
        read_checkpoint(path, IDENTITY, STATE)


def test_a_state_of_other_tensors_is_refused(path):
    for initial in ({"w": STATE["w"]}, {**STATE, "v": STATE["w"]}, {**STATE, "w": np.zeros(3, np.float32)}):
        with pytest.raises(UsageError, match="damaged"):
            read_checkpoint(path, IDENTITY, initial)


def test_weights_called_as_what_a_checkpoint_has_beside_them_are_refused():
    expect_free_names(["w", "best", "history"])
    for names in (["history/loss"], ["w", "best/w"], ["w", "best/other"]):
        with pytest.raises(UsageError, match=names[-1]):
            expect_free_names(names)
