"""Early stopping against its definition: when it must have ended training, and which epoch's weights it must have restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from actconform.comparison.comparator import structural
from actconform.types import FindingClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.types import Finding
    from actconform.types.training import EarlyStopping, Experiment
    from actconform.types.training_run import TrainingRecord

EARLY_STOPPING = "early stopping"
EPOCHS = "epochs"
ROUNDINGS = 4.0 * 2.0**-24  # of the best loss, within which a loss may be called either side of what counts as better


class Stop(NamedTuple):
    """When training ends by its validation losses, and the best epoch, both from 1 on; `last` is None where it goes on, `best` 0 where none was."""

    last: int | None
    best: int


def definitions(stopping: EarlyStopping, losses: Sequence[float]) -> list[Stop]:
    """Return what follows from validation losses, epoch by epoch, as `EarlyStopping` defines it: several where rounding decides."""
    stops = []
    for shift in (0.0, ROUNDINGS, -ROUNDINGS):
        stop = _defined(stopping, losses, shift)
        if stop not in stops:
            stops.append(stop)
    return stops


def _defined(stopping: EarlyStopping, losses: Sequence[float], shift: float) -> Stop:
    best, best_epoch, waited = float("inf"), 0, 0
    for epoch, loss in enumerate(losses, 1):
        margin = stopping.min_delta + (shift * abs(best) if best_epoch else 0.0)
        if loss < best - margin:
            best, best_epoch, waited = loss, epoch, 0
            continue
        waited += 1
        if waited >= stopping.patience:
            return Stop(epoch, best_epoch)
    return Stop(None, best_epoch)


def restored_epochs(experiment: Experiment, losses: Sequence[float]) -> list[int]:
    """Return the epochs, from 1 on, whose parameters may be the final ones: the best, or the last where nothing is restored."""
    if experiment.stopping is None:
        return [len(losses)]
    return [stop.best or len(losses) for stop in definitions(experiment.stopping, losses)]


def stopping_findings(experiment: Experiment, record: TrainingRecord) -> list[Finding]:
    """Return a finding of class `property` where training did not end as its own validation losses ask."""
    stopping = experiment.stopping
    if stopping is None:
        return []
    losses = [float(loss) for loss in record.validation_losses]
    ran = len(losses)
    stops = definitions(stopping, losses)
    if any((stop.last or experiment.epochs) == ran for stop in stops):
        return []
    stop = stops[0]
    rule = f"patience {stopping.patience}, min_delta {stopping.min_delta:g}; best epoch {stop.best}"
    best = f", validation loss {losses[stop.best - 1]:.6g}" if stop.best else ""
    if stop.last is None:
        evidence = f"ended after epoch {ran} of {experiment.epochs}, where it must go on ({rule}{best})"
    else:
        evidence = f"ran to epoch {ran}, where it must end after epoch {stop.last} ({rule}{best})"
    return [structural(FindingClass.PROPERTY, EARLY_STOPPING, EPOCHS, evidence)]
