"""`actconform selftest`: prove the detector on injected faults."""

from __future__ import annotations

import re
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
from actconform.text import number_of, visible

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

    Among the healthy are backends, exporters and runtimes that compute otherwise than usual, and well; all are listed.

    Exit code 0: all caught and no false alarm; 1 otherwise. `--into` replaces the part of FILE between the two comments
    "detection: make detection" and "end of detection".
    """
    if into is not None:
        expect_marks(into, BEGIN, END)  # before the faults run, not after
    catalog = announced(load_plugins())
    _refuse_unknown(faults, catalog)
    plan = plan_of(catalog, read_config(None))
    counted = Counter[str]()

    def show(result: Result) -> None:
        counted[result.route] += 1
        if sys.stderr.isatty():
            click.echo(
                f"\r{number_of(sum(counted.values()), 'case')}  {visible(result.case):<80.80}", nl=False, err=True
            )

    detection_report = selftest(plan, faults, show)
    if as_json:
        document = {"schema": 1, **msgspec.to_builtins(detection_report), "problems": detection_report.problems}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=1))
    else:
        say(_tables(detection_report))
        for problem in detection_report.problems:
            say(problem)
        say(_verdict(detection_report))
    if into is not None:
        write_between(into, BEGIN, END, f"{_tables(detection_report)}\n\n{_verdict(detection_report)}")
    return 1 if detection_report.problems else 0


def _refuse_unknown(names: tuple[str, ...], catalog: Catalog) -> None:
    fault_names = [fault.name for fault in catalog.faults]
    if not fault_names:
        raise UsageError(NO_FAULTS)
    for name in names:
        if name not in fault_names:
            raise UsageError(f"unknown fault {name!r}{near(name, fault_names)}")


def _table(detection_report: DetectionReport) -> str:
    """Return a Markdown table of families by outcomes."""
    families = dict.fromkeys(detection.family for detection in detection_report.detections)
    rows = [f"| family | faults | {' | '.join(OUTCOMES)} |", "|---" * (len(OUTCOMES) + 2) + "|"]
    for family in (*families, "all"):
        of_family = [detection for detection in detection_report.detections if family in (detection.family, "all")]
        counts = Counter(detection.outcome for detection in of_family)
        rows.append(f"| {family} | {len(of_family)} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} |")
    return "\n".join(rows)


def _tables(detection_report: DetectionReport) -> str:
    """Return the table of faults, and where there are any that of what is healthy but unusual."""
    if not detection_report.unusual:
        return _table(detection_report)
    accused = {
        name: any(re.search(rf"{re.escape(name)}(@const)?[+:]", alarm) for alarm in detection_report.false_alarms)
        for name in detection_report.unusual
    }
    rows = ["| healthy but unusual | what it does | |", "|---|---|---|"]
    rows += [
        f"| {name} | {what} | {'accused' if accused[name] else 'left alone'} |"
        for name, what in detection_report.unusual.items()
    ]
    return "\n\n".join([_table(detection_report), "\n".join(rows)])


def _late(detection_report: DetectionReport) -> int:
    return len(detection_report.timeouts) + sum(
        detection.outcome == "timeout" for detection in detection_report.detections
    )


def _verdict(detection_report: DetectionReport) -> str:
    caught = sum(detection.outcome == "caught" for detection in detection_report.detections)
    return (
        f"{caught} of {number_of(len(detection_report.detections), 'injected fault')} caught, with the right class and blame; "
        f"{number_of(len(detection_report.false_alarms), 'false alarm')} in {number_of(detection_report.healthy, 'healthy case')}"
        + (f", of {len(detection_report.unusual)} unusual backends among them" if detection_report.unusual else "")
        + (f"; {late} ran out of time." if (late := _late(detection_report)) else ".")
    )
