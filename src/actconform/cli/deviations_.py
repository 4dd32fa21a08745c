"""`actconform deviations`: adopt what a run found on this platform, or write the register's document."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click
import msgspec

from actconform.adopt import adopt
from actconform.config import UsageError
from actconform.plugins import load_plugins
from actconform.record import REPORT
from actconform.report.known import document


@click.group("deviations")
def command() -> None:
    """Adopt findings into a local register, or write its document."""


@command.command("adopt")
@click.argument("folder", type=click.Path(path_type=Path), default="conform-out")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write (default: deviations-DATE.toml).")
def adopt_(folder: Path, output: Path | None) -> int:
    """Write the new findings of FOLDER's report.json as deviations of this platform, for actconform.toml to name.

    An adopted finding is seen and dated, not explained: give each a reason and a link.
    """
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    target = output or Path(f"deviations-{today}.toml")
    if target.exists():
        raise UsageError(f"{target} exists; nothing was overwritten: name another file with --output")
    try:
        report = msgspec.json.decode((folder / REPORT).read_bytes())
        text, count = adopt(report, today)
    except (OSError, msgspec.DecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"{folder / REPORT}: not the report of a run ({error}); make one with `actconform run`"
        ) from error
    if not count:
        click.echo("nothing to adopt: the run had no new finding")
        return 0
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output {target}: cannot be written: {error.strerror}") from error
    click.echo(f"{count} deviations in {target}; to use them, write in actconform.toml: deviations = [{str(target)!r}]")
    return 0


@command.command("document")
def document_() -> int:
    """Print docs/known-deviations.md, made from the registers of the installed plugins."""
    click.echo(document(load_plugins().deviations), nl=False)
    return 0
