"""`actconform bench`: time the selected routes in interleaved rounds, with their verdicts, and compare with a baseline."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform._version import __version__
from actconform.bench import baseline
from actconform.bench.available_memory import refuse_what_does_not_fit
from actconform.bench.interleaved import ENOUGH, SECONDS
from actconform.bench.intervals import CONFIDENCE, LEAST_ROUNDS
from actconform.bench.results import FILE, Machine, ThroughputReport, write
from actconform.bench.runner import BenchmarkRunner
from actconform.bench.verdicts import cases
from actconform.bench.workloads import chosen, numbers, workloads
from actconform.cli import _completion, _options, announced
from actconform.errors import UsageError
from actconform.machine.cpu import cpu_capability
from actconform.machine.memory import available_bytes
from actconform.plugin.loader import load_plugins
from actconform.report.terminal import speeds
from actconform.report.terminal.console import open_console, plain
from actconform.report.terminal.progress import progress_for
from actconform.report.terminal.workload_progress import WorkloadProgress
from actconform.run.recorder import now
from actconform.run.scheduler import plan_of, run
from actconform.run.select import Selection
from actconform.say import say
from actconform.settings import Config, read_config
from actconform.testdata.golden.store import THROUGHPUT, golden_dir
from actconform.text import number_of
from actconform.workers.from_settings import configured, with_environments

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import Console

    from actconform.bench.results import Measured, NotTimed
    from actconform.bench.workloads import Workload
    from actconform.plugin.loader import Catalog
    from actconform.run.scheduler import Plan
    from actconform.types import Result

SIZES, BATCHES, ROUNDS = "1K,1M,16M", "1,32,256", 25
ROUNDS_HELP = (
    f"Samples of each route, at least {LEAST_ROUNDS}; where they take over {SECONDS:g} s, {ENOUGH} are enough."
)


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is timed: each workload with its routes, and how."""

    workloads: list[tuple[Workload, list[str]]]
    rounds: int
    twice: bool


@click.command("bench")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=_completion.patterns)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=_completion.backends,
    help="Only this backend (repeatable); all: the extra ones too.",
)
@click.option(
    "--route", "routes", multiple=True, shell_complete=_completion.routes, help="Only this route (repeatable)."
)
@click.option("--size", default=SIZES, show_default=True, help="Elements of a kernel's x; K is 1024.")
@click.option("--batch", default=BATCHES, show_default=True, help="Samples in a model's batch.")
@click.option("--rounds", default=ROUNDS, show_default=True, help=ROUNDS_HELP)
@click.option("--threads", type=int, help="Threads of every worker (default: as set, or 1).")
@click.option("--full", is_flag=True, help="Also models of published size: NAME@published.")
@click.option("--twice", is_flag=True, help="Time every route twice in the same rounds; print how they differ.")
@click.option(
    "--baseline", "baseline_path", type=click.Path(path_type=Path), help="Compare with this (golden/throughput.json)."
)
@click.option("--update", is_flag=True, help="Write the ratios of this run into the baseline.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for throughput.json (conform-out).")
@_options.config
@click.option("--json", "as_json", is_flag=True, help="Print throughput.json instead of the screen.")
def command(
    patterns: tuple[str, ...],
    backends: tuple[str, ...],
    routes: tuple[str, ...],
    size: str,
    batch: str,
    rounds: int,
    threads: int | None,
    full: bool,
    twice: bool,
    baseline_path: Path | None,
    update: bool,
    out: Path | None,
    config_path: Path | None,
    as_json: bool,
) -> int:
    """Time what matches any PATTERN, a glob on SUBJECT/throughput/f32/ROUTE such as 'gelu-*/throughput/f32/*'.

    Exit code 0: timed; 1: slower than the baseline, nothing timed, or interrupted; 2: wrong usage or configuration.
    """
    config = _config(config_path, threads, rounds)
    folder = _folder(Path(config.out) if out is None else out)
    stored = baseline_path or golden_dir() / THROUGHPUT
    old = baseline.read(stored)
    if old is None and baseline_path and not update:
        raise UsageError(f"--baseline {stored}: no such file; write it with --update, or leave the option away")
    catalog = configured(announced(load_plugins()), config)
    selection = Selection(patterns=patterns, backends=backends, routes=routes)
    wanted = _Wanted(
        workloads=_workload_routes(
            catalog, selection, numbers("--size", size), numbers("--batch", batch), full=full, twice=twice
        ),
        rounds=rounds,
        twice=twice,
    )
    console = open_console(to_stderr=as_json)
    report = _measured(_plan(wanted, config, catalog), wanted, console)
    comparison = baseline.compare(old, report) if old else None
    if old and comparison and comparison.slower and not (update or report.interrupted):
        again = _only(wanted, {change.workload for change in comparison.slower})
        console.print("\nslower than the baseline: timed once more, in new processes")
        again_measured = _measured(_plan(again, config, catalog), again, console)
        comparison = baseline.confirmed(comparison, baseline.compare(old, again_measured))
    if comparison:
        report = msgspec.structs.replace(report, comparison=msgspec.to_builtins(comparison))
    path = _written(folder, report)
    speeds.legend(console)
    speeds.not_timed(console, report.not_timed)
    speeds.repeated(console, report.measured)
    if comparison:
        speeds.compared(console, comparison, str(stored))
    if update:
        _update(stored, old, report, console)
    console.print(plain(f"{speeds.totals(report)}     {path}     {report.seconds:.0f} s"), style="bold", soft_wrap=True)
    if report.interrupted:
        console.print("[red]interrupted[/]: what had been timed is kept")
    if as_json:
        sys.stdout.buffer.write(path.read_bytes())
    slower = comparison is not None and bool(comparison.slower) and not update
    return 1 if slower or report.interrupted or not report.measured else 0


