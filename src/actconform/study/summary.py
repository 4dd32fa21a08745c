"""The trainings of a study over their seeds: a row for each kernel in a role of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from actconform.study.trial import NAN, Trial
from actconform.study.variants import Role, kernel_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actconform.study.plan import Excluded, StudyPlan


class Spread(msgspec.Struct, frozen=True):
    """A number over seeds: median, least and greatest; NaN where there is none. A loss that is not finite is beyond every other."""

    median: float = NAN
    low: float = NAN
    high: float = NAN


class StudyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel in one role of one experiment over all seeds; `words` say what became of it.

    `reason` says why there is nothing else. Shares, ranks and norms are medians of the seeds whose loss stayed finite. gradient_ratio: the norm of the
    gradient by the first layer's weights over that by the last one's, before the first step. curve, low and high: by epoch the median, least and
    greatest mean loss.
    """

    experiment: str
    role: Role
    kernel: str
    present: bool = False
    """Whether the experiment has this kernel, and no other, in the role."""
    reason: str = ""
    words: str = ""
    seeds: int = 0
    loss: Spread = Spread()
    validation_loss: Spread = Spread()
    metric_name: str = ""
    metric: Spread = Spread()
    reached: float = NAN
    """The median step of those seeds that came to the stated loss."""
    reached_seeds: int = 0
    diverged_seeds: int = 0
    gradient_ratio: float = NAN
    gradients_before: dict[str, float] = {}
    gradients_after: dict[str, float] = {}
    dead: float = NAN
    saturated: float = NAN
    rank: float = NAN
    width: int = 0
    dimension: float = NAN
    parameters: int = 0
    step_seconds: float = NAN
    curve: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def study_rows(plan: StudyPlan, trials: Iterable[Trial], excluded: Iterable[Excluded]) -> list[StudyRow]:
    """Return the rows of a study by experiment and role, in each the least median loss first, then what diverged, then what was not trained."""
    has = {
        (experiment.name, role): kernel_names(experiment.model, role)
        for experiment in plan.experiments
        for role in plan.roles
    }
    groups: dict[tuple[str, Role, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.experiment, trial.role, trial.kernel), []).append(trial)
    rows = [_row(group, present=has[key[:2]] == key[2]) for key, group in groups.items()]
    rows += [
        StudyRow(
            experiment=each.experiment, role=each.role, kernel=each.kernel, reason=f"not applicable: {each.reason}"
        )
        for each in excluded
    ]
    order = {key: number for number, key in enumerate(has)}
    return sorted(rows, key=lambda row: (order[row.experiment, row.role], *_place(row)))


def _place(row: StudyRow) -> tuple[bool, float, str]:
    loss = row.loss.median
    return bool(row.reason), loss if np.isfinite(loss) else np.inf, row.kernel


def _row(group: Sequence[Trial], *, present: bool) -> StudyRow:
    group = sorted(group, key=lambda trial: trial.seed)
    first = group[0]
    trained = [trial for trial in group if not trial.failure]
    if not trained:
        return StudyRow(
            experiment=first.experiment, role=first.role, kernel=first.kernel, present=present, reason=first.failure
        )
    reached = [trial.reached for trial in trained if trial.reached]
    curve, low, high = _curves(trained)
    return StudyRow(
        experiment=first.experiment,
        role=first.role,
        kernel=first.kernel,
        present=present,
        words=_words(trained, len(group)),
        seeds=len(trained),
        loss=_spread([trial.loss for trial in trained]),
        validation_loss=_spread([trial.validation_loss for trial in trained]),
        metric_name=trained[0].metric_name,
        metric=_spread([trial.metric for trial in trained]),
        reached=float(np.median(reached)) if reached else NAN,
        reached_seeds=len(reached),
        diverged_seeds=sum(trial.diverged > 0 for trial in trained),
        gradient_ratio=_median([_ratio(trial.gradients_before) for trial in trained]),
        gradients_before=_medians([trial.gradients_before for trial in trained]),
        gradients_after=_medians([trial.gradients_after for trial in trained]),
        dead=_median([trial.dead for trial in trained]),
        saturated=_median([trial.saturated for trial in trained]),
        rank=_median([trial.rank for trial in trained]),
        width=max(trial.width for trial in trained),
        dimension=_median([trial.dimension for trial in trained]),
        parameters=trained[0].parameters,
        step_seconds=_median([trial.seconds / trial.steps for trial in trained if trial.steps]),
        curve=curve,
        low=low,
        high=high,
    )


def _words(trained: Sequence[Trial], seeds: int) -> str:
    """Return what became of the trainings: "diverged at step 12 (2 of 5)", "no better than a constant", "learns"."""
    count = len(trained)
    diverged = [trial.diverged for trial in trained if trial.diverged]
    worse = sum(trial.worse for trial in trained)
    flat = sum(trial.no_better for trial in trained) - worse
    learns = count - len(diverged) - worse - flat
    parts = []
    if diverged:
        steps = f"{min(diverged)}" if min(diverged) == max(diverged) else f"{min(diverged)} to {max(diverged)}"
        parts.append((f"diverged at step {steps}", len(diverged)))
    if worse:
        parts.append(("worse than a constant", worse))
    if flat:
        parts.append(("no better than a constant", flat))
    if learns:
        parts.append(("learns", learns))
    words = "; ".join(text if share == count else f"{text} ({share} of {count})" for text, share in parts)
    return words if count == seeds else f"{words}; {seeds - count} of {seeds} failed"


def _ratio(norms: dict[str, float]) -> float:
    """Return the first norm over the last; NaN where there are not two, or the last is 0."""
    values = list(norms.values())
    return values[0] / values[-1] if len(values) > 1 and values[-1] else NAN


def _spread(numbers: Sequence[float]) -> Spread:
    ordered = np.sort(np.where(np.isfinite(numbers), numbers, np.inf))
    shown = [float(number) if np.isfinite(number) else NAN for number in (np.median(ordered), ordered[0], ordered[-1])]
    return Spread(*shown)


def _median(numbers: Sequence[float]) -> float:
    finite = [number for number in numbers if np.isfinite(number)]
    return float(np.median(finite)) if finite else NAN


def _medians(norms: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in norms for name in each)
    return {name: _median([each.get(name, NAN) for each in norms]) for name in names}


def _curves(trained: Sequence[Trial]) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Return by epoch the median, least and greatest mean loss; seeds that stopped early end there."""
    epochs = max(len(trial.losses) for trial in trained)
    spreads = [
        _spread([trial.losses[epoch] for trial in trained if epoch < len(trial.losses)]) for epoch in range(epochs)
    ]
    columns = ("median", "low", "high")
    median, low, high = (tuple(getattr(spread, column) for spread in spreads) for column in columns)
    return median, low, high
