"""The trainings of a run on the terminal: losses over the routes of an experiment, claims, and the first wrong step."""

from __future__ import annotations

import io

import made
import pytest
from rich.console import Console

from actconform.report.terminal.screen import Screen
from actconform.types.result import Curve
from actconform.types.training import Claim

NAN = float("nan")
CLAIMS = (
    Claim(text="noise is learned by rote", measure="loss", at_most=0.6),
    Claim(text="and generalizes worse", measure="validation loss", at_least=1.2),
)


def trained(route: str = "torch", losses=(1.0, 0.5), claims=CLAIMS, **fields):
    curve = Curve(
        first=losses,
        losses=losses,
        validation=(1.25, 1.5),
        measures={"loss": losses[-1], "validation loss": 1.5},
        claims=claims,
    )
    return made.result(f"noise-relu/training/f32/{route}", curve=curve, **fields)


@pytest.fixture
def printed():
    def printing(*results):
        file = io.StringIO()
        screen = Screen(console=Console(file=file, highlight=False, width=200))
        screen.trainings(results)
        screen.findings(results, ["noise-relu"])
        return [" ".join(line.split()) for line in file.getvalue().splitlines()]

    return printing


def test_an_experiment_has_one_row_with_the_range_over_its_routes(printed):
    head, row = printed(trained(), trained("keras", (1.0, 0.25)), made.result())
    assert head == "training loss, first epoch last validation claims"
    assert row == "noise-relu 1 0.25 to 0.5 1.5 all hold"


def test_a_broken_claim_names_its_routes_and_nan_is_none_that_holds(printed):
    _, row = printed(trained(), trained("keras", (1.0, NAN)), trained("jax", (1.0, 0.75)))
    assert row == "noise-relu 1 0.5 to nan 1.5 1 of 2 broken: keras, jax"


def test_of_a_training_that_came_to_no_numbers_no_claim_is_judged(printed):
    lost = trained("keras", (1.0, NAN))
    lost.curve.measures.clear()
    assert printed(lost)[1] == "noise-relu 1 nan 1.5 none judged, no numbers: keras"
    assert printed(trained(), lost)[1] == "noise-relu 1 0.5 to nan 1.5 all hold; none judged, no numbers: keras"
    _, row = printed(trained("jax", (1.0, 0.75)), lost)
    assert row == "noise-relu 1 0.75 to nan 1.5 1 of 2 broken: jax; none judged, no numbers: keras"


def test_an_experiment_without_claims_has_none(printed):
    assert printed(trained(claims=()))[1] == "noise-relu 1 0.5 1.5"


def test_a_run_without_trainings_prints_no_table(printed):
    assert printed(made.result()) == []


def test_the_first_wrong_step_is_said_once_for_all_its_findings(printed):
    evidence = "first at step 3, optimizer: dense1.kernel [0, 1] is 2, expected 1, 9 times its bound"
    findings = [made.finding("scaled-error", tensor=name, regime="optimizer", evidence=evidence) for name in ("a", "b")]
    findings.append(made.finding("property", tensor="loss", worst=None, evidence="noise is learned by rote: loss 0.9"))
    lines = printed(trained(findings=tuple(findings)))[2:]
    assert sorted(lines[1:-1]) == ["property noise is learned by rote: loss 0.9", f"scaled-error {evidence}"]
    assert lines[-1] == "actconform run noise-relu/training/f32/torch --out conform-case"
