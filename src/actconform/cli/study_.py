"""`actconform study`: train every kernel in each role of an experiment, and say with figures what becomes of it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from actconform._version import __version__
from actconform.cli import _completion, _options, announced
from actconform.errors import UsageError, WorkerError
from actconform.plugin.loader import load_plugins
from actconform.report.study.study_csv import STUDY_CSV, write_study_csv
from actconform.report.study.study_page import STUDY_PAGE, write_study_page
from actconform.report.study.study_screen import StudyProgress, study_tables
from actconform.report.terminal.console import open_console, plain
from actconform.say import say
from actconform.settings import read_config
from actconform.study.journal import JOURNAL, StudyIdentity, StudyJournal
from actconform.study.plan import DIED, REFUSED, require_training, run_trainings, study_plan, trained_before, trainings
from actconform.study.request import USUAL_REQUEST, StudyRequest
from actconform.study.summary import study_rows
from actconform.text import number_of
from actconform.workers.from_settings import configured, configured_worker, with_environments

if TYPE_CHECKING:
    from rich.console import Console

    from actconform.settings import Config
    from actconform.study.plan import Excluded, StudyPlan, StudyTraining
    from actconform.study.trial import Trial
    from actconform.workers.client import Worker

REACH_HELP = "The stated loss, whose step is asked for, as a share of that of the best constant answer."


class _Study(msgspec.Struct, kw_only=True):
    """A study as it goes: what is to be trained, what is left out, and the trainings that there are."""

    plan: StudyPlan
    identity: StudyIdentity
    wanted: list[StudyTraining]
    excluded: list[Excluded]
    trials: list[Trial]
    ending: str = ""
    """Why it ended before its last training."""


@click.command("study")
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...", shell_complete=_completion.experiments)
@click.option(
    "--kernel",
    "kernels",
    multiple=True,
    shell_complete=_completion.kernels,
    help="Only kernels that match this glob (repeatable).",
)
@click.option("--role", "roles", multiple=True, help="Only this role, hidden or output (repeatable).")
@click.option(
    "--seeds",
    default=USUAL_REQUEST.seeds,
    show_default=True,
    help="Trainings of each kernel, from other data and parameters.",
)
@click.option(
    "--epochs",
    default=USUAL_REQUEST.epochs,
    show_default=True,
    help="The most epochs of a training; 0: the experiment's own.",
)
@click.option("--reach", default=USUAL_REQUEST.reach, show_default=True, help=REACH_HELP)
@click.option(
    "--backend",
    default=USUAL_REQUEST.backend,
    show_default=True,
    shell_complete=_completion.trainers,
    help="What trains: a backend that trains models by its own means.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=USUAL_REQUEST.out,
    show_default=True,
    help="Folder for page, CSV and journal.",
)
@click.option("--resume", is_flag=True, help="Keep the trainings that an interrupted study in --out has, do the rest.")
@_options.config
def command(config_path: Path | None, **arguments: Any) -> int:
    """Train each kernel in the hidden and in the output role of EXPERIMENTs (globs), and write a table, loss curves and CSV.

    Exit code 0: studied; 1: a worker died, or did not start again, nothing could be trained, or interrupted; 2: wrong usage or configuration.
    A loss that diverges, or a framework's refusal of an output, is a result.
    """
    started = time.perf_counter()
    request = StudyRequest(**arguments)
    config = read_config(config_path)
    catalog = configured(announced(load_plugins()), config)
    plan = study_plan(catalog, request)
    require_training(catalog, request.backend)
    console = open_console()
    with _worker(request.backend, config) as worker:
        study = _planned(plan, request.backend, worker)
        with StudyJournal(request.out, study.identity, resume=request.resume) as journal:
            _train(study, worker, config, journal, console)
    rows = study_rows(plan, study.trials, study.excluded)
    constants = {trial.experiment: trial.constant for trial in reversed(study.trials) if not trial.failure}
    write_study_csv(study.trials, study.excluded, request.out)
    write_study_page(plan, study.identity, rows, constants, request.command_line, request.out)
    study_tables(console, rows)
    failed = sum(trial.failure.startswith(DIED) for trial in study.trials)
    refused = sum(trial.failure.startswith(REFUSED) for trial in study.trials)
    counts = [f"{len(study.trials)} of {number_of(len(study.wanted), 'training')}"]
    counts += [
        f"{number} {word}"
        for number, word in ((refused, f"refused by {request.backend}"), (failed, "without an answer"))
        if number
    ]
    files = f"{request.out / STUDY_PAGE}, {STUDY_CSV}, {JOURNAL}"
    console.print(
        plain(f"\n{', '.join(counts)}     {files}     {time.perf_counter() - started:.0f} s"),
        style="bold",
        soft_wrap=True,
    )
    if study.ending:
        console.print(f"[red]{plain(study.ending)}[/]: the same command with --resume goes on", soft_wrap=True)
    return 1 if study.ending or failed or refused == len(study.trials) else 0


def _worker(backend: str, config: Config) -> Worker:
    return configured_worker(backend, with_environments(config, [backend], partial(say, err=True)))


def _planned(plan: StudyPlan, backend: str, worker: Worker) -> _Study:
    """Return the study; raise UsageError where the backend cannot train here, or nothing can be trained."""
    try:
        hello = worker.start()
    except WorkerError as error:
        raise UsageError(f"--backend {backend}: {error}") from error
    if hello.unavailable:
        raise UsageError(f"--backend {backend}: {hello.unavailable}")
    wanted, excluded = trainings(plan)
    if not wanted:
        reasons = {f"{each.kernel}, {each.role}: {each.reason}": None for each in excluded}
        raise UsageError("no kernel that is selected can be trained there:\n" + "\n".join(reasons))
    provider = " ".join(filter(None, (hello.provider, hello.facts.get(backend, ""))))
    identity = StudyIdentity(
        actconform=__version__, backend=backend, provider=provider, epochs=plan.epochs, reach=plan.reach
    )
    return _Study(plan=plan, identity=identity, wanted=wanted, excluded=excluded, trials=[])


def _train(study: _Study, worker: Worker, config: Config, journal: StudyJournal, console: Console) -> None:
    """Do what the journal does not have; keep what there is where that is interrupted, or no worker starts any more."""
    before = {training.trial.key: trained_before(training, journal.earlier) for training in study.wanted}
    study.trials += [trial for trial in before.values() if trial is not None]
    if journal.earlier or journal.dropped:
        dropped = (
            f"; {number_of(journal.dropped, 'broken line is', 'broken lines are')} dropped" if journal.dropped else ""
        )
        console.print(
            f"resumed: {len(study.trials)} of {number_of(len(study.wanted), 'training')} are from the earlier study{dropped}"
        )
    rest = [training for training in study.wanted if before[training.trial.key] is None]
    with StudyProgress(len(rest), console) as progress:

        def keep(trial: Trial) -> None:
            journal.add(trial)
            study.trials.append(trial)
            progress.advance(trial)

        try:
            run_trainings(rest, worker, config.timeout, study.plan.reach, keep)
        except KeyboardInterrupt:
            study.ending = "interrupted"
        except WorkerError as error:  # it had started before
            study.ending = f"no worker starts any more: {error}"
