"""Numbers as JSON can hold them."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec


def finite(value: Any) -> Any:
    """Return `value` as JSON can hold it: dicts, lists and numbers, with "nan", "inf" and "-inf" for what is not finite."""
    value = msgspec.to_builtins(value)
    return _finite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def digest_of_json(content: object) -> str:
    """Return the SHA-256 of a value as JSON, whatever the order of its keys; a number that is not finite counts as null."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()
