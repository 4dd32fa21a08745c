"""A reason shortened for a summary line; report.json and `actconform doctor` have all of it, with what to do."""

from __future__ import annotations

import re

LONGEST = 100
_ADVICE = re.compile(r": (?=(?:pip )?(?:un)?install\b)|; |\n")
_PLACE = re.compile(r" \(at [^()]*:\d+: .*")


def abbreviate(reason: str) -> str:
    """Return the cause that a reason names first, on one line, without what to do and its place in the code."""
    cause = _ADVICE.split(_PLACE.sub("", reason.strip(), count=1), maxsplit=1)[0]
    return cause if len(cause) <= LONGEST else f"{cause[: LONGEST - 1].rstrip()}…"
