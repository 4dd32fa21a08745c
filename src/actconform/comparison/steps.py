"""A training against the truth: every judged step from the state before it, the losses that it came to by itself, and what it ended with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from actconform.comparison.comparator import comparison
from actconform.comparison.early_stopping import restored_epochs, stopping_findings
from actconform.comparison.training_diagnosis import diagnosed, diagnosed_end
from actconform.comparison.training_records import first_non_finite, kept_steps, not_learned, record_findings
from actconform.comparison.wrong_elements import beyond, first_wrong
from actconform.testdata.kernel_vectors import TestVectors
from actconform.testdata.training_vectors import (
    INFERENCE,
    PARTS,
    JudgedStep,
    bounded_step,
    inference_vectors,
    initial_vectors,
    step_tolerance,
    step_vectors,
)
from actconform.types.model import LOSS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from actconform.comparison.comparator import Comparison
    from actconform.comparison.wrong_elements import FirstWrong
    from actconform.testdata.kernel_vectors import TestVector
    from actconform.testdata.training_vectors import BoundedStep
    from actconform.types import Bundle, Finding, Measurement
    from actconform.types.dtypes import FloatFormat
    from actconform.types.training_run import TrainingRecord, TrainingTask


class ComparedTraining(NamedTuple):
    """What was measured of a training and what breaks a limit, and where that begins.

    `sound` tells whether the record is all there, `finite` whether all of it are numbers: without both no claim can be judged.
    """

    measurements: list[Measurement]
    findings: list[Finding]
    first: FirstWrong | None
    sound: bool = True
    finite: bool = True
    wrong_step: int = 0
    """The first step, from 1 on, that is beyond its bound or comes to no numbers; 0 where no step is."""


def compare_training(
    task: TrainingTask,
    record: TrainingRecord,
    free: TestVectors,
    fmt: FloatFormat,
    first_step: BoundedStep | None = None,
) -> ComparedTraining:
    """Return how a training compares, by regime: "initial state"; "loss", "gradient", "batch statistics" and "optimizer" of its judged
    steps; "free running"; "inference" of what it ended with; "early stopping".

    `free` are the test vectors of `free_running`, `first_step` what `bounded_step` gives for the first step from the task's own state, where
    that was computed before. The evidence of each finding names the first element that is wrong, and what it looks
    like. A step whose state is no numbers ends what
    is judged of steps, and nothing is said of inference then: the finding of regime "not finite" names the first NaN. What is missing of the
    record, or has another shape or dtype, is a finding too, and then nothing else is judged.
    """
    wrong = record_findings(task, record)
    if wrong:
        return ComparedTraining([], wrong, None, sound=False)
    judged = _JudgedSteps(task, record, fmt, first_step)
    not_finite = first_non_finite(task, record)
    by_itself = _by_itself(record, free)
    measurements, findings = judged.compared()
    measurements += by_itself.measurements
    findings += by_itself.findings
    if not_finite is not None:
        findings.append(not_learned(task.experiment, record, not_finite))
        wrong_step = _step_of(judged.first) or not_finite.step
        return ComparedTraining(measurements, findings, judged.first, finite=False, wrong_step=wrong_step)
    ended = _ended(task, record, fmt, judged.first)
    return ComparedTraining(
        measurements + ended.measurements, findings + ended.findings, ended.first, wrong_step=_step_of(ended.first)
    )


def _step_of(first: FirstWrong | None) -> int:
    """Return the step of what is wrong in one; 0 for what began or ended wrong."""
    return first.step if first is not None and first.part in PARTS else 0


def _by_itself(record: TrainingRecord, free: TestVectors) -> Comparison:
    """Return how the first losses compare with those of the truth trained by itself; fewer where training ended before."""
    (vector,) = free.vectors
    count = min(len(record.losses), len(vector.truth[LOSS]))
    shorter = msgspec.structs.replace(
        vector,
        truth={LOSS: vector.truth[LOSS][:count]},
        input_at={LOSS: vector.truth[LOSS][:count]},
        bounds={LOSS: vector.bounds[LOSS][:count]},
    )
    return comparison(TestVectors(free.tolerance, [shorter]), [{LOSS: record.losses[:count].astype(np.float32)}])


class _JudgedSteps:
    """The judged steps of a sound record, up to the first that leaves no numbers, and the first wrong element of them."""

    def __init__(
        self, task: TrainingTask, record: TrainingRecord, fmt: FloatFormat, first_step: BoundedStep | None
    ) -> None:
        self._task, self._record, self._fmt, self._first_step = task, record, fmt, first_step
        self._vectors, self._outputs = initial_vectors(task, record)
        self.first = first_wrong(self._vectors, self._outputs, 0)
        self._about = ""
        if self.first:
            self._about = str(self.first)
        for number in range(kept_steps(task, record)):
            step = JudgedStep(task, record, number)
            if not all(np.isfinite(array).all() for array in step.before.values()):
                break
            self._judge(step)

    def _judge(self, step: JudgedStep) -> None:
        computed = self._computed(step)
        vectors, outputs = step_vectors(self._task, self._record.forms, step, self._fmt, computed)
        if self.first is None:
            self.first = first_wrong(vectors, outputs, step.number + 1)
            if self.first is not None:
                off = _off(self.first.part, vectors, outputs)
                like = diagnosed(self._task, self._record, step, self.first, computed, off, self._fmt)
                self._about = "; ".join(filter(None, (str(self.first), like)))
        self._vectors += vectors
        self._outputs += outputs

    def _computed(self, step: JudgedStep) -> BoundedStep:
        state = self._task.state
        if (
            step.number
            or self._first_step is None
            or any(step.before[name].tobytes() != state[name].tobytes() for name in state)
        ):
            return bounded_step(self._task.experiment, {**step.batch, **step.before}, self._fmt)
        return self._first_step

    def compared(self) -> tuple[list[Measurement], list[Finding]]:
        """Return what was measured and found of all of them together."""
        if not self._vectors:
            return [], []
        compared = comparison(TestVectors(step_tolerance(self._fmt), self._vectors), self._outputs)
        return compared.measurements, [self._with_evidence(finding) for finding in compared.findings]

    def _with_evidence(self, finding: Finding) -> Finding:
        return msgspec.structs.replace(finding, evidence=self._about) if self.first else finding


def _off(part: str, vectors: Sequence[TestVector], outputs: Sequence[Bundle]) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of a part that are beyond their bounds, as they were given."""
    return {
        name: bundle[name]
        for vector, bundle in zip(vectors, outputs, strict=True)
        for name, truth in vector.truth.items()
        if vector.regime == part and beyond(bundle[name], truth, vector.bounds[name]).any()
    }


