"""The history of a run in one file: what changed in each run, as lines of JSON that are appended.

The first line says what the file is. For each run follow a line for each case that changed, then the line of the run, without which the lines
before it do not count: what a killed process left is dropped by the next addition. Lines that were lost or damaged before that are an error.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from filelock import FileLock, Timeout

from actconform.errors import UsageError
from actconform.files import read_bytes
from actconform.report.across_runs.diff import is_other_error
from actconform.report.error_ratio import worst_error_ratio
from actconform.text import number_of
from actconform.types import Finding, FindingClass, Interval, Result, Verdict
from actconform.types.json import finite
from actconform.types.report import Facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from io import FileIO
    from pathlib import Path

    from actconform.types.report import Report

HEAD = b'{"actconform-history":1}'
RUN = b'{"run":'  # how the line of a run begins
DAMAGED = "restore a copy of it, or make it anew from the reports with `actconform history add`"


class PastFinding(msgspec.Struct, frozen=True, array_like=True):
    """What a history keeps of a finding: what tells it from others, and how it was judged."""

    class_: str
    tensor: str
    regime: str
    interval: Interval
    relation: str
    severity: str
    blame: str
    deviation: str | None

    def same(self, finding: PastFinding) -> bool:
        """Tell whether it is the same by the rule of `Finding.same`."""
        return self._finding.same(finding._finding)

    @property
    def _finding(self) -> Finding:
        return Finding(
            class_=FindingClass(self.class_),
            tensor=self.tensor,
            regime=self.regime,
            interval=self.interval,
            relation=self.relation,
            count=0,
            worst=None,
            magnitude=0.0,
        )


class PastResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a history keeps of a result: a line of the file. `share` is the worst error over its limit, None where nothing was measured."""

    case: str
    verdict: Verdict
    share: float | None = None
    findings: tuple[PastFinding, ...] = ()

    @property
    def route(self) -> str:
        """The route of the case."""
        return self.case.split("/", 3)[-1]


class _Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """The line of a run: its time, how many lines of cases stand before it, and how many cases the run has with those that did not change.

    `gone` are the cases of the run before that this one has not. `facts` is None where they are those of the run before.
    """

    run: str
    lines: int
    cases: int
    conforms: bool
    problems: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    facts: Facts | None = None


class PastRun(NamedTuple):
    """A run of the history: all of its cases by name, and those of them that changed in it, or that it has not any more."""

    when: str
    facts: Facts
    conforms: bool
    problems: tuple[str, ...]
    results: Mapping[str, PastResult]
    changed: tuple[str, ...]
    gone: tuple[str, ...]


_RESULT = msgspec.json.Decoder(PastResult, strict=False)  # "inf" where a number stands is one
_RUN = msgspec.json.Decoder(_Run)


def past_run(report: Report) -> PastRun:
    """Return a report as a run of a history, in which everything is new."""
    results = {result.case: past_result(result) for result in report.results}
    return PastRun(report.when, report.facts, report.conforms, report.problems, results, tuple(results), ())


def past_result(result: Result) -> PastResult:
    """Return what a history keeps of a result."""
    worst = worst_error_ratio(result)
    findings = tuple(
        PastFinding(
            finding.class_,
            finding.tensor,
            finding.regime,
            finding.interval,
            finding.relation,
            finding.severity,
            finding.blame,
            finding.deviation,
        )
        for finding in result.findings
    )
    return PastResult(result.case, result.verdict, worst.ratio if worst else None, findings)


