"""Texts and numbers of a page's data: every text once and made visible, numbers to as many digits as are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from actconform.text import visible


class Texts:
    """Numbers for texts: each text is stored once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def all(self) -> list[str]:
        """Return the texts in the order of their numbers."""
        return list(self._numbers)


def shown(value: Any) -> Any:
    """Return a value of the page with every text in it made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {visible(str(key)): shown(item) for key, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list | tuple) else value


def short_number(number: float) -> float | str:
    """Return a number to more digits than are shown, so that it is rounded once, as an int where it is whole; "nan", "inf" or "-inf"."""
    if not math.isfinite(number):
        return str(number)
    short = float(f"{number:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short
