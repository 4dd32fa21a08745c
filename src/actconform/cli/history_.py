"""`actconform history`: keep what changed in each run, and read it."""

from __future__ import annotations

import datetime as dt
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform.errors import UsageError
from actconform.files import read_bytes
from actconform.report.across_runs.changed_facts import change_in_words
from actconform.report.across_runs.history import trends
from actconform.report.across_runs.history_store import add_runs, past_run, read_history
from actconform.report.read import read_report
from actconform.run.recorder import REPORT
from actconform.say import say
from actconform.text import number_of
from actconform.types.json import finite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actconform.report.across_runs.history_store import PastResult, PastRun
    from actconform.types.report import Since, Trend

STORE = click.option(
    "--store", required=True, type=click.Path(path_type=Path), help="The file of the history: lines of JSON."
)


TIME = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?")


class _When(msgspec.Struct):
    when: str = ""


@click.group("history")
def command() -> None:
    """Keep what changed in each run in one file, and read it."""


@command.command("add")
@click.argument("reports", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="REPORT...")
@STORE
def add(reports: tuple[Path, ...], store: Path) -> int:
    """Add the runs of REPORT..., folders or report.json, to a history, oldest first; the file is made where there is none.

    A line is written for each case that changed. A run that is there already is left out, so that the command can be repeated.

    Exit code 0: added, or there already; 1: it cannot be written; 2: a report or the history cannot be read, or is not in order.
    """
    dated = sorted((_time_of(path), number) for number, path in enumerate(reports))
    done = add_runs(store, (_run(reports[number], when) for when, number in dated))
    if done.dropped:
        say(f"{store}: dropped {number_of(done.dropped, 'byte')} of an addition that did not come to its end")
    for when in done.present:
        say(f"{when}: is there already")
    say(f"{number_of(len(done.added), 'run')} added to {store}, {number_of(store.stat().st_size, 'byte')}")
    return 0


def _time_of(path: Path) -> str:
    """Return the time of a report's run, or else that of its file, without reading all of it."""
    file = path / REPORT if path.is_dir() else path
    try:
        when = msgspec.json.decode(read_bytes(file), type=_When).when
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        when = read_report(path).when  # which says what is wrong
    return when or dt.datetime.fromtimestamp(file.stat().st_mtime, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _run(path: Path, when: str) -> PastRun:
    return past_run(msgspec.structs.replace(read_report(path), when=when))


@command.command("show")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@STORE
@click.option("--at", help="Of the last run at or before this time: 2026-11-30, or 2026-11-30T02:17:00Z.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: all points of each case, and since when it has each finding."
)
def show(patterns: tuple[str, ...], store: Path, at: str | None, *, as_json: bool) -> int:
    """Print each case that matches any PATTERN as it was in the last run: verdict, worst error, and since when it has each finding.

    Exit code 0: printed; 2: the history cannot be read, or no case matches.
    """
    if at is not None and not TIME.fullmatch(at):
        raise UsageError(f"--at {at!r}: wanted a date, 2026-11-30, or a time in UTC, 2026-11-30T02:17:00Z")
    count, last = 0, None
    for last in _until(read_history(store), at):  # noqa: B007  the last one is shown
        count += 1
    if last is None:
        raise UsageError(f"{store}: has no run{f' at or before {at}' if at else ''}")
    chosen = [case for case in last.results if not patterns or any(fnmatchcase(case, each) for each in patterns)]
    if not chosen:
        raise UsageError(f"{store}: no case of the run of {last.when} matches {' '.join(patterns)}")
    lines = trends(_until(read_history(store), at))
    if as_json:
        cases = [_as_json(last.results[case], lines[case]) for case in chosen]
        document = {"when": last.when, "facts": last.facts, "conforms": last.conforms, "cases": cases}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(finite(document)), indent=1) + b"\n")
        return 0
    say(f"{last.when}, the last of {number_of(count, 'run')}: {'conforms' if last.conforms else 'does not conform'}")
    for case in chosen:
        say(_line(last.results[case]))
        for line in dict.fromkeys(map(_since_line, lines[case].since)):
            say(line)
    return 0


def _until(runs: Iterable[PastRun], at: str | None) -> Iterator[PastRun]:
    """Yield the runs at or before a time; a date alone is its end."""
    for run in runs:
        if at is not None and run.when[: len(at)] > at:
            return
        yield run


def _line(result: PastResult) -> str:
    error = "" if result.share is None else f"  {100 * result.share:.3g} % of its limit"
    return f"{result.verdict:<11} {result.case}{error}"


def _since_line(since: Since) -> str:
    place = f" in {since.tensor}, {since.regime}" if since.tensor else ""
    if not since.before:
        return f"    {since.class_}{place} since {since.when}, the first run"
    changes = ", ".join(map(change_in_words, since.changed)) or "no fact changed"
    return f"    {since.class_}{place} since {since.when}, not yet {since.before}: {changes}"


def _as_json(result: PastResult, trend: Trend) -> dict[str, object]:
    return {**msgspec.structs.asdict(result), "points": trend.points, "since": trend.since}
