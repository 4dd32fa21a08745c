"""What a measurement shows: a table by subject and direction, what was not timed and why, and the comparison."""

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
    words += [f"{machine.threads} thread{'s' * (machine.threads > 1)} on {len(machine.affinity)} processors"]
    words += [f"{report.rounds} rounds"]
    return " · ".join(words)


def tables(console: Console, measured: Sequence[Measured]) -> None:
    """Print the trials of one subject: a table for each direction, the routes of one size together."""
    by_direction: dict[str, list[Measured]] = defaultdict(list)
    for one in measured:
        by_direction[one.workload.direction].append(one)
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


def not_timed(console: Console, left: Iterable[NotTimed]) -> None:
    """Print each reason once, with the routes and subjects that it left without figures."""
    reasons: dict[tuple[str, str], list[NotTimed]] = defaultdict(list)
    for one in left:
        reasons[one.verdict, abbreviate(one.reason)].append(one)
    for (verdict, reason), ones in reasons.items():
        routes = ", ".join(dict.fromkeys(one.route for one in ones))
        subjects = list(dict.fromkeys(one.workload.subject for one in ones))
        more = f" and {len(subjects) - SUBJECTS_SHOWN} more" if len(subjects) > SUBJECTS_SHOWN else ""
        line = f"not timed: {routes}: {', '.join(subjects[:SUBJECTS_SHOWN])}{more}: {verdict}: {reason}"
        console.print(plain(line), soft_wrap=True)


def compared(console: Console, comparison: BaselineComparison, name: str) -> None:
    """Print how the figures stand to the baseline, those that changed one by one."""
    if comparison.differing:
        console.print(plain(f"not compared with {name}: it holds under other facts:"), soft_wrap=True)
        for fact in comparison.differing:
            console.print(plain(f"  {fact}"), soft_wrap=True)
        return
    for one in comparison.judgements:
        if one.change in ("slower", "faster"):
            style = "bold red" if one.change == "slower" else "green"
            workload = f"{one.workload.subject} {one.workload.direction} {shown(one.workload.size)} {one.route}"
            console.print(f"[{style}]{one.change}[/]  {plain(workload)}: {plain(one.words)}", soft_wrap=True)
    found = ", ".join(f"{number} {WORDS[change]}" for change, number in counts(comparison.judgements).items())
    limits = f"called where intervals lie more than {THRESHOLD:g} times apart; noisy: wider than {NOISY:g} times"
    console.print(plain(f"against {name}: {found or 'nothing'} ({limits})"), soft_wrap=True)


def repeated(console: Console, measured: Iterable[Measured]) -> None:
    """Print by how much two programs of one route differ, in the median of the rounds, the largest last."""
    found = sorted(
        (abs(figure.again.median - 1.0), one.workload, figure.route)
        for one in measured
        for figure in one.figures
        if figure.again
    )
    if not found:
        return
    for share, workload, route in found:
        console.print(
            plain(f"{100 * share:6.2f} %  {workload.subject} {workload.direction} {shown(workload.size)} {route}"),
            soft_wrap=True,
        )
    under = sum(share < 0.05 for share, _, _ in found)
    middle = found[len(found) // 2][0]
    console.print(
        f"timed twice: {under} of {len(found)} differ by under 5 % in median, half by under {100 * middle:.1f} %"
    )


def _grid(workloads: Sequence[Measured], gap: int) -> Table:
    of_model = workloads[0].calibration.kind == "matmul"
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, gap, 0, 0))
    table.add_column("batch" if of_model else "size", justify="right", no_wrap=True)
    table.add_column("route", no_wrap=True)
    rates = ("samples/s", "GFLOP/s") if of_model else ("elem/s", "GB/s")
    for name in ("per call", "[low high]", *rates, "share", "x best"):
        table.add_column(plain(name), justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in workloads:
        for number, figure in enumerate(one.figures):
            table.add_row("" if number else shown(one.workload.size), *_row(figure))
    return table


def _row(figure: BenchmarkResult) -> list[str]:
    style = STYLES.get(figure.mark, "")
    words = plain(verdict(figure))
    return [
        plain(figure.route),
        duration(figure.seconds.median),
        plain(f"[{_bounds(figure.seconds)}]"),
        _scaled(figure.rate),
        f"{figure.throughput / 1e9:.3g}" if figure.amount else "",
        "" if figure.share is None else _percent(figure.share),
        "1" if figure.route == figure.fastest else f"{figure.to_fastest.median:.2f}",
        f"[{style}]{words}[/]" if style else words,
    ]


def verdict(figure: BenchmarkResult) -> str:
    """Return the verdict beside a figure, with its mark: "pass", "▲tail"."""
    return f"{figure.mark}{figure.finding or figure.verdict}" if figure.mark else str(figure.verdict).lower()


def duration(seconds: float) -> str:
    """Return seconds to three digits in the unit that fits: "12.3 µs"."""
    scale, unit = _unit(seconds)
    return f"{_digits(seconds / scale)} {unit}"


def _bounds(one: ConfidenceInterval) -> str:
    scale, _ = _unit(one.median)
    return f"{_digits(one.low / scale)} {_digits(one.high / scale)}"


def _unit(seconds: float) -> tuple[float, str]:
    return next(((scale, unit) for scale, unit in ((1.0, "s"), (1e-3, "ms")) if seconds >= scale), (1e-6, "µs"))


def _scaled(rate: float) -> str:
    scale, prefix = next(((scale, prefix) for scale, prefix in PREFIXES if rate >= scale), (1.0, ""))
    return f"{_digits(rate / scale)} {prefix}".rstrip()


def _digits(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %" if share >= 0.001 else "<0.1 %"


def totals(report: ThroughputReport) -> str:
    """Return how much was timed, on one line."""
    figures = sum(len(one.figures) for one in report.measured)
    verdicts = Counter(figure.mark for one in report.measured for figure in one.figures)
    wrong = f", {verdicts['●']} of them with NEW findings" if verdicts["●"] else ""
    return f"{figures} figures of {len(report.measured)} trials{wrong}"
