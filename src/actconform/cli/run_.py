"""`actconform run`: select, run, show, and exit with the verdict."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform._version import __version__
from actconform.cli import _completion, _options
from actconform.errors import FolderInUseError, UsageError, near
from actconform.plugin.builtin import built_in
from actconform.plugin.loader import installed, load_plugins, plugin_versions
from actconform.report.files.write import clear, write_all
from actconform.report.terminal.progress import progress_for
from actconform.report.terminal.screen import Screen
from actconform.run.recorder import RESULTS, Recorder, report
from actconform.run.scheduler import facts_of, plan_of, run
from actconform.run.select import Selection, all_cases, asked_for, backends_of, routes, select
from actconform.say import say
from actconform.settings import Config, read_config, with_timeout
from actconform.testdata.golden.verify import verify_subjects
from actconform.text import number_of
from actconform.types.json import digest_of_json, finite
from actconform.types.report import Facts
from actconform.verdict.causes.check import check_formulas
from actconform.verdict.causes.observed import read_observed, worse
from actconform.verdict.judge import conforms
from actconform.workers.code import code_digest
from actconform.workers.from_settings import configured, with_environments
from actconform.workers.protocol import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from actconform.plugin.loader import Catalog
    from actconform.run.scheduler import Plan
    from actconform.types import Result
    from actconform.verdict.causes.observed import Observed

    Runner: TypeAlias = Callable[[Plan, Callable[[str, Handshake | str, float], None], Callable[[Result], None]], None]


class _RunResult(msgspec.Struct, kw_only=True):
    """A run's results in the order of the cases, the facts of each backend, and seconds by stage and of starting."""

    results: list[Result]
    facts: dict[str, dict[str, str]]
    clock: dict[str, float]
    imports: dict[str, float]
    interrupted: bool


@click.command("run")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=_completion.patterns)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    shell_complete=_completion.backends,
    help="Only this backend (repeatable); all: the extra ones too.",
)
@click.option(
    "--route", "routes_", multiple=True, shell_complete=_completion.routes, help="Only this route (repeatable)."
)
@click.option("--aspect", "aspects", multiple=True, help="Only this aspect: value, gradient, training.")
@click.option("--dtype", "dtypes", multiple=True, help="Only this dtype: f32, f16, bf16.")
@click.option("--require", multiple=True, help="A route that must have run (default: all but those to a GPU).")
@click.option("--full", is_flag=True, help="Also models of published size: NAME@published.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results.jsonl and report.json (conform-out).")
@click.option("--resume", is_flag=True, help="Keep what an interrupted run in --out has, run the rest.")
@_options.worker_timeout
@_options.config
@click.option("--cluster", "address", help="Run on the Dask cluster of this scheduler: tcp://HOST:PORT.")
@click.option("--timings", is_flag=True, help="Say where the time went, by backend and stage.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of the screen.")
def command(
    patterns: tuple[str, ...],
    backends: tuple[str, ...],
    routes_: tuple[str, ...],
    aspects: tuple[str, ...],
    dtypes: tuple[str, ...],
    require: tuple[str, ...],
    full: bool,
    out: Path | None,
    resume: bool,
    timeout: float | None,
    config_path: Path | None,
    address: str | None,
    timings: bool,
    as_json: bool,
) -> int:
    """Run the cases that match any PATTERN, a glob on SUBJECT/ASPECT/DTYPE/ROUTE such as 'gelu-*/value/f32/*'.

    Exit code 0: conforms; 1: does not; 2: wrong usage or configuration.
    """
    config = with_timeout(read_config(config_path), timeout)
    if out is not None and not str(out).strip("."):
        raise UsageError("--out is empty: name a folder for results.jsonl and report.json")
    catalog = configured(load_plugins(), config)
    wanted = Selection(patterns=patterns, backends=backends, routes=routes_, aspects=aspects, dtypes=dtypes)
    required = _required(require or config.require, catalog)
    plan = _plan(wanted, config, catalog, full=full, here=address is None)
    observed = read_observed(plan.folder)  # before the run: a file that cannot be read must not cost its report
    folder = Path(config.out) if out is None else out
    screen = Screen(to_stderr=as_json)
    with _runner(address) as runner, _recorder(folder, plan, resume=resume) as recorder:
        clear(folder, catalog)
        ran = _run(msgspec.structs.replace(plan, earlier=recorder), recorder, screen, runner)
        problems = _problems(plan, ran, required, observed)
        # Before anything is shown: a closed pipe must not cost the report.
        run_report = report(ran.results, _facts(plan, ran), problems, ran.clock)
        content = recorder.finish(run_report)
        faults = write_all(run_report, folder, catalog).faults
        faults = [*recorder.unwritten, *faults]
    if resume:
        screen.notes(
            [
                *recorder.notes,
                f"resumed: {recorder.kept} of {number_of(len(plan.cases), 'result')} are from the earlier run",
            ]
        )
    screen.header(ran.facts, plan)
    screen.tables(ran.results, catalog.kernels, catalog.models, catalog.experiments)
    screen.trainings(ran.results)
    screen.causes(ran.results)
    screen.findings(ran.results, [*catalog.models, *catalog.experiments])
    if timings:
        screen.timings(ran.results, ran.imports, ran.clock)
    problems += faults
    screen.verdict(ran.results, problems, folder, ran.clock["total"], interrupted=ran.interrupted)
    if as_json:
        sys.stdout.buffer.write(content + b"\n")
    return 1 if problems else 0


