"""The selftest.json beside a report, where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actconform.files import read_bytes
from actconform.selftest import Detection  # noqa: TC001  msgspec reads annotations

if TYPE_CHECKING:
    from pathlib import Path

SELFTEST = "selftest.json"


class _SelftestReport(msgspec.Struct):
    detections: list[Detection]
    false_alarms: list[str]
    healthy: int
    problems: list[str]


def selftest_of(folder: Path) -> dict[str, Any] | None:
    """Return the content of DIR/selftest.json, `{"error": ...}` where it is something else, None where there is none."""
    path = folder / SELFTEST
    try:
        report = msgspec.json.decode(read_bytes(path), type=_SelftestReport)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        return {"error": f"{SELFTEST} is not what `actconform selftest --json` prints: {error}"}
    plain: dict[str, Any] = msgspec.to_builtins(report)
    return plain
