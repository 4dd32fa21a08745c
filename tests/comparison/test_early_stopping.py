"""When training must end by its validation losses, and which epoch is the best, by hand."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from actconform.catalog.experiments import experiments
from actconform.comparison.early_stopping import definitions, restored_epochs, stopping_findings
from actconform.types.training import EarlyStopping
from actconform.types.training_run import TrainingRecord

STOPPING = EarlyStopping(min_delta=0.5, patience=2)
BLOBS = next(one for one in experiments() if one.name == "blobs-stopped")
EXPERIMENT = msgspec.structs.replace(BLOBS, stopping=STOPPING, epochs=6)


def record_of(losses):
    empty = np.zeros(0, np.float32)
    return TrainingRecord(
        losses=empty, states={}, final={}, predictions={}, validation_losses=np.asarray(losses, np.float32)
    )


@pytest.mark.parametrize(
    ("losses", "last", "best"),
    [
        ([4.0, 3.0, 2.0], None, 3),
        ([4.0, 3.0, 2.75, 2.625], 4, 2),  # each a little better, none by 0.5
        ([4.0, 3.0, 2.75, 2.25, 2.0, 2.0], 6, 4),  # 2.25 is 0.75 below the best, 3.0, and not below the one before
        ([4.0, 5.0, 5.0, 1.0], 3, 1),  # what comes afterwards does not matter
        ([math.nan, math.nan], 2, 0),
        ([math.nan, 3.0, math.nan, 4.0], 4, 2),
    ],
)
def test_training_ends_when_patience_is_at_an_end(losses, last, best):
    assert [(stop.last, stop.best) for stop in definitions(STOPPING, losses)] == [(last, best)]


def test_where_rounding_decides_both_are_right():
    edge = float(np.nextafter(np.float32(3.5), np.float32(0.0)))  # 0.5 below 4.0, but for a rounding
    stops = definitions(STOPPING, [4.0, edge, 3.375])
    assert {(stop.last, stop.best) for stop in stops} == {(None, 2), (None, 3)}
    assert set(restored_epochs(EXPERIMENT, [4.0, edge, 3.375])) == {2, 3}


def test_the_epoch_that_is_restored_is_the_best_or_without_stopping_the_last():
    assert restored_epochs(EXPERIMENT, [4.0, 3.0, 2.75, 2.625]) == [2]
    assert restored_epochs(EXPERIMENT, [math.nan, math.nan]) == [2]
    assert restored_epochs(msgspec.structs.replace(EXPERIMENT, stopping=None), [4.0, 3.0, 3.5]) == [3]


@pytest.mark.parametrize(
    "losses", [[4.0, 3.0, 2.75, 2.625], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0, 1.0, 1.0]]
)
def test_an_end_that_follows_from_the_losses_is_no_finding(losses):
    assert stopping_findings(EXPERIMENT, record_of(losses)) == []


def test_an_end_too_early_and_too_late_say_when_it_must_be():
    (early,) = stopping_findings(EXPERIMENT, record_of([4.0, 3.0, 2.75]))
    assert early.evidence == (
        "ended after epoch 3 of 6, where it must go on (patience 2, min_delta 0.5; best epoch 2, validation loss 3)"
    )
    (late,) = stopping_findings(EXPERIMENT, record_of([4.0, 3.0, 2.75, 2.625, 2.625]))
    assert late.evidence == (
        "ran to epoch 5, where it must end after epoch 4 (patience 2, min_delta 0.5; best epoch 2, validation loss 3)"
    )
    assert (late.class_, late.regime, late.tensor) == ("property", "early stopping", "epochs")
