"""The charts of the throughput.json beside a report: one for each size of a subject."""

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
        "charts": [_chart(measured) for measured in report.measured],
    }


def _chart(measured: Measured) -> dict[str, Any]:
    workload = measured.workload
    size = f"batch {workload.size}" if measured.calibration.kind == "matmul" else shown(workload.size)
    return {
        "subject": workload.subject,
        "direction": workload.direction,
        "size": size,
        "unit": measured.figures[0].unit,
        "rows": [_row(result) for result in measured.figures],
    }


def _row(result: BenchmarkResult) -> list[Any]:
    """Return the route, its rate with both bounds, its mark, and its tooltip."""
    seconds = result.seconds
    count = result.rate * seconds.median
    calibration_share = (
        "" if result.share is None else f", {100 * result.share:.3g} % of what numpy does in the same rounds"
    )
    words = f"{duration(seconds.median)} a call ({duration(seconds.low)} to {duration(seconds.high)}){calibration_share}; {verdict(result)}"
    rates = [float(f"{rate:.4g}") for rate in (result.rate, count / seconds.high, count / seconds.low)]
    return [result.route, *rates, result.mark, words]
