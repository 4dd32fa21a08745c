"""`actconform sweep`: kernels over all float32 numbers, chunk by chunk."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from actconform._version import __version__
from actconform.cli import _completion, _options, announced
from actconform.errors import ExportError, SweepError, Unavailable, Unsupported, UsageError, WorkerError
from actconform.exhaustive.patterns import EXTENTS, chunk_order, swept_inputs
from actconform.plugin.loader import load_plugins
from actconform.report.sweep.sweep_files import write_bits_csv, write_sweep_csv, write_sweep_table
from actconform.report.sweep.sweep_page import write_sweep_page
from actconform.report.sweep.sweep_screen import SweepProgress, sweep_table
from actconform.report.terminal.console import open_console, plain
from actconform.run.scheduler import facts_of
from actconform.say import say
from actconform.settings import read_config, with_timeout
from actconform.sweep.differing_bits import BitsComparison, SweptRoute, compare_chunks, read_compared
from actconform.sweep.journal import Sweep, SweepIdentity, SweepJournal, definition_of, read_sweeps
from actconform.sweep.known_causes import Explanations
from actconform.sweep.plan import inputs_of_sweep, sweep_plan, swept_graph
from actconform.sweep.request import SweepRequest
from actconform.sweep.row_sample import is_sampled
from actconform.sweep.runner import SweptProgram, started, sweep_chunks
from actconform.sweep.summary import same_bits, sweep_rows
from actconform.text import number_of
from actconform.types import ASPECTS
from actconform.verdict.causes.register import with_files
from actconform.workers.from_settings import configured, configured_worker, with_environments

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.sweep.differing_bits import Compared
    from actconform.sweep.journal import SweptChunk
    from actconform.sweep.spread_chunks import SpreadSweep
    from actconform.types import Artifact, Aspect, Case
    from actconform.workers.client import Worker
    from actconform.workers.protocol import Handshake


class _Running(msgspec.Struct, kw_only=True):
    """The sweeps as they go: what is swept with which workers until when, and why it ended before its last chunk.

    `left` are the inputs of each case and of all after it. Nothing is swept on an `unusable` backend, whose reason is among the `refused`.
    """

    catalog: Catalog
    config: Config
    request: SweepRequest
    explanations: Explanations
    began: float
    left: dict[Case, int]
    stack: ExitStack
    samples: dict[tuple[str, Aspect], str]
    workers: dict[str, list[Worker]] = {}
    sweeps: list[Sweep] = []
    graphs: dict[Case, Artifact | None] = {}
    unusable: set[str] = set()
    refused: list[str] = []
    uncompared: list[str] = []
    spread: SpreadSweep | None = None
    advanced: bool = False
    ending: str = ""
    failed: bool = False

    @property
    def deadline(self) -> float:
        """After which no chunk begins, as time.monotonic has it."""
        return self.began + self.request.seconds

    def end_of_budget(self) -> str:
        """Return in words that the budget is over, and what to do."""
        budget = f"the budget of {self.request.budget}"
        if self.advanced:
            return f"{budget} is used up: {GOES_ON}"
        seconds = time.monotonic() - self.began
        return (
            f"{budget} was over before the first chunk: it counts from the start of the command, and until chunks could "
            f"begin, with plugins, graphs and workers started, {seconds:.0f} s went by; give a longer --budget"
        )


GOES_ON = "the same command with --resume goes on"
INTERRUPTED = f"interrupted: {GOES_ON}"

RANGE_HELP = "sample: 2^15 numbers of every binade; quick: all with 2^-15 <= |x| < 128 besides; all: all 2^32."


@click.command("sweep")
@click.argument("patterns", nargs=-1, metavar="[KERNEL]...", shell_complete=_completion.kernels)
@click.option(
    "--route",
    "routes",
    multiple=True,
    shell_complete=_completion.routes,
    help="What computes: torch, authored+ort-cpu ... (repeatable).",
)
@click.option(
    "--aspect",
    "aspects",
    type=click.Choice(ASPECTS),
    multiple=True,
    default=("value",),
    show_default=True,
    help="Repeatable.",
)
@click.option(
    "--range",
    "extent",
    type=click.Choice(EXTENTS),
    default="quick",
    show_default=True,
    help=RANGE_HELP,
)
@click.option("--cluster", "address", help="Sweep on the Dask cluster of this scheduler: tcp://HOST:PORT.")
@click.option("--workers", default=1, show_default=True, help="Processes that compute at once.")
@click.option(
    "--budget", default="", help="Begin no chunk later than this after the start of the command: 90s, 10m, 2h."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("sweep-out"),
    show_default=True,
    help="Folder for journals and report.",
)
@click.option("--resume", is_flag=True, help="Keep the chunks that an interrupted sweep in --out has, do the rest.")
@_options.worker_timeout
@_options.config
def command(config_path: Path | None, address: str | None, timeout: float | None, **arguments: Any) -> int:
    """Compute KERNELs (globs) at all float32 numbers and compare each output with the truth.

    Exit code 0: swept, and what breaks a limit has a known cause; 1: something has none, a program failed, a route could not be swept, or it ended early;
    2: wrong usage, or nothing could be swept.
    """
    began = time.monotonic()
    request = SweepRequest(**arguments)
    config = with_timeout(read_config(config_path), timeout)
    catalog = configured(announced(load_plugins()), config)
    plan = sweep_plan(catalog, request)
    if address is not None and request.workers != 1:
        raise UsageError("--cluster and --workers: the cluster has its own workers; leave --workers out")
    as_read, config = config, with_environments(config, catalog.workers(plan.cases), partial(say, err=True))
    console = open_console()
    inputs = [inputs_of_sweep(catalog.kernels[case.subject], case.aspect, request.extent) for case in plan.cases]
    with ExitStack() as stack:
        running = _Running(
            catalog=catalog,
            config=config,
            request=request,
            explanations=Explanations(catalog, with_files(catalog.register, config.deviations), config.timeout),
            began=began,
            left={case: sum(inputs[place:]) for place, case in enumerate(plan.cases)},
            samples=plan.samples,
            stack=stack,
        )
        if address is not None:
            running.spread = _spread(address, running, as_read)
        with SweepProgress(console) as progress:
            for case in plan.cases:
                _sweep(running, case, progress)
                if running.ending:
                    break
        _compare_bits(running, console)
    sweep_table(console, running.sweeps)
    if running.sweeps:
        _write_report(request.out, console)
    for words in (*plan.notes(running.refused), *running.uncompared):
        console.print(plain(words), style="dim", soft_wrap=True)
    if not running.sweeps and running.refused:
        raise UsageError("nothing was swept:\n" + "\n".join(running.refused))
    done = sum(sweep.complete for sweep in running.sweeps)
    words = f"\n{done} of {number_of(len(plan.cases), 'sweep')} complete     {request.out}     {time.monotonic() - began:.0f} s"
    console.print(plain(words), style="bold", soft_wrap=True)
    swept = {sweep.identity.case.route for sweep in running.sweeps}
    if running.ending:
        console.print(f"[red]{plain(running.ending)}[/]", soft_wrap=True)
    elif missing := [route for route in request.routes if route not in swept]:
        console.print(
            f"[red]nothing was swept on {plain(', '.join(missing))}[/]: the reason stands above", soft_wrap=True
        )
    unexplained = any(not finding.deviation for sweep in running.sweeps for finding in sweep.statistics.findings)
    incomplete = running.ending or running.failed or done < len(running.sweeps) or swept < set(request.routes)
    return 1 if incomplete or unexplained else 0


def _write_report(folder: Path, console: Console) -> None:
    """Write page, CSV and table of all sweeps of the folder, those of earlier commands too, and print which routes gave the same bits."""
    sweeps = read_sweeps(folder)
    rows, pairs = sweep_rows(sweeps), same_bits(sweeps, read_compared(folder))
    for pair in pairs:
        console.print(plain(str(pair)), soft_wrap=True)
    files = [
        write_sweep_csv(rows, folder),
        write_bits_csv(pairs, folder),
        write_sweep_table(rows, folder),
        write_sweep_page(rows, pairs, folder),
    ]
    console.print(plain(f"written: {', '.join(map(str, files))}"), soft_wrap=True)


def _sweep(running: _Running, case: Case, progress: SweepProgress) -> None:
    """Sweep one case, or the rest of it; what cannot be swept is noted with its reason, what ends the sweep is its `ending`."""
    try:
        prepared = _prepared(running, case)
    except KeyboardInterrupt:
        running.ending = INTERRUPTED
        return
    if prepared is None:
        return
    artifact, journal = prepared
    with journal:
        sweep = Sweep(identity=journal.identity, chunks=dict(journal.earlier), covered=[])
        running.sweeps.append(sweep)
        running.graphs[case] = artifact
        progress.begin(running.left[case] - sum(chunk.statistics.inputs for chunk in sweep.chunks.values()))

        def keep(chunk: SweptChunk) -> None:
            journal.add(chunk)
            sweep.chunks[chunk.chunk] = chunk
            running.advanced = True
            progress.advance(chunk.statistics.inputs, case.id)

        rest = [chunk for chunk in chunk_order() if chunk not in sweep.chunks]
        try:
            _sweep_chunks(running, sweep, artifact, rest, keep)
        except KeyboardInterrupt:
            running.ending = INTERRUPTED
        except SweepError as error:
            if error.refused:
                running.refused.append(str(error))
                running.sweeps.remove(sweep)
            else:
                running.failed = True
                running.refused.append(f"failed: {error}")
        if sweep.complete:
            _explain(running, sweep, artifact, journal)
        elif time.monotonic() >= running.deadline and not running.ending:
            running.ending = running.end_of_budget()


def _prepared(running: _Running, case: Case) -> tuple[Artifact | None, SweepJournal] | None:
    """Return the graph of a case, where its route has one, and its open journal; None where it cannot be swept, and why is noted."""
    backend, spread, request = running.catalog.worker(case), running.spread, running.request
    if backend in running.unusable:
        return None
    try:
        artifact = swept_graph(running.catalog, case, running.config)
    except (Unsupported, Unavailable, ExportError, WorkerError) as error:
        running.refused.append(f"{case.id}: {error}")
        return None
    try:
        hello = spread.started(backend) if spread else started(_workers(running, backend))
    except UsageError as error:
        running.unusable.add(backend)
        running.refused.append(str(error))
        return None
    identity = _identity(running, case, artifact, hello)
    resume = request.resume and (request.out / identity.file_name).exists()
    try:
        return artifact, SweepJournal(request.out, identity, resume=resume)
    except UsageError as error:
        running.failed = True
        running.refused.append(str(error))
        return None


def _compare_bits(running: _Running, console: Console) -> None:
    """Count the inputs at which routes that swept the same kernel and aspect differ in a bit."""
    swept: dict[tuple[str, str], list[SweptRoute]] = {}
    for sweep in running.sweeps:
        case = sweep.identity.case
        if is_sampled(running.catalog.kernels[case.subject]):
            continue
        route = SweptRoute(sweep, running.graphs[case], running.catalog.worker(case))
        swept.setdefault((case.subject, case.aspect), []).append(route)
    for routes in swept.values():
        if running.ending:
            return
        try:
            comparison = BitsComparison(routes, running.request.out, resume=running.request.resume)
        except UsageError as error:
            running.failed = True
            running.uncompared.append(f"bits not compared: {error}")
            continue
        with comparison:
            _compare_routes(running, comparison, console)


def _compare_routes(running: _Running, comparison: BitsComparison, console: Console) -> None:
    chunks, spread = comparison.chunks(comparison.pairs), running.spread
    if not chunks:
        return
    if spread:
        chunks, uncompared = spread.comparable(comparison)
        running.uncompared += uncompared
    rest, extent = len(chunks), running.request.extent
    with SweepProgress(console, "compare") as progress:
        progress.begin(sum(swept_inputs(chunk.chunk, extent) for chunk in chunks))

        def keep(compared: Compared) -> None:
            nonlocal rest
            comparison.keep(compared)
            rest -= 1
            running.advanced = True
            progress.advance(swept_inputs(compared[0][1].chunk, extent), comparison.name)

        try:
            if spread:
                spread.compare_chunks(comparison.name, chunks, running.deadline, keep)
            else:
                compare_chunks(chunks, _teams(running, comparison), running.deadline, keep)
        except KeyboardInterrupt:
            running.ending = INTERRUPTED
        except SweepError as error:
            running.failed = True
            running.refused.append(f"failed: {error}")
        else:
            if rest:
                running.ending = running.end_of_budget()


def _teams(running: _Running, comparison: BitsComparison) -> list[dict[str, Worker]]:
    """Return the workers that compare on this machine, each team with one of each backend."""
    workers = {backend: _workers(running, backend) for backend in comparison.backends(comparison.pairs)}
    return [
        {backend: of_backend[place] for backend, of_backend in workers.items()}
        for place in range(running.request.workers)
    ]


def _sweep_chunks(
    running: _Running,
    sweep: Sweep,
    artifact: Artifact | None,
    chunks: list[int],
    keep: Callable[[SweptChunk], None],
) -> None:
    case = sweep.identity.case
    program = SweptProgram(running.catalog.kernels[case.subject], case, artifact, sweep.identity.extent)
    backend = running.catalog.worker(case)
    if running.spread:
        running.spread.sweep_chunks(program, backend, chunks, running.deadline, keep)
    else:
        sweep_chunks(program, chunks, _workers(running, backend), running.deadline, keep)


def _spread(address: str, running: _Running, config: Config) -> SpreadSweep:
    """Return the sweeps on the cluster at the address, whose workers make environments of their own. Raises UsageError where that cannot be used."""
    from actconform.cluster.connection import Cluster

    cluster = running.stack.enter_context(Cluster(address))
    from actconform.cluster.opened import opened_on
    from actconform.sweep.spread_chunks import SpreadSweep

    return SpreadSweep(cluster, running.stack.enter_context(opened_on(cluster, config, running.catalog.register)))


def _explain(running: _Running, sweep: Sweep, artifact: Artifact | None, journal: SweepJournal) -> None:
    """Look for causes of what breaks a limit, where the backend computes, and note them."""
    explanations, backend = running.explanations, running.catalog.worker(sweep.identity.case)
    try:
        if running.spread:
            register, timeout = explanations.register, explanations.timeout
            covered = running.spread.explained(sweep, backend, artifact, register, timeout)
        else:
            covered = explanations.of_sweep(sweep, artifact, _workers(running, backend)[0])
    except SweepError as error:
        running.failed = True
        running.refused.append(f"failed: {error}")
        return
    sweep.covered.extend(covered)
    journal.add_causes(covered)


def _workers(running: _Running, backend: str) -> list[Worker]:
    if backend not in running.workers:
        running.workers[backend] = [
            running.stack.enter_context(configured_worker(backend, running.config))
            for _ in range(running.request.workers)
        ]
    return running.workers[backend]


def _identity(running: _Running, case: Case, artifact: Artifact | None, hello: Handshake) -> SweepIdentity:
    return SweepIdentity(
        actconform=__version__,
        case=case,
        extent="sample" if is_sampled(running.catalog.kernels[case.subject]) else running.request.extent,
        definition=definition_of(running.catalog.kernels[case.subject]),
        graph=hashlib.sha256(artifact.model).hexdigest() if artifact else "",
        provider=hello.provider,
        facts={**facts_of(hello), "cpu": hello.cpu},
        sample=running.samples.get((case.subject, case.aspect), ""),
    )
