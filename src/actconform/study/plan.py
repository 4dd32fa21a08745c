"""Which trainings a study has, chosen by the user's words, and their run in one worker."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actconform.catalog.models.zoo import PUBLISHED
from actconform.errors import Unsupported, UsageError, WorkerError, near
from actconform.plugin.interfaces import Backend
from actconform.study.trial import Trial, measured_trial
from actconform.study.variants import ROLES, Role, study_variant
from actconform.testdata.training_tasks import training_task
from actconform.types import TRAINING, Case
from actconform.types.dtypes import TRAINED_DTYPE
from actconform.types.json import digest_of_json, finite
from actconform.workers.protocol import TrainingJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from actconform.plugin.loader import Catalog
    from actconform.study.request import StudyRequest
    from actconform.types import Kernel
    from actconform.types.training import Experiment
    from actconform.workers.client import Worker

USUAL = ("noise-relu", "blobs-adam", "signals-relu")  # where none is named: small ones of the texts
# What the words of a failure begin with: the framework's own, as where a loss takes no such output, or what another try may not have.
REFUSED, DIED = "refused: ", "no answer: "


class StudyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a study trains: each kernel in each role of each experiment, so many seeds. `epochs`, where it is not 0, is the most of any."""

    experiments: tuple[Experiment, ...]
    roles: tuple[Role, ...]
    kernels: tuple[Kernel, ...]
    seeds: int
    epochs: int
    reach: float


class Excluded(NamedTuple):
    """A kernel that cannot be in a role of an experiment, and why."""

    experiment: str
    role: Role
    kernel: str
    reason: str


class StudyTraining(NamedTuple):
    """One training to be done: what is known of it before, and the experiment."""

    trial: Trial
    experiment: Experiment


def study_plan(catalog: Catalog, request: StudyRequest) -> StudyPlan:
    """Return the plan that is asked for.

    Experiments of published size are left out where a glob matches another. Raises UsageError for what matches nothing, with near matches, and for numbers that make no study.
    """
    for option, number, least in (("--seeds", request.seeds, 1), ("--epochs", request.epochs, 0)):
        if number < least:
            raise UsageError(f"{option} {number}: expected at least {least}")
    if not 0.0 < request.reach < 1.0:
        raise UsageError(f"--reach {request.reach:g}: expected a share of the best constant's loss, between 0 and 1")
    usual = [name for name in USUAL if name in catalog.experiments]
    chosen = _matching("experiment", request.experiments or usual, catalog.experiments)
    if not chosen:
        raise UsageError("no plugin gives an experiment: nothing can be studied")
    for role in request.roles:
        if role not in ROLES:
            raise UsageError(f"unknown role {role!r}{near(role, list(ROLES))}")
    return StudyPlan(
        experiments=tuple(catalog.experiments[name] for name in chosen),
        roles=tuple(role for role in ROLES if not request.roles or role in request.roles),
        kernels=tuple(catalog.kernels[name] for name in _matching("kernel", request.kernels or ["*"], catalog.kernels)),
        seeds=request.seeds,
        epochs=request.epochs,
        reach=request.reach,
    )


def _matching(kind: str, patterns: Iterable[str], names: Mapping[str, object]) -> list[str]:
    """Return the names that any pattern matches, in the order of the patterns."""
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise UsageError(f"unknown {kind} {pattern!r}{near(pattern, sorted(names))}")
        chosen |= dict.fromkeys([name for name in matches if PUBLISHED not in name] or matches)
    return list(chosen)


def require_training(catalog: Catalog, backend: str) -> None:
    """Raise UsageError where there is no such backend, or it trains no models by its own means."""
    trainers = sorted(name for name, each in catalog.backends.items() if each.train is not Backend.train)
    if backend not in catalog.backends:
        raise UsageError(f"unknown backend {backend!r}{near(backend, catalog.backend_names())}")
    if backend not in trainers:
        raise UsageError(
            f"{backend} trains no models; those that do: {', '.join(trainers) or 'none that is installed'}"
        )


def trainings(plan: StudyPlan) -> tuple[list[StudyTraining], list[Excluded]]:
    """Return the trainings of a plan, the first seed of all before the second of any, and what is left out."""
    wanted: list[StudyTraining] = []
    excluded: list[Excluded] = []
    for seed in range(plan.seeds):
        for experiment in plan.experiments:
            for role in plan.roles:
                for kernel in plan.kernels:
                    try:
                        variant = study_variant(experiment, role, kernel, seed)
                    except Unsupported as error:
                        excluded += [Excluded(experiment.name, role, kernel.name, str(error))] * (seed == 0)
                        continue
                    if plan.epochs:
                        variant = msgspec.structs.replace(variant, epochs=min(plan.epochs, variant.epochs))
                    trial = Trial(
                        experiment=experiment.name,
                        variant=digest_of_json(finite(variant)),
                        role=role,
                        kernel=kernel.name,
                        seed=seed,
                    )
                    wanted.append(StudyTraining(trial, variant))
    return wanted, excluded


def trained_before(training: StudyTraining, earlier: Mapping[tuple[str, str, str, int], Trial]) -> Trial | None:
    """Return what an earlier run has of the same training, unless its worker failed."""
    trial = earlier.get(training.trial.key)
    if trial is None or trial.variant != training.trial.variant or trial.failure.startswith(DIED):
        return None
    return trial


def run_trainings(
    wanted: Iterable[StudyTraining],
    worker: Worker,
    timeout: float,
    reach: float,
    on_trial: Callable[[Trial], None],
) -> None:
    """Train one after the other and hand each to `on_trial`; what the framework refuses, or a worker that dies, is a failure in words."""
    for trial, experiment in wanted:
        task = training_task(experiment, keep=0)
        case = Case(experiment.name, TRAINING, TRAINED_DTYPE, worker.backend)
        try:
            outcome = worker.train(TrainingJob(case, task), timeout)
        except WorkerError as error:
            if error.kind in ("closed", "handshake", "unavailable"):
                raise
            on_trial(msgspec.structs.replace(trial, failure=f"{DIED}{error}"))
            continue
        if outcome.record is None:
            reason = outcome.failure.message if outcome.failure else "no record came"
            on_trial(msgspec.structs.replace(trial, failure=f"{REFUSED}{reason}"))
        else:
            on_trial(measured_trial(trial, task, outcome.record, reach))
