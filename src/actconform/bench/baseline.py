"""golden/throughput.json: ratios that held once, and the facts under which they did. Where these differ nothing is compared."""

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
WHAT = "actconform throughput"
THRESHOLD = 1.2  # times the old interval's upper bound that the new one's lower bound must exceed
NOISY = 1.2  # times its lower bound; a wider interval gates nothing
DIGITS = 5
UNCOMPARED = ("platform",)  # the kernel's release: a patch of it is no other machine

Change = Literal["same", "slower", "faster", "noisy", "new"]


class BaselineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One route in one trial: how many times the calibration's time a call took, and how many times that of `reference`.

    `scale` is the spread of the calibration's own interval.
    """

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    route: str
    to_calibration: ConfidenceInterval
    scale: float
    reference: str
    to_reference: ConfidenceInterval


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `machine` and `facts`, by backend, are what the ratios hold under."""

    what: str = WHAT
    schema: int = SCHEMA
    actconform: str = __version__
    machine: dict[str, str]
    facts: dict[str, dict[str, str]]
    entries: list[BaselineEntry]


class FigureChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one route in one trial since the baseline, and how it shows."""

    workload: Workload = msgspec.field(name="trial")  # the key in files of schema 1
    route: str
    change: Change
    words: str


class BaselineComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that differ, in which case nothing was compared; else a judgement for every figure."""

    differing: list[str] = []
    judgements: list[FigureChange] = []

    @property
    def slower(self) -> list[FigureChange]:
        """The regressions."""
        return [one for one in self.judgements if one.change == "slower"]


class _Head(msgspec.Struct):
    what: str
    schema: int


def read(path: Path) -> Baseline | None:
    """Return the baseline of a file, None where there is none; raise UsageError where it cannot be read or is something else."""
    mend = "name another file with --baseline, or move this one away; nothing was overwritten"
    try:
        text = read_bytes(path)
        head = msgspec.json.decode(text, type=_Head)
        if head.what != WHAT:
            raise UsageError(f"{path}: not a baseline of throughput, but {head.what!r}; {mend}")
        if head.schema != SCHEMA:
            raise UsageError(f"{path}: schema {head.schema}, but this actconform reads schema {SCHEMA}; {mend}")
        return msgspec.json.decode(text, type=Baseline)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: the baseline cannot be read: {error.strerror}; {mend}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not a baseline of throughput: {error}; {mend}") from error


def held(report: ThroughputReport, old: Baseline | None = None) -> Baseline:
    """Return what to keep of a report: its ratios, to the reference of `old` where that ran, else to the fastest route.

    Entries of `old` that were not measured now are kept where all its facts still hold, and dropped with them otherwise.
    """
    machine, facts = _about(report.machine), _kept_facts(report.facts)
    keep = old if old and not differing(old, report) else None
    references = {(one.workload, one.route): one.reference for one in (keep.entries if keep else [])}
    fresh = {
        (one.workload, figure.route): _held(one, figure, references.get((one.workload, figure.route), figure.fastest))
        for one in report.measured
        for figure in one.figures
    }
    kept = [one for one in (keep.entries if keep else []) if (one.workload, one.route) not in fresh]
    return Baseline(
        machine=machine,
        facts={**(keep.facts if keep else {}), **facts},
        entries=sorted([*kept, *fresh.values()], key=_order),
    )


def save(path: Path, baseline: Baseline) -> None:
    """Write the baseline in one step; raise UsageError where it cannot be."""
    try:
        write(path, baseline)
    except OSError as error:
        raise UsageError(f"{path}: the baseline cannot be written: {error.strerror}") from error


