"""What code a process runs, as a digest: the files of its plugins and of what it has loaded, and all of its packages."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from actconform.files import read_bytes
from actconform.types.json import digest_of_json

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

PACKAGE_FOLDERS = ("site-packages", "dist-packages")
SOURCES = (".py", ".toml")
COMPILED = "__pycache__"
LEFT_BY_TOOLS = (COMPILED, ".git", "build")  # in a tree of sources


def packages(path: list[str] | None = None) -> list[str]:
    """Return "NAME==VERSION" of every package that the process finds, or that lies in the folders of `path`, sorted."""
    distributions = metadata.distributions(path=path) if path is not None else metadata.distributions()
    return sorted(
        {f"{distribution.name}=={distribution.version}" for distribution in distributions if distribution.name}
    )


def code_digest(modules: Iterable[str], programs: Iterable[Path] = ()) -> str:
    """Return the SHA-256 of what may change what plugins give: `modules` are those of their entry points.

    It covers every file of each module's package, or of a module without one the Python files beside it; the file of every module
    loaded that is neither Python's own nor in a folder of installed packages; the files `programs`; and all packages with
    their versions.
    """
    tops = {module.partition(".")[0] for module in modules}
    files = {path for top in tops for path in _package_files(top)} | set(_loaded_files()) | set(programs)
    return digest_of_json([packages(), sorted((str(path), _file_digest(path)) for path in files)])


def sources_digest(modules: Iterable[str]) -> str:
    """Return the SHA-256 of the Python and TOML files of the modules' packages, by name: the same on machines with the same code."""
    files = {(top, path) for top in {module.partition(".")[0] for module in modules} for path in _package_files(top)}
    kept = [(top, path) for top, path in files if path.suffix in SOURCES]
    return digest_of_json(sorted((top, str(path).rpartition(f"/{top}/")[2], _file_digest(path)) for top, path in kept))


def tree_digest(folder: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder with their names, but for what Python, git and builds leave there."""
    files = _files(folder, LEFT_BY_TOOLS) if folder.is_dir() else [folder]
    return digest_of_json(sorted((str(path.relative_to(folder)), _file_digest(path)) for path in files))


def _package_files(top: str) -> Iterator[Path]:
    # Not by the path alone: editable installs may bring a finder of their own.
    spec = find_spec(top)
    if spec is None:
        return
    if spec.submodule_search_locations is not None:
        for folder in spec.submodule_search_locations:
            yield from _files(Path(folder), (COMPILED,))
    elif spec.origin:
        file = Path(spec.origin)
        yield from [file] if _installed(file) else file.parent.glob("*.py")


def _loaded_files() -> Iterator[Path]:
    standard = Path(sysconfig.get_path("stdlib"))
    for module in list(sys.modules.values()):
        named = getattr(module, "__file__", None)
        if not isinstance(named, str):
            continue
        file = Path(named)
        if file.suffix == ".py" and not _installed(file) and not file.is_relative_to(standard):
            yield file


def _installed(file: Path) -> bool:
    return any(part in PACKAGE_FOLDERS for part in file.parts)


def _files(folder: Path, left_out: Container[str]) -> Iterator[Path]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        is_generated = any(part in left_out or part.endswith(".egg-info") for part in parts)
        if not is_generated and path.is_file():
            yield path


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
