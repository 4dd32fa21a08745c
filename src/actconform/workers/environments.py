"""Environments of other versions: made once with venv and pip, stored by content, each on top of the driver's packages.

An environment holds the packages of its requirements and finds all others, actconform and its plugins too, where the driver
does: the driver's packages come after it on the path. So a package is taken from one of the two, never from both.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from filelock import FileLock, Timeout
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actconform.errors import NoEnvironmentError
from actconform.files import read_bytes
from actconform.plugin.loader import plugin_versions
from actconform.workers.code import packages, tree_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OLDEST = (3, 11)
ABOUT = "environment.json"  # written last: without it an environment is incomplete
LOCK = ".lock"
DRIVER = "actconform-driver.pth"
LINES_SHOWN = 8
ALONE = "--no-deps"  # among the requirements: pip's word for them without what they depend on
CONFLICT = "The conflict is caused by:"
CONSTRAINT = "The user requested (constraint) "
LONGEST_LINE = 300
NOISE = ("WARNING:", "[notice]", "Looking in ")
TOOLS = ("pip", "setuptools", "wheel")
# Python 2 understands it too.
PROBE = """import json, sys
print(json.dumps([list(sys.version_info[:3]), getattr(getattr(sys, "implementation", None), "cache_tag", "")]))"""


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a complete environment; `packages` are those that it has itself, `key` everything that it was made from.

    `files` is a digest of its files' names, sizes and times, by which later edits and removals show.
    """

    key: str
    requirements: tuple[str, ...]
    python: str
    packages: dict[str, str]
    files: str


class Environment(NamedTuple):
    """An environment in its folder; `about` is None where it is incomplete."""

    folder: Path
    about: EnvironmentRecord | None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """The folder with its own packages."""
        return next(self.folder.glob("lib/python*/site-packages"), self.folder)

    @property
    def used(self) -> float:
        """When it was last used, in seconds since 1970."""
        path = self.folder / ABOUT
        return (path if path.exists() else self.folder).stat().st_mtime


