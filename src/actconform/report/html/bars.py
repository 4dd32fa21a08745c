"""The throughput that lies beside a report, where it was measured: a chart for each size of a subject."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.bench.results import read_throughput
from actconform.bench.workloads import shown
from actconform.errors import UsageError
from actconform.report.terminal.speeds import about, duration, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from actconform.bench.results import BenchmarkResult, Measured


def bars_of(folder: Path) -> dict[str, Any] | None:
    """Return the charts of DIR/throughput.json, `{"error": ...}` where it is something else, None where there is none."""
    try:
        report = read_throughput(folder)
    except UsageError as error:
        return {"error": str(error)}
    if report is None:
        return None
    return {
        "about": f"{about(report)} · {report.when}".rstrip(" ·"),
        "charts": [_chart(one) for one in report.measured],
    }


def _chart(one: Measured) -> dict[str, Any]:
    workload = one.workload
    size = f"batch {workload.size}" if one.calibration.kind == "matmul" else shown(workload.size)
    return {
        "subject": workload.subject,
        "direction": workload.direction,
        "size": size,
        "unit": one.figures[0].unit,
        "rows": [_row(figure) for figure in one.figures],
    }


def _row(figure: BenchmarkResult) -> list[Any]:
    """Return the route, its rate, the bounds of that, whether it computes what is new and wrong, and what to say of it."""
    seconds = figure.seconds
    count = figure.rate * seconds.median
    share = "" if figure.share is None else f", {100 * figure.share:.3g} % of what numpy does in the same rounds"
    words = f"{duration(seconds.median)} a call ({duration(seconds.low)} to {duration(seconds.high)}){share}; {verdict(figure)}"
    rates = [float(f"{rate:.4g}") for rate in (figure.rate, count / seconds.high, count / seconds.low)]
    return [figure.route, *rates, figure.mark, words]
