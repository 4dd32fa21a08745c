"""The arguments of a call as Python source, with names in place of tensors: for programs that make the call again. Imports no framework."""

from __future__ import annotations

import keyword
import math
from typing import TYPE_CHECKING

from actconform.errors import Unsupported
from actconform.plugin.user_factory import described

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


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
