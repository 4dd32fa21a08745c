"""What a study leaves as it goes: study.jsonl, a line that says which study it is, then a line a training, so that it can go on."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

import msgspec

from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes
from actconform.study.trial import Trial
from actconform.text import one_line
from actconform.types.json import finite

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

JOURNAL = "study.jsonl"


class StudyIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What all trainings of a study depend on, beside the experiment of each: two trainings under the same may stand in one table."""

    actconform: str
    backend: str
    provider: str
    """The distribution of the backend and its version."""
    epochs: int
    """Of every experiment at most; 0: its own number."""
    reach: float

    def __str__(self) -> str:
        epochs = f"at most {self.epochs} epochs" if self.epochs else "all epochs"
        provider = f" ({self.provider})" if self.provider else ""
        return f"{self.backend}{provider}, {epochs}, a stated loss of {self.reach:g}, actconform {self.actconform}"


class _Head(msgspec.Struct):
    study: StudyIdentity


class StudyJournal:
    """Appends trainings to DIR/study.jsonl, whole lines; with `resume` those that an earlier run of the same study left are in `earlier`.

    A line that was cut off, or is no training, is dropped, and `dropped` counts it. Raises UsageError where another study's journal is
    there, there is none to go on from, another process writes it, or it cannot be written.
    """

    def __init__(self, folder: Path, identity: StudyIdentity, *, resume: bool) -> None:
        self.path = folder / JOURNAL
        self.earlier: dict[tuple[str, str, str, int], Trial] = {}
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
                self._file.write(msgspec.json.encode({"study": identity}) + b"\n")
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"--out {folder}: is a file, or lies in one; name a folder") from error
        except OSError as error:
            where = error.filename or folder
            raise UsageError(f"--out {folder}: cannot be written: {where}: {error.strerror}") from error

    def add(self, trial: Trial) -> None:
        """Append a training. Raises OSError."""
        self._file.write(_line(trial) + b"\n")

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
            raise UsageError(f"{self.path}: another study is being written there; {advice}") from None

    def _take(self, identity: StudyIdentity) -> None:
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

    def _read(self, identity: StudyIdentity) -> list[bytes]:
        advice = "leave --resume away to begin anew, or name another folder with --out"
        try:
            head, *lines = read_bytes(self.path).split(b"\n")
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}; {advice}") from error
        try:
            earlier = msgspec.json.decode(head, type=_Head).study
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{self.path}: its first line names no study; {advice}") from error
        if earlier != identity:
            words = f"is of another study: {one_line(str(earlier))}; this study is: {identity}"
            raise UsageError(f"{self.path}: {words}; {advice}")
        good = [head]
        *whole, last = lines or [b""]
        self.dropped += bool(last)  # a line without its end
        for line in whole:
            try:
                trial = msgspec.json.decode(
                    line, type=Trial, strict=False
                )  # not strict: "nan" where a number stands is one
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.dropped += 1
                continue
            self.earlier[trial.key] = trial
            good.append(line)
        return good


def _line(trial: Trial) -> bytes:
    return msgspec.json.encode(finite(trial))
