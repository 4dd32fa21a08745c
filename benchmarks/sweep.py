"""How fast `actconform sweep` is: a whole chunk beside its parts timed apart, two workers beside one, the memory of a worker."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np

from actconform.catalog.kernels import KERNELS
from actconform.elements.elementwise import BLOCK
from actconform.exhaustive import measure
from actconform.exhaustive.measure import SweptFunction, measured_chunk
from actconform.exhaustive.output_bits import CALL
from actconform.exhaustive.patterns import binades_of, patterns
from actconform.plugin.loader import load_plugins
from actconform.sweep.runner import SweptProgram, started, sweep_chunks
from actconform.types import Case
from actconform.workers.client import Worker
from actconform.workers.sweep_session import SweepJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

CASE = Case("tanh", "value", "f32", "torch")
PROGRAM = SweptProgram(KERNELS[CASE.subject], CASE, None, "all")
CHUNK = 63  # |x| in [0.5, 2), all 2**24 numbers
ROUNDS = 3
SECONDS = 600.0
OF_PARTS = 1 / 0.9
OF_ONE_WORKER = 1 / 1.8


def sweeping() -> Iterator[tuple[str, float, float]]:
    """The seconds of a chunk in a worker as a multiple of those of oracle, kernel and statistics apart; of two workers as one of one's; GiB."""
    with Worker(CASE.route) as first, Worker(CASE.route) as second:
        hello = started([first, second])
        yield _of_parts(first)
        chunks = [CHUNK, CHUNK - 1, CHUNK + 128, CHUNK + 127]
        alone = _least(lambda: sweep_chunks(PROGRAM, chunks, [first], np.inf, lambda _: None))
        both = _least(lambda: sweep_chunks(PROGRAM, chunks, [first, second], np.inf, lambda _: None))
        yield "sweep of 4 chunks, two workers / one", both / alone, OF_ONE_WORKER
        status = Path(f"/proc/{hello.pid}/status").read_text(encoding="utf-8")
        peak = re.search(r"VmHWM:\s*(\d+) kB", status)
        assert peak is not None  # Linux
        yield "GiB that a worker held at most in a sweep", int(peak[1]) / 2**20, 1.0


def _of_parts(worker: Worker) -> tuple[str, float, float]:
    function = SweptFunction.of(KERNELS[CASE.subject], CASE.aspect)
    x = np.concatenate([patterns(binade, "all") for binade in binades_of(CHUNK)]).view(np.float32)
    program = load_plugins().backends[CASE.route]().build(function.kernel, "f32")
    calls = [x[start : start + CALL] for start in range(0, x.size, CALL)]
    outputs = [program.forward({"x": call})["y"] for call in calls]
    wide = x.astype(np.float64)
    truth = function.formula(wide, {})

    def statistics() -> None:
        answers, truths = iter(outputs), iter(np.split(truth, x.size // BLOCK))
        stored: Callable[..., NDArray[np.float64]] = lambda *_: next(truths)  # noqa: E731
        measured_chunk(function._replace(formula=stored), CHUNK, "all", lambda _: next(answers))

    def numpys_statistics() -> None:
        with patch.object(measure, "compiled_code", lambda: None):
            statistics()

    steps: dict[str, Callable[[], object]] = {
        "whole": lambda: worker.sweep(SweepJob(CASE, None, CHUNK, "all"), SECONDS),
        "oracle": lambda: [function.formula(wide[start : start + BLOCK], {}) for start in range(0, x.size, BLOCK)],
        "kernel": lambda: [program.forward({"x": call}) for call in calls],
        "statistics": statistics,
        "statistics by NumPy": numpys_statistics,
        "numpy's tanh": lambda: [np.tanh(wide[start : start + BLOCK]) for start in range(0, x.size, BLOCK)],
    }
    best = dict.fromkeys(steps, np.inf)
    for _ in range(ROUNDS):
        for name, step in steps.items():
            best[name] = min(best[name], _seconds(step))
    parts = best["oracle"] + best["kernel"] + best["statistics"]
    rates = ", ".join(f"{name} {x.size / seconds / 1e6:.0f} M/s" for name, seconds in best.items())
    return f"sweep of a chunk / oracle, kernel and statistics apart ({rates})", best["whole"] / parts, OF_PARTS


def _least(step: Callable[[], object]) -> float:
    return min(_seconds(step) for _ in range(ROUNDS))


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began
