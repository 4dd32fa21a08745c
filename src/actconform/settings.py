"""actconform.toml, or [tool.actconform] of pyproject.toml -> Config. An unknown key is refused, never ignored."""

from __future__ import annotations

import math
import re
import shlex
import string
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec
from packaging.requirements import InvalidRequirement, Requirement

from actconform.errors import UsageError, near
from actconform.files import read_text

CONFIG_FILE = "actconform.toml"
PROJECT_FILE = "pyproject.toml"
PROJECT_TABLE = "[tool.actconform]"
MOST_THREADS = 1024  # libraries start as many, and fail or hang at some number
EXAMPLE = "./myrt {model} {inputs} {outputs}"
PREPARE_EXAMPLE = "./myrtc {model} -o {artifact}"
PREPARED_EXAMPLE = "./myrt {artifact} {inputs} {outputs}"
SERVE_EXAMPLE = "./myrt --serve"


class BackendConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[backends.NAME]`: what a backend runs in, or the command that it is.

    `python` is another interpreter for its worker, `env` sets environment variables there, `requirements` are installed beside
    what the driver has, for this backend alone, without what they depend on where `dependencies` is false. With NAME
    "BASE@LABEL" it is one more backend, like BASE.

    `command` makes a runtime of a program that is no plugin: {model} stands for a file, {inputs} and {outputs} for folders of
    `tensors`; `version` is a command too, whose output is a fact. `prepare` runs once a graph and makes {artifact} of {model}, and the
    command then makes all calls of a case in one start. `serve` in its place is a process that stays, and answers messages.
    """

    python: str | None = None
    env: dict[str, str] = {}
    requirements: tuple[str, ...] = ()
    dependencies: bool = True
    command: str | None = None
    prepare: str | None = None
    serve: str | None = None
    tensors: Literal["npy", "pb"] | None = None
    version: str | None = None

    @property
    def is_program(self) -> bool:
        """Whether it is a runtime that is a program, not a plugin."""
        return self.command is not None or self.serve is not None


class LintConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[lint]`: `ignore` has what `actconform lint` leaves out, each a code, or a code and a glob of nodes or layers: "AC102:encoder/*"."""

    ignore: tuple[str, ...] = ()


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    backends: dict[str, BackendConfig] = {}
    threads: int = 1
    timeout: float = 120.0
    out: str = "conform-out"
    require: tuple[str, ...] | None = None
    deviations: tuple[str, ...] = ()
    lint: LintConfig = LintConfig()


class Config(_Table, frozen=True):
    """The settings of a run. `timeout` is in seconds a case; `require` names routes that must have run.

    `path` is the file that they were read from. Files in `deviations` are relative to its folder, and commands run there.
    `unavailable` says of backends whose environment cannot be made why.
    """

    path: str = CONFIG_FILE
    unavailable: dict[str, str] = {}


def with_timeout(config: Config, timeout: float | None) -> Config:
    """Return the settings with another `timeout`, in seconds; None leaves it as it is."""
    return config if timeout is None else msgspec.structs.replace(config, timeout=timeout)


def read_config(path: Path | None = None) -> Config:
    """Return the settings of `path`, else of the nearest file that has any, from the current folder upwards, else the defaults.

    That is actconform.toml, or pyproject.toml with a table [tool.actconform]; of both in one folder the first counts. Raises UsageError
    naming file and key on bad TOML, an unknown key, a wrong type, or `threads` or `timeout` below 1.
    """
    chosen = path or _nearest_file()
    if chosen is None:
        return Config()
    try:
        content = tomllib.loads(read_text(chosen))
        if chosen.name == PROJECT_FILE:
            content = _project_table(content, chosen)
        table = msgspec.convert(content, _Table)
    except OSError as error:
        raise UsageError(f"{chosen}: cannot be read: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{chosen}: {_with_near_key(str(error))}") from error
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a number of too many digits
        raise UsageError(f"{chosen}: not valid TOML: {error}") from error
    config = Config(**msgspec.structs.asdict(table), path=str(chosen))
    if not 1 <= config.threads <= MOST_THREADS or not 1 <= config.timeout < math.inf:
        raise UsageError(
            f"{chosen}: threads ({config.threads}) and timeout ({config.timeout} s) must be at least 1, the first at most "
            f"{MOST_THREADS:,}, the other finite"
        )
    for name, backend in config.backends.items():
        if problem := _problem(backend):
            raise UsageError(f"{chosen}: {table_name(name)}: {problem}")
    if not config.out:
        raise UsageError(f"{chosen}: out is empty: name a folder")
    return msgspec.structs.replace(config, deviations=tuple(str(chosen.parent / name) for name in config.deviations))


def _nearest_file() -> Path | None:
    """Return the file of settings of the current folder, or of the nearest one above it; what lies in the current folder is named without it."""
    here = Path()
    for folder in (here, *here.absolute().parents):
        if (folder / CONFIG_FILE).exists():
            return folder / CONFIG_FILE
        if _has_table(folder / PROJECT_FILE):
            return folder / PROJECT_FILE
    return None


def _has_table(project: Path) -> bool:
    """Whether a pyproject.toml has settings; one that cannot be read is somebody else's, and not for us to refuse."""
    try:
        text = read_text(project)
    except (OSError, ValueError):
        return False
    if "actconform" not in text:
        return False
    try:
        return "actconform" in tomllib.loads(text).get("tool", {})
    except (ValueError, RecursionError, TypeError, AttributeError):
        return PROJECT_TABLE in text  # meant, and refused in words when it is read


