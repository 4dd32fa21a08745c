"""Lock files: which version of each package an environment has, as pip, uv and Poetry write it down."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from actconform.errors import UsageError
from actconform.files import read_text
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

EXPECTED = "expected requirements.txt or what `pip freeze` prints, uv.lock, poetry.lock or pylock.toml"
TABLES = ("package", "packages")  # of uv and Poetry, of pylock.toml
COMMENT = re.compile(r"(^|\s)#.*")
OPTION = re.compile(r"\s--?[a-z]")  # after a requirement: hashes and the like
INCLUDE = re.compile(r"(?:-r|--requirement)[\s=]*(?P<path>\S.*)")
MOST_INCLUDED = 16


def read_lock_file(path: Path) -> dict[str, str]:
    """Return the version of each package by its normalized name; markers choose those of this interpreter and machine.

    The file is TOML where its name ends in .lock or .toml, else lines as pip takes them. Packages without one version are left
    out: those of a URL or a folder, of a range, or with several versions here.

    Raises UsageError, naming the file and the place, where there is no such file, where it is no lock file, and for a version that
    is none.
    """
    toml = path.suffix in (".lock", ".toml")
    entries = list(_of_toml(path) if toml else _of_lines(path, MOST_INCLUDED))
    if not entries:
        raise UsageError(f"{_shown(path)}: names no package with its version; {EXPECTED}")
    versions: dict[str, set[str]] = {}
    for name, version in entries:
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return {name: next(iter(several)) for name, several in versions.items() if len(several) == 1}


def _of_toml(path: Path) -> Iterator[tuple[str, str]]:
    try:
        document = tomllib.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{_shown(path)}: is no TOML: {one_line(str(error))}; {EXPECTED}") from error
    tables: list[Any] = next((document[key] for key in TABLES if isinstance(document.get(key), list)), [])
    for table in tables:
        if not isinstance(table, dict) or not isinstance(table.get("name"), str):
            raise UsageError(f"{_shown(path)}: has a package without a name; {EXPECTED}")
        version = table.get("version")
        if version is not None and _applies(table, f"{_shown(path)}: {one_line(table['name'])}"):
            yield table["name"], _version(version, f"{_shown(path)}: {one_line(table['name'])}")


def _applies(table: Mapping[str, Any], where: str) -> bool:
    """Return whether a package is one of this interpreter and machine; uv lists several markers, of which one must hold."""
    markers = table.get("marker") or table.get("markers") or table.get("resolution-markers") or ()
    if isinstance(markers, dict):  # Poetry: by group of dependencies
        markers = list(markers.values())
    texts = [markers] if isinstance(markers, str) else markers
    try:
        return not texts or any(Marker(text).evaluate({"extra": ""}) for text in texts)
    except (InvalidMarker, TypeError) as error:
        raise UsageError(f"{where}: has a marker that is none: {one_line(str(error))}") from error


def _of_lines(path: Path, includes: int) -> Iterator[tuple[str, str]]:
    """Yield what the lines of a requirements file pin; a file that it includes is read too."""
    for number, line in _logical_lines(_text(path)):
        where = f"{_shown(path)}:{number}"
        if include := INCLUDE.fullmatch(line):
            if not includes:
                raise UsageError(f"{where}: files include each other more than {MOST_INCLUDED} deep")
            yield from _of_lines(path.parent / include["path"], includes - 1)
        elif not line.startswith("-"):
            try:
                requirement = Requirement(OPTION.split(line, maxsplit=1)[0])
            except InvalidRequirement as error:
                reason = one_line(str(error).splitlines()[0])
                raise UsageError(
                    f"{where}: {one_line(line, 200)!r} is no requirement ({reason}); wanted NAME==VERSION; {EXPECTED}"
                ) from error
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                yield from _pinned(requirement, where)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, joined where they end in a backslash, with the number of the first."""
    first, joined = 0, ""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        content = COMMENT.sub("", line).strip()
        first = first or number
        if content.endswith("\\"):
            joined += f"{content[:-1].rstrip()} "
            continue
        if joined + content:
            yield first, (joined + content).strip()
        first, joined = 0, ""
    if joined.strip():
        yield first, joined.strip()


def _pinned(requirement: Requirement, where: str) -> Iterator[tuple[str, str]]:
    for specifier in requirement.specifier:
        if specifier.operator in ("==", "===") and not specifier.version.endswith(".*"):
            yield requirement.name, _version(specifier.version, f"{where}: {requirement.name}")


def _version(text: object, where: str) -> str:
    try:
        return str(Version(str(text)))
    except InvalidVersion as error:
        raise UsageError(f"{where}: {one_line(str(text), 200)!r} is no version") from error


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError as error:
        raise UsageError(f"{_shown(path)}: cannot be read: {error.strerror}; {EXPECTED}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{_shown(path)}: is no text in UTF-8; {EXPECTED}") from error


def _shown(path: Path) -> str:
    return one_line(str(path))
