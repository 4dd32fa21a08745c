"""What a study leaves as it goes: study.jsonl, a line that says which study it is, then a line a training, so that it can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.resumable_journal import ResumableJournal
from actconform.study.trial import Trial
from actconform.text import one_line
from actconform.types.json import finite

if TYPE_CHECKING:
    from pathlib import Path

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


class StudyJournal(ResumableJournal):
    """Appends trainings to DIR/study.jsonl; with `resume` those that an earlier run of the same study left are in `earlier`."""

    file_name = JOURNAL
    kind = "study"

    def __init__(self, folder: Path, identity: StudyIdentity, *, resume: bool) -> None:
        self._identity = identity
        self.earlier: dict[tuple[str, str, str, int], Trial] = {}
        super().__init__(folder, msgspec.json.encode({"study": identity}), resume=resume)

    def add(self, trial: Trial) -> None:
        """Append a training. Raises OSError."""
        self._write(_line(trial))

    def _another_run(self, head: bytes) -> str:
        earlier = msgspec.json.decode(head, type=_Head).study
        if earlier == self._identity:
            return ""
        return f"is of another study: {one_line(str(earlier))}; this study is: {self._identity}"

    def _keep(self, line: bytes) -> None:
        # not strict: "nan" where a number stands is one
        trial = msgspec.json.decode(line, type=Trial, strict=False)
        self.earlier[trial.key] = trial


def _line(trial: Trial) -> bytes:
    return msgspec.json.encode(finite(trial))
