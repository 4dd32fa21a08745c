"""The trainings of a run as a table: what the losses of each experiment came to on its routes, and which claims they bear out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table

from actconform.report.terminal.console import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actconform.types import Result
    from actconform.types.result import Curve


def training_table(results: Iterable[Result]) -> Table | None:
    """Return a row for each experiment with a curve, losses as the range over its routes; None where there is none."""
    by_experiment: dict[str, list[tuple[Result, Curve]]] = {}
    for result in results:
        if result.curve is not None:
            by_experiment.setdefault(result.subject, []).append((result, result.curve))
    if not by_experiment:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in ("training", "loss, first epoch", "last", "validation", "claims"):
        table.add_column(column, justify="left" if column in ("training", "claims") else "right")
    for experiment, trained in by_experiment.items():
        curves = [curve for _, curve in trained]
        series = ([c.losses[:1] for c in curves], [c.losses[-1:] for c in curves], [c.validation[-1:] for c in curves])
        table.add_row(plain(experiment), *(_range([*sum(losses, ())]) for losses in series), _claims(trained))
    return table


def _range(numbers: Sequence[float]) -> str:
    """Return numbers to three digits, the smallest and the largest where they differ."""
    ordered = sorted(numbers, key=lambda number: (math.isnan(number), number))
    words = list(dict.fromkeys(f"{number:.3g}" for number in ordered))
    return " to ".join((words[0], words[-1]) if len(words) > 1 else words)


def _claims(trained: Sequence[tuple[Result, Curve]]) -> str:
    """Return how many claims hold on all routes, and which routes do not bear out the others, or came to no numbers."""
    stated = max((len(curve.claims) for _, curve in trained), default=0)
    unjudged = [result.route for result, curve in trained if curve.claims and not curve.measures]
    words = [f"[bold red]none judged, no numbers[/]: {plain(', '.join(unjudged))}"] * bool(unjudged)
    trained = [(result, curve) for result, curve in trained if curve.measures]
    broken: dict[int, list[str]] = {}
    for result, curve in trained:
        for place, claim in enumerate(curve.claims):
            if not claim.holds(curve.measures.get(claim.measure, math.nan)):
                broken.setdefault(place, []).append(result.route)
    if not broken:
        words += ["all hold" if stated > 1 else "holds"] if stated and trained else []
        return "; ".join(reversed(words))
    routes = ", ".join(dict.fromkeys(route for names in broken.values() for route in names))
    return "; ".join([f"[bold red]{len(broken)} of {stated} broken[/]: {plain(routes)}", *words])