def _project_table(content: dict[str, Any], path: Path) -> dict[str, Any]:
    tools = content.get("tool")
    table = tools.get("actconform") if isinstance(tools, dict) else None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: has no table {PROJECT_TABLE}: wanted the keys of {CONFIG_FILE} in it")
    return table


def _problem(backend: BackendConfig) -> str:
    """Return what is wrong with the settings of one backend, in words, or ""."""
    words = [
        *backend.env,
        *backend.env.values(),
        *(word for word in (backend.python, backend.command, backend.prepare, backend.serve) if word),
    ]
    if backend.python == "" or any("\0" in word for word in words) or any("=" in key or not key for key in backend.env):
        return "python or env is no path, name or value that a process can have"
    for text in backend.requirements:
        try:
            Requirement(text)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            return (
                f'requirements: {text!r} is none ({reason}): wanted "NAME==VERSION" or "NAME @ URL", as pip takes them'
            )
    if not backend.dependencies and not backend.requirements:
        return "dependencies = false without requirements: wanted requirements to install without what they depend on"
    return _program_problem(backend)


def _program_problem(backend: BackendConfig) -> str:
    """Return what is wrong with the commands of one backend, in words, or ""."""
    if not backend.is_program:
        alone = [key for key in ("prepare", "tensors", "version") if getattr(backend, key) is not None]
        wanted = f"wanted command = {(PREPARED_EXAMPLE if backend.prepare else EXAMPLE)!r} or serve = {SERVE_EXAMPLE!r} beside it"
        return f"{' and '.join(alone)} without a command: {wanted}" if alone else ""
    key = "command" if backend.serve is None else "serve"
    if backend.python is not None or backend.requirements:
        return f"{key} with python or requirements: a command has no worker of its own Python; leave one of them out"
    if backend.serve is not None and backend.command is not None:
        return "command and serve: a process that serves makes all calls; leave one of them out"
    if backend.serve is not None and backend.tensors is not None:
        return "serve and tensors: its messages hold .npy; leave tensors out"
    problems = [
        _command_problem("version", backend.version, (), ""),
        _command_problem("prepare", backend.prepare, ("model", "artifact"), PREPARE_EXAMPLE),
        _command_problem("serve", backend.serve, (), "", "; the path of each graph comes in a message"),
        _command_problem("command", backend.command, ("model", "inputs", "outputs"), EXAMPLE)
        if backend.prepare is None
        else _command_problem(
            "command", backend.command, ("artifact", "inputs", "outputs"), PREPARED_EXAMPLE, optional="model"
        ),
    ]
    return next(filter(None, problems), "")


def _command_problem(
    key: str, command: str | None, places: tuple[str, ...], example: str, hint: str = "", *, optional: str = ""
) -> str:
    if command is None:
        return ""
    try:
        words = shlex.split(command)
        parts = [part for word in words for part in string.Formatter().parse(word) if part[1] is not None]
        named = {f"{place}{spec}{conversion or ''}" for _, place, spec, conversion in parts}
    except ValueError as error:
        return f"{key} = {command!r} cannot be read: {error}; quote words as in a shell, write a brace as {{{{ or }}}}"
    if not words:
        return f"{key} is empty: wanted the words of a command"
    if named - {optional} != set(places):
        wanted = " and ".join(f"{{{place}}}" for place in places) or "no word in braces"
        unknown = ", ".join(f"{{{place}}}" for place in sorted(named - {*places, optional}))
        return (
            f"{key} = {command!r}: wanted {wanted}{f', as in {example!r}' if example else ''}{hint}"
            f"{f'; there is no {unknown} here' if unknown and places else ''}"
        )
    return ""


def table_name(backend: str) -> str:
    """Return the heading of a backend's table in the settings: "[backends.torch]", quoted where TOML wants it."""
    bare = backend.replace("-", "").replace("_", "").isalnum()
    return f"[backends.{backend}]" if bare else f'[backends."{backend}"]'


def _with_near_key(message: str) -> str:
    unknown = re.search(r"unknown field `([^`]*)`(.*)", message)
    if not unknown:
        return message
    struct = BackendConfig if "backends" in unknown[2] else LintConfig if "lint" in unknown[2] else _Table
    return f"unknown key {unknown[1]!r}{unknown[2]}{near(unknown[1], list(struct.__struct_fields__))}"
