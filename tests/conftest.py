"""Reports made of planted times: what is said of them is then known."""

from __future__ import annotations

import numpy as np
import pytest

from actconform.throughput.floor import figure_of
from actconform.throughput.judged import Judged
from actconform.throughput.measured import Machine, Measured, Report, calibrated, compared
from actconform.throughput.trials import Trial
from actconform.throughput.turns import Taken
from actconform.types import Verdict
from actconform.workers.timing import Prepared

MACHINE = Machine(cpu="a processor", capability="AVX2", affinity=(0, 1), threads=1, memory=1 << 34)
FACTS = {"calibration": {"numpy": "2.0"}, "torch": {"torch": "2.13", "platform": "Linux-6.1"}, "keras": {"keras": "3"}}
ROUNDS = 9


@pytest.fixture
def timed():
    """Make a report of one trial: seconds of a call by route, each round up to `noise` of it more, from a seed."""

    def made(seconds, *, seed=0, noise=0.01, copy=1e-3, copy_noise=0.01, machine=MACHINE, facts=FACTS, subject="relu"):
        rng = np.random.default_rng(seed)

        def draw(middle, width):
            return [float(t) for t in middle * (1 + width * rng.uniform(0, 1, ROUNDS))]

        trial = Trial(subject, "forward", 1024)
        scale = calibrated("copy", 8192, Taken(Prepared(loops=10, clock=1e-7), draw(copy, copy_noise)))
        figures = [
            figure_of(
                Judged(route=route, verdict=Verdict.PASS),
                Taken(Prepared(loops=10, clock=1e-7), draw(middle, noise)),
                scale,
                work=(1024, 8192),
                device="cpu",
            )
            for route, middle in seconds.items()
        ]
        return Report(
            actconform="0",
            machine=machine,
            facts=facts,
            rounds=ROUNDS,
            confidence=0.95,
            interrupted=False,
            seconds=1.0,
            measured=[Measured(trial=trial, calibration=scale, figures=compared(figures))],
            not_timed=[],
        )

    return made
