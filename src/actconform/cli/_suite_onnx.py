"""`actconform suite onnx`: the operator tests of the onnx package through every runtime, by ONNX's limits and against the truth."""

from __future__ import annotations

import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from actconform._version import __version__
from actconform.checking.open_runtime import open_runtime, runtime_backend
from actconform.checking.runs import RunFailure, RuntimeRuns
from actconform.cli import _completion, _options, announced
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.suite.suite_files import (
    SCOREBOARD,
    SUITE_JSON,
    expect_trends,
    write_scoreboard,
    write_suite_json,
)
from actconform.report.suite.suite_page import SUITE_PAGE, write_suite_page
from actconform.report.suite.suite_progress import SuiteProgress
from actconform.report.suite.suite_screen import print_suite
from actconform.report.terminal.console import open_console, plain
from actconform.say import say
from actconform.settings import read_config
from actconform.suite.case import LEFT_OUT, standard_cases
from actconform.suite.suite_journal import SUITE_JOURNAL, SuiteJournal
from actconform.suite.suite_result import RuntimeFacts, SuiteIdentity, SuiteReport
from actconform.suite.suite_run import RuntimeLostError, run_cases
from actconform.text import number_of, one_line
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.suite.case import SuiteCase

DEFAULT_OUT = Path("actconform-suite")


class SuiteOptions(NamedTuple):
    """What the commands of the group have in common."""

    runtimes: tuple[str, ...]
    operators: tuple[str, ...]
    out: Path
    html: bool
    as_json: bool
    resume: bool
    timeout: float | None
    config_path: Path | None


