"""The user's own module and factory: imported from the user's folder and called; faults told by the user's own lines. Imports no framework."""

from __future__ import annotations

import importlib
import inspect
import linecache
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actconform.errors import SourceError, near
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from actconform.types.trained import TrainedSource

HELP = (
    'wanted "package.module:factory", a function without arguments that returns a model, or a model with example inputs'
)
MOST_LINES = 12  # frames of the user's that a message shows
LIBRARIES = ("site-packages", "dist-packages")
STDLIB = sysconfig.get_paths()["stdlib"]


def made_by_factory(source: TrainedSource, is_model: Callable[[object], bool]) -> object:
    """Return what the user's factory gives; where the name is a model itself, as `is_model` tells, that model.

    Raises SourceError where the module or the name is missing, the import or the factory raises (with the user's lines), or arguments are needed.
    """
    module_name, _, path = source.text.partition(":")
    if not module_name or not path:
        raise SourceError(f"{one_line(source.text)} names no factory: {HELP}")
    factory: Any = _imported(module_name, source)
    for part in path.split("."):
        if not hasattr(factory, part):
            public = [name for name in dir(factory) if not name.startswith("_")]
            raise SourceError(f"{module_name} has no {part!r}{near(part, public)}: {HELP}")
        factory = getattr(factory, part)
    if is_model(factory):
        return factory
    if not callable(factory):
        raise SourceError(f"{source.text} is {described(factory)}: {HELP}")
    if arguments := _required_arguments(factory):
        raise SourceError(
            f"{source.text} needs arguments ({', '.join(arguments)}): name a function that takes none, such as "
            f"def make(): return {path}(...)"
        )
    try:
        return factory()
    except (Exception, SystemExit) as error:
        if isinstance(error, MemoryError):
            raise
        raise SourceError(f"{source.text} raised {fault_with_lines(error, source.folder)}") from error


def fault_with_lines(error: BaseException, folder: str = "") -> str:
    """Return an error's type and message, and below the lines of the user's that led to it, the innermost last.

    Lines of installed packages, of Python and of actconform are left out; files in `folder` are named relative to it.
    """
    words = one_line("".join(traceback.format_exception_only(error)).strip())
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {one_line(error.msg)}\n  {_short(error.filename, folder)}, line {error.lineno}"
    frames = [
        f"\n  {_short(frame.f_code.co_filename, folder)}, line {line}, in {frame.f_code.co_name}: "
        f"{one_line(linecache.getline(frame.f_code.co_filename, line), 200)}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_users(frame.f_code.co_filename, str(frame.f_globals.get("__name__", "")))
    ]
    return words + "".join(frames[-MOST_LINES:])


def frameworks_of(value: object) -> list[str]:
    """Return the top-level packages of a value's class and its bases, the most special first: ["net", "keras", "builtins"]."""
    return list(dict.fromkeys(base.__module__.partition(".")[0] for base in type(value).__mro__))


def described(value: object) -> str:
    """Return what a value is, for a message: "None", "a list", "a sklearn.svm._classes.SVC"."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _imported(name: str, source: TrainedSource) -> ModuleType:
    folder = source.folder or str(Path.cwd())
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    _forget_namesake(name.partition(".")[0], folder)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, MemoryError):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise SourceError(_no_module(name, error.name, folder)) from None
        raise SourceError(f"{name} cannot be imported: {fault_with_lines(error, folder)}") from error


def _forget_namesake(name: str, folder: str) -> None:
    """Let the user's module be imported anew where one of its name came from another folder; a library's is no namesake."""
    namesake = sys.modules.get(name)
    if namesake is None or name not in set(_modules_in(Path(folder))):
        return
    file = str(getattr(namesake, "__file__", None) or next(iter(getattr(namesake, "__path__", ())), ""))
    if file and Path(file).is_relative_to(folder):
        return
    if not file or not _is_users(file, name):
        raise SourceError(
            f"{name!r} is the name of a module that is loaded already, {one_line(file or 'built in')}: rename yours"
        )
    for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[loaded]


def _no_module(name: str, missing: str, folder: str) -> str:
    parent, _, last = missing.rpartition(".")
    within = Path(folder, *parent.split(".")) if parent else Path(folder)
    wanted = "" if missing == name else f", of {one_line(name)},"
    return f"no module {missing!r}{wanted} in {one_line(folder)}{near(last, sorted(_modules_in(within)))}"


def _modules_in(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        for entry in folder.iterdir():
            if (entry.suffix == ".py" and entry.stem.isidentifier() and entry.stem != "__init__") or (
                entry / "__init__.py"
            ).is_file():
                yield entry.stem


def _required_arguments(factory: Callable[..., object]) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of C: it is called
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variadic]


def _is_users(filename: str, module: str) -> bool:
    if module.partition(".")[0].startswith("actconform") or filename.startswith(("<frozen", STDLIB + "/")):
        return False
    return not any(part in LIBRARIES for part in Path(filename).parts)


def _short(filename: str, folder: str) -> str:
    path = Path(filename)
    return one_line(str(path.relative_to(folder)) if folder and path.is_relative_to(folder) else filename)