def _plan(wanted: Selection, config: Config, catalog: Catalog, *, full: bool, here: bool) -> Plan:
    try:
        cases = select(all_cases(catalog, full=full, selected=asked_for(catalog, wanted)), wanted)
    except UsageError as error:
        broken = [failure.message for failure in catalog.broken]
        raise UsageError("\n".join((str(error), *broken))) from None
    plan = plan_of(catalog, config, cases)
    ours = plan.manifest.subjects.keys() | built_in()  # a plugin's subject without goldens costs its own cases alone
    proven = [case.subject for case in cases if case.subject in ours]
    verify_subjects(plan.folder, plan.manifest, map(catalog.provable.__getitem__, dict.fromkeys(proven)))
    check_formulas(plan.register, catalog.kernels)
    if here:
        config = with_environments(config, catalog.workers(cases), partial(say, err=True))
    return msgspec.structs.replace(plan, config=config)


@contextmanager
def _runner(address: str | None) -> Iterator[Runner]:
    """Yield what runs a plan: this machine, or the cluster at the address. Raises UsageError where that cannot be used."""
    if address is None:
        yield run
        return
    from actconform.cluster.connection import Cluster

    with Cluster(address) as cluster:
        from actconform.cluster.spread_run import run_on_cluster

        yield partial(run_on_cluster, cluster)


def _run(plan: Plan, recorder: Recorder, screen: Screen, runner: Runner) -> _RunResult:
    """Run the plan and record each result as it comes; an interrupted run has the results until then."""
    started = time.perf_counter()
    clock = {"total": 0.0, "import": 0.0, "record": 0.0}
    results: list[Result] = []
    starts: list[tuple[str, float]] = []
    facts: dict[str, dict[str, str]] = {plan.catalog.worker(case): {} for case in plan.cases}
    interrupted = False
    with progress_for(plan.cases, screen.console) as progress:

        def keep(result: Result) -> None:
            arrived = time.perf_counter()
            recorder.add(result)
            results.append(result)
            progress.advance(result)
            clock["record"] += time.perf_counter() - arrived

        def started_(backend: str, hello: Handshake | str, seconds: float) -> None:
            if isinstance(hello, Handshake):
                facts[backend] = facts_of(hello)
            starts.append((backend, seconds))
            progress.started(backend, hello)

        try:
            runner(plan, started_, keep)
        except KeyboardInterrupt:
            interrupted = True
    order = {case.id: number for number, case in enumerate(plan.cases)}
    results.sort(key=lambda result: order[result.case])
    clock["total"] = time.perf_counter() - started
    imports: dict[str, float] = {}
    for backend, seconds in starts:
        imports[backend] = imports.get(backend, 0.0) + seconds
    clock["import"] = sum(imports.values())
    for result in results:
        for stage, seconds in result.timings.items():
            clock[stage] = clock.get(stage, 0.0) + seconds
    return _RunResult(results=results, facts=facts, clock=clock, imports=imports, interrupted=interrupted)


def _problems(plan: Plan, ran: _RunResult, required: tuple[str, ...] | None, observed: Observed) -> list[str]:
    """Return why the run does not conform; an interrupted one never does, and its missing results are not listed."""
    if ran.interrupted:
        return [f"the run was interrupted after {len(ran.results)} of {number_of(len(plan.cases), 'case')}"]
    optional = [name for name, backend in plan.catalog.backends.items() if backend.optional]
    problems = conforms(plan.cases, ran.results, required, optional)
    backends = backends_of(ran.results, plan.catalog)
    problems += worse(ran.results, ran.facts, backends, observed)
    problems += [b.message for b in plan.catalog.broken]
    return problems


def _recorder(folder: Path, plan: Plan, *, resume: bool) -> Recorder:
    if resume and not (folder / RESULTS).exists():
        raise UsageError(f"--resume: there is no {folder / RESULTS} to go on from; run without --resume")
    try:
        return Recorder(folder, about=_about(plan), resume={case.id for case in plan.cases} if resume else None)
    except FolderInUseError:
        raise UsageError(f"--out {folder}: another run is writing there; wait for it, or name another folder") from None
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--out {folder}: is a file, or lies in one; name a folder") from error
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written: {error.filename or folder}: {error.strerror}") from error


def _facts(plan: Plan, ran: _RunResult) -> Facts:
    return Facts(actconform=__version__, goldens=digest_of_json(finite(plan.manifest))[:16], backends=ran.facts)


def _about(plan: Plan) -> str:
    """Return a digest of everything that results depend on, apart from the facts of their backends."""
    settings = (plan.config.backends, plan.config.threads)
    code = code_digest(("actconform", *(point.module for point in installed())), _programs(plan.config))
    return digest_of_json(finite((__version__, plugin_versions(), settings, plan.manifest, plan.register, code)))


def _programs(config: Config) -> Iterator[Path]:
    """Yield the files of interpreters and commands that the settings name; every other word of a command is taken as a path too."""
    for backend in config.backends.values():
        for word in filter(None, (backend.python, *shlex.split(backend.command or ""))):
            yield Path(config.path).parent / (shutil.which(word) or word)


def _required(names: tuple[str, ...] | None, catalog: Catalog) -> tuple[str, ...] | None:
    """Return the required routes; () requires none, None the default ones. Raises UsageError for an unknown route."""
    if names is None:
        return None
    all_routes = routes(catalog)
    for name in names:
        if name not in all_routes:
            raise UsageError(f"required route {name!r} is unknown{near(name, all_routes)}")
    return names
