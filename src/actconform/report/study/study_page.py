"""The page of a study: one HTML file that needs nothing else, in the look of a run's report: a table, and loss curves as small multiples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.files import write_bytes
from actconform.report.html.page import table_page
from actconform.report.html.page_values import short_number, shown
from actconform.report.study.study_csv import STUDY_CSV
from actconform.study.trial import SATURATED
from actconform.study.variants import kernel_names
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from actconform.study.journal import StudyIdentity
    from actconform.study.plan import StudyPlan
    from actconform.study.summary import Spread, StudyRow
    from actconform.types.training import Experiment

STUDY_PAGE = "index.html"
SCRIPTS = ("study_table.js", "study_curves.js", "study_start.js")  # in the order of their use
REASON_LETTERS = 300


def write_study_page(
    plan: StudyPlan,
    identity: StudyIdentity,
    rows: Sequence[StudyRow],
    constants: Mapping[str, float],
    command: str,
    folder: Path,
) -> Path:
    """Write index.html into `folder` and return its path; `constants` are the losses of the best constant answers. Raises OSError."""
    data = study_page_data(plan, identity, rows, constants, command)
    path = folder / STUDY_PAGE
    write_bytes(path, table_page(__package__, SCRIPTS, data, "actconform study", STUDY_CSV).encode())
    return path


def study_page_data(
    plan: StudyPlan,
    identity: StudyIdentity,
    rows: Sequence[StudyRow],
    constants: Mapping[str, float],
    command: str,
) -> dict[str, Any]:
    """Return the data of the page for JSON: numbers that are not finite are "nan", "inf" and "-inf"."""
    page = {
        "study": str(identity),
        "seeds": plan.seeds,
        "reach": plan.reach,
        "saturated": SATURATED,
        "command": command,
        "csv": STUDY_CSV,
        "roles": list(plan.roles),
        "experiments": [
            _experiment(experiment, plan, constants.get(experiment.name, float("nan")), rows)
            for experiment in plan.experiments
        ],
        "rows": [_row(row) for row in rows],
        "texts": [],
    }
    return dict(shown(page))


def _experiment(experiment: Experiment, plan: StudyPlan, constant: float, rows: Sequence[StudyRow]) -> dict[str, Any]:
    epochs = min(plan.epochs, experiment.epochs) if plan.epochs else experiment.epochs
    metrics = [row.metric_name for row in rows if row.experiment == experiment.name and row.metric_name]
    return {
        "name": experiment.name,
        "metric": metrics[0] if metrics else "",
        "source": experiment.source,
        "loss": experiment.model.layers[-1].kind,
        "constant": short_number(constant),
        "stated": short_number(plan.reach * constant),
        "examples": experiment.examples,
        "validation": experiment.validation,
        "batch": experiment.batch,
        "epochs": epochs,
        "steps": experiment.steps * epochs,
        "optimizer": f"{experiment.optimizer.kind}, learning rate {experiment.optimizer.learning_rate:g}",
        "has": {role: kernel_names(experiment.model, role) for role in plan.roles},
    }


def _row(row: StudyRow) -> dict[str, Any]:
    numbers = {
        "reached": row.reached,
        "ratio": row.gradient_ratio,
        "dead": row.dead,
        "saturated": row.saturated,
        "rank": row.rank,
        "dimension": row.dimension,
        "seconds": row.step_seconds,
    }
    return {
        "experiment": row.experiment,
        "role": row.role,
        "kernel": row.kernel,
        "present": row.present,
        "reason": one_line(row.reason, REASON_LETTERS),
        "words": row.words,
        "seeds": row.seeds,
        "loss": _spread(row.loss),
        "validation": _spread(row.validation_loss),
        "metric": _spread(row.metric),
        "reachedSeeds": row.reached_seeds,
        "divergedSeeds": row.diverged_seeds,
        "width": row.width,
        "parameters": row.parameters,
        "before": _norms(row.gradients_before),
        "after": _norms(row.gradients_after),
        "curve": [list(map(short_number, column)) for column in (row.curve, row.low, row.high)],
        **{name: short_number(value) for name, value in numbers.items()},
    }


def _spread(spread: Spread) -> list[float | str]:
    return [short_number(spread.median), short_number(spread.low), short_number(spread.high)]


def _norms(norms: Mapping[str, float]) -> list[list[Any]]:
    return [[name.rpartition(".")[0] or name, short_number(value)] for name, value in norms.items()]