def suite_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of SuiteOptions to a command."""
    for option in reversed(
        (
            click.option(
                "--runtime",
                "runtimes",
                multiple=True,
                shell_complete=_completion.runtimes,
                help="ort-cpu, openvino, ort-cpu@1.26 ... (repeatable; default: every ONNX runtime that starts here).",
            ),
            click.option(
                "--op",
                "operators",
                multiple=True,
                help="Only operators that match this glob, as 'Reduce*' (repeatable).",
            ),
            click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_OUT, show_default=True),
            click.option("--html", is_flag=True, help="Write a page: every operator and every case."),
            click.option("--json", "as_json", is_flag=True, help="Print suite.json instead of the screen."),
            click.option(
                "--resume", is_flag=True, help="Keep the cases that an interrupted run in --out has, do the rest."
            ),
            click.option("--timeout", type=click.FloatRange(min=1.0), help="Seconds that a case may take."),
            _options.config,
        )
    ):
        command = option(command)
    return command


@click.command("onnx")
@suite_options
def onnx_command(**arguments: Any) -> int:
    """Run the cases that the installed onnx package has of every operator, and judge each twice.

    By ONNX's own limits, as its test runner counts; and by the graph in float64 with the error that rounding explains. An operator
    without a rule is not judged, which is no pass. Of outputs that the package ships and that are beyond that bound the data are blamed.

    Exit code 0: every answer is within its bound, refused, or explained by a registered cause; 1: one is not, or it was interrupted;
    2: wrong usage.
    """
    import onnx

    options = SuiteOptions(**arguments)
    _expect_out(options.out)
    left_out = [f'onnx\'s cases of the kind "{LEFT_OUT}" are left out: their models must be downloaded']
    return run_suite(options, "onnx", onnx.__version__, partial(standard_cases, options.operators), left_out)


def run_suite(
    options: SuiteOptions,
    suite: str,
    version: str,
    read_cases: Callable[[], Sequence[SuiteCase]],
    left_out: Sequence[str] = (),
) -> int:
    """Run the cases of a suite, write its files, print what came of it, and return the exit code.

    The cases are read while the runtimes start.
    """
    started = time.perf_counter()
    config = read_config(options.config_path)
    catalog = configured(announced(load_plugins()), config)
    console = open_console(to_stderr=True)
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor())  # left after the runtimes, whose end ends a start
        opened = _opened(options, catalog, config, stack)
        starts = threads.map(RuntimeRuns.start, opened)
        cases = read_cases()
        runtimes, facts, missing = _started(opened, starts, asked=bool(options.runtimes))
        expect_trends(options.out, [each.name for each in facts])
        identity = SuiteIdentity(suite=suite, version=version, actconform=__version__, runtimes=tuple(facts))
        journal = stack.enter_context(SuiteJournal(options.out, identity, resume=options.resume))
        rest = [case for case in cases if f"{case.kind}/{case.name}" not in journal.earlier]
        if options.resume:
            dropped = (
                f"; {number_of(journal.dropped, 'broken line is', 'broken lines are')} dropped"
                if journal.dropped
                else ""
            )
            console.print(
                f"resumed: {len(cases) - len(rest):,} of {number_of(len(cases), 'case')} are from before{dropped}"
            )
        ending = ""
        with SuiteProgress(len(rest), console) as progress:
            try:
                run_cases(rest, runtimes, journal, progress.step)
            except KeyboardInterrupt:
                ending = "interrupted"
            except RuntimeLostError as error:
                ending = f"a runtime does not start any more: {one_line(str(error))}"
        done = {**journal.earlier, **{record.id: record for record in journal.records}}
        records = [done[key] for case in cases if (key := f"{case.kind}/{case.name}") in done]
    report = SuiteReport(
        identity=identity,
        records=records,
        selected=len(cases),
        left_out=[*left_out, *missing],
        notes=journal.notes,
        ending=ending,
        seconds=time.perf_counter() - started,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return _concluded(options, report)


def _concluded(options: SuiteOptions, report: SuiteReport) -> int:
    """Write the files of a run and print it."""
    out = options.out
    path = write_suite_json(report, out)
    for runtime in report.identity.runtimes:
        if not report.ending:
            write_scoreboard(report, runtime, out)
    if options.html:
        write_suite_page(report, shlex.join(["actconform", *sys.argv[1:]]), out)
    if options.as_json:
        sys.stdout.buffer.write(path.read_bytes())
        return 0 if report.conforms else 1
    console = open_console()
    print_suite(console, report)
    names = [SUITE_JSON, SUITE_JOURNAL, *([SCOREBOARD] if not report.ending else [])]
    written = [str(out / SUITE_PAGE), *names] if options.html else [str(out / names[0]), *names[1:]]
    verdict = "CONFORMS" if report.conforms else "DOES NOT CONFORM"
    counts = f"{len(report.records):,} of {number_of(report.selected, 'case')}"
    console.print(
        plain(f"\n{verdict}     {counts}     {', '.join(written)}     {report.seconds:.0f} s"),
        style="bold",
        soft_wrap=True,
    )
    if report.ending:
        console.print(f"[red]{plain(report.ending)}[/]: the same command with --resume goes on", soft_wrap=True)
    return 0 if report.conforms else 1


def _opened(options: SuiteOptions, catalog: Catalog, config: Config, stack: ExitStack) -> list[RuntimeRuns]:
    """Return the runtimes that are asked for, by default all, not yet started. Raises UsageError where there is no such runtime."""
    names = options.runtimes or catalog.backend_names("runtime")
    for name in names:
        runtime_backend(name, catalog)  # before an environment is made for another one
    tell = partial(say, err=True)
    opened = [open_runtime(name, catalog, config, tell, timeout=options.timeout) for name in dict.fromkeys(names)]
    return [stack.enter_context(runs) for runs in opened]


def _started(
    opened: Sequence[RuntimeRuns], starts: Iterable[Mapping[str, str] | RunFailure], *, asked: bool
) -> tuple[list[RuntimeRuns], list[RuntimeFacts], list[str]]:
    """Return the runtimes that start here with their facts, and why others do not.

    Raises UsageError where one that is `asked` for does not start, or none does.
    """
    runtimes, facts, missing = [], [], []
    for runs, started in zip(opened, starts, strict=True):
        if not isinstance(started, RunFailure):
            runtimes.append(runs)
            facts.append(RuntimeFacts(name=runs.name, facts=dict(started), packages=runs.packages))
        elif asked:
            raise UsageError(f"--runtime {runs.name}: {started.message}")
        else:
            missing.append(f"{runs.name} is left out: {one_line(started.message)}")
    if not runtimes:
        raise UsageError("no ONNX runtime starts here:\n" + "\n".join(missing))
    return runtimes, facts, missing


def _expect_out(out: Path) -> None:
    """Raise UsageError where `--out` can be no folder, before anything takes time."""
    if not str(out).strip("."):
        raise UsageError("--out is empty: name a folder")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {one_line(str(out))}: is a file: name a folder")
