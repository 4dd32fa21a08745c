"""Importing what a plugin computes with: where that cannot be, the cause in words for people, the same from every plugin."""

from __future__ import annotations

import io
import re
import shlex
import sys
from contextlib import redirect_stderr, suppress
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from actconform.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

# numpy 2 prints the first; pybind11 and numpy's own C code raise the others in its place.
_NUMPY_1 = re.compile(r"compiled using NumPy 1\.|_ARRAY_API|numpy\.core\.multiarray failed to import")
_SHARED_LIBRARY = re.compile(r"(\S+\.so[.\d]*|\S+\.dylib|\S+\.dll): cannot open shared object file")


def imported(name: str, install: str, *, plugin: str = "", packages: Sequence[str] = ()) -> ModuleType:
    """Return a module, imported; raise `Unavailable` with the cause where it cannot be, or is too old for the plugin.

    `install` is the command that brings it. `packages` are the distributions that may hold it, by default the one of its name; which
    version is the oldest says the distribution `plugin` by what it requires, its extras included.
    """
    package, version = _installed(packages or (name,))
    called = f"{package} {version}".strip()
    if oldest := _too_old(package, version, plugin):
        raise Unavailable(
            f"{called} is too old: {plugin} needs {package} {oldest} or newer: pip install '{package}>={oldest}'"
        )
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            module = import_module(name)
    except MemoryError:
        raise
    except Exception as error:  # what a package raises while it is imported has no common base
        raise Unavailable(_cause(error, name, (package, version), install, printed.getvalue())) from error
    sys.stderr.write(printed.getvalue())
    return module


def _cause(error: Exception, name: str, distribution: tuple[str, str], install: str, printed: str) -> str:
    package, version = distribution
    called = f"{package} {version}".strip()
    words = str(error).strip()
    top = name.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name:
        if error.name == top and not version:
            return f"{top} is not installed: {install}"
        if error.name.partition(".")[0] == top:
            # Any other command would find the distribution there, and leave it as it is.
            # Without the local part, as in 2.13.0+cpu, which the package index lacks.
            same = f"{package}=={version.partition('+')[0]}"
            anew = f"pip install --force-reinstall --no-deps {same}" if version else install
            return f"{called} is incomplete, it lacks {error.name}: install it anew: {anew}"
        remedy = _remedy(package) or f"install the package that has it; {package} does not say that it requires one"
        return f"{called} needs {error.name}, which is not installed: {remedy}"
    if _NUMPY_1.search(f"{words}\n{printed}"):
        numpy_version = metadata.version("numpy")
        return (
            f"{called} was built for numpy 1 and cannot be imported with numpy {numpy_version}: "
            f"take a release of it that was built for numpy {numpy_version.partition('.')[0]}"
        )
    if missing := _SHARED_LIBRARY.search(words):
        remedy = _remedy(package) or "install it, as the documentation of the package says for this system"
        return f"{called} needs the shared library {missing[1]}, which is not there: {remedy}"
    first = words.splitlines()[0] if words else "no reason given"
    reason = first if isinstance(error, ImportError | OSError) else f"{type(error).__name__}: {first}"
    return f"{called} is installed, but cannot be imported: {reason}"


def _remedy(package: str) -> str:
    """Return the command that installs all that a distribution requires and that is missing, or ""."""
    missing = sorted(_missing(package))
    return f"pip install {' '.join(map(shlex.quote, missing))}" if missing else ""


def _missing(package: str) -> Iterator[str]:
    """Yield the requirements of a distribution, and of what it requires in turn, that are not installed.

    A module's name does not tell the package's (google.protobuf is in protobuf), so they are read from what is installed.
    """
    waiting, seen = [Requirement(package)], {canonicalize_name(package)}
    while waiting:
        parent = waiting.pop()
        try:
            texts = metadata.requires(parent.name) or ()
        except metadata.PackageNotFoundError:
            if parent.name != package:
                yield f"{parent.name}{parent.specifier}"
            continue
        for needed in _readable(texts):
            applies = needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in ("", *parent.extras)
            )
            if applies and canonicalize_name(needed.name) not in seen:
                seen.add(canonicalize_name(needed.name))
                waiting.append(needed)


def _readable(texts: Iterable[str]) -> Iterator[Requirement]:
    """Yield what others require; what they wrote against the standard is left out, as no cause to fail here."""
    for text in texts:
        with suppress(InvalidRequirement):
            yield Requirement(text)


def _installed(packages: Sequence[str]) -> tuple[str, str]:
    """Return the first of the distributions that is installed with its version, which is "" where none is."""
    for package in packages:
        try:
            return package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return packages[0], ""


def _too_old(package: str, version: str, plugin: str) -> str:
    """Return the oldest version that the plugin takes where this one is older, or ""."""
    try:
        oldest = min(_lower_bounds(package, plugin), default=None)
        return str(oldest) if oldest and version and Version(version) < oldest else ""
    except InvalidVersion:
        return ""  # of a build by hand


def _lower_bounds(package: str, plugin: str) -> Iterator[Version]:
    try:
        texts = (metadata.requires(plugin) if plugin else None) or ()
    except metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, texts):
        if canonicalize_name(requirement.name) == canonicalize_name(package):
            yield from (Version(part.version) for part in requirement.specifier if part.operator in (">=", "=="))
