"""`actconform report`: write the files of a run anew from its report.json."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform.cli import announced
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.across_runs.changed_facts import change_in_words
from actconform.report.across_runs.history import trends
from actconform.report.across_runs.history_store import with_past
from actconform.report.files.write import write_all
from actconform.report.read import read_report
from actconform.report.terminal.screen import Screen
from actconform.run.recorder import REPORT
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actconform.types.report import Trend

SINCE_SHOWN = 20


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path), default="conform-out")
@click.option(
    "--history",
    type=click.Path(path_type=Path),
    help="Past runs, of `actconform history add`: lines over time, since when.",
)
def command(folder: Path, history: Path | None) -> int:
    """Write all files that derive from FOLDER's report.json anew: index.html, junit.xml, summary.md, accuracy.json.

    FOLDER may be a report.json too: the files are written beside it. Exit code 0: written; 1: one could not be; 2: no report.
    """
    report = read_report(folder)
    if history is not None and history.is_dir():
        advice = f"make one of its reports: actconform history add {history}/*/{REPORT} --store FILE"
        raise UsageError(f"--history {history}: is a folder; wanted a history. {advice}")
    past = trends(with_past(report, history)) if history is not None else {}
    target = folder if folder.is_dir() else folder.parent
    written = write_all(report, target, announced(load_plugins()), past)
    screen = Screen()
    screen.notes(_since(past.values()))
    screen.notes(str(path) for path in written.files)
    screen.notes(written.faults)
    return 1 if written.faults else 0


def _since(past: Iterable[Trend]) -> list[str]:
    """Return a line for each time at which present findings first appeared, newest first, with the facts that changed then."""
    came: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for trend in past:
        for since in trend.since:
            if since.before:
                changes = ", ".join(map(change_in_words, since.changed)) or "no fact changed"
                came[since.when, since.before, changes].append(f"{since.class_} of {trend.case}")
    lines = [
        f"since {when} (not yet {before}): {number_of(len(findings), 'finding')}, {findings[0]} the first; {changes}"
        for (when, before, changes), findings in sorted(came.items(), reverse=True)
    ]
    return lines[:SINCE_SHOWN]
