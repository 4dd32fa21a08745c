"""`actconform site`: a static site of a history and the latest report."""

from __future__ import annotations

from pathlib import Path

import click

from actconform.cli import announced
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.read import read_report
from actconform.report.site.site_files import write_site
from actconform.run.recorder import REPORT
from actconform.say import say


@click.command("site")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--store", required=True, type=click.Path(path_type=Path), help="The history, of `actconform history add`."
)
@click.option(
    "--report",
    "report_path",
    type=click.Path(path_type=Path),
    default="conform-out",
    show_default=True,
    help="The latest run.",
)
def command(folder: Path, store: Path, report_path: Path) -> int:
    """Write a static site into FOLDER: all cases and runs over time, the latest report, a table of accuracy to cite.

    Pages open from a disk and ask no network. An address of a case or a run stays the same when the site is written again.

    Exit code 0: written; 1: it cannot be written; 2: the report or the history cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder for the site")
    try:
        report = read_report(report_path)
    except UsageError as error:
        raise UsageError(f"--report {error}") from error
    file = report_path / REPORT if report_path.is_dir() else report_path
    causes = announced(load_plugins()).register.causes
    try:
        paths = write_site(report, file, store, folder, causes)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    for path in paths:
        say(str(path))
    return 0
