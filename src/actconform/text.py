"""Text from outside as just that: what a terminal, a log, XML or a web page would take for something else is written out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 2000  # letters of a message
# Controls but tab and newline, what turns the direction of writing or has no width, lone surrogates, what XML cannot hold.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
# What services that run jobs obey where a log has it: GitHub at the start of a line, which wrapping may make of any place.
_COMMAND = re.compile(
    r"::(?=(?:error|warning|notice|debug|group|endgroup|echo|add-mask|add-path|add-matcher|remove-matcher|set-env|"
    r"set-output|save-state|stop-commands)\b)|##(?=\[|vso\[|teamcity\[)",
    re.IGNORECASE,
)


def visible(text: str) -> str:
    """Return `text` with what is no character to show, and what a log's reader would obey, written out as Python does.

    Tabs and newlines stay. What comes back can be encoded, and XML can hold it.
    """
    return _COMMAND.sub(_first_spelled, _CONTROL.sub(lambda match: repr(match[0])[1:-1], text))


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return `text` as `visible` does, on one line, and `shortened`."""
    return shortened(" ".join(visible(text).split()), longest)


def number_of(count: int, singular: str, plural: str = "") -> str:
    """Return how many of something there are: "1 element", "1,234 elements"; without `plural` that of `singular` has an s."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def labelled(name: str, operator: str) -> str:
    """Return what sentences call a node, by its name and operator, both escaped: "fc (MatMul)"."""
    return f"{one_line(name, 80)} ({one_line(operator, 80)})"


def listed(words: Sequence[str], most: int, between: str = ", ") -> str:
    """Return the first `most` of some words, and how many more there are: "a, b and 1,234 more"; the words are taken as they are."""
    shown = between.join(words[:most])
    return f"{shown} and {len(words) - most:,} more" if len(words) > most else shown


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return `text`; where it has more than `longest` letters its beginning and its end, and how many are left out between."""
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end]}… ({number_of(len(text) - longest, 'letter')} left out) …{text[-end:]}"


def _first_spelled(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0][0]):02x}{match[0][1:]}"
