"""What a process takes at every call is told from a cache that fills and stops, from garbage, and from nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from actconform.workers.resources import leak, resources

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells all of it in /proc")
KIB, MIB = 1 << 10, 1 << 20


# In a process of its own, as a worker is: here, what earlier tests left behind may be freed meanwhile.
HELD = """
import numpy as np
from actconform.workers.resources import resident
before = resident()
held = np.ones(1 << 23)
print(resident() - before)
"""


def test_memory_that_is_held_is_seen():
    seen = int(subprocess.check_output([sys.executable, "-c", HELD], text=True))
    assert 60 * MIB < seen < 80 * MIB


HOARD = """
import sys
import numpy as np
from actconform.workers.resources import leak
kept = []
print(leak(lambda: kept.append(np.ones(int(sys.argv[1]), np.uint8))))
"""


@pytest.mark.parametrize("size", [16 * KIB, 64 * KIB, MIB])
def test_a_hoard_of_any_size_never_comes_to_rest(size: int):
    words = subprocess.check_output([sys.executable, "-c", HOARD, str(size)], text=True).strip()
    assert words.endswith(" KiB more memory")
    assert 0.6 * size / KIB < float(words.split()[0].replace(",", "")) < 1.2 * size / KIB


def test_objects_of_python_are_memory_too():
    kept: list[Any] = []
    # More than what earlier tests of the process freed can hold.
    assert "memory" in leak(lambda: kept.append([float(number) for number in range(5000)]))


@pytest.mark.parametrize("entries", [3, 10, 64, 150])
def test_a_cache_with_a_limit_that_is_still_filling_is_no_leak(entries: int):
    kept: list[Any] = []

    def call() -> None:
        kept.append(np.ones(MIB // 8))
        del kept[:-entries]

    assert leak(call) == ""
    assert len(kept) == entries


def test_garbage_in_cycles_and_what_is_given_back_are_no_leak():
    def call() -> None:
        cycle: list[Any] = [np.ones(64 * KIB, np.uint8)]
        cycle.append(cycle)
        os.close(os.open(os.devnull, os.O_RDONLY))

    assert leak(call) == ""


def descriptor() -> Callable[[], None]:
    opened = os.open(os.devnull, os.O_RDONLY)
    return lambda: os.close(opened)


def thread() -> Callable[[], None]:
    over = threading.Event()
    threading.Thread(target=over.wait, daemon=True).start()
    return over.set


def temporary_file() -> Callable[[], None]:
    file, name = tempfile.mkstemp()
    os.close(file)
    return Path(name).unlink


def child() -> Callable[[], None]:
    pid = os.posix_spawnp("true", ["true"], {})
    return lambda: os.waitpid(pid, 0) and None


TAKEN = [
    (descriptor, "open files"),
    (thread, "threads"),
    (temporary_file, "temporary files"),
    (child, "child processes"),
]


@pytest.mark.parametrize(("take", "name"), TAKEN)
def test_what_is_taken_at_each_call_is_counted_and_what_stops_is_not(take, name, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if name not in resources():
        pytest.skip(f"this system tells of no {name}")
    backs: list[Callable[[], None]] = []
    try:
        assert f"1 more {name}" in leak(lambda: backs.append(take()))
        assert leak(lambda: len(backs) > 70 or backs.append(take())) == ""
        assert leak(lambda: len(backs) % 3 or None) == ""
    finally:
        for back in backs:
            back()
