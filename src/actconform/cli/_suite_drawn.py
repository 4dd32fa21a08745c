"""`actconform suite drawn`: operators of the standard at drawn attributes, shapes, element types and values."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform._version import __version__
from actconform.checking.open_runtime import open_runtime, runtime_backend
from actconform.checking.runs import RunFailure
from actconform.cli import _options, announced
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.suite.drawn_files import (
    DRAWN_JSON,
    remove_earlier_findings,
    write_drawn_finding,
    write_drawn_json,
)
from actconform.report.suite.drawn_page import write_drawn_page
from actconform.report.suite.drawn_screen import print_drawn
from actconform.report.terminal.check_progress import CheckProgress
from actconform.report.terminal.console import open_console, plain
from actconform.settings import read_config
from actconform.suite.drawn.drawn_report import DrawnReport, chosen_strategies, examine
from actconform.suite.drawn.search import expect_hypothesis
from actconform.text import one_line
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.checking.runs import RuntimeRuns
    from actconform.suite.drawn.drawn_report import DrawnFinding, OperatorTally
    from actconform.suite.drawn.registry import OperatorStrategy
    from actconform.suite.drawn.search import Shrunk

DEFAULT_RUNTIMES = ("ort-cpu",)
now = time.monotonic


@click.command("drawn")
@_options.checked_runtimes
@click.option(
    "--op", "operators", multiple=True, help="Only operators that match this glob, as 'Reduce*' (repeatable)."
)
@click.option(
    "--examples", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Different graphs an operator."
)
@_options.drawing_seed
@click.option("--minutes", type=click.FloatRange(min=0.01), help="After these no further operator begins.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("actconform-drawn"), show_default=True)
@click.option("--html", is_flag=True, help="Write a page: every operator, and every finding with its folder.")
@click.option("--json", "as_json", is_flag=True, help="Print drawn.json instead of the table.")
@_options.call_timeout
@_options.config
def drawn_command(
    runtimes: tuple[str, ...],
    operators: tuple[str, ...],
    examples: int,
    seed: int,
    minutes: float | None,
    out: Path,
    html: bool,
    as_json: bool,
    timeout: float | None,
    config_path: Path | None,
) -> int:
    """Draw graphs of one operator over attributes, shapes, element types and values, and hold runtimes against their truth.

    What is wrong is shrunk to the simplest graph, which lies in OUT/OPERATOR with its inputs, what is right, and a program that shows it
    with the runtime alone. Needs hypothesis: pip install "actconform[suite]".

    Exit code 0: every answer is within its error bound, or refused; 1: there is a finding, or not every operator had its turn; 2: wrong usage.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {one_line(str(out))}: is a file: name a folder")
    config = read_config(config_path)
    catalog = announced(configured(load_plugins(), config))
    names = tuple(dict.fromkeys(runtimes or DEFAULT_RUNTIMES))
    for name in names:
        runtime_backend(name, catalog)
    expect_hypothesis()
    strategies = chosen_strategies(operators)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_runtime(name, catalog, config, timeout=timeout)) for name in names]
        facts = _started(opened)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {one_line(str(out))}: cannot be written: {error.strerror}") from error
        session = _Session(examples, seed, out, opened, facts)
        try:
            session.run(strategies, minutes)
        finally:
            report = session.report([strategy.op_type for strategy in strategies])
            write_drawn_json(report, out / DRAWN_JSON)
            page = write_drawn_page(report, shlex.join(["actconform", *sys.argv[1:]]), out) if html else None
    if as_json:
        sys.stdout.buffer.write((out / DRAWN_JSON).read_bytes())
    console = open_console(to_stderr=as_json)
    print_drawn(console, report, out)
    if page is not None:
        console.print(plain(str(page)), soft_wrap=True)
    return 0 if report.conforms else 1


def _started(opened: Sequence[RuntimeRuns]) -> dict[str, dict[str, str]]:
    """Start the runtimes, and return their facts; raise UsageError where one cannot run here."""
    facts = {}
    for runs in opened:
        started = runs.start()
        if isinstance(started, RunFailure):
            raise UsageError(f"--runtime {runs.name}: cannot run here: {one_line(started.message)}")
        facts[runs.name] = dict(started)
    return facts


class _Session:
    """A run over operators, whose report can be had at any time."""

    def __init__(
        self, examples: int, seed: int, out: Path, runtimes: list[RuntimeRuns], facts: dict[str, dict[str, str]]
    ) -> None:
        self._examples, self._seed, self._out = examples, seed, out
        self._runtimes, self._facts = runtimes, facts
        self._tallies: list[OperatorTally] = []
        self._findings: list[DrawnFinding] = []
        self._progress = CheckProgress(open_console(to_stderr=True))

    def run(self, strategies: list[OperatorStrategy], minutes: float | None) -> None:
        end = now() + 60.0 * minutes if minutes is not None else None
        with self._progress:
            for strategy in strategies:
                if end is not None and now() > end:
                    return
                self._progress.stage(strategy.op_type)
                for runs in self._runtimes:
                    remove_earlier_findings(self._out, strategy.op_type, runs.name)
                tallies, findings = examine(strategy, self._runtimes, self._examples, self._seed, self._keep)
                self._tallies += tallies
                self._findings += findings

    def _keep(self, runs: RuntimeRuns, finding: DrawnFinding, shrunk: Shrunk) -> str:
        command = ["suite", "drawn", "--runtime", runs.name, "--op", finding.operator]
        command += ["--examples", str(self._examples), "--seed", str(self._seed)]
        return write_drawn_finding(self._out, runs, finding, shrunk, self._facts[runs.name], command)

    def report(self, operators: list[str]) -> DrawnReport:
        """Return what came of the operators so far."""
        done = {tally.operator for tally in self._tallies}
        packages = ("hypothesis", "numpy", "onnx")
        return DrawnReport(
            versions={"actconform": __version__, **{name: importlib.metadata.version(name) for name in packages}},
            seed=self._seed,
            examples=self._examples,
            runtimes=self._facts,
            tallies=self._tallies,
            findings=self._findings,
            not_run=[name for name in operators if name not in done],
        )
