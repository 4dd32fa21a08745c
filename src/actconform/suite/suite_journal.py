"""What a suite leaves as it goes: suite.jsonl, a line that says which run it is, then a line a case, so that it can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.resumable_journal import ResumableJournal
from actconform.suite.suite_result import SuiteIdentity, SuiteRecord
from actconform.text import one_line
from actconform.types.json import finite

if TYPE_CHECKING:
    from pathlib import Path

SUITE_JOURNAL = "suite.jsonl"


class _Head(msgspec.Struct):
    run: SuiteIdentity


class SuiteJournal(ResumableJournal):
    """Appends records to DIR/suite.jsonl; with `resume` those that an earlier run of the same versions left are in `earlier`."""

    file_name = SUITE_JOURNAL
    kind = "suite"

    def __init__(self, folder: Path, identity: SuiteIdentity, *, resume: bool) -> None:
        self._identity = identity
        self.earlier: dict[str, SuiteRecord] = {}
        self.records: list[SuiteRecord] = []
        """What was added."""
        self.notes: list[str] = []
        super().__init__(folder, msgspec.json.encode(finite(_Head(identity))), resume=resume)

    def add(self, record: SuiteRecord) -> None:
        """Append a record. Raises OSError, which names the file."""
        self.records.append(record)
        try:
            self._write(msgspec.json.encode(finite(record)))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def note(self, words: str) -> None:
        """Keep what happened that is no case's."""
        self.notes.append(words)

    def _another_run(self, head: bytes) -> str:
        earlier = msgspec.json.decode(head, type=_Head).run
        if earlier == self._identity:
            return ""
        return f"is of another run: {one_line(str(earlier))}; this one is: {one_line(str(self._identity))}"

    def _keep(self, line: bytes) -> None:
        # not strict: "nan" where a number stands is one
        record = msgspec.json.decode(line, type=SuiteRecord, strict=False)
        self.earlier[record.id] = record
