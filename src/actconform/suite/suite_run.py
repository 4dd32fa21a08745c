"""A suite from its cases to its records: every runtime answers in a thread of its own while the answers before are judged."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Protocol

from actconform.suite.batches import answers_of
from actconform.suite.registered_cause import with_causes
from actconform.suite.standard_limits import standard_verdict
from actconform.suite.suite_result import BoundVerdict, RuntimeVerdict, SuiteRecord
from actconform.suite.truth_bounds import CaseTruth
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.checking.runs import RuntimeRuns
    from actconform.suite.batches import CaseAnswer
    from actconform.suite.case import SuiteCase

AHEAD = 96  # answers of a runtime that wait to be judged
LOOK_SECONDS = 0.2
REASON_LETTERS = 600


class RecordKeeper(Protocol):
    """What hears of each case when it is done, and of what happened that is no case's."""

    def add(self, record: SuiteRecord) -> None: ...

    def note(self, words: str) -> None: ...


class RuntimeLostError(Exception):
    """A runtime that answered does not start any more; the message says why."""


def run_cases(
    cases: Sequence[SuiteCase],
    runtimes: Sequence[RuntimeRuns],
    keeper: RecordKeeper,
    step: Callable[[], None] = lambda: None,
) -> None:
    """Judge the cases on all runtimes, in their order; `keeper` has a record of each when this ends, or what there is when it is interrupted.

    Raises RuntimeLostError where the process of a runtime cannot be started any more.
    """
    streams = [_AnswerStream(runs, cases) for runs in runtimes]
    try:
        for case in cases:
            answers = {runs.name: stream.next() for runs, stream in zip(runtimes, streams, strict=True)}
            for answer in answers.values():
                if answer.note:
                    keeper.note(answer.note)
            keeper.add(with_causes(case_record(case, answers), case, runtimes))
            step()
    finally:
        for stream in streams:
            stream.stop()


def case_record(case: SuiteCase, answers: Mapping[str, CaseAnswer]) -> SuiteRecord:
    """Return the verdicts on the answers of runtimes, by their names, and on the outputs that the case ships."""
    truth = CaseTruth(case)
    data = _data_verdict(case, truth)
    return SuiteRecord(
        case=case.name,
        kind=case.kind,
        operator=case.operator,
        operators=case.operators,
        opset=case.opset,
        data=data,
        runtimes={name: _runtime_verdict(case, truth, data, answer) for name, answer in answers.items()},
    )


def _data_verdict(case: SuiteCase, truth: CaseTruth) -> BoundVerdict:
    shipped = []
    for data_set in case.data_sets:
        if data_set.expected is None:
            return BoundVerdict(state="not judged", reason="the case ships no outputs")
        shipped.append(dict(zip(case.outputs, data_set.expected, strict=False)))
    return truth.verdict(shipped)


def _runtime_verdict(case: SuiteCase, truth: CaseTruth, data: BoundVerdict, answer: CaseAnswer) -> RuntimeVerdict:
    failure = answer.failure
    if failure is not None:
        if failure.kind == "unavailable":
            raise RuntimeLostError(failure.message)
        words = one_line(failure.message, REASON_LETTERS)
        return RuntimeVerdict(
            standard="not supported",
            standard_words=words,
            truth=BoundVerdict(state="error" if failure.kind == "source" else failure.kind, reason=words),
            seconds=answer.seconds,
        )
    standard, standard_words = standard_verdict(case, answer.outputs)
    verdict = truth.verdict(answer.outputs)
    return RuntimeVerdict(
        standard=standard,
        standard_words=standard_words,
        truth=verdict,
        blame="" if verdict.state != "outside" else "undetermined" if data.state == "outside" else "runtime",
        seconds=answer.seconds,
    )


class _AnswerStream:
    """The answers of a runtime, made ahead in a thread."""

    def __init__(self, runs: RuntimeRuns, cases: Sequence[SuiteCase]) -> None:
        self._answers: queue.Queue[CaseAnswer | BaseException] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(runs, cases), daemon=True)
        self._thread.start()

    def next(self) -> CaseAnswer:
        """Return the answer to the next case; raise what the thread raised."""
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self) -> None:
        """Have the thread end after the batch at hand."""
        self._stopped.set()

    def _run(self, runs: RuntimeRuns, cases: Sequence[SuiteCase]) -> None:
        try:
            for answer in answers_of(runs, cases):
                if not self._put(answer):
                    return
        except BaseException as error:  # noqa: BLE001  raised where the answers are read
            self._put(error)

    def _put(self, answer: CaseAnswer | BaseException) -> bool:
        """Add an answer; return False where nobody reads any more."""
        while not self._stopped.is_set():
            try:
                self._answers.put(answer, timeout=LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
