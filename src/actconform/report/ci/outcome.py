"""What is new in the results of a job, against those of the last run of its base branch: a run's report, or a check of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actconform.errors import UsageError
from actconform.report.across_runs.diff import WorseKind, compare_reports, finding_words, worsenings
from actconform.report.across_runs.diff_text import as_markdown
from actconform.report.check.check_json import CHECK
from actconform.report.check.exports import EXPORTS
from actconform.report.ci.check_differences import check_differences, lost_answers, read_checks
from actconform.report.files.markdown import literal
from actconform.report.read import read_report
from actconform.report.text.summary import summary
from actconform.run.recorder import REPORT
from actconform.types import BAD
from actconform.verdict.judge import bad_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from actconform.report.ci.check_differences import CheckDifference
    from actconform.types.report import Report

LOST = "exit code"
ENDED_OTHERWISE = "the command ended with 1, though what it wrote conforms: a file could not be written, see its log"


class Remark(msgspec.Struct, frozen=True):
    """A sentence on a case, on a runtime of a model, or on the run: plain text, to be escaped."""

    where: str
    words: str


class JobOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a job tells. `compared` is whether there was a baseline; without, everything that does not conform is new.

    `worse` are what makes the job fail, and the job passes where there are none. `earlier` are what does not conform, and did not in the
    baseline either. `details` is Markdown.
    """

    compared: bool
    worse: tuple[Remark, ...]
    earlier: tuple[Remark, ...]
    details: str

    @property
    def headline(self) -> str:
        """The outcome in a sentence."""
        before = f"; {len(self.earlier):,} of before" if self.earlier else ""
        if not self.compared:
            return f"{len(self.worse):,} to look at, and no baseline" if self.worse else "conforms; no baseline"
        return f"{len(self.worse):,} worse than the baseline{before}" if self.worse else f"nothing got worse{before}"


def job_outcome(folder: Path, baseline: Path | None, exit_code: int) -> JobOutcome:
    """Return what is new in a folder of `actconform run` or `actconform check`, which ended with an exit code.

    A baseline that does not exist counts as none. Raises UsageError where either holds no results, or not of the same kind, or the folder results of both kinds.
    """
    before = baseline if baseline is not None and baseline.exists() else None
    of_model = any((folder / name).exists() for name in (CHECK, EXPORTS))
    if of_model and (folder / REPORT).exists():
        raise UsageError(f"{folder}: holds a run and the check of a model: name a folder for each with --out")
    outcome = (_of_check if of_model else _of_run)(folder, before)
    if exit_code and not outcome.worse and not outcome.earlier:
        return msgspec.structs.replace(outcome, worse=(Remark(LOST, ENDED_OTHERWISE),))
    return outcome


def _of_run(folder: Path, baseline: Path | None) -> JobOutcome:
    after = read_report(folder)
    bad = tuple(_not_conforming(after))
    if baseline is None:
        return JobOutcome(compared=False, worse=bad, earlier=(), details=summary(after))
    before = read_report(baseline)
    difference = compare_reports(before, after)
    changes = list(worsenings(difference, before, after))
    with_finding = {change.case for change in changes if change.kind is WorseKind.FINDING}
    worse = [
        Remark(change.case, change.words)
        for change in changes
        if change.kind is not WorseKind.VERDICT or change.case not in with_finding
    ]
    worse += [Remark("", problem) for problem in _problems(after)] if difference.problems else []
    new_cases = {remark.where for remark in worse}
    earlier = [remark for remark in bad if remark.where and remark.where not in new_cases]
    if not worse and not earlier:
        earlier = [Remark("", problem) for problem in _problems(after)]
    return JobOutcome(
        compared=True,
        worse=tuple(dict.fromkeys(worse)),
        earlier=tuple(earlier),
        details=as_markdown(difference),
    )


def _not_conforming(report: Report) -> Iterator[Remark]:
    """Yield what does not conform: each new finding, each verdict of a case without any, and the problems of the run."""
    for result in report.results:
        if result.verdict not in BAD:
            continue
        new = [finding for finding in result.findings if finding.deviation is None]
        for finding in new:
            yield Remark(result.case, finding_words(finding))
        if not new:
            yield Remark(result.case, f"{result.verdict}: {result.reason}")
    for problem in _problems(report):
        yield Remark("", problem)


def _problems(report: Report) -> list[str]:
    """Return the problems of a run without the counts of its verdicts, since each of its cases is named."""
    return [problem for problem in report.problems if problem != bad_counts(report.results)]


def _of_check(folder: Path, baseline: Path | None) -> JobOutcome:
    after = read_checks(folder)
    worse: list[Remark] = []
    same: list[Remark] = []
    if baseline is None:
        worse += [_remark(difference) for difference in check_differences(after) if not difference.refusal]
        if not after.explained and not worse:
            worse.append(Remark(after.source, "nothing was compared"))
        return _check_outcome(worse, same, compared=False)
    before = read_checks(baseline)
    earlier = {difference.key: difference for difference in check_differences(before)}
    for difference in check_differences(after):
        old = earlier.get(difference.key)
        (worse if old is None or difference.grew_from(old) else same).append(_remark(difference))
    worse += [Remark(where, "answered in the baseline, and is missing now") for where in lost_answers(before, after)]
    if before.explained and not after.explained and not worse:
        worse.append(Remark(after.source, "rounding explained every answer in the baseline, and does not now"))
    return _check_outcome(worse, same, compared=True)


def _check_outcome(worse: list[Remark], same: list[Remark], *, compared: bool) -> JobOutcome:
    remarks, earlier = (tuple(dict.fromkeys(each)) for each in (worse, same))
    return JobOutcome(compared=compared, worse=remarks, earlier=earlier, details=_check_details(remarks, earlier))


def _remark(difference: CheckDifference) -> Remark:
    return Remark(difference.where, difference.words)


def _check_details(worse: Iterable[Remark], earlier: Iterable[Remark]) -> str:
    lines = []
    for title, remarks in (("New", worse), ("As in the baseline", earlier)):
        rows = [f"- {literal(remark.where)}: {literal(remark.words)}" for remark in remarks]
        lines += [f"### {title} ({len(rows):,})", "", *rows, ""] if rows else []
    return "\n".join(lines or ["rounding explains every answer"]) + "\n"
