"""A Dask worker keeps freed memory as a local run does, though Dask's nanny has it returned at once."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from actconform.cluster.memory import TRIM

PROGRAM = f"""
import os, resource, numpy
from actconform.cluster.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        numpy.ones(1 << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

as_started = faults()
keep_freed_memory()
faults()
print(as_started, faults(), {TRIM!r} in os.environ)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone reads the variable")
def test_arrays_no_longer_cost_a_fault_for_each_page_and_backends_do_not_inherit_the_variable() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, TRIM: "65536"},
        capture_output=True,
        text=True,
        check=True,
    )
    as_started, kept, inherited = done.stdout.split()
    assert int(kept) < int(as_started) / 10
    assert inherited == "False"