def environments_folder() -> Path:
    """Return where environments are stored: in $ACTCONFORM_CACHE, or in actconform of the user's cache folder."""
    named = os.environ.get("ACTCONFORM_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return (Path(named) if named else Path(base) / "actconform") / "environments"


def environment(
    requirements: Sequence[str],
    python: str | None = None,
    say: Callable[[str], None] = lambda _: None,
    *,
    dependencies: bool = True,
) -> Environment:
    """Return the environment with these requirements, made now unless it exists, complete and unchanged; `say` is called where
    that takes time.

    `python` is an interpreter of the driver's version, by default the driver's own. Safe between threads and processes: one
    makes it, the others wait. A build that fails or is interrupted leaves nothing. Without `dependencies` it gets
    the requirements alone. Raises NoEnvironmentError, with the conflicting requirements and their owners where versions
    conflict, with pip's last lines where it fails otherwise, and where the interpreter is too old, another version, or cannot
    be run.
    """
    all_requirements = (*requirements, *(() if dependencies else (ALONE,)))
    interpreter = python or sys.executable
    version = _checked_version(interpreter) if python else "{}.{}.{}".format(*sys.version_info[:3])
    key = _key(all_requirements, interpreter, version)
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    place = environments_folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoEnvironmentError(f"{place}: cannot be made: {error.strerror}; set ACTCONFORM_CACHE") from error
    with _locked(
        place / f"{name}{LOCK}", lambda: say(f"waiting for another process, which makes {_name_list(all_requirements)}")
    ):
        stored = _read(place / name)
        if not _as_made(stored, key):
            say(f"making an environment with {_name_list(all_requirements)}")
            _make(stored, all_requirements, interpreter, version, key)
            stored = _read(stored.folder)
        os.utime(stored.folder / ABOUT)
    return stored


def is_installed(requirement: str) -> bool:
    """Return whether the driver's packages satisfy the requirement: its processes then need no environment."""
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def stored_environments() -> list[Environment]:
    """Return all environments, incomplete ones included, the last used first."""
    place = environments_folder()
    folders = [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
    return sorted(map(_read, folders), key=lambda entry: entry.used, reverse=True)


def prune(older_than: float) -> list[Environment]:
    """Remove the environments not used for that many seconds and the remains of killed builds; return them.

    An environment that is being made stays.
    """
    removed = []
    for candidate in stored_environments():
        if candidate.about is not None and time.time() - candidate.used < older_than:
            continue
        lock = candidate.folder.with_name(candidate.folder.name + LOCK)
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(candidate.folder, ignore_errors=True)
                lock.unlink(missing_ok=True)  # who waits for it sees that, and makes another one
        except Timeout:
            continue
        removed.append(candidate)
    return removed


def _read(folder: Path) -> Environment:
    try:
        return Environment(folder, msgspec.json.decode(read_bytes(folder / ABOUT), type=EnvironmentRecord))
    except (OSError, msgspec.DecodeError):
        return Environment(folder, None)


def _as_made(environment: Environment, key: str) -> bool:
    about = environment.about
    return (
        about is not None and about.key == key and environment.python.exists() and about.files == _listing(environment)
    )


def _listing(environment: Environment) -> str:
    """Return a digest of name, size and time of every file of an environment's packages; what Python compiles there is left out."""
    files = sorted(path for path in environment.packages.rglob("*") if "__pycache__" not in path.parts)
    states = [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in files if not path.is_dir()]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _checked_version(python: str) -> str:
    """Return the version of an interpreter that can use the driver's packages."""
    try:
        done = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
        numbers, tag = json.loads(done.stdout)
    except OSError as error:
        raise NoEnvironmentError(f"python = {python!r} cannot be run: {error.strerror}; name an interpreter") from error
    except (subprocess.SubprocessError, ValueError) as error:
        raise NoEnvironmentError(
            f"python = {python!r} does not answer as an interpreter of Python; name one"
        ) from error
    version = ".".join(map(str, numbers))
    if tuple(numbers[:2]) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise NoEnvironmentError(f"python = {python!r} is Python {version}: actconform needs {least} or newer")
    if tag != sys.implementation.cache_tag:
        advice = f"run actconform itself with {python}, or make an environment by hand and give it as python alone"
        raise NoEnvironmentError(
            f"python = {python!r} is {tag} {version}, the driver is {sys.implementation.cache_tag}: an environment with "
            f"requirements shares the driver's packages, and needs the same version of Python; {advice}"
        )
    return version


def _key(requirements: tuple[str, ...], python: str, version: str) -> str:
    # The driver's packages are part of the environment, so they are part of the key.
    named = [text for text in requirements if text != ALONE]
    sources = {text: tree_digest(path) for text in named if (path := _source(text)) is not None}
    content = [sorted(requirements), sources, str(Path(python).absolute()), version, _driver_packages(), packages()]
    return json.dumps(content)


def _source(requirement: str) -> Path | None:
    """Return the file or folder of this machine that a requirement names, "NAME @ file:///FOLDER"; None where it names none."""
    parts = urlsplit(Requirement(requirement).url or "")
    path = Path(unquote(parts.path))
    return path if parts.scheme == "file" and path.exists() else None


def _driver_packages() -> list[str]:
    """Return the folders of packages of the driver; editable installs are named in files there."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _make(environment: Environment, requirements: tuple[str, ...], python: str, version: str, key: str) -> None:
    folder = environment.folder
    shutil.rmtree(folder, ignore_errors=True)
    try:
        called([python, "-m", "venv", "--without-pip", str(folder)], f"{python} -m venv failed")
        site = environment.packages
        # Not the folder's bare name: files for editable installs there would not be read.
        lines = ["import site", *(f"import site; site.addsitedir({path!r})" for path in _driver_packages())]
        (site / DRIVER).write_text("\n".join(lines) + "\n", encoding="utf-8")
        constraints = folder / "constraints.txt"
        constraints.write_text("".join(f"{line}\n" for line in _constraints()), encoding="utf-8")
        # Else the driver's pip is on the path there, and installs there. Looking for pip through the import system would make
        # setuptools drop its distutils in this process.
        if not list(metadata.distributions(name="pip")):
            called(
                [str(environment.python), "-m", "ensurepip"],
                "there is no pip here, and none can be installed; install it",
            )
        command = [str(environment.python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        command += ["--constraint", str(constraints), *requirements]
        called(command, f"{_name_list(requirements)} cannot be installed")
        about = EnvironmentRecord(
            key=key,
            requirements=requirements,
            python=version,
            packages=_own_packages(site),
            files=_listing(environment),
        )
        fresh = folder / f"{ABOUT}.new"
        fresh.write_bytes(msgspec.json.encode(about))
        fresh.replace(folder / ABOUT)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NoEnvironmentError(
            f"{folder}: cannot be made: {error}; set ACTCONFORM_CACHE to another folder"
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def called(command: Sequence[str], failed: str) -> None:
    """Run a command in silence; raise NoEnvironmentError with `failed` and its last lines where it fails."""
    done = subprocess.run(  # noqa: S603  an interpreter that the user configured
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode:
        if conflict := _conflict(done.stdout):
            raise NoEnvironmentError(f"{failed}: {conflict}")
        output_lines = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith(NOISE)]
        last = "".join(f"\n  {_short(line)}" for line in output_lines[-LINES_SHOWN:])
        raise NoEnvironmentError(f"{failed}; the last lines were:{last}")


def _short(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"


def _constraints() -> dict[str, list[str]]:
    """Return the constraints on every environment and their owners: actconform and its plugins in the driver's versions, and what they require."""
    ours: dict[str, str] = {canonicalize_name(name): version for name, version in plugin_versions().items()}
    lines = {f"{name}=={version}": [name] for name, version in ours.items()}
    for name in ours:
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            optional = needed.marker is not None and not needed.marker.evaluate({"extra": ""})
            if not optional and needed.specifier and canonicalize_name(needed.name) not in ours:
                lines.setdefault(f"{needed.name}{needed.specifier}", []).append(name)
    return lines


def _conflict(pip_output: str) -> str:
    """Return the conflicting requirements in pip's output with their owners, or "": pip does not name the owner of a constraint.

    "actconform-openvino requires openvino>=2024.0". Where pip tried several versions of a package, the first is named.
    """
    causes = takewhile(lambda line: line.startswith(" "), pip_output.partition(CONFLICT)[2].splitlines()[1:])
    owners = _constraints()
    constraints: list[str] = []
    dependencies: dict[str, str] = {}
    for cause in map(str.strip, causes):
        if cause.startswith(CONSTRAINT):
            needed = cause.removeprefix(CONSTRAINT)
            constraints.append(f"{' and '.join(owners.get(needed, ['a constraint of pip']))} requires {needed}")
        elif not cause.startswith("The user requested "):
            dependencies.setdefault(cause.partition(" ")[0], cause)
    return ", ".join((*constraints, *dependencies.values()))


def _own_packages(site: Path) -> dict[str, str]:
    distributions = metadata.distributions(path=[str(site)])
    return {
        distribution.name: distribution.version
        for distribution in distributions
        if canonicalize_name(distribution.name) not in TOOLS
    }


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of an environment, which ends with this process; call `on_wait` where another has it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        lock.release()


def _name_list(requirements: Sequence[str]) -> str:
    return ", ".join(requirements)
