"""What the page has of a training: its losses, measures and claims, and the first wrong step."""

from __future__ import annotations

import made
import pytest

from actconform.report.html.data import page_data
from actconform.types import Worst
from actconform.types.result import Curve
from actconform.types.training import Claim

NAN = float("nan")
CASE = "noise-relu/training/f32/torch"
CLAIMS = (
    Claim(text="noise is learned by rote", measure="loss", at_most=0.6, published="0.56"),
    Claim(text="and generalizes worse", measure="validation loss", at_least=1.2),
)


def wrong(step, part="optimizer", **fields):
    worst = Worst(input_hex="0x3f800000", index=3, truth=1.5, got=1.25, ulp=40.0, scaled=40.0)
    evidence = f"first at step {step}, {part}: dense1.kernel [3] is 1.25, expected 1.5, 40 times its bound"
    return made.finding(
        "scaled-error", regime=part, tensor="dense1.kernel", low="", high="", worst=worst, evidence=evidence, **fields
    )


def curve(**fields):
    measures = {"loss": 0.5, "validation loss": 1.0}
    losses = {"first": (1.0, 0.75), "losses": (0.875, 0.5), "validation": (1.0, 1.0)}
    return Curve(**{**losses, "measures": measures, "claims": CLAIMS, "steps": 2, "about": "mlp on noise", **fields})


@pytest.fixture
def shown(tmp_path):
    def showing(*findings, **fields):
        report = made.report(made.result(CASE, findings=findings, curve=curve(**fields)))
        data = page_data(report, tmp_path, trends={}, register=())
        return data["cases"][0]["l"], data["texts"]

    return showing


def test_losses_and_measures_are_there_and_what_is_no_number_is_a_word(shown):
    line, texts = shown(losses=(0.875, NAN), epoch=1)
    assert (line["s"], line["t"], line["v"]) == ([1, 0.75], [0.875, "nan"], [1, 1])
    assert (line["e"], line["n"], texts[line["a"]]) == (1, 2, "mlp on noise")
    assert line["x"] == {"loss": 0.5, "validation loss": 1}


def test_each_claim_has_its_limits_in_words_and_whether_it_holds(shown):
    line, texts = shown()
    assert [[texts[word] for word in claim[:4]] + claim[4:] for claim in line["c"]] == [
        ["noise is learned by rote", "loss", "at most 0.6", "0.56", 1],
        ["and generalizes worse", "validation loss", "at least 1.2", "", 0],
    ]


def test_a_claim_whose_measure_is_missing_or_nan_does_not_hold(shown):
    line, _ = shown(measures={"loss": NAN})
    assert [claim[4] for claim in line["c"]] == [0, 0]


def test_of_a_training_that_came_to_no_numbers_no_claim_is_judged(shown):
    line, _ = shown(measures={})
    assert [claim[4] for claim in line["c"]] == [None, None]


def test_the_first_wrong_step_is_that_of_the_curve_in_the_words_of_its_finding(shown):
    later = made.finding("scaled-error", regime="free running", evidence="first of all at step 1")
    line, texts = shown(later, wrong(3, "gradient"), wrong_step=3)
    assert line["w"] == 3
    assert texts[line["why"]].startswith("first at step 3, gradient: dense1.kernel [3]")
    assert shown(later)[0]["w"] == 0


def test_a_wrong_step_that_a_cause_explains_is_known_by_it(shown):
    line, texts = shown(wrong(3, deviation="keras-clips"), wrong_step=3)
    assert (line["w"], texts[line["d"]]) == (3, "keras-clips")
    assert "d" not in shown(wrong(3, deviation="keras-clips"), wrong(3), wrong_step=3)[0]


def test_a_step_whose_loss_is_no_number_is_a_wrong_step(shown):
    evidence = (
        "the loss is no number from step 5 on; the first NaN is at step 4, optimizer: w; nothing is called learned"
    )
    line, texts = shown(made.finding("property", regime="not finite", worst=None, evidence=evidence), wrong_step=4)
    assert (line["w"], texts[line["why"]]) == (4, evidence)


def test_a_case_that_trains_nothing_has_no_curve(tmp_path):
    data = page_data(made.report(made.result()), tmp_path, trends={}, register=())
    assert "l" not in data["cases"][0]
