"""study.csv: a line for each training of a study, and for each kernel that was left out, for spreadsheets and programs."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from actconform.files import write_bytes
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from actconform.study.plan import Excluded
    from actconform.study.trial import Trial

STUDY_CSV = "study.csv"
COLUMNS = (
    "experiment",
    "role",
    "kernel",
    "seed",
    "failure",
    "loss",
    "validation_loss",
    "metric_name",
    "metric",
    "constant_loss",
    "reached_step",
    "diverged_step",
    "dead_units",
    "saturated_units",
    "rank",
    "width",
    "effective_dimension",
    "parameters",
    "steps",
    "seconds",
    "gradient_norms_before",
    "gradient_norms_after",
    "losses",
    "validation_losses",
)
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would take a text for that begins so


def write_study_csv(trials: Iterable[Trial], excluded: Iterable[Excluded], folder: Path) -> Path:
    """Write study.csv into `folder` and return its path; what is not a number is empty. Raises OSError."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(trial) for trial in trials)
    writer.writerows(
        {
            "experiment": each.experiment,
            "role": each.role,
            "kernel": each.kernel,
            "failure": _text(f"not applicable: {each.reason}"),
        }
        for each in excluded
    )
    path = folder / STUDY_CSV
    write_bytes(path, text.getvalue().encode())
    return path


def _line(trial: Trial) -> dict[str, Any]:
    begun: dict[str, Any] = {
        "experiment": trial.experiment,
        "role": trial.role,
        "kernel": trial.kernel,
        "seed": trial.seed,
        "failure": _text(trial.failure),
    }
    if trial.failure:
        return begun
    return begun | {
        "loss": _number(trial.loss),
        "validation_loss": _number(trial.validation_loss),
        "metric_name": trial.metric_name,
        "metric": _number(trial.metric),
        "constant_loss": _number(trial.constant),
        "reached_step": trial.reached or "",
        "diverged_step": trial.diverged or "",
        "dead_units": _number(trial.dead),
        "saturated_units": _number(trial.saturated),
        "rank": _number(trial.rank),
        "width": trial.width or "",
        "effective_dimension": _number(trial.dimension),
        "parameters": trial.parameters,
        "steps": trial.steps,
        "seconds": _number(trial.seconds),
        "gradient_norms_before": _norms(trial.gradients_before),
        "gradient_norms_after": _norms(trial.gradients_after),
        "losses": ";".join(map(_number, trial.losses)),
        "validation_losses": ";".join(map(_number, trial.validation)),
    }


def _number(value: float) -> str:
    return "" if value != value else f"{value:.9g}"  # noqa: PLR0124  NaN is not itself


def _norms(norms: Mapping[str, float]) -> str:
    return ";".join(_pairs(norms))


def _pairs(norms: Mapping[str, float]) -> Iterator[str]:
    for name, value in norms.items():
        yield f"{name}={_number(value)}"


def _text(words: str) -> str:
    """Return foreign words on one line, which no spreadsheet takes for a formula."""
    line = one_line(words)
    return f"'{line}" if line.startswith(FORMULA) else line
