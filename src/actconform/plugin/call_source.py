"""The call of one layer in words of Python, for programs that make it again: which call a name means, and its arguments as source. Imports no framework."""

from __future__ import annotations

import keyword
import math
import re
from typing import TYPE_CHECKING

from actconform.errors import Unsupported
from actconform.plugin.user_factory import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_NUMBER = re.compile(r"#(\d+)$")


def called_path(name: str, paths: Iterable[str]) -> tuple[str, int]:
    """Return the path of the layer that the name of a record begins with, the longest that there is, and which of its calls is meant, from 1.

    A record is called "PATH", "PATH#2" at its second call, and "PATH:gelu" for a function within; "" is the model itself.
    """
    path = max(
        (path for path in paths if name == path or name.startswith((f"{path}:", f"{path}#"))), key=len, default=""
    )
    number = _NUMBER.fullmatch(name.removeprefix(path)) if path else None
    return path, int(number[1]) if number else 1


def call_source(args: Sequence[object], kwargs: Mapping[str, object], name_of: Callable[[object], str | None]) -> str:
    """Return the arguments as source: "input_0, mask=input_1, need_weights=False"; `name_of` gives a tensor's source, None for what is none.

    Raises Unsupported for an argument that no source can say: an object, a cache.
    """
    parts = [_source(value, name_of) for value in args]
    for name, value in kwargs.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            raise Unsupported(f"is called with the keyword {name!r}, which a program cannot write")
        parts.append(f"{name}={_source(value, name_of)}")
    return ", ".join(parts)


def _source(value: object, name_of: Callable[[object], str | None]) -> str:
    if (name := name_of(value)) is not None:
        return name
    if value is None or isinstance(value, bool) or type(value) in (int, str):
        return repr(value)
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"({''.join(f'{_source(part, name_of)}, ' for part in value).rstrip()})"
    if type(value) is list:
        return f"[{', '.join(_source(part, name_of) for part in value)}]"
    if type(value) is dict:
        items = (f"{_source(key, name_of)}: {_source(part, name_of)}" for key, part in value.items())
        return f"{{{', '.join(items)}}}"
    raise Unsupported(f"is called with {described(value)}, which a program cannot write down")
