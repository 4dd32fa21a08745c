"""`actconform issue`: something to attach to a bug report, from the folder of a check or from a case of a run."""

from __future__ import annotations

from pathlib import Path

import click

from actconform.cli import _options
from actconform.say import say
from actconform.text import one_line


@click.command("issue")
@click.argument("finding")
@click.option("--run", "run_folder", type=click.Path(path_type=Path), default=Path("conform-out"), show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write (default: DIR/minimal, or actconform-issue)."
)
@_options.config
def command(finding: str, run_folder: Path, out: Path | None, config_path: Path | None) -> int:
    """Write what goes with a bug report: the model, its inputs and outputs, repro.py, which needs one package alone, and issue.md.

    FINDING is the folder of `actconform check --minimize` (its minimal, else its minimal-exporter), or the id of a case of a run, as in its report.json, whose gravest
    finding is told. Of a graph the smallest part is attached that shows it. Exit code 0: written; 2: wrong usage, or
    there is no such finding.
    """
    if Path(finding).is_dir():
        from actconform.report.issue.from_check import issue_of_check

        target = issue_of_check(Path(finding), out)
    else:
        from actconform.cli import announced
        from actconform.plugin.loader import load_plugins
        from actconform.report.issue.from_case import issue_of_case
        from actconform.run.scheduler import plan_of
        from actconform.settings import read_config
        from actconform.workers.from_settings import configured

        config = read_config(config_path)
        plan = plan_of(configured(announced(load_plugins()), config), config)
        target = issue_of_case(finding, run_folder, out or Path("actconform-issue"), plan)
    for path in sorted(target.rglob("*")):
        if path.is_file():
            say(one_line(str(path)))
    return 0
