"""A function of the user's own that an option names, and what it raises in the user's own lines."""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actconform.errors import UsageError, near
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES_SHOWN = 4  # of the user's, the innermost
_INSTALLED = ("site-packages", "dist-packages")


def user_object(text: str, option: str) -> Any:
    """Return what "module:name" names; the module is imported, from the current directory first.

    `option` is the one that names it, for messages: "--metric". Raises UsageError for a text of another form, a module that is not
    there or raises, and a name that it does not have.
    """
    module_name, colon, name = text.partition(":")
    parts = [*module_name.split("."), *name.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise UsageError(f'{option} {one_line(text)}: is no "module:function"')
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        attribute: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"{option} {one_line(text)}: there is no module {one_line(error.name or '')} in {one_line(folder)}, nor is one installed"
            ) from error
        raise UsageError(f"{option} {one_line(text)}: importing {module_name} {raised(error)}") from error
    for part in name.split("."):
        if not hasattr(attribute, part):
            names = (
                [public for public in vars(attribute) if not public.startswith("_")]
                if hasattr(attribute, "__dict__")
                else []
            )
            raise UsageError(f"{option} {one_line(text)}: {module_name} has no {part!r}{near(part, names)}")
        attribute = getattr(attribute, part)
    return attribute


def raised(error: BaseException) -> str:
    """Return "raised ValueError: its message (data.py:12 in load: `x = rows[3]`)", with the lines that are the user's own, the innermost last.

    Lines of the standard library, of installed packages and of actconform are left out.
    """
    message = "".join(traceback.format_exception_only(error)).strip()
    words = one_line(f"{type(error).__name__}: {error.msg}" if isinstance(error, SyntaxError) else message, 400)
    lines = [
        f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}: `{one_line(frame.line or '', 120)}`"
        for frame in _frames(error)
        if _is_users(frame.filename)
    ]
    shown = ["...", *lines[-LINES_SHOWN:]] if len(lines) > LINES_SHOWN else lines
    return f"raised {words}" + (f" ({'; '.join(map(one_line, shown))})" if shown else "")


def _frames(error: BaseException) -> Iterator[traceback.FrameSummary]:
    yield from traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        yield traceback.FrameSummary(error.filename, error.lineno or 0, "<module>", line=error.text or "")


def _is_users(filename: str) -> bool:
    path = Path(filename)
    if filename.startswith("<") or any(part in _INSTALLED for part in path.parts):
        return False
    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), Path(__file__).parents[1])
    return not any(path.is_relative_to(library) for library in libraries)
