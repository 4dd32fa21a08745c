"""What a program takes with all processes that it starts: seconds, processor seconds, memory at its peak."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TICK_SECONDS = 0.05
PROC = Path("/proc")


class Usage(NamedTuple):
    """Of a program and of all processes that it started and waited for."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """The largest sum of what its processes occupied, looked at every TICK_SECONDS; 0 where there is no /proc."""

    @property
    def least_seconds(self) -> float:
        """Seconds that other programs on the machine have not made longer: at most those of the clock, and of the processors."""
        return min(self.seconds, self.cpu_seconds)


def run_measured(command: Sequence[str], env: Mapping[str, str]) -> tuple[Usage, str]:
    """Run a command to its end, and return what it took with what it wrote, whatever its exit code is."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        before, started = os.times(), time.perf_counter()
        process = subprocess.Popen(command, env=dict(env), stdout=output, stderr=output)  # noqa: S603
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, _tree_bytes(process.pid))
                time.sleep(TICK_SECONDS)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds, after = time.perf_counter() - started, os.times()
        output.seek(0)
        text = output.read()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return Usage(seconds, spent, peak), text


def _tree_bytes(root: int) -> int:
    """Return the bytes that a process and all that descend from it occupy."""
    children: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            pages = (PROC / str(process) / "statm").read_text(encoding="ascii").split()[1]
        except (OSError, IndexError):
            continue
        total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total
