"""`actconform run`: select, run, show, and exit with the verdict."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actconform import __version__
from actconform.config import Config, UsageError, local_deviations, near, read_config
from actconform.golden.store import golden_dir, read_manifest
from actconform.golden.verify import verify_subjects
from actconform.judge import conforms, unmatched
from actconform.plugins import load_plugins
from actconform.record import Recorder, report
from actconform.report.progress import progress_for
from actconform.report.screen import Screen
from actconform.run import Plan, run
from actconform.select import Selection, all_cases, routes, select

if TYPE_CHECKING:
    from actconform.plugins import Catalog
    from actconform.types import Result
    from actconform.workers.protocol import Hello


@click.command("run")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--backend", "backends", multiple=True, help="Only this backend (repeatable).")
@click.option("--route", "routes_", multiple=True, help="Only this route (repeatable).")
@click.option("--aspect", "aspects", multiple=True, help="Only this aspect: value, gradient.")
@click.option("--dtype", "dtypes", multiple=True, help="Only this dtype: f32, f16, bf16.")
@click.option("--require", multiple=True, help="A route that must have run (default: native frameworks and ort-cpu).")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results.jsonl and report.json (conform-out).")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings (default: ./actconform.toml).")
@click.option("--timings", is_flag=True, help="Say where the time went, by backend and stage.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of the screen.")
def command(
    patterns: tuple[str, ...],
    backends: tuple[str, ...],
    routes_: tuple[str, ...],
    aspects: tuple[str, ...],
    dtypes: tuple[str, ...],
    require: tuple[str, ...],
    out: Path | None,
    config_path: Path | None,
    timings: bool,
    as_json: bool,
) -> int:
    """Run the cases that match any PATTERN, a glob on SUBJECT/ASPECT/DTYPE/ROUTE such as 'gelu-*/value/f32/*'.

    Exit code 0: conforms; 1: does not; 2: wrong usage or configuration.
    """
    config = read_config(config_path)
    catalog = load_plugins()
    _check_config(config, catalog)
    wanted = Selection(patterns=patterns, backends=backends, routes=routes_, aspects=aspects, dtypes=dtypes)
    required = _required(require or config.require, catalog)
    plan = _plan(wanted, config, catalog)
    folder = out or Path(config.out)
    screen = Screen(to_stderr=as_json)
    code = 1
    with _recorder(folder) as recorder:
        document = _conform(plan, required, recorder, screen, timings=timings)
        path = recorder.finish(document)
        code = 0 if document["conforms"] else 1
    if as_json:
        sys.stdout.buffer.write(path.read_bytes() + b"\n")
    return code


def _plan(wanted: Selection, config: Config, catalog: Catalog) -> Plan:
    cases = select(all_cases(catalog), wanted)
    folder = golden_dir()
    manifest = read_manifest(folder)
    verify_subjects(folder, manifest, [catalog.kernels[name] for name in dict.fromkeys(case.subject for case in cases)])
    register = (*catalog.deviations, *local_deviations(config))
    return Plan(cases=cases, catalog=catalog, config=config, folder=folder, manifest=manifest, register=register)


def _conform(
    plan: Plan, required: tuple[str, ...] | None, recorder: Recorder, screen: Screen, *, timings: bool
) -> dict[str, Any]:
    """Run the plan and return its report; an interrupted run reports what there is."""
    started = time.perf_counter()
    clock: dict[str, float] = {"import": 0.0, "record": 0.0}
    results: list[Result] = []
    facts: dict[str, dict[str, str]] = {}
    interrupted = False
    with progress_for(plan.cases, screen.console) as progress:

        def keep(result: Result) -> None:
            arrived = time.perf_counter()
            recorder.add(result)
            results.append(result)
            progress.advance(result)
            clock["record"] += time.perf_counter() - arrived

        def started_(backend: str, hello: Hello | str, seconds: float) -> None:
            clock["import"] += seconds
            progress.started(backend, hello)

        try:
            facts = run(plan, started_, keep)
        except KeyboardInterrupt:
            interrupted = True
    problems = conforms(plan.cases, results, required)
    problems += [f"plugin {b.name} ({b.distribution}) is broken: {b.reason}" for b in plan.catalog.broken]
    problems += unmatched(plan.cases, results, plan.register, facts)
    order = {case.id: number for number, case in enumerate(plan.cases)}
    results.sort(key=lambda result: order[result.case])
    seconds = time.perf_counter() - started
    screen.header(facts, plan)
    screen.table(results, plan.catalog.kernels)
    screen.findings(results)
    if timings:
        screen.timings(results)
    screen.verdict(results, problems, recorder.folder, seconds, interrupted=interrupted)
    for result in results:
        for stage, stage_seconds in result.timings.items():
            clock[stage] = clock.get(stage, 0.0) + stage_seconds
    return report(results, {"actconform": __version__, "backends": facts}, problems, {"total": seconds, **clock})


def _recorder(folder: Path) -> Recorder:
    try:
        return Recorder(folder)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written: {error.strerror}") from error


def _required(names: tuple[str, ...] | None, catalog: Catalog) -> tuple[str, ...] | None:
    known = routes(catalog)
    for name in names or ():
        if name not in known:
            raise UsageError(f"required route {name!r} is unknown{near(name, known)}")
    return names or None


def _check_config(config: Config, catalog: Catalog) -> None:
    for name in config.backends:
        if name not in catalog.backends:
            raise UsageError(
                f"actconform.toml: [backends.{name}]: no such backend{near(name, sorted(catalog.backends))}"
            )
