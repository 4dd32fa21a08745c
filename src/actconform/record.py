"""What is kept of a run: results.jsonl as results come, report.json at the end. A killed run keeps what it had.

facts.json says under which facts results were found, so that a run that resumes takes none found under others.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.as_json import finite
from actconform.config import UsageError
from actconform.document import SCHEMA, Report
from actconform.severity import graded
from actconform.types import Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from actconform.document import Facts
    from actconform.types import Case

RESULTS, REPORT, FACTS = "results.jsonl", "report.json", "facts.json"
AGAIN = (Verdict.UNAVAILABLE, Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR)  # what a second try may mend


class FolderInUseError(Exception):
    """Another run is writing into the folder."""


class _Facts(msgspec.Struct, kw_only=True):
    """What results depend on beside their cases: `run` for all of them, `lines` by line and backend."""

    run: str = ""
    lines: dict[str, dict[str, dict[str, str]]] = {}


class Recorder:
    """Appends each result to DIR/results.jsonl, whole lines only, and writes DIR/report.json in one step at the end.

    Creates DIR; raises FolderInUseError while another run writes into it. Starting a run removes the old report, so that
    results and report in one folder are of one run.

    `about` says what all results depend on. With `resume`, the ids of the selected cases, the results that an earlier run
    left of them are kept where that run was `about` the same, but for those in AGAIN; `take` hands them out, and `notes`
    tells what was dropped. Raises UsageError where what the earlier run left cannot be read.
    """

    def __init__(self, folder: Path, *, about: str = "", resume: Collection[str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._earlier: dict[str, Result] = {}
        self._facts = _Facts(run=about)
        self._lines = (folder / RESULTS).open("ab", buffering=0)
        try:
            self._claim()
            if resume is None:
                self._lines.truncate(0)
                (folder / FACTS).unlink(missing_ok=True)
            else:
                self._keep(resume)
            (folder / REPORT).unlink(missing_ok=True)
            _write(self.folder / FACTS, self._facts)
        except BaseException:
            self._lines.close()
            raise

    def _claim(self) -> None:
        try:
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError from None
        there = (self.folder / RESULTS).stat()
        if there.st_ino != os.fstat(self._lines.fileno()).st_ino:  # replaced by a run that resumes
            raise FolderInUseError

    def _keep(self, cases: Collection[str]) -> None:
        results = read_results(self.folder)
        facts = read_facts(self.folder)
        wanted = {result.case: result for result in results if result.case in cases and result.verdict not in AGAIN}
        if facts.run == self._facts.run:
            self._facts = facts
            self._earlier = wanted
        elif wanted:
            self.notes.append(
                f"{len(wanted)} results of the earlier run are dropped: versions, settings, goldens or register have changed"
            )
        self._rewrite(list(self._earlier.values()))

    def meet(self, line: str, facts: Mapping[str, Mapping[str, str]], cases: Sequence[Case]) -> None:
        """Drop the earlier results of the line's cases where its facts are others now, or not had; keep the facts.

        Safe in any thread.
        """
        now = {backend: dict(of_backend) for backend, of_backend in facts.items()}
        with self._lock:
            before = self._facts.lines.get(line, {})
            if now and before == now:
                return
            stale = [case.id for case in cases if self._earlier.pop(case.id, None) is not None]
            if stale:
                self.notes.append(
                    f"{line}: {len(stale)} results of the earlier run are dropped: {_changed(before, now)}"
                )
                gone = set(stale)
                self._rewrite([result for result in read_results(self.folder) if result.case not in gone])
            self._facts.lines[line] = now
            _write(self.folder / FACTS, self._facts)  # after the rewriting: all that is there was found under them

    def take(self, case: str) -> Result | None:
        """Return what the earlier run found, where that still holds."""
        return self._earlier.get(case)

    @property
    def kept(self) -> int:
        """How many results of the earlier run still hold."""
        return len(self._earlier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()

    def add(self, result: Result) -> None:
        """Append one result, unless it was taken from there; it is with the operating system before this returns."""
        with self._lock:
            if self._earlier.get(result.case) is not result:
                self._lines.write(_line(result))

    def finish(self, report: Report) -> Path:
        """Write the report and return its path."""
        return write_report(self.folder, report)

    def _rewrite(self, results: Sequence[Result]) -> None:
        """Have exactly these results in the file, in one step, and the claim on the folder without a gap."""
        path = self.folder / RESULTS
        fresh = path.with_suffix(f".{os.getpid()}")
        lines = fresh.open("wb", buffering=0)
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for result in results:
                lines.write(_line(result))
            fresh.replace(path)
        except BaseException:
            lines.close()
            raise
        self._lines.close()
        self._lines = lines


def read_results(folder: Path) -> list[Result]:
    """Return the results in DIR/results.jsonl; a last line without its end, of a run that was killed, is left out.

    Raises UsageError, naming the line, where another one is no result.
    """
    path = folder / RESULTS
    results = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            results.append(graded(msgspec.json.decode(line, type=Result, strict=False)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            mend = "delete that line, or run without --resume"
            raise UsageError(f"{path}:{number}: not a result of a run ({error}); {mend}") from error
    return results


def read_facts(folder: Path) -> _Facts:
    """Return the facts of the run in the folder; none where there are none. Raises UsageError where they are unreadable."""
    path = folder / FACTS
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Facts)
    except FileNotFoundError:
        return _Facts()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not the facts of a run ({error}); run without --resume") from error


def _line(result: Result) -> bytes:
    return msgspec.json.encode(finite(result)) + b"\n"


def _changed(before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> str:
    """Return the facts that are others now, or that were not known."""
    words = []
    for backend, facts in now.items():
        old = before.get(backend, {})
        names = [name for name in {**old, **facts} if old.get(name) != facts.get(name)]
        words += [f"{name} was {old.get(name, 'unknown')}, is {facts.get(name, 'unknown')}" for name in names]
    return "; ".join(words) or "it did not start now"


def write_report(folder: Path, report: Report) -> Path:
    """Write DIR/report.json in one step and return its path."""
    return _write(folder / REPORT, finite(report))


def _write(path: Path, content: Any) -> Path:
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_bytes(msgspec.json.encode(content))
    fresh.replace(path)
    return path


def now() -> str:
    """Return the time in UTC as reports have it: "2026-11-21T15:48:03Z"."""
    return dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def report(
    results: Sequence[Result],
    facts: Facts,
    problems: Sequence[str],
    timings: Mapping[str, float],
) -> Report:
    """Return the report of a run that ends now."""
    return Report(
        schema=SCHEMA,
        when=now(),
        facts=facts,
        conforms=not problems,
        problems=tuple(problems),
        timings=dict(timings),
        summary={str(verdict): count for verdict, count in Counter(result.verdict for result in results).items()},
        results=tuple(results),
    )