def _config(path: Path | None, threads: int | None, rounds: int) -> Config:
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads}: expected at least 1; without the option it is as set, or 1")
    if rounds < LEAST_ROUNDS:
        raise UsageError(
            f"--rounds {rounds}: no {100 * CONFIDENCE:.0f} % interval of a median has fewer than {LEAST_ROUNDS} samples"
        )
    config = read_config(path)
    return msgspec.structs.replace(config, threads=threads) if threads else config


def _folder(folder: Path) -> Path:
    """Return the folder, created where it is missing; raise UsageError before anything is timed where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--out {folder}: is a file, or lies in one; name a folder") from error
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--out {folder}: cannot be written; name another folder")
    return folder


def _workload_routes(
    catalog: Catalog, selection: Selection, sizes: list[int], batches: list[int], *, full: bool, twice: bool
) -> list[tuple[Workload, list[str]]]:
    """Return each workload with its routes; raise UsageError where one does not fit into memory."""
    free_bytes = available_bytes()
    workload_routes = []
    for subject, names in chosen(catalog, selection, full=full).items():
        for workload in workloads(catalog, subject, sizes, batches):
            routes = [name for name in names if workload.direction == "forward" or not workload.case(name).constants]
            if routes:
                refuse_what_does_not_fit(catalog.subject(subject), workload, len(routes) * (1 + twice), free_bytes)
                workload_routes.append((workload, routes))
    if not workload_routes:
        raise UsageError("graphs with constants have no gradients, and nothing else is selected")
    return workload_routes


def _only(wanted: _Wanted, workloads: Collection[Workload]) -> _Wanted:
    return msgspec.structs.replace(wanted, workloads=[pair for pair in wanted.workloads if pair[0] in workloads])


def _plan(wanted: _Wanted, config: Config, catalog: Catalog) -> Plan:
    chosen = cases(wanted.workloads)
    return plan_of(catalog, with_environments(config, catalog.workers(chosen), partial(say, err=True)), chosen)


def _measured(plan: Plan, wanted: _Wanted, console: Console) -> ThroughputReport:
    """Judge the cases, then time them, printing each subject when it is done; an interrupted run keeps what it has timed."""
    started = time.perf_counter()
    measured: list[Measured] = []
    not_timed: list[NotTimed] = []
    facts: dict[str, dict[str, str]] = {}
    interrupted = False
    try:
        results = _judged(plan, console)
        with BenchmarkRunner(plan, results, rounds=wanted.rounds, twice=wanted.twice) as bench_runner:
            try:
                _time(bench_runner, wanted, console, measured, not_timed)
            finally:
                facts = bench_runner.facts()
    except KeyboardInterrupt:
        interrupted = True
    report = ThroughputReport(
        actconform=__version__,
        when=now(),
        machine=_machine(plan.config.threads, facts),
        facts=facts,
        rounds=wanted.rounds,
        confidence=CONFIDENCE,
        interrupted=interrupted,
        seconds=time.perf_counter() - started,
        measured=measured,
        not_timed=not_timed,
    )
    console.print(plain(speeds.about(report)), soft_wrap=True)
    return report


def _judged(plan: Plan, console: Console) -> dict[str, Result]:
    results: dict[str, Result] = {}
    with progress_for(plan.cases, console) as progress:

        def keep(result: Result) -> None:
            results[result.case] = result
            progress.advance(result)

        run(plan, lambda backend, hello, _: progress.started(backend, hello), keep)
    return results


def _time(
    bench_runner: BenchmarkRunner,
    wanted: _Wanted,
    console: Console,
    measured: list[Measured],
    not_timed: list[NotTimed],
) -> None:
    with WorkloadProgress(len(wanted.workloads), console) as progress:
        for number, (workload, routes) in enumerate(wanted.workloads):
            progress.begins(workload)
            timed, without = bench_runner.time(workload, routes)
            not_timed += without
            if timed:
                measured.append(timed)
            following = wanted.workloads[number + 1 :][:1]
            if not following or following[0][0].subject != workload.subject:
                speeds.tables(console, [done for done in measured if done.workload.subject == workload.subject])


def _machine(threads: int, facts: dict[str, dict[str, str]]) -> Machine:
    affinity: Sequence[int] = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    cpus = {of["cpu"] for of in facts.values() if "cpu" in of}
    return Machine(
        cpu=", ".join(sorted(cpus)) or "unknown",
        capability=cpu_capability(),
        affinity=tuple(affinity),
        threads=threads,
        memory=available_bytes(),
    )


def _written(folder: Path, report: ThroughputReport) -> Path:
    path = folder / FILE
    try:
        write(path, report)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _update(path: Path, old: baseline.Baseline | None, report: ThroughputReport, console: Console) -> None:
    if report.interrupted or not report.measured:
        console.print(plain(f"{path} is unchanged: the run is incomplete"), soft_wrap=True)
        return
    new = baseline.baseline_of(report, old)
    baseline.save(path, new)
    console.print(plain(f"written: {path}, {number_of(len(new.entries), 'entry', 'entries')}"), soft_wrap=True)
