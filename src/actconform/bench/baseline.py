"""golden/throughput.json: stored ratios and the machine facts they are valid for. Where the facts differ nothing is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from actconform._version import __version__
from actconform.bench.calibration import NAME
from actconform.bench.intervals import ConfidenceInterval, ratios
from actconform.bench.results import write
from actconform.bench.workloads import Workload  # noqa: TC001  msgspec reads annotations
from actconform.errors import UsageError
from actconform.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from actconform.bench.results import BenchmarkResult, Machine, Measured, ThroughputReport

SCHEMA = 1
DOCUMENT = "actconform throughput"
THRESHOLD = 1.2  # times the old interval's upper bound that the new one's lower bound must exceed
NOISY = 1.2  # times its lower bound; a wider interval gates nothing
DIGITS = 5
UNCOMPARED = ("platform",)  # the kernel's release: a patch of it is no other machine

Change = Literal["same", "slower", "faster", "noisy", "new"]


class BaselineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One route of one workload: how many times the calibration's time a call took, and how many times that of `reference`.

    `scale` is the spread of the calibration's own interval.
    """

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    route: str
    to_calibration: ConfidenceInterval
    scale: float
    reference: str
    to_reference: ConfidenceInterval


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The file. The ratios are valid for this `machine` and these `facts`, by backend."""

    document: str = msgspec.field(default=DOCUMENT, name="what")
    schema: int = SCHEMA
    actconform: str = __version__
    machine: dict[str, str]
    facts: dict[str, dict[str, str]]
    entries: list[BaselineEntry]


class ResultChange(msgspec.Struct, frozen=True, kw_only=True):
    """How one route of one workload compares with the baseline; `words` give the ratios behind it."""

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    route: str
    change: Change
    words: str


class BaselineComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that differ, in which case nothing was compared; else a judgement for every benchmark result."""

    differing: list[str] = []
    judgements: list[ResultChange] = []

    @property
    def slower(self) -> list[ResultChange]:
        """The regressions."""
        return [change for change in self.judgements if change.change == "slower"]


class _Head(msgspec.Struct):
    document: str = msgspec.field(name="what")
    schema: int


def read(path: Path) -> Baseline | None:
    """Return the baseline of a file, None where there is none; raise UsageError where it cannot be read or is something else."""
    advice = "name another file with --baseline, or move this one away; nothing was overwritten"
    try:
        text = read_bytes(path)
        head = msgspec.json.decode(text, type=_Head)
        if head.document != DOCUMENT:
            raise UsageError(f"{path}: not a baseline of throughput, but {head.document!r}; {advice}")
        if head.schema != SCHEMA:
            raise UsageError(f"{path}: schema {head.schema}, but this actconform reads schema {SCHEMA}; {advice}")
        return msgspec.json.decode(text, type=Baseline)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: the baseline cannot be read: {error.strerror}; {advice}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not a baseline of throughput: {error}; {advice}") from error


def baseline_of(report: ThroughputReport, old: Baseline | None = None) -> Baseline:
    """Return the baseline of a report: its ratios, to the reference of `old` where that ran, else to the fastest route.

    Entries of `old` that were not measured now are kept where all its facts still hold, and dropped otherwise.
    """
    machine, facts = _about(report.machine), _kept_facts(report.facts)
    still_valid = old if old and not differing(old, report) else None
    old_entries = {(entry.workload, entry.route): entry for entry in (still_valid.entries if still_valid else [])}
    entries: dict[tuple[Workload, str], BaselineEntry] = {}
    for measured in report.measured:
        for result in measured.figures:
            key = (measured.workload, result.route)
            reference = old_entries[key].reference if key in old_entries else result.fastest
            entries[key] = _entry(measured, result, reference)
    return Baseline(
        machine=machine,
        facts={**(still_valid.facts if still_valid else {}), **facts},
        entries=sorted({**old_entries, **entries}.values(), key=_order),
    )


def save(path: Path, baseline: Baseline) -> None:
    """Write the baseline in one step; raise UsageError where it cannot be."""
    try:
        write(path, baseline)
    except OSError as error:
        raise UsageError(f"{path}: the baseline cannot be written: {error.strerror}") from error


def compare(old: Baseline, report: ThroughputReport, *, other_versions: bool = False) -> BaselineComparison:
    """Compare a report with a baseline: nothing where facts differ; with `other_versions`, those of backends may.

    A result is slower where the lower bound of its ratio to the calibration exceeds THRESHOLD times the old upper bound, and
    so does its ratio to the reference route, unless it is that route or that did not run: a run that slows all routes alike,
    or a reference that became faster, is no regression of this route. Faster likewise. Where an interval, the calibration's
    own included, is wider than NOISY, the result is noisy and neither.
    """
    if differences := differing(old, report, other_versions=other_versions):
        return BaselineComparison(differing=differences)
    entries = {(measured.workload, measured.route): measured for measured in old.entries}
    return BaselineComparison(
        judgements=[
            _judged(entries.get((measured.workload, result.route)), measured, result)
            for measured in report.measured
            for result in measured.figures
        ]
    )


