"""The benchmark on the terminal: a table by subject and direction, what was not timed and why, and the comparison."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from rich.table import Table

from actconform.bench.baseline import NOISY, THRESHOLD, counts
from actconform.bench.workloads import shown
from actconform.report.cells import MARKS_MEAN, STYLES
from actconform.report.reasons import abbreviate
from actconform.report.terminal import screen
from actconform.report.terminal.console import plain
from actconform.text import listed, number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from actconform.bench.baseline import BaselineComparison
    from actconform.bench.intervals import ConfidenceInterval
    from actconform.bench.results import BenchmarkResult, Measured, NotTimed, ThroughputReport

PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "K"), (1.0, ""))
WORDS = {
    "same": "as in the baseline",
    "slower": "slower",
    "faster": "faster",
    "noisy": "too noisy to tell",
    "new": "not in the baseline",
}
SUBJECTS_SHOWN = 4
WIDE = 120
FACTS_SHOWN = (*screen.FACTS_SHOWN, "numpy", "blas")


def about(report: ThroughputReport) -> str:
    """Return versions, processor, capability and threads on one line."""
    versions = {fact: of[fact] for of in report.facts.values() for fact in FACTS_SHOWN if fact in of}
    machine = report.machine
    words = [f"{fact} {versions[fact]}" for fact in FACTS_SHOWN if fact in versions]
    words += [machine.cpu, machine.capability]
    words += [f"{number_of(machine.threads, 'thread')} on {number_of(len(machine.affinity), 'processor')}"]
    words += [number_of(report.rounds, "round")]
    return " · ".join(words)


def tables(console: Console, measured: Sequence[Measured]) -> None:
    """Print the workloads of one subject: a table for each direction, the routes of one size together."""
    by_direction: dict[str, list[Measured]] = defaultdict(list)
    for workload_result in measured:
        by_direction[workload_result.workload.direction].append(workload_result)
    for direction, workloads in by_direction.items():
        console.print(f"\n[bold]{plain(workloads[0].workload.subject)}[/]  {direction}", soft_wrap=True)
        console.print(_grid(workloads, 2 if console.width >= WIDE else 1))


def legend(console: Console) -> None:
    """Print what the columns mean."""
    console.print(
        "per call: median of the rounds, and its interval of at least 95 %; share: of the bytes or operations a second that "
        "numpy copies or multiplies in the same rounds; x best: round by round, to the fastest; its numbers are wrong: "
        f"{MARKS_MEAN}",
        style="dim",
        soft_wrap=not console.is_terminal,
    )


def not_timed(console: Console, untimed_routes: Iterable[NotTimed]) -> None:
    """Print each reason once, with the routes and subjects that have no result because of it."""
    reasons: dict[tuple[str, str], list[NotTimed]] = defaultdict(list)
    for route in untimed_routes:
        reasons[route.verdict, abbreviate(route.reason)].append(route)
    for (verdict, reason), untimed in reasons.items():
        routes = ", ".join(dict.fromkeys(route.route for route in untimed))
        subjects = list(dict.fromkeys(route.workload.subject for route in untimed))
        line = f"not timed: {routes}: {listed(subjects, SUBJECTS_SHOWN)}: {verdict}: {reason}"
        console.print(plain(line), soft_wrap=True)


def compared(console: Console, comparison: BaselineComparison, name: str) -> None:
    """Print how the results compare with the baseline, one line for each that became slower or faster."""
    if comparison.differing:
        console.print(plain(f"not compared with {name}: it is valid for other facts:"), soft_wrap=True)
        for fact in comparison.differing:
            console.print(plain(f"  {fact}"), soft_wrap=True)
        return
    for judgement in comparison.judgements:
        if judgement.change in ("slower", "faster"):
            style = "bold red" if judgement.change == "slower" else "green"
            workload = judgement.workload
            place = f"{workload.subject} {workload.direction} {shown(workload.size)} {judgement.route}"
            console.print(f"[{style}]{judgement.change}[/]  {plain(place)}: {plain(judgement.words)}", soft_wrap=True)
    summary = ", ".join(f"{number} {WORDS[change]}" for change, number in counts(comparison.judgements).items())
    limits = (
        f"slower or faster where intervals lie more than {THRESHOLD:g} times apart; noisy: wider than {NOISY:g} times"
    )
    console.print(plain(f"against {name}: {summary or 'nothing'} ({limits})"), soft_wrap=True)


def repeated(console: Console, measured: Iterable[Measured]) -> None:
    """Print by how much two programs of one route differ, in the median of the rounds, the largest last."""
    differences = sorted(
        (abs(result.again.median - 1.0), workload_result.workload, result.route)
        for workload_result in measured
        for result in workload_result.figures
        if result.again
    )
    if not differences:
        return
    for difference, workload, route in differences:
        console.print(
            plain(f"{100 * difference:6.2f} %  {workload.subject} {workload.direction} {shown(workload.size)} {route}"),
            soft_wrap=True,
        )
    under = sum(difference < 0.05 for difference, _, _ in differences)
    middle = differences[len(differences) // 2][0]
    console.print(
        f"timed twice: {under} of {len(differences)} differ by under 5 % in median, half by under {100 * middle:.1f} %"
    )


def _grid(measured: Sequence[Measured], gap: int) -> Table:
    of_model = measured[0].calibration.kind == "matmul"
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, gap, 0, 0))
    table.add_column("batch" if of_model else "size", justify="right", no_wrap=True)
    table.add_column("route", no_wrap=True)
    rates = ("samples/s", "GFLOP/s") if of_model else ("elem/s", "GB/s")
    for name in ("per call", "[low high]", *rates, "share", "x best"):
        table.add_column(plain(name), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for workload_result in measured:
        for number, result in enumerate(workload_result.figures):
            table.add_row("" if number else shown(workload_result.workload.size), *_row(result))
    return table


def _row(result: BenchmarkResult) -> list[str]:
    style = STYLES.get(result.mark, "")
    words = plain(verdict(result))
    return [
        plain(result.route),
        duration(result.seconds.median),
        plain(f"[{_bounds(result.seconds)}]"),
        _scaled(result.rate),
        f"{result.throughput / 1e9:.3g}" if result.amount else "",
        "" if result.share is None else _percent(result.share),
        "1" if result.route == result.fastest else f"{result.to_fastest.median:.2f}",
        f"[{style}]{words}[/]" if style else words,
    ]


def verdict(result: BenchmarkResult) -> str:
    """Return the verdict of a benchmark result, with its mark: "pass", "▲tail"."""
    return f"{result.mark}{result.finding or result.verdict}" if result.mark else str(result.verdict).lower()


def duration(seconds: float) -> str:
    """Return seconds to three digits in the unit that fits: "12.3 µs"."""
    scale, unit = _unit(seconds)
    return f"{_digits(seconds / scale)} {unit}"


def _bounds(interval: ConfidenceInterval) -> str:
    scale, _ = _unit(interval.median)
    return f"{_digits(interval.low / scale)} {_digits(interval.high / scale)}"


def _unit(seconds: float) -> tuple[float, str]:
    return next(((scale, unit) for scale, unit in ((1.0, "s"), (1e-3, "ms")) if seconds >= scale), (1e-6, "µs"))


def _scaled(rate: float) -> str:
    scale, prefix = next(((scale, prefix) for scale, prefix in PREFIXES if rate >= scale), (1.0, ""))
    return f"{_digits(rate / scale)} {prefix}".rstrip()


def _digits(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _percent(fraction: float) -> str:
    return (
        f"{100 * fraction:.0f} %" if fraction >= 0.1 else f"{100 * fraction:.1f} %" if fraction >= 0.001 else "<0.1 %"
    )


def totals(report: ThroughputReport) -> str:
    """Return how much was timed, on one line."""
    count = sum(len(workload_result.figures) for workload_result in report.measured)
    verdicts = Counter(result.mark for workload_result in report.measured for result in workload_result.figures)
    wrong = f", {verdicts['●']} of them with NEW findings" if verdicts["●"] else ""
    return f"{number_of(count, 'result')} of {number_of(len(report.measured), 'workload')}{wrong}"
