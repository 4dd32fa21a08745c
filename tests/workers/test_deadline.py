"""A process has its limit of seconds; longer where it computes and other processes leave it too little of a processor."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from actconform.workers import deadline
from actconform.workers.deadline import LONGEST, Deadline
from actconform.workers.process import WorkerProcess

LIMIT = 100.0
STEP = 0.5
# Computes for a quarter of the time, as where three others want the same processor; it answers after two seconds.
QUARTER = """
import sys, time
ready = time.monotonic() + 2
while time.monotonic() < ready:
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    time.sleep(0.06)
sys.stdout.write("answer")
sys.stdout.flush()
time.sleep(60)
"""


class Machine:
    """A clock, and a process that gets a share of a processor, which may change with time."""

    def __init__(self, share):
        self.now, self.used, self.share = 0.0, 7.0, share

    def monotonic(self):
        return self.now

    def processor_times(self):
        return SimpleNamespace(user=self.used, system=0.0, children_user=0.0, children_system=0.0)

    def wait(self, limit):
        """Return when the deadline of a process is past, and that deadline."""
        until = Deadline(1, limit)
        while (left := until.left()) > 0:
            step = min(STEP, left)
            self.used += step * self.share(self.now)
            self.now += step
        return self.now, until


@pytest.fixture
def machine(monkeypatch):
    def of(share):
        simulated = Machine(share)
        process = SimpleNamespace(cpu_times=simulated.processor_times, children=lambda **_: [])
        monkeypatch.setattr(deadline, "time", simulated)
        monkeypatch.setattr(deadline, "psutil", SimpleNamespace(Process=lambda _: process, Error=psutil.Error))
        return simulated

    return of


@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 1.0, 8.0])
def test_what_waits_or_computes_at_speed_has_its_limit(machine, share):
    ended, until = machine(lambda _: share).wait(LIMIT)
    assert ended == LIMIT
    assert until.words == "100 s"


@pytest.mark.parametrize(("share", "times"), [(0.06, LONGEST), (0.09, LONGEST), (0.22, 2.5), (0.45, 1.25)])
def test_what_is_starved_has_until_it_had_half_of_its_limit_on_a_processor(machine, share, times):
    ended, until = machine(lambda _: share).wait(LIMIT)
    assert ended == times * LIMIT
    assert until.words == f"{ended:.0f} s, where its limit is 100 s and other processes took the processor"


def test_what_hangs_after_it_was_starved_ends_at_the_next_look(machine):
    ended, _ = machine(lambda now: 0.2 if now < 0.9 * LIMIT else 0.0).wait(LIMIT)
    assert ended == 1.25 * LIMIT


def test_what_cannot_be_measured_has_its_limit(machine, monkeypatch):
    simulated = machine(lambda _: 0.2)

    def gone(_):
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(deadline, "psutil", SimpleNamespace(Process=gone, Error=psutil.Error))
    assert simulated.wait(LIMIT)[0] == LIMIT


def test_a_real_process_that_gets_a_quarter_of_a_processor_is_waited_for():
    process = WorkerProcess([sys.executable, "-c", QUARTER], os.environ)
    try:
        process.expect_within(1.0)
        assert process.readinto(memoryview(bytearray(6))) == 6
        assert "where its limit is 1 s" in process.deadline.words
    finally:
        process.end(0)