def _ended(
    task: TrainingTask, record: TrainingRecord, fmt: FloatFormat, earlier: FirstWrong | None
) -> ComparedTraining:
    """Return how the end of a training compares: when it ended, and what its final parameters give in inference."""
    losses = [float(loss) for loss in record.validation_losses]
    epochs = restored_epochs(task.experiment, losses)
    tried: list[tuple[list[TestVector], list[Bundle], FirstWrong | None]] = []
    for epoch in dict.fromkeys(epochs):  # several where rounding decides which is the best
        vectors, outputs = inference_vectors(task, record, losses[epoch - 1], fmt)
        tried.append((vectors, outputs, first_wrong(vectors, outputs, len(record.losses))))
        if tried[-1][2] is None:
            break
    vectors, outputs, wrong = next((each for each in tried if each[2] is None), tried[0])
    compared = comparison(TestVectors(step_tolerance(fmt), vectors), outputs)
    findings = compared.findings
    if wrong is not None:
        like = diagnosed_end(task, record, epochs[0], vectors[-1], _off(INFERENCE, vectors, outputs), fmt)
        about = "; ".join(filter(None, (str(wrong), like)))
        findings = [msgspec.structs.replace(finding, evidence=about) for finding in findings]
    findings += stopping_findings(task.experiment, record)
    return ComparedTraining(compared.measurements, findings, earlier or wrong)
