"""Rows over seeds: what diverged counts as beyond every loss, and the words say how many of which."""

from __future__ import annotations

import math

import pytest

from actconform.catalog.experiments import experiments
from actconform.catalog.kernels import KERNELS
from actconform.study.plan import Excluded, StudyPlan
from actconform.study.summary import study_rows
from actconform.study.trial import Trial

EXPERIMENT = next(each for each in experiments() if each.name == "noise-relu")
PLAN = StudyPlan(
    experiments=(EXPERIMENT,), roles=("hidden",), kernels=tuple(KERNELS.values()), seeds=3, epochs=0, reach=0.5
)


def trial(kernel, seed, losses, **changed):
    diverged = next((step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)), 0)
    about = {"experiment": "noise-relu", "variant": "", "role": "hidden", "kernel": kernel, "seed": seed}
    return Trial(**{**about, "losses": losses, "validation": losses, "constant": 1.0, "diverged": diverged, **changed})


def rows(*trials, excluded=()):
    return {row.kernel: row for row in study_rows(PLAN, trials, excluded)}


def test_a_row_has_medians_and_extremes():
    row = rows(
        trial("relu", 0, (1.0, 0.4), reached=9, rank=7.0, gradients_before={"a": 1.0, "b": 2.0}),
        trial("relu", 1, (1.2, 0.1), reached=5, rank=8.0, gradients_before={"a": 6.0, "b": 2.0}),
        trial("relu", 2, (1.1, 0.3), rank=3.0, gradients_before={"a": 2.0, "b": 2.0}),
    )["relu"]
    assert (row.loss.median, row.loss.low, row.loss.high) == (0.3, 0.1, 0.4)
    assert row.curve == (1.1, 0.3)
    assert (row.low, row.high) == ((1.0, 0.1), (1.2, 0.4))
    assert (row.reached, row.reached_seeds, row.rank, row.gradient_ratio) == (7.0, 2, 7.0, 1.0)
    assert row.gradients_before == {"a": 2.0, "b": 2.0}
    assert row.present
    assert row.words == "learns"


def test_most_seeds_diverging_leaves_no_median():
    row = rows(
        trial("tanh", 0, (0.9, math.nan)), trial("tanh", 1, (math.inf, 0.5)), trial("tanh", 2, (0.9, 0.7), dead=0.5)
    )["tanh"]
    assert math.isnan(row.loss.median)
    assert (row.loss.low, row.diverged_seeds, row.dead) == (0.7, 2, 0.5)
    assert row.words == "diverged at step 1 to 2 (2 of 3); learns (1 of 3)"
    assert not row.present


def test_a_seed_that_diverged_counts_as_beyond_the_others():
    row = rows(trial("tanh", 0, (0.9, math.nan)), trial("tanh", 1, (0.8, 0.2)), trial("tanh", 2, (0.9, 0.7)))["tanh"]
    assert (row.loss.median, row.loss.low) == (0.7, 0.2)
    assert math.isnan(row.loss.high)
    assert row.curve == (0.9, 0.7)


@pytest.mark.parametrize(
    ("loss", "words"), [(0.97, "learns"), (0.985, "no better than a constant"), (1.2, "worse than a constant")]
)
def test_near_the_best_constant_nothing_is_learned(loss, words):
    assert rows(trial("tanh", 0, (1.0, loss)))["tanh"].words == words


def test_the_least_loss_comes_first_and_what_was_not_trained_last():
    order = rows(
        trial("elu", 0, (), failure="refused: no"),
        trial("tanh", 0, (math.nan,)),
        trial("relu", 0, (0.5,)),
        trial("selu", 0, (0.2,)),
        trial("selu", 1, (), failure="no answer: it died"),
        excluded=[Excluded("noise-relu", "hidden", "max", "makes one number of a row")],
    )
    assert list(order) == ["selu", "relu", "tanh", "elu", "max"]
    assert order["selu"].words == "learns; 1 of 2 failed"
    assert order["elu"].reason == "refused: no"
    assert order["max"].reason == "not applicable: makes one number of a row"
