"""How long the authored column of a runtime takes through `serve`, beside ONNX Runtime's and what the runtime itself computes for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from actconform.workers import serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIMIT = 2.0
ROUNDS = 2
SOURCE = Path(__file__).parents[1] / "tests" / "workers" / "serve" / "runtime.cpp"
SECONDS = "seconds"  # a file, with a line for each graph that the runtime had


class ColumnRun(NamedTuple):
    """A run of a column: its seconds from start to end, and of them those that the runtime says it read graphs and computed."""

    seconds: float
    own: float


def serving(rounds: int = ROUNDS) -> Iterator[tuple[str, float, float]]:
    """Seconds of `actconform run` of all authored cases that a served runtime takes, as a multiple of the same on ort-cpu plus the runtime's own.

    The runtime is the small one of the tests, in C++, which counts what it computes. Without a compiler for it nothing is measured.
    A first run tells which cases it takes; then each column runs in turns, and the least of each counts.
    """
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    if compiler is None:
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        header = Path(serve.__file__).parent
        words = [compiler, "-std=c++17", "-O2", "-I", str(header), str(SOURCE), "-o", str(folder / "runtime")]
        subprocess.run(words, check=True)  # noqa: S603
        (folder / "actconform.toml").write_text(
            f'[backends.served]\nserve = \'"{folder / "runtime"}" --serve --seconds "{folder / SECONDS}"\'\n'
        )
        _run(folder, "served", ())
        results = json.loads((folder / "served" / "report.json").read_bytes())["results"]
        cases = [each["case"].rsplit("/", 1)[0] for each in results if each["verdict"] != "UNSUPPORTED"]
        columns: dict[str, list[ColumnRun]] = {"served": [], "ort-cpu": []}
        for _ in range(rounds):
            for column, runs in columns.items():
                runs.append(_run(folder, column, cases))
        served, beside = min(columns["served"]), min(columns["ort-cpu"])
        figures = f"{served.seconds:.1f} s against {beside.seconds:.1f} and {served.own:.1f} s"
        name = f"{len(cases)} cases through serve / ort-cpu's run of them and the runtime's own computing ({figures})"
        yield name, served.seconds / (beside.seconds + served.own), LIMIT


def _run(folder: Path, column: str, cases: Sequence[str]) -> ColumnRun:
    """Run the cases, all where there are none. Raises CalledProcessError where it ends with more than 1: a runtime in double has findings."""
    (folder / SECONDS).write_text("")
    patterns = [f"{case}/authored+{column}" for case in cases]
    words = [sys.executable, "-m", "actconform", "run", *patterns, "--route", f"authored+{column}", "--out", column]
    started = time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
    return ColumnRun(seconds, sum(map(float, (folder / SECONDS).read_text().split())))
