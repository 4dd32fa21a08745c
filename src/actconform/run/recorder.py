"""What is kept of a run: results.jsonl as results come, report.json at the end. A killed run keeps what it had.

Each line of results.jsonl holds a proof: digests of the result and of all that it depends on, so that a run that resumes takes
nothing that was changed, or found under other circumstances. facts.json says these in words.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import stat
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from filelock import FileLock, Timeout

from actconform.errors import FolderInUseError, UsageError
from actconform.files import read_bytes, write_bytes
from actconform.text import listed, number_of, one_line
from actconform.types import Result, Verdict
from actconform.types.json import digest_of_json, finite
from actconform.types.report import SCHEMA, Report
from actconform.verdict.severity import graded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from actconform.types import Case
    from actconform.types.report import Facts

RESULTS, REPORT, FACTS = "results.jsonl", "report.json", "facts.json"
CLAIM = ".results.lock"
AGAIN = (Verdict.UNAVAILABLE, Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR)  # what a second try may change
PROOF = "proof"
STRANGE_SHOWN = 3


class _Facts(msgspec.Struct, kw_only=True):
    """What results depend on beside their cases: `run` for all of them, `lines` by line and backend."""

    run: str = ""
    lines: dict[str, dict[str, dict[str, str]]] = {}


class _Proof(msgspec.Struct, frozen=True):
    """What a result depends on, as digests of the run's and of the line's, and the digest of these and the result."""

    run: str
    facts: str
    sha256: str


class _Line(msgspec.Struct, frozen=True):
    """A line of results.jsonl as it is there, what it says, and under what that was found."""

    text: bytes
    result: Result
    proof: _Proof


class Recorder:
    """Appends each result to DIR/results.jsonl, whole lines only, and writes DIR/report.json in one step at the end.

    Creates DIR; raises FolderInUseError while another run writes into it. Starting a run removes the old report, so that
    results and report in one folder are of one run.

    `about` says what all results depend on. With `resume`, the ids of the selected cases, the results that an earlier run
    left of them are kept where that run was `about` the same, but for those in AGAIN; `take` hands them out, and `notes`
    tells what was dropped: lines that are no results, or not as they were written, among it. Raises UsageError where
    the facts that the earlier run left cannot be read.

    What cannot be written later raises nothing: results wait in memory, and are tried again with the next; `unwritten` says
    what is missing in the end.
    """

    def __init__(self, folder: Path, *, about: str = "", resume: Collection[str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._earlier: dict[str, _Line] = {}
        self._facts = _Facts(run=about)
        self._run = digest_of_json(about)
        self._facts_of: dict[str, str] = {}  # the digest of its line's facts, by case
        self._waiting: list[bytes] = []
        self._begun = 0  # bytes of the first that waits, which are in the file
        self._faults: dict[str, OSError] = {}
        _expect_file(folder / RESULTS)
        with contextlib.ExitStack() as held:
            held.callback(_claimed(folder).release)
            self._lines = (folder / RESULTS).open("ab", buffering=0)
            held.callback(lambda: self._lines.close())  # noqa: PLW0108  of the one that is there then
            if resume is None:
                # The only step that may want space that is not there comes before anything old is gone.
                _write(self.folder / FACTS, self._facts)
                self._lines.truncate(0)
            else:
                self._keep(resume)
                _write(self.folder / FACTS, self._facts)
            (folder / REPORT).unlink(missing_ok=True)
            _sweep(folder)
            self._held = held.pop_all()

    def _keep(self, cases: Collection[str]) -> None:
        facts = read_facts(self.folder)
        lines, strange = _read_lines(self.folder)
        if strange:
            lines_are = number_of(len(strange), f"line of {RESULTS} is", f"lines of {RESULTS} are")
            message = f"{lines_are} dropped, and what is missing now is run again"
            self.notes.append(f"{message}: {listed(strange, STRANGE_SHOWN, '; ')}")
        wanted = {
            line.result.case: line for line in lines if line.result.case in cases and line.result.verdict not in AGAIN
        }
        same = {case: line for case, line in wanted.items() if line.proof.run == self._run}
        if facts.run == self._facts.run:
            self._facts = facts
            self._earlier = same
        if len(self._earlier) < len(wanted):
            self.notes.append(
                f"{_dropped(len(wanted) - len(self._earlier))}: versions, settings, goldens, "
                "register or code have changed"
            )
        self._rewrite(line.text for line in self._earlier.values())

    def validate_facts(self, line: str, facts: Mapping[str, Mapping[str, str]], cases: Sequence[Case]) -> None:
        """Drop the earlier results of the line's cases where its facts are others now, or not had; keep the facts.

        Safe in any thread.
        """
        now = {backend: dict(of_backend) for backend, of_backend in facts.items()}
        facts_digest = digest_of_json(now)
        with self._lock:
            self._facts_of.update((case.id, facts_digest) for case in cases)
            before = self._facts.lines.get(line)
            earlier = [case.id for case in cases if case.id in self._earlier]
            if now and before == now:
                stale = [case for case in earlier if self._earlier[case].proof.facts != facts_digest]
            else:
                stale = earlier
            if stale:
                reason = _changed(before or {}, now) if before != now else "they were found under other facts"
                self.notes.append(f"{line}: {_dropped(len(stale))}: {reason}")
                gone = {self._earlier.pop(case).text for case in stale}
                self._tried(RESULTS, lambda: self._without(gone))
            if not now or before != now:
                self._facts.lines[line] = now
                # after the rewriting: all that is there was found under them
                self._tried(FACTS, lambda: _write(self.folder / FACTS, self._facts))

    def get(self, case: str) -> Result | None:
        """Return what the earlier run found, where that still holds."""
        line = self._earlier.get(case)
        return line.result if line else None

    @property
    def kept(self) -> int:
        """How many results of the earlier run still hold."""
        return len(self._earlier)

    @property
    def unwritten(self) -> list[str]:
        """What is not on the disk that should be, and why."""
        with self._lock:
            self._write_waiting()
            count = len(self._waiting)
            states = {RESULTS: f"{count} of its results are not written" if count else "old lines are still in it"}
            return [
                f"{self.folder / name}: {states.get(name, 'is not written')}: {error.strerror or error}"
                for name, error in self._faults.items()
            ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._write_waiting()
        self._held.close()

    def add(self, result: Result) -> None:
        """Append one result, unless it was taken from there; it is with the operating system before this returns.

        Where there is no space it waits for the next one, or for the end.
        """
        with self._lock:
            earlier = self._earlier.get(result.case)
            if earlier is None or earlier.result is not result:
                facts = self._facts_of.get(result.case, digest_of_json({}))
                self._waiting.append(_line(result, self._run, facts))
                self._write_waiting()

    def finish(self, report: Report) -> bytes:
        """Write the report, and return it as it is written, or would be."""
        content = _json(report)
        with self._lock:
            self._write_waiting()
            self._tried(REPORT, lambda: write_bytes(self.folder / REPORT, content))
        return content

    def _write_waiting(self) -> None:
        """Write what waits as far as there is space: what is there of a line is a beginning, never a hole."""
        if self._waiting:
            self._tried(RESULTS, self._append)

    def _append(self) -> None:
        while self._waiting:
            self._begun += self._lines.write(self._waiting[0][self._begun :])
            if self._begun == len(self._waiting[0]):
                del self._waiting[0]
                self._begun = 0

    def _tried(self, name: str, step: Callable[[], object]) -> None:
        try:
            step()
            self._faults.pop(name, None)
        except OSError as error:
            self._faults[name] = error

    def _without(self, gone: Collection[bytes]) -> None:
        lines, _ = _read_lines(self.folder)
        self._rewrite(line.text for line in lines if line.text not in gone)

    def _rewrite(self, lines: Iterable[bytes]) -> None:
        """Have exactly these lines in the file, in one step."""
        path, content = self.folder / RESULTS, b"".join(lines)
        if path.read_bytes() == content:
            return
        fresh = path.with_suffix(f".{os.getpid()}")
        file = fresh.open("wb", buffering=0)
        try:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            fresh.replace(path)
        except BaseException:
            file.close()
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        self._lines.close()
        self._lines, self._begun = file, 0


def read_results(folder: Path) -> list[Result]:
    """Return the results in DIR/results.jsonl; a last line without its end, of a run that was killed, is left out.

    Raises UsageError, naming the first line that is no result or not as it was written, and where the file cannot be read.
    """
    lines, strange = _read_lines(folder)
    if strange:
        raise UsageError(f"{folder / RESULTS}: {strange[0]}; run again")
    return [line.result for line in lines]


def _read_lines(folder: Path) -> tuple[list[_Line], list[str]]:
    """Return the lines that are as they were written, and what is wrong with each of the others."""
    path = folder / RESULTS
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; run without --resume") from error
    lines, strange = [], []
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        try:
            lines.append(_checked(text + b"\n"))
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            strange.append(f"line {number} is not a result as a run wrote it ({one_line(str(error), 200)})")
    return lines, strange


def _checked(text: bytes) -> _Line:
    """Return the line; raise ValueError or DecodeError where it is none, or not as it was written."""
    content = msgspec.json.decode(text, type=dict[str, Any])
    if PROOF not in content:
        raise ValueError("it has no proof")
    proof = msgspec.convert(content.pop(PROOF), _Proof)
    if proof != _proof(content, proof.run, proof.facts):
        raise ValueError("it was changed")
    # not strict: "inf" where a number stands is one
    return _Line(text, graded(msgspec.convert(content, Result, strict=False)), proof)


def _dropped(count: int) -> str:
    return number_of(count, "result of the earlier run is dropped", "results of the earlier run are dropped")


def _proof(content: dict[str, Any], run: str, facts: str) -> _Proof:
    return _Proof(run, facts, digest_of_json([content, run, facts]))


def _line(result: Result, run: str, facts: str) -> bytes:
    content = finite(result)
    return msgspec.json.encode({**content, PROOF: _proof(content, run, facts)}) + b"\n"


def read_facts(folder: Path) -> _Facts:
    """Return the facts of the run in the folder; none where there are none. Raises UsageError where they are unreadable."""
    path = folder / FACTS
    try:
        return msgspec.json.decode(read_bytes(path), type=_Facts)
    except FileNotFoundError:
        return _Facts()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; run without --resume") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not the facts of a run ({error}); run without --resume") from error


def _changed(before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> str:
    """Return the facts that are others now, or that were not known."""
    words = []
    for backend, facts in now.items():
        old = before.get(backend, {})
        names = [name for name in {**old, **facts} if old.get(name) != facts.get(name)]
        words += [f"{name} was {old.get(name, 'unknown')}, is {facts.get(name, 'unknown')}" for name in names]
    return "; ".join(words) or "it did not start now"


def write_report(folder: Path, report: Report) -> Path:
    """Write DIR/report.json in one step and return its path. Raises OSError."""
    path = folder / REPORT
    write_bytes(path, _json(report))
    return path


def _write(path: Path, content: Any) -> None:
    write_bytes(path, msgspec.json.encode(content))


def _json(report: Report) -> bytes:
    return msgspec.json.encode(finite(report))


def _claimed(folder: Path) -> FileLock:
    """Return the lock of a folder, held until it is released or the process ends. Raises FolderInUseError, and OSError."""
    claim = FileLock(folder / CLAIM, thread_local=False)
    try:
        claim.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError from None
    return claim


def _expect_file(path: Path) -> None:
    """Raise OSError where something else than a file is in the way: opening a pipe would wait for its reader."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed while they wrote have left behind."""
    for path in (*folder.glob(f".{FACTS}.*"), *folder.glob(f".{REPORT}.*"), *folder.glob("results.*")):
        if path.suffix[1:].isdigit():
            path.unlink(missing_ok=True)


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
