"""The command that runs one case again."""

from __future__ import annotations

import shlex

FOLDER = "conform-case"  # not the report's own folder: a run begins by clearing it


def rerun_command(case: str) -> str:
    """Return the command line for a POSIX shell; its output goes to another folder than the report."""
    return f"actconform run {shlex.quote(case)} --out {FOLDER}"
