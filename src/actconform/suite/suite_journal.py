"""What a suite leaves as it goes: suite.jsonl, a line that says which run it is, then a line a case, so that it can go on."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import msgspec

from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes
from actconform.suite.suite_result import SuiteIdentity, SuiteRecord
from actconform.text import one_line
from actconform.types.json import finite

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

SUITE_JOURNAL = "suite.jsonl"


class _Head(msgspec.Struct):
    run: SuiteIdentity


class SuiteJournal:
    """Appends records to DIR/suite.jsonl, whole lines; with `resume` those that an earlier run of the same versions left are in `earlier`.

    A line that was cut off, or is no record, is dropped, and `dropped` counts it. Raises UsageError where the journal of a run under
    other versions is there, there is none to go on from, another process writes it, or it cannot be written.
    """

    def __init__(self, folder: Path, identity: SuiteIdentity, *, resume: bool) -> None:
        self.path = folder / SUITE_JOURNAL
        self.earlier: dict[str, SuiteRecord] = {}
        self.records: list[SuiteRecord] = []
        """What was added."""
        self.notes: list[str] = []
        self.dropped = 0
        if resume and not self.path.exists():
            raise UsageError(f"--resume: there is no {self.path} to go on from; run without --resume")
        if self.path.exists() and not self.path.is_file():  # opening a pipe would wait for its other end
            raise UsageError(f"{self.path}: is no regular file; name another folder with --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
            if resume:
                self._take(identity)
            else:
                self._file.truncate(0)
                self._file.write(msgspec.json.encode(finite(_Head(identity))) + b"\n")
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"--out {folder}: is a file, or lies in one; name a folder") from error
        except OSError as error:
            where = error.filename or folder
            raise UsageError(f"--out {folder}: cannot be written: {where}: {error.strerror}") from error

    def add(self, record: SuiteRecord) -> None:
        """Append a record. Raises OSError, which names the file."""
        self.records.append(record)
        try:
            self._file.write(msgspec.json.encode(finite(record)) + b"\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def note(self, words: str) -> None:
        """Keep what happened that is no case's."""
        self.notes.append(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _open(self) -> None:
        """Open the journal for this process alone."""
        self._file = self.path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            advice = "wait for it, or name another folder with --out"
            raise UsageError(f"{self.path}: another suite is being written there; {advice}") from None

    def _take(self, identity: SuiteIdentity) -> None:
        """Take up what is there; what is dropped is taken out of the file, so that whole lines follow whole ones."""
        try:
            lines = self._read(identity)
            if self.dropped:
                write_bytes(self.path, b"".join(line + b"\n" for line in lines))
        except BaseException:
            self._file.close()
            raise
        if self.dropped:
            self._file.close()
            self._open()

    def _read(self, identity: SuiteIdentity) -> list[bytes]:
        advice = "leave --resume away to begin anew, or name another folder with --out"
        try:
            head, *lines = read_bytes(self.path).split(b"\n")
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}; {advice}") from error
        try:
            earlier = msgspec.json.decode(head, type=_Head).run
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{self.path}: its first line names no suite; {advice}") from error
        if earlier != identity:
            words = f"is of another run: {one_line(str(earlier))}; this one is: {one_line(str(identity))}"
            raise UsageError(f"{self.path}: {words}; {advice}")
        good = [head]
        *complete, last = lines or [b""]
        self.dropped += bool(last)  # a line without its end
        for line in complete:
            try:
                # not strict: "nan" where a number stands is one
                record = msgspec.json.decode(line, type=SuiteRecord, strict=False)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.dropped += 1
                continue
            self.earlier[record.id] = record
            good.append(line)
        return good