def compare(old: Baseline, report: ThroughputReport, *, other_versions: bool = False) -> BaselineComparison:
    """Hold a report against a baseline: nothing where facts differ; with `other_versions`, those of backends may.

    A figure is slower where the lower bound of its ratio to the calibration exceeds THRESHOLD times the old upper bound, and
    so does its ratio to the reference route, unless it is that route or that did not run: what a run slows alike, or a
    reference that became faster, is no regression of this route. Faster likewise. Where an interval, the calibration's own
    among them, is wider than NOISY, the figure is noisy and neither.
    """
    if differences := differing(old, report, other_versions=other_versions):
        return BaselineComparison(differing=differences)
    entries = {(one.workload, one.route): one for one in old.entries}
    return BaselineComparison(
        judgements=[
            _judged(entries.get((one.workload, figure.route)), one, figure)
            for one in report.measured
            for figure in one.figures
        ]
    )


def confirmed(first: BaselineComparison, again: BaselineComparison) -> BaselineComparison:
    """Return the first comparison, with "noisy" for what was slower in it and not so when it was timed again.

    A process can be slow for as long as it lives, by where its memory came to lie: no number of samples of it tells.
    """
    second = {(one.workload, one.route): one for one in again.judgements}

    def settled(one: FigureChange) -> FigureChange:
        repeat = second.get((one.workload, one.route))
        if one.change != "slower" or repeat is None or repeat.change == "slower":
            return one
        words = f"{one.words}; but in a new process {repeat.words}"
        return msgspec.structs.replace(one, change="noisy", words=words)

    return msgspec.structs.replace(first, judgements=[settled(one) for one in first.judgements])


def differing(old: Baseline, report: ThroughputReport, *, other_versions: bool = False) -> list[str]:
    """Return the facts that are others now: of the machine, of the calibration, and of every other backend in both."""
    words = _changed("", old.machine, _about(report.machine))
    facts = _kept_facts(report.facts)
    for backend in old.facts:
        if backend in facts and (backend == NAME or not other_versions):
            words += _changed(f"{backend} ", old.facts[backend], facts[backend])
    return words


def _judged(entry: BaselineEntry | None, measured: Measured, figure: BenchmarkResult) -> FigureChange:
    change: Change = "new"
    words = "not in the baseline"
    if entry:
        now = _held(measured, figure, entry.reference)
        old, new = entry.to_calibration, now.to_calibration
        words = f"{new.median / old.median:.2f} times the baseline: {_shown(new)}, was {_shown(old)} {measured.calibration.kind} times"
        change = _change(old, new)
        if change in ("slower", "faster") and now.reference == entry.reference != figure.route:
            beside = _change(entry.to_reference, now.to_reference)
            words += f"; {now.to_reference.median:.3g} times {entry.reference}, was {entry.to_reference.median:.3g}"
            change = change if beside == change else "same"
        if noise := _noise(entry, now):
            change, words = "noisy", f"{noise}; {words}"
    return FigureChange(workload=measured.workload, route=figure.route, change=change, words=words)


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


def _held(measured: Measured, figure: BenchmarkResult, reference: str) -> BaselineEntry:
    other = next((one for one in measured.figures if one.route == reference), None)
    fastest = next(one for one in measured.figures if one.route == figure.fastest)
    against = other or fastest
    return BaselineEntry(
        workload=measured.workload,
        route=figure.route,
        to_calibration=_rounded(figure.to_calibration),
        scale=_brief(measured.calibration.seconds.spread),
        reference=against.route,
        to_reference=_rounded(ratios(figure.samples, against.samples)),
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


def _order(one: BaselineEntry) -> tuple[str, str, int, str]:
    return one.workload.subject, one.workload.direction, one.workload.size, one.route


def _rounded(one: ConfidenceInterval) -> ConfidenceInterval:
    return ConfidenceInterval(*map(_brief, (one.median, one.low, one.high)))


def _brief(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _shown(one: ConfidenceInterval) -> str:
    return f"{one.median:.3g} [{one.low:.3g} {one.high:.3g}]"


def counts(judgements: Iterable[FigureChange]) -> dict[Change, int]:
    """Return how many figures changed how."""
    found: dict[Change, int] = {}
    for one in judgements:
        found[one.change] = found.get(one.change, 0) + 1
    return found
