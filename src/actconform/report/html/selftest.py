"""The self-test that lies beside a report, where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.files import read_bytes
from actconform.selftest import Detection  # noqa: TC001  msgspec reads annotations

if TYPE_CHECKING:
    from pathlib import Path

SELFTEST = "selftest.json"


class _Trial(msgspec.Struct):
    detections: list[Detection]
    false_alarms: list[str]
    healthy: int
    problems: list[str]


def selftest_of(folder: Path) -> dict[str, Any] | None:
    """Return the trial in DIR/selftest.json, `{"error": ...}` where that is no trial, None where there is none."""
    path = folder / SELFTEST
    try:
        workload = msgspec.json.decode(read_bytes(path), type=_Trial)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        return {"error": f"{SELFTEST} is not what `actconform selftest --json` prints: {error}"}
    plain: dict[str, Any] = msgspec.to_builtins(workload)
    return plain
