"""A reason cut to what a summary line has room for; the whole of it stands in report.json, and with what to do in `doctor`."""

from __future__ import annotations

import re

LONGEST = 100
_MEND = re.compile(r": (?=(?:pip )?(?:un)?install\b)|; |\n")
_PLACE = re.compile(r" \(at [^()]*:\d+: .*")


def abbreviate(reason: str) -> str:
    """Return the cause that a reason names first, on one line, without what to do and its place in the code."""
    cause = _MEND.split(_PLACE.sub("", reason.strip(), count=1), maxsplit=1)[0]
    return cause if len(cause) <= LONGEST else f"{cause[: LONGEST - 1].rstrip()}…"
