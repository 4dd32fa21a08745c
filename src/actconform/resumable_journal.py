"""A file that a long command writes as it goes, a line a record after a first line that says which run it is, so that it can go on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, TypeVar

import msgspec
from filelock import FileLock, Timeout

from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

ADVICE = "leave --resume away to begin anew, or name another folder with --out"
NO_RECORD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

HeadT = TypeVar("HeadT")
RecordT = TypeVar("RecordT")


def read_journal(
    path: Path, head_type: type[HeadT], record: Callable[[bytes], RecordT], refusal: str
) -> tuple[HeadT, list[RecordT]]:
    """Return the head of a journal and what `record` makes of its other lines; those that are cut off or are no record are left out.

    Raises UsageError where it cannot be read, and with `refusal` where its first line is no head.
    """
    try:
        first, *lines = read_bytes(path).split(b"\n")
        head = msgspec.json.decode(first, type=head_type)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except NO_RECORD as error:
        raise UsageError(f"{path}: {refusal}") from error
    records = []
    for line in lines:
        with suppress(*NO_RECORD):
            records.append(record(line))
    return head, records


class ResumableJournal(ABC):
    """A journal in a folder, open for this process alone; whole lines alone are kept.

    With `resume` the records that an earlier run left are given to `_keep`. A line that was cut off, or is no record, is dropped, and
    `dropped` counts it. Raises UsageError where the journal of another run is there, there is none to go on from, another process
    writes it, or it cannot be written.
    """

    file_name: str
    kind: ClassVar[str]
    """What the file is of, as in "another study is being written there"."""

    def __init__(self, folder: Path, head: bytes, *, resume: bool) -> None:
        self.path = folder / self.file_name
        self.dropped = 0
        if resume and not self.path.exists():
            raise UsageError(f"--resume: there is no {self.path} to go on from; run without --resume")
        if self.path.exists() and not self.path.is_file():  # opening a pipe would wait for its other end
            raise UsageError(f"{self.path}: is no regular file; name another folder with --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim = self._claimed()
            self._begin(head, resume=resume)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"--out {folder}: is a file, or lies in one; name a folder") from error
        except OSError as error:
            where = error.filename or folder
            raise UsageError(f"--out {folder}: cannot be written: {where}: {error.strerror}") from error

    @abstractmethod
    def _another_run(self, head: bytes) -> str:
        """Return, in words, of which other run the journal is, "" where it is of this one; raise one of NO_RECORD where the line names none."""

    @abstractmethod
    def _keep(self, line: bytes) -> None:
        """Take up a record of an earlier run. Raises one of NO_RECORD where the line is none."""

    def _write(self, line: bytes) -> None:
        """Append a line. Raises OSError, which names the journal, where the disk is full."""
        left = memoryview(line + b"\n")
        try:
            while left:  # a disk that is almost full takes a part
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._claim.release()

    def _claimed(self) -> FileLock:
        """Return the lock of the journal, which ends with this process."""
        claim = FileLock(self.path.with_name(f".{self.path.name}.lock"), thread_local=False)
        try:
            claim.acquire(timeout=0)
        except Timeout:
            advice = "wait for it, or name another folder with --out"
            raise UsageError(f"{self.path}: another {self.kind} is being written there; {advice}") from None
        return claim

    def _begin(self, head: bytes, *, resume: bool) -> None:
        try:
            if resume:
                self._take()
            self._file = self.path.open("ab", buffering=0)
            if not resume:
                self._file.truncate(0)
                self._write(head)
        except BaseException:
            self._claim.release()
            raise

    def _take(self) -> None:
        """Take up what is there; what is dropped is taken out of the file, so that whole lines follow whole ones."""
        lines = self._read()
        if self.dropped:
            write_bytes(self.path, b"".join(line + b"\n" for line in lines))

    def _read(self) -> list[bytes]:
        try:
            head, *lines = read_bytes(self.path).split(b"\n")
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}; {ADVICE}") from error
        try:
            another = self._another_run(head)
        except NO_RECORD as error:
            raise UsageError(f"{self.path}: its first line names no {self.kind}; {ADVICE}") from error
        if another:
            raise UsageError(f"{self.path}: {another}; {ADVICE}")
        good = [head]
        *complete, last = lines or [b""]
        self.dropped += bool(last)  # a line without its end
        for line in complete:
            try:
                self._keep(line)
            except NO_RECORD:
                self.dropped += 1
                continue
            good.append(line)
        return good
