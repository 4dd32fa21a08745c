"""`actconform ci`: what is new in a job's results, and how the job ends."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import click

from actconform.errors import UsageError
from actconform.report.ci.job_files import annotation_lines, write_job_files
from actconform.report.ci.outcome import job_outcome
from actconform.say import say

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@click.command("ci")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="The same folder of the last run of the base branch, if any."
)
@click.option("--name", default="conformance", show_default=True, help="Of the job, where there are several.")
@click.option(
    "--ended",
    type=click.IntRange(0, 1),
    default=0,
    show_default=True,
    help="Exit code of the command that wrote FOLDER: 1 with results that conform is a failure.",
)
def command(folder: Path, baseline: Path | None, name: str, ended: int) -> int:
    """Tell what is new in FOLDER, of `actconform run` or `actconform check`, against the last run of the base branch.

    Writes comment.md and new.xml (JUnit) into FOLDER, and adds to the summary of a job of GitHub. A BASELINE that is not there counts as
    none: everything that does not conform is new then.

    Exit code 0: nothing got worse; 1: something did; 2: no results, or wrong usage.
    """
    if not NAME.fullmatch(name) or "--" in name:  # it stands in a comment of HTML
        raise UsageError("--name: wanted up to 64 letters, digits and . _ -, with no -- in it")
    if folder.is_file():
        raise UsageError(f"{folder}: is a file; name the folder that `actconform run` or `actconform check` wrote")
    outcome = job_outcome(folder, baseline, ended)
    try:
        files = write_job_files(outcome, name, folder)
        _add_to_summary(files[0])
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    if os.environ.get("GITHUB_ACTIONS") == "true":
        sys.stdout.write(
            "".join(f"{line}\n" for line in annotation_lines(outcome))
        )  # not `say`, which spells commands out
    else:
        for remark in outcome.worse:
            say(f"{remark.where or 'the run'}: {remark.words}")
    say(f"{name}: {outcome.headline}")
    return 1 if outcome.worse else 0


def _add_to_summary(comment: Path) -> None:
    """Append the comment to the page of GitHub's job, where there is one. Raises OSError."""
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a", encoding="utf-8") as file:
            file.write(comment.read_text(encoding="utf-8"))