def confirmed(first: BaselineComparison, again: BaselineComparison) -> BaselineComparison:
    """Return the first comparison, with "noisy" for what was slower in it and not so when it was timed again.

    A process can be slow for as long as it lives because of its memory layout, which no number of its samples can show.
    """
    second = {(change.workload, change.route): change for change in again.judgements}

    def settled(change: ResultChange) -> ResultChange:
        repeat = second.get((change.workload, change.route))
        if change.change != "slower" or repeat is None or repeat.change == "slower":
            return change
        words = f"{change.words}; but in a new process {repeat.words}"
        return msgspec.structs.replace(change, change="noisy", words=words)

    return msgspec.structs.replace(first, judgements=[settled(change) for change in first.judgements])


def differing(old: Baseline, report: ThroughputReport, *, other_versions: bool = False) -> list[str]:
    """Return the facts that differ now: of the machine, of the calibration, and of every other backend in both."""
    words = _changed("", old.machine, _about(report.machine))
    facts = _kept_facts(report.facts)
    for backend in old.facts:
        if backend in facts and (backend == NAME or not other_versions):
            words += _changed(f"{backend} ", old.facts[backend], facts[backend])
    return words


def _judged(entry: BaselineEntry | None, measured: Measured, result: BenchmarkResult) -> ResultChange:
    change: Change = "new"
    words = "not in the baseline"
    if entry:
        now = _entry(measured, result, entry.reference)
        old, new = entry.to_calibration, now.to_calibration
        words = f"{new.median / old.median:.2f} times the baseline: {_shown(new)}, was {_shown(old)} {measured.calibration.kind} times"
        change = _change(old, new)
        if change in ("slower", "faster") and now.reference == entry.reference != result.route:
            reference_change = _change(entry.to_reference, now.to_reference)
            words += f"; {now.to_reference.median:.3g} times {entry.reference}, was {entry.to_reference.median:.3g}"
            change = change if reference_change == change else "same"
        if noise := _noise(entry, now):
            change, words = "noisy", f"{noise}; {words}"
    return ResultChange(workload=measured.workload, route=result.route, change=change, words=words)


def _change(old: ConfidenceInterval, new: ConfidenceInterval) -> Change:
    if new.low > THRESHOLD * old.high:
        return "slower"
    return "faster" if THRESHOLD * new.high < old.low else "same"


def _noise(old: BaselineEntry, new: BaselineEntry) -> str:
    if new.scale > NOISY:
        return f"the calibration itself varied by {new.scale:.2f} times"
    if new.to_calibration.spread > NOISY:
        return f"the interval is {new.to_calibration.spread:.2f} times wide"
    if max(old.scale, old.to_calibration.spread) > NOISY:
        return "the baseline was noisy here"
    return ""


def _entry(measured: Measured, result: BenchmarkResult, reference: str) -> BaselineEntry:
    reference_result = next((candidate for candidate in measured.figures if candidate.route == reference), None)
    fastest = next(candidate for candidate in measured.figures if candidate.route == result.fastest)
    against = reference_result or fastest
    return BaselineEntry(
        workload=measured.workload,
        route=result.route,
        to_calibration=_rounded(result.to_calibration),
        scale=_brief(measured.calibration.seconds.spread),
        reference=against.route,
        to_reference=_rounded(ratios(result.samples, against.samples)),
    )


def _about(machine: Machine) -> dict[str, str]:
    return {
        "cpu": machine.cpu,
        "capability": machine.capability,
        "threads": str(machine.threads),
        "processors": str(len(machine.affinity)),
    }


def _kept_facts(facts: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return the facts to compare, the calibration's first: it is in every comparison."""
    order = sorted(facts, key=lambda name: (name != NAME, name))
    return {name: {fact: value for fact, value in facts[name].items() if fact not in UNCOMPARED} for name in order}


def _changed(of: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [
        f"{of}{name} was {old.get(name, 'unknown')}, is {new.get(name, 'unknown')}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def _order(entry: BaselineEntry) -> tuple[str, str, int, str]:
    return entry.workload.subject, entry.workload.direction, entry.workload.size, entry.route


def _rounded(ratio: ConfidenceInterval) -> ConfidenceInterval:
    return ConfidenceInterval(*map(_brief, (ratio.median, ratio.low, ratio.high)))


def _brief(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _shown(ratio: ConfidenceInterval) -> str:
    return f"{ratio.median:.3g} [{ratio.low:.3g} {ratio.high:.3g}]"


def counts(judgements: Iterable[ResultChange]) -> dict[Change, int]:
    """Return the number of benchmark results by kind of change."""
    numbers: dict[Change, int] = {}
    for judgement in judgements:
        numbers[judgement.change] = numbers.get(judgement.change, 0) + 1
    return numbers
