"""On a busy machine what others took of the processor's time is not held against a backend."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actconform.contract.recording_backend import waiting

pytestmark = pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="Linux alone tells it")


def test_time_in_which_others_ran_is_told() -> None:
    before = os.sched_getaffinity(0)
    one = {min(before)}
    spin = f"import os; os.sched_setaffinity(0, {one}); print(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        for other in others:
            assert other.stdout
            other.stdout.readline()
        os.sched_setaffinity(0, one)
        started, waited, worked = time.perf_counter(), waiting(), time.thread_time()
        while time.thread_time() - worked < 0.2:
            pass
        seconds, waited = time.perf_counter() - started, waiting() - waited
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.communicate()
    assert seconds > 0.4  # at most a half of the processor was ours
    assert 0.15 < seconds - waited < 0.35


def test_sleep_is_no_waiting_for_others() -> None:
    started, waited = time.perf_counter(), waiting()
    time.sleep(0.2)
    assert time.perf_counter() - started - (waiting() - waited) > 0.15
