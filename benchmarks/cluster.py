"""`python -m benchmarks.cluster [PATTERN]...`: a run on a Dask cluster of this machine beside the same run without a cluster, in turns.

The cluster is a scheduler with two workers of one thread, started before the clock runs. A first run without it, which does not count, makes the
exports, so that each turn has them. Exit code 1 where the run on the cluster takes more than LIMIT times the local one, or a case has another outcome.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from actconform.run.recorder import REPORT, read_results
from benchmarks.process_tree import run_measured
from benchmarks.stability import outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import LocalCluster

WORKERS = 2
LIMIT = 1.10


class Turn(NamedTuple):
    """A run: seconds from start to end, seconds of processors of all its processes, and what became of each case."""

    seconds: float
    cpu_seconds: float
    outcomes: dict[str, tuple[str, ...]]


def turn(folder: Path, patterns: Sequence[str], cluster: LocalCluster | None = None) -> Turn:
    """Run `actconform run` in a new folder. Raises ClickException with its own words where it made no report."""
    folder.mkdir()
    words = [sys.executable, "-m", "actconform", "run", *patterns, "--out", str(folder)]
    words += ["--cluster", cluster.scheduler_address] if cluster else []
    before = worker_seconds(cluster)
    usage, output = run_measured(words, os.environ)
    if not (folder / REPORT).exists():
        raise click.ClickException(f"{' '.join(words)} made no report:\n{output.strip()}")
    outcomes = {result.case: outcome(result) for result in read_results(folder)}
    return Turn(usage.seconds, usage.cpu_seconds + worker_seconds(cluster) - before, outcomes)


def worker_seconds(cluster: LocalCluster | None) -> float:
    """Return what Dask's workers took of the processors, with the processes that they started and ended."""
    if cluster is None:
        return 0.0
    with cluster.get_client() as client:
        return sum(sum(times[:4]) for times in client.run(os.times).values())


def compared(patterns: Sequence[str], rounds: int) -> tuple[Turn, Turn]:
    """Return the shortest turn without a cluster, and on it; print each."""
    from distributed import LocalCluster

    turns: dict[str, list[Turn]] = {"local": [], "cluster": []}
    with tempfile.TemporaryDirectory(prefix="actconform-") as place:
        os.environ["ACTCONFORM_CACHE"] = str(Path(place) / "exports")
        with LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster:
            turn(Path(place) / "first", patterns)
            for number in range(rounds):
                for where, on in (("local", None), ("cluster", cluster)):
                    turns[where].append(turn(Path(place) / f"{where}-{number}", patterns, on))
                    last = turns[where][-1]
                    click.echo(f"{where:8} {last.seconds:7.1f} s, {last.cpu_seconds:7.1f} s of processors")
    return min(turns["local"]), min(turns["cluster"])


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="How often each runs.")
def main(patterns: tuple[str, ...], rounds: int) -> None:
    """Run PATTERNs (default: the default matrix) with and without a cluster; exit with 1 where that takes too long or changes an outcome."""
    local, cluster = compared(patterns, rounds)
    changed = dict(local.outcomes.items() ^ cluster.outcomes.items())
    ratio = cluster.seconds / local.seconds
    click.echo(
        f"{'ok  ' if ratio <= LIMIT else 'OVER'}  {ratio:6.3f}  (limit {LIMIT:g})  run on a cluster of {WORKERS} workers / local run, "
        f"{len(local.outcomes)} cases; {cluster.cpu_seconds / local.cpu_seconds:.3f} of its processor seconds"
    )
    for case in changed:
        click.echo(f"ANOTHER OUTCOME  {case}")
    sys.exit(1 if ratio > LIMIT or changed else 0)


if __name__ == "__main__":
    main()
