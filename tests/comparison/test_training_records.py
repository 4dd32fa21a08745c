"""Records of trainings that lack something, or hold it in another shape or dtype: findings, never exceptions."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from faulty_training import compared, task_of, trained

from actconform.comparison.training_records import first_non_finite, not_learned, record_findings
from actconform.types import FindingClass

NAME = "blobs-momentum"
KERNEL = "dense1.kernel"


def without(bundle, name):
    return {key: array for key, array in bundle.items() if key != name}


def replaced(bundle, name, change):
    return {**bundle, name: change(bundle[name])}


BAD = {
    "no predictions": (lambda r: {"predictions": {}}, "names", "inference", "validation", "'validation' is missing; got nothing"),
    "a slot": (
        lambda r: {"states": without(r.states, f"{KERNEL}/momentum")}, "names", "optimizer", f"{KERNEL}/momentum", "is missing; got dense1.bias",
    ),
    "what nobody asked for": (
        lambda r: {"states": {**r.states, "extra": np.ones(1, np.float32)}}, "names", "optimizer", "extra", "'extra' was not asked for",
    ),
    "a gradient": (lambda r: {"gradients": without(r.gradients, f"d_{KERNEL}")}, "names", "gradient", f"d_{KERNEL}", "is missing"),
    "a final parameter": (lambda r: {"final": without(r.final, KERNEL)}, "names", "final", KERNEL, "is missing"),
    "transposed": (
        lambda r: {"states": replaced(r.states, KERNEL, lambda a: a.swapaxes(1, 2))}, "shape", "optimizer", KERNEL,
        "shape [5, 12, 2], expected [5, 2, 12]",
    ),
    "a step less": (
        lambda r: {"states": {key: array[:-1] for key, array in r.states.items()}}, "shape", "optimizer", KERNEL, "shape [4, 2, 12]",
    ),
    "float64": (lambda r: {"final": replaced(r.final, KERNEL, np.float64)}, "dtype", "final", KERNEL, "dtype float64, expected float32"),
    "integer predictions": (
        lambda r: {"predictions": replaced(r.predictions, "examples", lambda a: a.astype(np.int64))}, "dtype", "inference", "examples",
        "dtype int64, expected float32",
    ),
    "columns of predictions": (
        lambda r: {"predictions": replaced(r.predictions, "validation", lambda a: a[:, :1])}, "shape", "inference", "validation", "shape [80, 1]",
    ),
    "an epoch less": (
        lambda r: {"losses": r.losses[:-20], "validation_losses": r.validation_losses[:-1]}, "shape", "inference", "validation loss",
        "shape [1], expected a loss after each epoch, 2",
    ),
    "a loss less": (
        lambda r: {"losses": r.losses[:-1]}, "shape", "loss", "loss", "shape [39], expected a loss of each step, 20 in each of 2 epochs",
    ),
    "no losses": (lambda r: {"losses": np.float32(1.0) * np.ones(())}, "shape", "loss", "loss", "shape []"),
    "losses of text": (lambda r: {"losses": r.losses.astype(str)}, "dtype", "loss", "loss", "expected a floating-point dtype"),
    "losses of integers": (lambda r: {"losses": r.losses.astype(int)}, "dtype", "loss", "loss", "dtype int64"),
    "validation of a matrix": (
        lambda r: {"validation_losses": np.ones((2, 2), np.float32)}, "shape", "inference", "validation loss", "shape [2, 2]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_record_is_a_finding_and_nothing_else_is_judged(case):
    change, class_, regime, tensor, words = BAD[case]
    _, record = trained(NAME)
    result = compared(NAME, msgspec.structs.replace(record, **change(record)))
    assert (result.sound, result.measurements, result.first) == (False, [], None)
    named = [finding for finding in result.findings if finding.tensor == tensor]
    assert {(finding.class_, finding.regime) for finding in named} == {(class_, regime)}
    assert words in named[0].evidence


def test_a_record_that_is_all_there_has_no_finding():
    task, record = trained(NAME)
    assert record_findings(task, record) == []
    assert first_non_finite(task, record) is None
    assert record_findings(task, msgspec.structs.replace(record, gradients={})) == []
    wide = msgspec.structs.replace(record, losses=record.losses.astype(np.float64))
    assert record_findings(task, wide) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: {"losses": np.where(np.arange(40) == 6, np.nan, r.losses)},
            "the first NaN is at step 7, loss: loss",
        ),
        (
            lambda r: {
                "states": replaced(r.states, KERNEL, lambda a: np.where(np.arange(5)[:, None, None] > 2, np.inf, a))
            },
            f"the first infinity is at step 3, optimizer: {KERNEL} [0, 0]",
        ),
        (
            lambda r: {"final": replaced(r.final, KERNEL, lambda a: a * np.nan)},
            f"the first NaN is in the final: {KERNEL} [0, 0]",
        ),
        (
            lambda r: {"validation_losses": r.validation_losses * np.nan},
            "the first NaN is in the inference: validation loss [0]",
        ),
    ],
)
def test_the_first_number_that_is_none_is_named(change, words):
    task, record = trained(NAME)
    bad = msgspec.structs.replace(record, **change(record))
    first = first_non_finite(task, bad)
    finding = not_learned(task.experiment, bad, first)
    assert (finding.class_, finding.regime) == (FindingClass.PROPERTY, "not finite")
    assert words in finding.evidence
    assert finding.evidence.endswith("nothing is called learned")
    assert task_of(NAME).experiment.claims == ()
