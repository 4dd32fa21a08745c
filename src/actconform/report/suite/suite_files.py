"""The files of a suite: suite.json with all of it, and what ONNX's backend scoreboard reads."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes
from actconform.suite.operator_rows import operator_rows, runtime_totals
from actconform.text import visible
from actconform.types.json import finite

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from actconform.suite.suite_result import RuntimeFacts, SuiteReport

SUITE_JSON = "suite.json"
SCOREBOARD = "scoreboard"
REPORT, TREND, OPERATORS = "report.json", "trend.json", "ops.json"
# The test classes that onnx's runner makes of each kind of case.
CLASSES = {
    "node": "OnnxBackendNodeModelTest",
    "simple": "OnnxBackendSimpleModelTest",
    "pytorch-operator": "OnnxBackendPyTorchOperatorModelTest",
    "pytorch-converted": "OnnxBackendPyTorchConvertedModelTest",
}
TIME = "%m/%d/%Y %H:%M:%S"


def write_suite_json(report: SuiteReport, folder: Path) -> Path:
    """Write suite.json: the rows by operator and runtime, and every record; numbers that are not finite are "inf" and "nan"."""
    rows = operator_rows(report.records)
    content = {
        "conforms": report.conforms,
        **msgspec.structs.asdict(report),
        "totals": runtime_totals(rows),
        "operators": rows,
    }
    path = folder / SUITE_JSON
    write_bytes(path, msgspec.json.format(msgspec.json.encode(finite(content)), indent=1) + b"\n")
    return path


def write_scoreboard(report: SuiteReport, runtime: RuntimeFacts, folder: Path) -> Path:
    """Write report.json, trend.json and ops.json of one runtime into scoreboard/RUNTIME, and return that folder.

    They have the form of the files that ONNX's backend scoreboard keeps of each backend: names of tests that passed, failed and were
    skipped by ONNX's limits, under the names of onnx's runner on the CPU; the counts of each day; the counts of each operator. An error
    is a failure there, and a case that was not run is skipped. A trend that is there goes on; one that cannot be read is a UsageError.
    """
    place = _place(folder, runtime.name)
    trend = _earlier(place / TREND)
    place.mkdir(parents=True, exist_ok=True)
    date = datetime.fromisoformat(report.date).strftime(TIME)
    names: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for record in report.records:
        verdict = record.runtimes.get(runtime.name)
        key = "skipped" if verdict is None else "passed" if verdict.standard == "passed" else "failed"
        names[key].append(f"{CLASSES.get(record.kind, record.kind)}::{record.case}_cpu")
    operators = _operators(report, runtime.name)
    entry = {
        "date": date,
        **{key: len(tests) for key, tests in names.items()},
        "total_ops": len(operators),
        "versions": [{"name": name, "version": version} for name, version in _versions(report, runtime)],
    }
    for name, content in (
        (REPORT, {"date": date, **{key: sorted(tests) for key, tests in names.items()}}),
        (TREND, [*trend, entry]),
        (OPERATORS, operators),
    ):
        write_bytes(place / name, msgspec.json.format(msgspec.json.encode(content), indent=4) + b"\n")
    return place


def expect_trends(folder: Path, runtimes: Iterable[str]) -> None:
    """Raise UsageError where a trend of an earlier run cannot be read, which a later one is to go on with."""
    for name in runtimes:
        _earlier(_place(folder, name) / TREND)


def _place(folder: Path, runtime: str) -> Path:
    return folder / SCOREBOARD / visible(runtime).replace("/", "_")


def _operators(report: SuiteReport, runtime: str) -> list[dict[str, Any]]:
    """Return the counts of every operator that stands in the graph of a case."""
    counts: dict[str, list[int]] = {}
    for record in report.records:
        verdict = record.runtimes.get(runtime)
        for operator in record.operators:
            count = counts.setdefault(operator, [0, 0, 0])
            count[2 if verdict is None else 0 if verdict.standard == "passed" else 1] += 1
    return [
        {
            "domain": operator.rpartition(".")[0],
            "failed_tests": failed,
            "op_type": operator.rpartition(".")[2],
            "passed_tests": passed,
            "skipped_tests": skipped,
            "total_tests": passed + failed + skipped,
        }
        for operator, (passed, failed, skipped) in sorted(counts.items())
    ]


def _versions(report: SuiteReport, runtime: RuntimeFacts) -> list[tuple[str, str]]:
    version = next((runtime.facts[name] for name in runtime.packages if name in runtime.facts), "")
    return [(runtime.name, version), (report.identity.suite, report.identity.version)]


def _earlier(path: Path) -> list[Any]:
    if not path.exists():
        return []
    try:
        return list(msgspec.json.decode(read_bytes(path), type=list[dict[str, Any]]))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: is no trend of ONNX's scoreboard ({error}): move it away") from error
