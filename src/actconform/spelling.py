"""Names that somebody may have meant."""

from __future__ import annotations

import difflib


def near(name: str, known: list[str]) -> str:
    """Return "; did you mean A, B?" with the names nearest to `name`, or what is known where none is near."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return f"; did you mean {', '.join(matches)}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""
