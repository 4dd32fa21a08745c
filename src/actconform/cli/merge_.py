"""`actconform merge`: the reports of several jobs as one."""

from __future__ import annotations

from pathlib import Path

import click

from actconform.cli import announced
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.across_runs.merge import merge
from actconform.report.files.write import write_all
from actconform.report.read import read_report
from actconform.report.terminal.screen import Screen
from actconform.run.recorder import REPORT, RESULTS, write_report


@click.command("merge")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the merged report and its files."
)
@click.option("--expect", multiple=True, metavar="NAME", help="A backend or route that must have run (repeatable).")
def command(folders: tuple[Path, ...], out: Path, expect: tuple[str, ...]) -> int:
    """Merge the reports of runs that share no case, one for each backend for instance.

    Exit code 0: all conform and all expected ran; 1: not so, or a file could not be written; 2: they cannot be merged, and nothing is written.
    """
    target = out.resolve()
    if any(folder.resolve() in (target, target / REPORT) for folder in folders) or any(
        (out / name).exists() for name in (RESULTS, REPORT)
    ):
        raise UsageError(f"--out {out}: holds a report already, which would be lost; name another folder, or remove it")
    twice = {folder.resolve() for folder in folders}
    if len(twice) < len(folders):
        raise UsageError("a folder is named twice: nothing was merged")
    report = merge({str(folder): read_report(folder) for folder in folders}, expect)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_report(out, report)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from error
    faults = write_all(report, out, announced(load_plugins())).faults
    screen = Screen()
    screen.notes(faults)
    screen.verdict(report.results, report.problems, out, report.timings.get("total", 0.0), interrupted=False)
    return 0 if report.conforms and not faults else 1
