"""`make bench`: what must be fast, measured and held against its limit. Exit code 1 where a limit is broken."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import ml_dtypes
import numpy as np
from scipy.special import erfc

from actconform.accuracy.function.measure import measure
from actconform.catalog.kernels import UNARY
from actconform.elements.classify import classify
from actconform.elements.elementwise import Sample, elementwise_errors
from actconform.tolerance.limits import unary_tolerance
from actconform.types.dtypes import DTYPES
from benchmarks.gradients import forward_and_backward, transformations
from benchmarks.linting import lint_of_large_models
from benchmarks.serving import serving
from benchmarks.suite import onnx_suite
from benchmarks.sweep import sweeping
from benchmarks.throughput import timings
from benchmarks.training import training_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

POINTS = 1 << 24
ROUNDS = 5
SUBSET = ("*/f32/keras", "*/f32/torch", "*/f32/authored+ort-cpu")
HARNESS_STAGES = ("messages", "record")


def comparison() -> tuple[str, float, float]:
    """Full comparison of 16 M float32 against float64 truth, as a multiple of numpy.testing.assert_allclose's time."""
    rng = np.random.default_rng(1)
    x = rng.normal(scale=3.0, size=POINTS)
    truth = np.tanh(x)
    got = truth.astype(np.float32)
    tolerance = unary_tolerance(next(kernel for kernel in UNARY if kernel.name == "tanh"), "value", DTYPES["f32"], 0.0)
    sample = Sample(got, truth, x)

    def ours() -> None:
        classify(sample, tolerance, elementwise_errors(sample, tolerance), "ordinary", "y")

    def theirs() -> None:
        np.testing.assert_allclose(got, truth, rtol=1e-6, atol=1e-6)

    mine, numpys = interleaved(ours, theirs)
    rates = f"{POINTS / mine / 1e6:.0f} M/s against {POINTS / numpys / 1e6:.0f} M/s"
    return f"comparison of 16 M float32 / assert_allclose ({rates})", mine / numpys, 0.333


def measuring() -> Iterator[tuple[str, float, float]]:
    """`actconform.measure` of a gelu in bf16 in seconds, and as a multiple of the function's own time."""

    def gelu(x: NDArray[Any]) -> NDArray[Any]:
        wide = x.astype(np.float64)
        rounded: NDArray[Any] = (0.5 * wide * erfc(-wide / np.sqrt(2.0))).astype(x.dtype)
        return rounded

    patterns = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    with np.errstate(all="ignore"):
        ours, alone = interleaved(lambda: measure(gelu, "gelu-erf", "bf16"), lambda: gelu(patterns))
    yield f"seconds of measure(gelu, bf16), {ours / alone:.0f} times the function's own on all patterns", ours, 0.5


def help_text() -> tuple[str, float, float]:
    """`actconform --help` as a multiple of `python -c pass`."""
    program = str(Path(sys.executable).with_name("actconform"))
    ours, theirs = interleaved(
        lambda: _quiet(program, "--help"), lambda: _quiet(sys.executable, "-c", "pass"), rounds=15
    )
    return f"actconform --help / python -c pass ({1e3 * ours:.0f} ms against {1e3 * theirs:.0f} ms)", ours / theirs, 6.0


def run_stages() -> Iterator[tuple[str, float, float]]:
    """Stages of a run of the native f32 cases: what the harness costs beside the frameworks, and causes beside drawing and comparing."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(sys.executable).with_name("actconform"))
        subprocess.run([program, "run", *SUBSET, "--out", folder], stdout=subprocess.DEVNULL, check=False)  # noqa: S603
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_bytes())
    timings = report["timings"]
    harness = sum(timings[stage] for stage in HARNESS_STAGES)
    frameworks = timings["import"] + timings["export"] + timings["build"] + timings["run"]
    words = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in timings.items())
    yield f"messages, scheduling, recording / frameworks ({words})", harness / frameworks, 0.15
    judging = timings["draw"] + timings["compare"]
    yield "explaining findings by causes / drawing and comparing, in the same run", timings["causes"] / judging, 1.2


def interleaved(first: Callable[[], object], second: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the least seconds of each, timed in turns so that drift hits both alike."""
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for index, step in enumerate((first, second)):
            started = time.perf_counter()
            step()
            best[index] = min(best[index], time.perf_counter() - started)
    return best[0], best[1]


def _quiet(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # noqa: S603


@click.command()
def main() -> None:
    """Print each figure beside its limit; exit with 1 where one is broken."""
    broken = 0
    lines = (line() for line in (comparison, help_text))
    for name, ratio, limit in chain(
        lines,
        measuring(),
        lint_of_large_models(),
        run_stages(),
        onnx_suite(),
        serving(),
        transformations(),
        forward_and_backward(),
        training_steps(),
        sweeping(),
        timings(),
    ):
        broken += ratio > limit
        click.echo(f"{'ok  ' if ratio <= limit else 'OVER'}  {ratio:6.3f}  (limit {limit:g})  {name}")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
