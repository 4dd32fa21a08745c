"""`actconform deviations`: adopt new findings, record observations, compare a run with them, write the document."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click

from actconform.cli import announced
from actconform.errors import UsageError
from actconform.files import write_bytes
from actconform.plugin.loader import load_plugins
from actconform.report.files.known_deviations import document
from actconform.report.read import read_report
from actconform.run.select import backends_of
from actconform.say import say
from actconform.testdata.golden.store import OBSERVED, golden_dir
from actconform.text import number_of
from actconform.verdict.adopt import adopt
from actconform.verdict.causes.observed import as_text, evidence, idle, observe, read_observed, with_machine, worse

FOLDER = click.argument("folder", type=click.Path(path_type=Path), default="conform-out")


@click.group("deviations")
def command() -> None:
    """Adopt findings, record observations, or write the register's document."""


@command.command("adopt")
@FOLDER
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write (default: deviations-DATE.toml).")
def adopt_(folder: Path, output: Path | None) -> int:
    """Write the new findings of FOLDER's report.json as causes of this platform, for actconform.toml to name.

    A finding that a known formula explains is written as that formula. Others are recorded with the date, unexplained: give
    each a reason and a link.
    """
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    target = output or Path(f"deviations-{today}.toml")
    if target.exists():
        raise UsageError(f"{target} exists; nothing was overwritten: name another file with --output")
    adopted = adopt(read_report(folder), announced(load_plugins()).register, today)
    if not adopted.explained and not adopted.unexplained:
        say("nothing to adopt: the run had no new finding")
        return 0
    try:
        write_bytes(target, adopted.text.encode())
    except OSError as error:
        raise UsageError(f"--output {target}: cannot be written: {error.strerror}") from error
    say(f"{number_of(len(adopted.explained), 'finding is', 'findings are')} explained by known formulas")
    for line in adopted.unexplained:
        say(f"no known formula explains {line}")
    say(f"{target} has them all; to use it, write in actconform.toml: deviations = [{str(target)!r}]")
    return 0


@command.command("observe")
@FOLDER
@click.option("-o", "--output", type=click.Path(path_type=Path), help=f"File to write (default: golden/{OBSERVED}).")
def observe_(folder: Path, output: Path | None) -> int:
    """Record what the causes covered in FOLDER's run, and how much of their bounds it used, under its facts."""
    report = read_report(folder)
    target = output or golden_dir() / OBSERVED
    now = with_machine(
        read_observed(target.parent, target.name), observe(report.results, report.facts.backends, report.when)
    )
    try:
        write_bytes(target, as_text(now))
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from error
    say(
        f"{target}: {number_of(len(report.results), 'result')} kept; {number_of(len(now.machines), 'set')} of facts in all"
    )
    return 0


@command.command("ratchet")
@FOLDER
def ratchet_(folder: Path) -> int:
    """Compare FOLDER's run with the observations under equal facts: exit code 1 where it is worse, or a cause covers nothing."""
    report = read_report(folder)
    observed = read_observed(golden_dir())
    backends = backends_of(report.results, announced(load_plugins()))
    run_facts = (report.results, report.facts.backends, backends, observed)
    problems = [*worse(*run_facts), *idle(*run_facts)]
    for line in problems:
        say(line)
    say(number_of(len(problems), "problem") if problems else "as observed, or nothing was observed under these facts")
    return 1 if problems else 0


@command.command("document")
def document_() -> int:
    """Print docs/known-deviations.md, made from the registers of the installed plugins and what was observed."""
    click.echo(document(announced(load_plugins()).register, evidence(read_observed(golden_dir()))), nl=False)
    return 0
