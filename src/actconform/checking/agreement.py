"""Whether columns agree where it matters, over a data set in a stream: decisions, rankings, angles, errors, the user's own metric."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec.structs import replace

from actconform.checking.agreement_result import Agreement, SampleFailure, WorstSample
from actconform.checking.flatten import flatten
from actconform.checking.inputs import write_sample
from actconform.checking.output_tally import OutputTally
from actconform.checking.runs import RunFailure
from actconform.checking.user_metric import MetricTally
from actconform.errors import Unsupported
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.checking.dataset import DataSample, DataSet
    from actconform.checking.model_file import ModelFile
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.checking.user_metric import UserMetric

    Arrays = Mapping[str, NDArray[Any]]

TRUTH = "the graph in float64"
KEPT = 5  # samples that agree least
FAILURES_TOLD = 5
HOPELESS = 8  # failures at the beginning, none answered, after which a column is asked no further
MOST_AT_ONCE = 64  # samples that a column is asked at once, for which a runtime loads its graph once
BYTES_AT_ONCE = 2**27  # of their inputs, and about as many of the outputs of each column


class AnsweringColumn(NamedTuple):
    """What answers for one column: a runtime, a trained model, the truth."""

    name: str
    answers: Callable[[Sequence[Arrays]], Sequence[Arrays | RunFailure]]
    """From the inputs of some samples to the outputs of each, by the graph's names."""


def sample_by_sample(name: str, answer: Callable[[Arrays], Arrays | RunFailure]) -> AnsweringColumn:
    """Return a column that is asked for one sample after another."""
    return AnsweringColumn(name, lambda samples: [answer(inputs) for inputs in samples])


def runtime_column(runs: RuntimeRuns, file: ModelFile) -> AnsweringColumn:
    """Return a runtime as a column, as users get it; the file stays open as long as it is asked."""

    def answers(samples: Sequence[Arrays]) -> list[Arrays | RunFailure]:
        return [answer.failure or answer.outputs for answer in runs.outputs_of_all(file, samples, twice=False)]

    return AnsweringColumn(runs.name, answers)


def truth_column(source: Source) -> AnsweringColumn:
    """Return the truth of a graph as a column: its outputs in float64. Where a node cannot be evaluated it gives no answer."""

    def answer(inputs: Arrays) -> Arrays | RunFailure:
        try:
            return flatten(source.model, inputs).truth
        except (Unsupported, ValueError) as error:
            return RunFailure("error", f"the graph cannot be evaluated: {error}")

    return sample_by_sample(TRUTH, answer)


class AnsweredSample(NamedTuple):
    """A sample that agrees least, with what came."""

    sample: DataSample
    expected: Arrays
    actual: Arrays
    error: float
    output: str