def read_history(path: Path) -> Iterator[PastRun]:
    """Yield the runs of a history, oldest first.

    Raises UsageError where the file is missing, is no history, or is damaged elsewhere than at its end.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        advice = "make one with `actconform history add REPORT --store FILE`"
        raise UsageError(f"{path}: cannot be read: {error.strerror}; {advice}") from error
    for run, _ in _runs(content, path):
        yield run


def with_past(report: Report, store: Path) -> Iterator[PastRun]:
    """Yield the runs of a history before the report's, and the report's. Raises UsageError where the history cannot be read."""
    for run in read_history(store):
        if not report.when or run.when < report.when:
            yield run
    yield past_run(report)


def _runs(content: bytes, path: Path) -> Iterator[tuple[PastRun, int]]:
    """Yield each run with the place where its line ends."""
    lines = content.split(b"\n")
    if lines[0] != HEAD:
        wrong = "its first line is another" if content else "it is empty"
        raise UsageError(f"{path}: is no history of `actconform history add`: {wrong}")
    last = max((number for number, line in enumerate(lines[:-1]) if line.startswith(RUN)), default=0)
    facts, results, changed = Facts(), dict[str, PastResult](), list[str]()
    end = len(HEAD) + 1
    for number, line in enumerate(lines[1 : last + 1], 2):
        end += len(line) + 1
        try:
            if not line.startswith(RUN):
                result = _RESULT.decode(line)
                results[result.case] = result
                changed.append(result.case)
                continue
            run = _RUN.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}, line {number}: is damaged ({error}); {DAMAGED}") from error
        for case in run.gone:
            results.pop(case, None)
        if (len(changed), len(results)) != (run.lines, run.cases):
            words = f"{number_of(len(changed), 'line')} before it and {number_of(len(results), 'case')}, and says {run.lines:,} and {run.cases:,}"
            raise UsageError(f"{path}, line {number}: the run of {run.run} has {words}: lines are missing; {DAMAGED}")
        facts = run.facts or facts
        yield PastRun(run.run, facts, run.conforms, run.problems, dict(results), tuple(changed), run.gone), end
        changed = []


class Added(NamedTuple):
    """What an addition did: the runs that were added, those that were there, and how many bytes of an earlier one were dropped."""

    added: list[str]
    present: list[str]
    dropped: int


def add_runs(path: Path, runs: Iterable[PastRun]) -> Added:
    """Append runs to a history, oldest first, and make the file where there is none. Each is on the disk before the next is asked for.

    A run that is there already is left out. Raises UsageError where the file is no history, is damaged or in use, where a run has no time, is
    older than the last, or is another of the same time, or where it cannot be written: the runs before it are in the file then, and nothing of it.
    """
    added, present = [], []
    with _opened(path) as file:
        content = read_bytes(path)
        times, results, facts, end = dict[str, int](), dict[str, PastResult](), Facts(), 0
        if content.count(b"\n") or not HEAD.startswith(content):  # else new, or killed within the first line
            end = len(HEAD) + 1
            for run, end in _runs(content, path):  # noqa: B007
                times[run.when] = _digest(run.results)
                results, facts = dict(run.results), run.facts
        dropped = len(content) - end
        for run in runs:
            if times.get(run.when) == _digest(run.results):
                present.append(run.when)
                continue
            _expect_later(path, run.when, times)
            text = _lines(run, results, facts if times else None)
            try:
                end = _append(file, text if end else HEAD + b"\n" + text, end)
            except OSError as error:
                raise UsageError(f"{path}: the run of {run.when} cannot be written: {error.strerror}") from error
            added.append(run.when)
            times[run.when] = _digest(run.results)
            # small changes of an error add up: what is in the file is what the next run is compared with
            results = {case: _kept(results.get(case), result) for case, result in run.results.items()}
            facts = run.facts
    return Added(added, present, dropped)


def _digest(results: Mapping[str, PastResult]) -> int:
    return hash(frozenset((case, result.verdict, result.findings) for case, result in results.items()))


def _expect_later(path: Path, when: str, times: Iterable[str]) -> None:
    last = max(times, default="")
    if not when:
        raise UsageError(f"{path}: a report has no time of its run, and a history is in the order of time: run again")
    if when in times:
        raise UsageError(f"{path}: has another run of {when}: give each job a history of its own")
    if when < last:
        advice = "add runs in the order of time, or make the history anew from all reports at once"
        raise UsageError(f"{path}: its last run is of {last}, and this one of {when}: {advice}")


def _lines(run: PastRun, before: Mapping[str, PastResult], facts: Facts | None) -> bytes:
    """Return the lines of a run after a run of `before` and of `facts`, None where there was none."""
    changed = [result for case, result in run.results.items() if _changed(before.get(case), result)]
    line = _Run(
        run=run.when,
        lines=len(changed),
        cases=len(run.results),
        conforms=run.conforms,
        problems=run.problems,
        gone=tuple(case for case in before if case not in run.results),
        facts=None if facts == run.facts else run.facts,
    )
    return b"".join(msgspec.json.encode(finite(each)) + b"\n" for each in (*changed, line))


def _kept(before: PastResult | None, after: PastResult) -> PastResult:
    return after if before is None or _changed(before, after) else before


def _changed(before: PastResult | None, after: PastResult) -> bool:
    """Tell whether a case is another than before: verdict, findings, or its worst error by as much as `actconform diff` counts."""
    if before is None or (before.verdict, before.findings) != (after.verdict, after.findings):
        return True
    if before.share is None or after.share is None:
        return before.share is not after.share
    return is_other_error(before.share, after.share)


@contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    """Open a history for this process alone. Raises UsageError where that is not possible."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
        raise UsageError(f"{path}: is no regular file; name a file for the history")
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    try:
        file = open(os.open(path, flags, 0o666), "r+b", buffering=0)  # noqa: SIM115, PTH123
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    with file:
        try:
            claim = FileLock(path.with_name(f".{path.name}.lock")).acquire(timeout=0)
        except Timeout:
            raise UsageError(f"{path}: another process writes it; wait for it") from None
        with claim:
            yield file


def _append(file: FileIO, text: bytes, end: int) -> int:
    """Write after byte `end`, drop what stood there, wait until the disk has it, and return the new end. Raises OSError, nothing changed."""
    try:
        file.truncate(end)
        file.seek(end)
        written = 0
        while written < len(text):
            count = file.write(text[written:])
            if not count:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += count
        os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            file.truncate(end)
        raise
    return end + len(text)
