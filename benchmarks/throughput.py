"""How far `actconform bench` is to be trusted: what reading the clock costs, and how alike two timings of one route are."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actconform.bench.results import FILE, ThroughputReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = tuple[str, float, float]

SUBJECTS = ("relu/*", "tanh/*", "gelu-erf/*", "softmax/*", "mlp-relu/*")
ROUTES = ("--route", "torch", "--route", "authored+ort-cpu")
APART = 0.05


def timings() -> Iterator[Line]:
    """The clock's share of the shortest sample, and the share of routes timed twice that are 5 % or more apart.

    Four kernels and a model, forward and backward, on two routes: the second needs a quiet machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).with_name("actconform"))
        command = [program, "bench", *SUBJECTS, *ROUTES, "--size", "1M", "--batch", "32", "--twice", "--out", folder]
        subprocess.run(command, stdout=subprocess.DEVNULL, cwd=folder, check=False)  # noqa: S603
        report = msgspec.json.decode((Path(folder) / FILE).read_bytes(), type=ThroughputReport)
    yield from held(report)


def held(report: ThroughputReport) -> Iterator[Line]:
    """The two lines of a report in which every route was timed twice."""
    figures = [figure for one in report.measured for figure in one.figures]
    clock, sample = max(
        ((figure.clock, min(figure.samples) * figure.loops) for figure in figures), key=lambda pair: pair[0] / pair[1]
    )
    yield f"clock / shortest sample ({1e9 * clock:.0f} ns of {1e3 * sample:.1f} ms)", clock / sample, 0.01
    apart = [abs(figure.again.median - 1.0) for figure in figures if figure.again]
    words = f"half by under {100 * sorted(apart)[len(apart) // 2]:.1f} %"
    share = sum(one >= APART for one in apart) / len(apart)
    yield f"of {len(apart)} routes timed twice, those 5 % or more apart in median ({words})", share, 0.1
