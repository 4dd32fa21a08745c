"""`actconform diff`: what differs between two reports, and whether it got worse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform.bench import baseline
from actconform.bench.results import read_throughput
from actconform.errors import UsageError
from actconform.report.across_runs.diff import Difference, compare_reports
from actconform.report.across_runs.diff_text import as_markdown, as_page, diff_as_text
from actconform.report.read import read_report
from actconform.types.json import finite

if TYPE_CHECKING:
    from actconform.bench.baseline import BaselineComparison


@click.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
@click.option("--markdown", is_flag=True, help="For a job's page.")
@click.option("--html", is_flag=True, help="One self-contained page.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead of standard output.")
def command(old: Path, new: Path, *, as_json: bool, markdown: bool, html: bool, out: Path | None) -> int:
    """Compare the reports of two runs, folders or report.json: findings, verdicts, errors, facts, and throughput where both
    folders have it.

    Exit code 0: nothing got worse; 1: something did; 2: one is no report.
    """
    forms = [form for form, wanted in ((_as_json, as_json), (as_markdown, markdown), (as_page, html)) if wanted]
    if len(forms) > 1:
        raise UsageError("--json, --markdown and --html are three forms of one file: ask for one of them")
    difference = compare_reports(read_report(old), read_report(new), _speeds(old, new))
    text = (forms[0] if forms else diff_as_text)(difference)
    if out is None:
        sys.stdout.buffer.write(text.encode())
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from error
    return 1 if difference.worse else 0


def _speeds(old: Path, new: Path) -> BaselineComparison | None:
    before, after = (read_throughput(path if path.is_dir() else path.parent) for path in (old, new))
    return baseline.compare(baseline.baseline_of(before), after, other_versions=True) if before and after else None


def _as_json(difference: Difference) -> str:
    return msgspec.json.format(msgspec.json.encode(finite(difference)), indent=1).decode() + "\n"
