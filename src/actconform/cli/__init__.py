"""The command line: one file a verb, imported only when it is used, so that --help is fast."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform._version import __version__
from actconform.cli._examples import add_examples
from actconform.say import say
from actconform.text import number_of, one_line, shortened, visible

if TYPE_CHECKING:
    from actconform.plugin.loader import Catalog

BROKEN = "actconform.cli.broken"  # a key of click's meta, which lasts for one command line
VERBS = {
    "check": "Tell whether a model of your own, trained or exported, computes as rounding allows everywhere; if not, where.",
    "lint": "Tell the known mistakes of models before anything runs: activations, losses, exports.",
    "bisect": "Name the first layer at which two routes of a model of your own part.",
    "run": "Run the selected cases and judge them (all without arguments).",
    "report": "Write the files of a run anew: page, JUnit XML, summary, accuracy.",
    "diff": "Say what differs between two reports, and what got worse.",
    "site": "Write a static site: cases and runs over time, the latest report, a table to cite.",
    "ci": "Say what is new in a job's results against the last run of its base branch.",
    "history": "Keep what changed in each run in one file, and read since when each case has what.",
    "blame": "Name the package that brings the new findings of a report.",
    "issue": "Write what goes with a bug report: the smallest model, a program that shows it, the text.",
    "merge": "Merge the reports of several jobs into one.",
    "list": "List kernels, models, experiments, backends, routes, cases or deviations.",
    "bench": "Time kernels and models on every route, beside their verdicts.",
    "suite": "Run operators through every runtime, judged by the truth: ONNX's own tests, or graphs that are drawn.",
    "study": "Train every kernel as hidden and as output activation, and say with figures what becomes of it.",
    "sweep": "Compute kernels at all float32 numbers, and say with figures how accurate they are.",
    "grad": "Add to an ONNX model the nodes that compute its gradients.",
    "train": "Train an exported ONNX model in any ONNX runtime, on your own data.",
    "selftest": "Prove the detector on injected faults.",
    "golden": "Verify, mint or compare the stored goldens.",
    "deviations": "Adopt findings into a local register, or write its document.",
    "new-plugin": "Write a package that adds a backend, ready to be filled in.",
    "check-plugin": "Hold an installed backend against the contract, clause by clause.",
    "env": "List the environments that requirements have made, or remove those not in use.",
    "doctor": "Say which backends are usable here, what is missing and how to fix it.",
}


# A full disk, a quota, a limit of file size, a failing disk, or a closed terminal.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)
MOST_LINES = 100  # of a message


GROUPS = {
    "Your own model": ("check", "lint", "bisect", "grad", "train"),
    "Frameworks, exporters and runtimes": ("run", "suite", "bench", "study", "sweep", "list"),
    "Reports": ("report", "diff", "history", "site", "ci", "blame", "issue", "merge"),
    "Backends and installation": ("doctor", "new-plugin", "check-plugin", "env"),
    "What it judges by": ("selftest", "golden", "deviations"),
}
BEGIN = """Where to begin:

  actconform check model.onnx    does an exported model of your own compute what it says?
  actconform lint model.onnx     its known mistakes, before anything runs
  actconform run 'gelu-*'        do the installed frameworks, exporters and runtimes agree with the truth?
  actconform doctor              what is installed here, and what is missing

actconform --help lists all commands, actconform COMMAND --help shows how each is used."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"actconform.cli.{name.replace('-', '_')}_").command
        add_examples(name, command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, VERBS))
        for group, verbs in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(verb.ljust(width), VERBS[verb]) for verb in verbs])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from actconform.errors import near

            raise click.UsageError(f"no command {args[0]!r}{near(args[0], list(VERBS))}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__)
@click.pass_context
def _cli(context: click.Context) -> None:
    """Tell whether an exported model still computes what was trained, and if not, whose fault it is.

    Exit codes: 0 conforms, 1 does not, 2 wrong usage or configuration.
    """
    if context.invoked_subcommand is None:
        say(BEGIN)
        context.exit(2)


@_cli.result_callback()
def _exit_code(code: int | None) -> int:
    """Return the exit code of a verb that ended with `code`: a broken plugin is an error of the configuration, 2."""
    return code or (2 if click.get_current_context().meta.get(BROKEN) else 0)


def announced(catalog: Catalog) -> Catalog:
    """Return the catalog; print the errors of its broken plugins on standard error, and have the verb end with 2 instead of 0."""
    for broken in catalog.broken:
        say(f"error: {one_line(broken.message)}", err=True)
    if catalog.broken:
        click.get_current_context().meta[BROKEN] = True
    return catalog


def main() -> None:
    """Run the command line; exit with 0, 1 or 2, without a traceback for errors of the user or a full disk."""
    _replace_closed_streams()
    _console_faults()  # drop those of an earlier call in this process
    try:
        code = _cli(prog_name="actconform", standalone_mode=False)
        _finish_screen()
    except click.ClickException as error:
        text = io.StringIO()
        error.show(file=text)
        print(shortened(visible(text.getvalue().rstrip())), file=sys.stderr)
        code = 2
    except BrokenPipeError:
        sys.stdout = None  # the reader is gone: nothing is flushed to it at exit
        code = 0
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        code = 1
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
    sys.exit(code)


def _replace_closed_streams() -> None:
    """Replace standard output or error where it is closed, as by `>&-`, by the null device."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  open to the end


def _finish_screen() -> None:
    """Flush the screen. Raises OSError where that fails, or where an earlier write failed."""
    if sys.stdout is not None:
        sys.stdout.flush()
    if faults := _console_faults():
        raise faults[0]


def _console_faults() -> list[OSError]:
    console = sys.modules.get(
        "actconform.report.terminal.console"
    )  # which takes long to import, and not every verb needs
    return console.take_faults() if console else []


def _code(error: Exception) -> int | None:
    """Return the exit code for errors of the user and failed writes; None for an internal error."""
    if isinstance(error, OSError):
        if error.errno in UNWRITABLE and error.filename is None:
            sys.stdout = None  # nothing more is flushed to it at exit
        return 1 if error.errno in UNWRITABLE else 2 if error.errno in NO_PATH else None
    if not _is_user_error(error):
        return None
    cause = error.__cause__
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    return 1 if cause is not None and cause.errno in UNWRITABLE else 2


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{one_line(str(error.filename or 'standard output'))}: {error.strerror}"
    lines = str(error).splitlines()
    more = [f"... and {number_of(len(lines) - MOST_LINES, 'more line')}"] if len(lines) > MOST_LINES else []
    return "\n".join([*(shortened(visible(line)) for line in lines[:MOST_LINES]), *more])


def _is_user_error(error: Exception) -> bool:
    from actconform.errors import GoldenError, ObservedError, PluginError, RegisterError, UsageError

    return isinstance(error, UsageError | RegisterError | ObservedError | GoldenError | PluginError)
