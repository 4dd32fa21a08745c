"""The commands that run one case, or one check, again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actconform.checking.result import CheckResult

FOLDER = "conform-case"  # not the report's own folder: a run begins by clearing it


def rerun_command(case: str) -> str:
    """Return the command line for a POSIX shell; its output goes to another folder than the report."""
    return f"actconform run {shlex.quote(case)} --out {FOLDER}"


def check_command(result: CheckResult) -> str:
    """Return the command line for a POSIX shell that checks the model again on the same inputs, drawn or from files.

    It names files without their folders, and lacks what a result does not keep, such as `--range` and `--dtype`.
    """
    sources = [trained.source for trained in result.trained]
    if result.exporter:
        words = ["actconform", "check", sources.pop(0), "--exporter", result.exporter]
    else:
        words = ["actconform", "check", result.model]
    for source in sources:
        words += ["--against", source]
    for runtime in result.runtimes[len(result.trained) :]:
        if runtime.status != "at fault":
            words += ["--runtime", runtime.name]
    if result.seed is not None:
        words += ["--seed", str(result.seed), "--samples", str(len(result.samples))]
    elif result.samples:
        words += ["--inputs", result.samples[0].origin.partition("/")[0]]
    return shlex.join(words)
