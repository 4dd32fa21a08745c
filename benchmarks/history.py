"""How large 30 nights are as one history and as 30 report.json, and how long both take to read: `python -m benchmarks.history REPORT`.

The nights are made of one report: each has another time, a hundredth of its cases has another verdict than the night before, and once a week
a version changes.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from actconform.report.across_runs.history import trends
from actconform.report.across_runs.history_store import add_runs, past_run, read_history
from actconform.report.read import read_report
from actconform.run.recorder import write_report
from actconform.types import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.types.report import Report

NIGHTS = 30
SHARE = 100  # of the cases changes in a night


def nights(report: Report) -> Iterator[Report]:
    """Yield the reports of 30 nights."""
    generator = random.Random(1)  # noqa: S311  the same nights each time
    results, facts = list(report.results), report.facts
    for night in range(NIGHTS):
        if night % 7 == 3:
            version = f"{night}.0"
            facts = replace(facts, backends={name: {**of, "version": version} for name, of in facts.backends.items()})
        for k in generator.sample(range(len(results)), len(results) // SHARE):
            crash = replace(report.results[k], verdict=Verdict.CRASH, findings=())
            results[k] = report.results[k] if results[k].verdict is Verdict.CRASH else crash
        when = f"2026-10-{night + 1:02}T02:17:00Z"
        yield replace(report, when=when, results=tuple(results), facts=facts, conforms=False, problems=("crashes",))


def main() -> None:
    """Print sizes and times."""
    report = read_report(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, paths = folder / "history.jsonl", []
        for number, night in enumerate(nights(report)):
            (folder / str(number)).mkdir()
            paths.append(write_report(folder / str(number), night))
            add_runs(store, [past_run(night)])
        started = time.perf_counter()
        from_history = trends(read_history(store))
        of_history, started = time.perf_counter() - started, time.perf_counter()
        from_reports = trends(past_run(read_report(path)) for path in paths)
        of_reports = time.perf_counter() - started
        size = sum(path.stat().st_size for path in paths)
        print(f"{NIGHTS} nights of {len(report.results):,} cases, read into their trends:")
        print(f"  report.json   {size / 1e6:8.1f} MB {of_reports:8.2f} s")
        print(f"  history.jsonl {store.stat().st_size / 1e6:8.1f} MB {of_history:8.2f} s")
    if {case: trend.since for case, trend in from_reports.items()} != {
        case: t.since for case, t in from_history.items()
    }:
        sys.exit("the two tell different stories")


if __name__ == "__main__":
    main()
