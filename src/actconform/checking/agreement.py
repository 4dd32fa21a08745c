"""Whether columns agree where it matters, over a data set in a stream: decisions, rankings, angles, errors, the user's own metric."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec.structs import replace

from actconform.checking.agreement_result import Agreement, SampleFailure, WorstSample
from actconform.checking.inputs import write_sample
from actconform.checking.output_tally import OutputTally
from actconform.checking.runs import RunFailure
from actconform.checking.user_metric import MetricTally
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.checking.dataset import DataSample, DataSet
    from actconform.checking.source import Source
    from actconform.checking.user_metric import UserMetric

    Arrays = Mapping[str, NDArray[Any]]

KEPT = 5  # samples that agree least
FAILURES_TOLD = 5
HOPELESS = 8  # failures at the beginning, none answered, after which a column is asked no further


class AnsweringColumn(NamedTuple):
    """What answers for one column: a runtime, a trained model, the truth."""

    name: str
    answer: Callable[[Arrays], Arrays | RunFailure]
    """From the inputs of a sample to outputs by the graph's names."""


class KeptSample(NamedTuple):
    """A sample that agrees least, with what came."""

    sample: DataSample
    expected: Arrays
    actual: Arrays
    error: float
    output: str


class ColumnAgreement(NamedTuple):
    """How far a column agrees, and its worst samples."""

    agreement: Agreement
    kept: list[KeptSample]


def agreements(
    expected: AnsweringColumn,
    actual: Sequence[AnsweringColumn],
    data: DataSet,
    *,
    metric: UserMetric | None = None,
    keep: int = KEPT,
    progress: Callable[[int], None] = lambda _: None,
) -> list[ColumnAgreement]:
    """Return how far each column agrees with the expected one over a data set, which is read once.

    A sample that a column does not answer is counted and named. A column that answers none of the first samples is asked no further. Of
    all samples the `keep` worst of each column stay in memory, no others. `progress` hears how many samples are done. Raises UsageError for a data
    set or a metric that cannot be used, naming the sample.
    """
    tallies = [_ColumnTally(expected.name, column, data.name, metric, keep) for column in actual]
    reference = _Asked(expected)
    for done, sample in enumerate(data, 1):
        wanted = reference.ask(sample)
        for tally in tallies:
            tally.add(sample, wanted)
        progress(done)
        if reference.hopeless or all(tally.asked.hopeless for tally in tallies):
            break
    return [tally.result(data.notes, given_up=reference.hopeless) for tally in tallies]


def write_worst(agreed: ColumnAgreement, folder: Path, source: Source) -> Agreement:
    """Write the worst samples of a column as test_data_set_K in a folder, with the expected outputs, and return where they are.

    Raises OSError.
    """
    worst = []
    for k, kept in enumerate(agreed.kept):
        place = folder / f"test_data_set_{k}"
        write_sample(place, kept.sample.inputs, source, kept.expected)
        worst.append(replace(agreed.agreement.worst[k], folder=str(place)))
    return replace(agreed.agreement, worst=worst)


class _Asked:
    """A column with what became of asking it."""

    def __init__(self, column: AnsweringColumn) -> None:
        self.column = column
        self._answered = self._failed = 0

    @property
    def hopeless(self) -> bool:
        """Whether it answered none of the first samples."""
        return not self._answered and self._failed >= HOPELESS

    def ask(self, sample: DataSample) -> Arrays | RunFailure:
        """Return its answer for a sample."""
        answer = self.column.answer(sample.inputs)
        if isinstance(answer, RunFailure):
            self._failed += 1
        else:
            self._answered += 1
        return answer


class _ColumnTally:
    """The statistics of one column beside the expected one."""

    def __init__(self, expected: str, column: AnsweringColumn, data: str, metric: UserMetric | None, keep: int) -> None:
        self.asked = _Asked(column)
        self._names = (expected, column.name)
        self._data = data
        self._metric = MetricTally(metric) if metric else None
        self._outputs: dict[str, OutputTally] = {}
        self._worst: list[tuple[float, int, KeptSample]] = []  # a heap, the least bad first
        self._keep = keep
        self._samples = self._failed = 0
        self._failures: list[SampleFailure] = []

    def add(self, sample: DataSample, wanted: Arrays | RunFailure) -> None:
        if self.asked.hopeless:
            return
        if isinstance(wanted, RunFailure):
            self._add_failure(sample.index, self._names[0], wanted)
            return
        got = self.asked.ask(sample)
        if isinstance(got, RunFailure):
            self._add_failure(sample.index, self._names[1], got)
            return
        self._samples += 1
        errors = {
            name: self._tally(name).add(sample.index, wanted.get(name), got.get(name)) for name in _names(wanted, got)
        }
        if self._metric is not None:
            self._metric.add(sample, wanted, got, self._names)
        output = max(errors, key=lambda name: errors[name], default="")
        if output and errors[output] > 0:
            self._keep_worst(KeptSample(sample, wanted, got, errors[output], output))

    def _add_failure(self, index: int, column: str, failure: RunFailure) -> None:
        self._failed += 1
        if len(self._failures) < FAILURES_TOLD:
            self._failures.append(SampleFailure(index, column, failure.kind, one_line(failure.message, 400)))

    def _tally(self, name: str) -> OutputTally:
        return self._outputs.setdefault(name, OutputTally(name))

    def _keep_worst(self, kept: KeptSample) -> None:
        heapq.heappush(self._worst, (kept.error, -kept.sample.index, kept))
        if len(self._worst) > self._keep:
            heapq.heappop(self._worst)

    def result(self, notes: tuple[str, ...], *, given_up: bool) -> ColumnAgreement:
        kept = [entry[2] for entry in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]
        status: Literal["compared", "nothing compared", "given up"] = (
            "compared" if self._samples else "nothing compared"
        )
        agreement = Agreement(
            expected=self._names[0],
            actual=self._names[1],
            data=self._data,
            samples=self._samples,
            failed=self._failed,
            failures=self._failures,
            status="given up" if given_up or self.asked.hopeless else status,
            outputs=[tally.result() for tally in self._outputs.values()],
            metric=self._metric.result() if self._metric else None,
            worst=[WorstSample(index=each.sample.index, error=each.error, output=each.output) for each in kept],
            notes=notes,
        )
        return ColumnAgreement(agreement, kept)


def _names(expected: Arrays, actual: Arrays) -> Iterable[str]:
    return dict.fromkeys([*expected, *actual])
