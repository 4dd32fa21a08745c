"""The loss curves of a training for the page, with its measures, its claims and its first wrong step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform.comparison.training_records import NOT_LEARNED
from actconform.report.html.page_values import short_number
from actconform.testdata.training_vectors import PARTS
from actconform.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.report.html.page_values import Texts
    from actconform.types import Result
    from actconform.types.training import Claim


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
        "c": [_claim(claim, curve.measures, texts) for claim in curve.claims],
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
    """Return the first wrong step of a result in the words of a finding: of a step's parts, else of what came to no numbers.

    Of several findings that which no cause explains.
    """
    step = result.curve.wrong_step if result.curve is not None else 0
    of_steps = [finding for finding in result.findings if finding.regime in PARTS]
    of_steps = of_steps or [finding for finding in result.findings if finding.regime == NOT_LEARNED]
    if not step or not of_steps:
        return WrongStep(step, "", "")
    telling = min(of_steps, key=lambda finding: bool(finding.deviation))
    return WrongStep(step, telling.evidence, telling.deviation or "")


def _claim(claim: Claim, measures: Mapping[str, float], texts: Texts) -> list[Any]:
    """Return a claim in words and whether it holds, 1 or 0; None where a training came to no numbers, of which no claim is judged."""
    words = (claim.text, claim.measure, claim.wanted, claim.published)
    holds = int(claim.holds(measures.get(claim.measure, math.nan))) if measures else None
    return [*(texts(word) for word in words), holds]
