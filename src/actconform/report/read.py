"""Reads report.json back; an error names what is wrong with the file and what to do."""

from __future__ import annotations

import codecs
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from actconform.errors import UsageError
from actconform.files import read_bytes
from actconform.run.recorder import REPORT, RESULTS
from actconform.types import BAD
from actconform.types.report import SCHEMA, Report
from actconform.verdict.severity import graded

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Report", "read_report"]


class _Version(msgspec.Struct):
    schema: int


def read_report(path: Path) -> Report:
    """Return the report in the file `path`, or in the folder `path` of a run; "nan", "inf" and "-inf" are numbers again.

    Findings without a severity, as in reports of old versions, are given one.
    Raises UsageError, naming the file, what is wrong with it, and what to do, where it is missing, cut off, not JSON, not a
    report, or one of a newer actconform; where a case is there twice, or it conforms against its own verdicts.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        text = read_bytes(file).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}{_unfinished(path)}") from error
    if not text.strip():
        raise UsageError(f"{file}: is empty; wanted the {REPORT} of a run, whole: copy it anew, or run again")
    try:
        version = msgspec.json.decode(text, type=_Version).schema
        if version != SCHEMA:
            advice = "read it with the actconform that wrote it, or a newer one"
            raise UsageError(f"{file}: is of schema {version}, this actconform reads schema {SCHEMA}: {advice}")
        # not strict: "inf" where a number stands is one
        report = msgspec.json.decode(text, type=Report, strict=False)
    except msgspec.ValidationError as error:
        advice = f"wanted the {REPORT} that `actconform run` writes"
        raise UsageError(f"{file}: is JSON, but not the report of a run ({error}); {advice}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        cut = "truncated" in str(error)
        wrong = "is cut off" if cut else f"is not JSON ({error})"
        raise UsageError(f"{file}: {wrong}; wanted the {REPORT} of a run, whole: copy it anew, or run again") from error
    twice = [case for case, count in Counter(result.case for result in report.results).items() if count > 1]
    if twice:
        raise UsageError(f"{file}: has {twice[0]} more than once, and is no report of a run; run again")
    bad = Counter(str(result.verdict) for result in report.results if result.verdict in BAD)
    if report.conforms and bad:
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in bad.items())
        raise UsageError(f"{file}: says that it conforms, and has {verdicts}: something else wrote it; run again")
    return msgspec.structs.replace(report, results=tuple(map(graded, report.results)))


def _unfinished(path: Path) -> str:
    if (path / RESULTS).exists():
        return f"; its run did not come to an end: go on with `actconform run --resume --out {path}`"
    return "; wanted the folder or the report.json of a run: make one with `actconform run`"
