"""`actconform selftest`: prove the detector on planted faults."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform.cli import announced
from actconform.errors import UsageError, near
from actconform.plugin.loader import load_plugins
from actconform.report.marked_section import expect_marks, write_between
from actconform.run.scheduler import plan_of
from actconform.say import say
from actconform.selftest import NO_FAULTS, selftest
from actconform.settings import read_config
from actconform.text import visible

if TYPE_CHECKING:
    from actconform.plugin.loader import Catalog
    from actconform.selftest import DetectionReport
    from actconform.types import Result

OUTCOMES = ("caught", "wrong blame", "wrong class", "missed")
BEGIN, END = "<!-- detection: make detection -->", "<!-- end of detection -->"


@click.command("selftest")
@click.argument("faults", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print every detection as JSON.")
@click.option("--into", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Write the table into FILE.")
def command(faults: tuple[str, ...], as_json: bool, into: Path | None) -> int:
    """Run FAULTS (default: all) with every registered deviation active: caught, wrong class, wrong blame, missed, false alarms.

    Exit code 0: all caught and no false alarm; 1 otherwise. `--into` replaces the part of FILE between the two comments
    "detection: make detection" and "end of detection".
    """
    if into is not None:
        expect_marks(into, BEGIN, END)  # before the trial, not after it
    catalog = announced(load_plugins())
    _refuse_unknown(faults, catalog)
    plan = plan_of(catalog, read_config(None))
    counted = Counter[str]()

    def show(result: Result) -> None:
        counted[result.route] += 1
        if sys.stderr.isatty():
            click.echo(f"\r{sum(counted.values())} cases  {visible(result.case):<80.80}", nl=False, err=True)

    trial = selftest(plan, faults, show)
    if as_json:
        said = {"schema": 1, **msgspec.to_builtins(trial), "problems": trial.problems}
        click.echo(msgspec.json.format(msgspec.json.encode(said), indent=1))
    else:
        say(_table(trial))
        for problem in trial.problems:
            say(problem)
        say(_verdict(trial))
    if into is not None:
        write_between(into, BEGIN, END, f"{_table(trial)}\n\n{_verdict(trial)}")
    return 1 if trial.problems else 0


def _refuse_unknown(names: tuple[str, ...], catalog: Catalog) -> None:
    known = [fault.name for fault in catalog.faults]
    if not known:
        raise UsageError(NO_FAULTS)
    for name in names:
        if name not in known:
            raise UsageError(f"unknown fault {name!r}{near(name, known)}")


def _table(trial: DetectionReport) -> str:
    """Return a Markdown table of families by outcomes."""
    families = dict.fromkeys(one.family for one in trial.detections)
    rows = [f"| family | faults | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 2) + "|"]
    for family in (*families, "all"):
        mine = [one for one in trial.detections if family in (one.family, "all")]
        counts = Counter(one.outcome for one in mine)
        rows.append(f"| {family} | {len(mine)} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |")
    return "\n".join(rows)


def _late(trial: DetectionReport) -> int:
    return len(trial.timeouts) + sum(one.outcome == "timeout" for one in trial.detections)


def _verdict(trial: DetectionReport) -> str:
    caught = sum(one.outcome == "caught" for one in trial.detections)
    return (
        f"{caught} of {len(trial.detections)} injected faults caught, with the right class and blame; "
        f"{len(trial.false_alarms)} false alarms in {trial.healthy} healthy cases"
        + (f"; {late} ran out of time." if (late := _late(trial)) else ".")
    )