class ColumnAgreement(NamedTuple):
    """How far a column agrees, and its worst samples."""

    agreement: Agreement
    worst: list[AnsweredSample]


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

    A sample that a column does not answer is counted and named. A column that answers none of the first samples is asked no further. At
    most MOST_AT_ONCE samples are in memory at once, and the `keep` worst of each column. `progress` hears how many samples are done. Raises UsageError for a data
    set or a metric that cannot be used, naming the sample.
    """
    tallies = [_ColumnTally(expected.name, column, data.name, metric, keep) for column in actual]
    reference = _Asked(expected)
    done = 0
    for samples in _groups(data):
        wanted = reference.ask(samples)
        for tally in tallies:
            tally.add(samples, wanted)
        done += len(samples)
        progress(done)
        if reference.hopeless or all(tally.asked.hopeless for tally in tallies):
            break
    return [tally.result(data.notes, given_up=reference.hopeless) for tally in tallies]


def _groups(data: DataSet) -> Iterator[list[DataSample]]:
    """Yield samples in groups of one, two, four and so on, so that a column which answers nothing is noticed soon."""
    group: list[DataSample] = []
    size, most = 0, 1
    for sample in data:
        group.append(sample)
        size += sum(array.nbytes for array in sample.inputs.values())
        if len(group) >= most or size >= BYTES_AT_ONCE:
            yield group
            group, size, most = [], 0, min(2 * most, MOST_AT_ONCE)
    if group:
        yield group


def write_worst(agreed: ColumnAgreement, folder: Path, source: Source) -> Agreement:
    """Write the worst samples of a column as test_data_set_K in a folder, with the expected outputs, and return where they are.

    Raises OSError.
    """
    worst = []
    for k, answered in enumerate(agreed.worst):
        place = folder / f"test_data_set_{k}"
        write_sample(place, answered.sample.inputs, source, answered.expected)
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

    def ask(self, samples: Sequence[DataSample]) -> Sequence[Arrays | RunFailure]:
        """Return its answers for some samples."""
        answers = self.column.answers([sample.inputs for sample in samples])
        failed = sum(isinstance(answer, RunFailure) for answer in answers)
        self._failed += failed
        self._answered += len(answers) - failed
        return answers


class _ColumnTally:
    """The statistics of one column beside the expected one."""

    def __init__(self, expected: str, column: AnsweringColumn, data: str, metric: UserMetric | None, keep: int) -> None:
        self.asked = _Asked(column)
        self._names = (expected, column.name)
        self._data = data
        self._metric = MetricTally(metric) if metric else None
        self._outputs: dict[str, OutputTally] = {}
        self._worst: list[tuple[float, int, AnsweredSample]] = []  # a heap, the least bad first
        self._keep = keep
        self._samples = self._failed = 0
        self._failures: list[SampleFailure] = []

    def add(self, samples: Sequence[DataSample], wanted: Sequence[Arrays | RunFailure]) -> None:
        if self.asked.hopeless:
            return
        answered = []
        for sample, answer in zip(samples, wanted, strict=True):
            if isinstance(answer, RunFailure):
                self._add_failure(sample.index, self._names[0], answer)
            else:
                answered.append((sample, answer))
        if not answered:
            return
        answers = self.asked.ask([sample for sample, _ in answered])
        for (sample, right), answer in zip(answered, answers, strict=True):
            if isinstance(answer, RunFailure):
                self._add_failure(sample.index, self._names[1], answer)
            else:
                self._add(sample, right, answer)

    def _add(self, sample: DataSample, wanted: Arrays, got: Arrays) -> None:
        self._samples += 1
        errors = {
            name: self._tally(name).add(sample.index, wanted.get(name), got.get(name)) for name in _names(wanted, got)
        }
        if self._metric is not None:
            self._metric.add(sample, wanted, got, self._names)
        output = max(errors, key=lambda name: errors[name], default="")
        if output and errors[output] > 0:
            self._keep_worst(AnsweredSample(sample, wanted, got, errors[output], output))

    def _add_failure(self, index: int, column: str, failure: RunFailure) -> None:
        self._failed += 1
        if len(self._failures) < FAILURES_TOLD:
            self._failures.append(SampleFailure(index, column, failure.kind, one_line(failure.message, 400)))

    def _tally(self, name: str) -> OutputTally:
        return self._outputs.setdefault(name, OutputTally(name))

    def _keep_worst(self, answered: AnsweredSample) -> None:
        heapq.heappush(self._worst, (answered.error, -answered.sample.index, answered))
        if len(self._worst) > self._keep:
            heapq.heappop(self._worst)

    def result(self, notes: tuple[str, ...], *, given_up: bool) -> ColumnAgreement:
        samples = [entry[2] for entry in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)]
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
            worst=[WorstSample(index=each.sample.index, error=each.error, output=each.output) for each in samples],
            notes=notes,
        )
        return ColumnAgreement(agreement, samples)


def _names(expected: Arrays, actual: Arrays) -> Iterable[str]:
    return dict.fromkeys([*expected, *actual])
