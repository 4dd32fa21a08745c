"""A training against the truth: every judged step from the state before it, then the losses that it came to by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from actconform.comparison.comparator import comparison, structural
from actconform.testdata.kernel_vectors import TestVectors
from actconform.testdata.training_vectors import (
    PARTS,
    JudgedStep,
    step_vectors,
    tolerance_of,
)
from actconform.types import FindingClass
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.testdata.kernel_vectors import TestVector
    from actconform.types import Bundle, Finding, Measurement
    from actconform.types.dtypes import FloatFormat
    from actconform.types.training_run import TrainingRecord, TrainingTask


class FirstWrong(NamedTuple):
    """The first element of a training that is beyond its bound: in the order of steps, then of the parts of a step."""

    step: int
    """From 1 on."""
    part: str
    tensor: str
    place: tuple[int, ...]
    truth: float
    got: float
    times: float
    """Its bound; infinite where that is 0 or a number is none."""

    def __str__(self) -> str:
        at = f" {list(self.place)}" if self.place else ""
        by = f"{self.times:.3g} times its bound" if np.isfinite(self.times) else "beyond any bound"
        return f"first at step {self.step}, {self.part}: {self.tensor}{at} is {self.got:.9g}, expected {self.truth:.9g}, {by}"


class ComparedTraining(NamedTuple):
    """What was measured of a training and what breaks a limit, and where that begins."""

    measurements: list[Measurement]
    findings: list[Finding]
    first: FirstWrong | None


def compare_training(
    task: TrainingTask, record: TrainingRecord, free: TestVectors, fmt: FloatFormat
) -> ComparedTraining:
    """Return how a training compares: regimes "loss", "gradient", "batch statistics" and "optimizer" of its judged steps, and "free running".

    `free` are the test vectors of `free_running`. A step whose state or gradients are no numbers ends what is judged: that is a finding of itself, and named first. What is missing of the record,
    or has another shape, is a finding too, and then nothing else is judged.
    """
    wrong = _structure(task, record)
    if wrong:
        return ComparedTraining([], wrong, None)
    vectors: list[TestVector] = []
    outputs: list[Bundle] = []
    first = None
    for number in range(task.keep):
        step = JudgedStep(task, record, number)
        of_step, given = step_vectors(task, record.forms, step, fmt)
        vectors += of_step
        outputs += given
        first = first or first_wrong(of_step, given, number + 1)
        if not all(np.isfinite(array).all() for array in (*step.after.values(), step.loss)):
            break
    steps = comparison(TestVectors(tolerance_of(fmt), vectors), outputs)
    losses = record.losses[: len(free.vectors[0].truth[LOSS])]
    by_itself = comparison(free, [{LOSS: losses}])
    findings = [_told(finding, first) for finding in steps.findings]
    return ComparedTraining(steps.measurements + by_itself.measurements, findings + by_itself.findings, first)


def first_wrong(vectors: Sequence[TestVector], outputs: Sequence[Bundle], step: int) -> FirstWrong | None:
    """Return the first element of a step that is beyond its bound, by the order of the step's parts."""
    for vector, given in sorted(zip(vectors, outputs, strict=True), key=lambda pair: PARTS.index(pair[0].regime)):
        for name, truth in vector.truth.items():
            got, bound = given[name].astype(np.float64), vector.bounds[name]
            with np.errstate(invalid="ignore"):
                off = ~((np.abs(got - truth) <= bound) | (np.isnan(got) & np.isnan(truth)) | (got == truth))
            if off.any():
                place = tuple(int(index) for index in np.argwhere(off)[0])
                allowed = float(bound[place])
                times = float(abs(got[place] - truth[place]) / allowed) if allowed > 0.0 else float("inf")
                return FirstWrong(step, vector.regime, name, place, float(truth[place]), float(got[place]), times)
    return None


def _told(finding: Finding, first: FirstWrong | None) -> Finding:
    """Return a finding with where the training goes wrong, if it is of that part; else with what was wrong before it."""
    if first is None or finding.worst is None:
        return finding
    return msgspec.structs.replace(finding, evidence=str(first))


def _structure(task: TrainingTask, record: TrainingRecord) -> list[Finding]:
    """Return what is missing of a record, or has another shape than the experiment's tensors."""
    experiment = task.experiment
    wanted = {parameter.name: parameter.shape for parameter in experiment.model.parameters}
    wanted |= {
        f"{name}/{slot}": wanted[name] for name in experiment.differentiable for slot in experiment.optimizer.slots
    }
    findings = []
    if task.keep:
        for name, shape in wanted.items():
            expected = (task.keep + 1, *shape)
            if name not in record.states:
                evidence = f"the state of {name!r} is missing; got {sorted(record.states)}"
                findings.append(structural(FindingClass.NAMES, "optimizer", name, evidence))
            elif record.states[name].shape != expected:
                evidence = f"shape {list(record.states[name].shape)}, expected {list(expected)}"
                findings.append(structural(FindingClass.SHAPE, "optimizer", name, evidence))
    least = experiment.free_steps
    if record.losses.ndim != 1 or len(record.losses) < least:
        evidence = f"shape {list(record.losses.shape)}, expected the loss of every step, {least} at least"
        findings.append(structural(FindingClass.SHAPE, "loss", LOSS, evidence))
    return findings
