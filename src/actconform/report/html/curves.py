"""The loss curves of a training for the page, with its measures, its claims and its first wrong step."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform.report.html.page_values import short_number
from actconform.text import visible

if TYPE_CHECKING:
    from actconform.report.html.page_values import Texts
    from actconform.types import Result
    from actconform.types.training import Claim

# as comparison/wrong_elements.py and training_records.py word the evidence
FIRST = re.compile(r"(?:first|the first (?:NaN|infinity) is) at step (\d+)")


def curve_data(result: Result, texts: Texts) -> dict[str, Any]:
    """Return the curve of a result that has one: losses by epoch, of validation and of the first steps, measures, claims.

    "w" is the first step that is beyond its bound, 0 where none is, "why" the words that say where in it, "d" the cause by which it is known.
    """
    curve = result.curve
    assert curve is not None
    wrong = first_wrong_step(result)
    losses = {"t": curve.losses, "v": curve.validation, "s": curve.first}
    data = {
        **{name: [short_number(loss) for loss in series] for name, series in losses.items()},
        "e": curve.epoch,
        "n": curve.steps,
        "a": texts(curve.about),
        "x": {visible(name): short_number(value) for name, value in curve.measures.items()},
        "c": [_claim(claim, curve.measures.get(claim.measure, math.nan), texts) for claim in curve.claims],
        "w": wrong.step,
        "why": texts(wrong.evidence),
    }
    return data | {"d": texts(wrong.deviation)} if wrong.deviation else data


class WrongStep(NamedTuple):
    """The first step of a training that is beyond its bound, from 1 on or 0 where none is, in words, and the cause that it is known by."""

    step: int
    evidence: str
    deviation: str


def first_wrong_step(result: Result) -> WrongStep:
    """Return the first wrong step that a finding's evidence names; of several at one step that which no cause explains."""
    places = [
        WrongStep(int(match[1]), finding.evidence, finding.deviation or "")
        for finding in result.findings
        if (match := FIRST.search(finding.evidence))
    ]
    return min(places, key=lambda place: (place.step, bool(place.deviation)), default=WrongStep(0, "", ""))


def _claim(claim: Claim, value: float, texts: Texts) -> list[Any]:
    words = (claim.text, claim.measure, claim.wanted, claim.published)
    return [*(texts(word) for word in words), int(claim.holds(value))]
