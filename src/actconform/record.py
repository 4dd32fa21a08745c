"""What is kept of a run: results.jsonl as results come, report.json at the end. A killed run keeps what it had."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.types import Verdict, finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from actconform.types import Result

SCHEMA = 1
RESULTS, REPORT = "results.jsonl", "report.json"


class FolderInUseError(Exception):
    """Another run is writing into the folder."""


class Recorder:
    """Appends each result to DIR/results.jsonl, whole lines only, and writes DIR/report.json in one step at the end.

    Creates DIR; raises FolderInUseError while another run writes into it. Starting a new run removes the old report, so that results and report in one folder are of one run.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lines = (folder / RESULTS).open("ab", buffering=0)
        try:
            fcntl.flock(self._lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lines.close()
            raise FolderInUseError from None
        self._lines.truncate(0)
        (folder / REPORT).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()

    def add(self, result: Result) -> None:
        """Append one result; it is with the operating system before this returns."""
        self._lines.write(msgspec.json.encode(finite(result)) + b"\n")

    def finish(self, report: Mapping[str, Any]) -> Path:
        """Write the report and return its path."""
        path = self.folder / REPORT
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(report))
        fresh.replace(path)
        return path


def report(
    results: Sequence[Result],
    facts: Mapping[str, Any],
    problems: Sequence[str],
    timings: Mapping[str, float],
) -> dict[str, Any]:
    """Return the report of a run as JSON can hold it: non-finite numbers are "nan", "inf" and "-inf"."""
    counts = Counter(result.verdict for result in results)
    return {
        "schema": SCHEMA,
        "facts": dict(facts),
        "conforms": not problems,
        "problems": list(problems),
        "timings": dict(timings),
        "summary": {str(verdict): counts[verdict] for verdict in Verdict if counts[verdict]},
        "results": [finite(result) for result in results],
    }
