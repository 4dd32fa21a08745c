"""actconform.toml -> Config. An unknown key is refused, never ignored."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from pathlib import Path

import msgspec

from actconform.deviations import DeviationError, read_deviations
from actconform.types import Deviation  # noqa: TC001  msgspec reads annotations

CONFIG_FILE = "actconform.toml"


class UsageError(Exception):
    """What the user asked for cannot be done: the message says what was wrong, where, and the mend. Exit code 2."""


class BackendConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[backends.NAME]`: another interpreter for its worker, and environment variables set there."""

    python: str | None = None
    env: dict[str, str] = {}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a run. `timeout` is in seconds a case; `require` names routes that must have run.

    Files in `deviations` are relative to the settings' own folder.
    """

    backends: dict[str, BackendConfig] = {}
    threads: int = 1
    timeout: float = 120.0
    out: str = "conform-out"
    require: tuple[str, ...] | None = None
    deviations: tuple[str, ...] = ()


def read_config(path: Path | None = None) -> Config:
    """Return the settings of `path`, or of actconform.toml in the current folder, or the defaults where there is none.

    Raises UsageError naming file and key on bad TOML, an unknown key, a wrong type, or `threads` or `timeout` below 1.
    """
    chosen = path or Path(CONFIG_FILE)
    if path is None and not chosen.exists():
        return Config()
    try:
        config = msgspec.convert(tomllib.loads(chosen.read_text(encoding="utf-8")), Config)
    except OSError as error:
        raise UsageError(f"{chosen}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{chosen}: not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{chosen}: {_with_near_key(str(error))}") from error
    if config.threads < 1 or not 1 <= config.timeout < math.inf:
        raise UsageError(
            f"{chosen}: threads ({config.threads}) and timeout ({config.timeout} s) must be at least 1, and finite"
        )
    for name, backend in config.backends.items():
        words = [*backend.env, *backend.env.values(), *([] if backend.python is None else [backend.python])]
        if (
            backend.python == ""
            or any("\0" in word for word in words)
            or any("=" in key or not key for key in backend.env)
        ):
            raise UsageError(
                f"{chosen}: [backends.{name}]: python or env is no path, name or value that a process can have"
            )
    if not config.out:
        raise UsageError(f"{chosen}: out is empty: name a folder")
    here = chosen.parent
    return msgspec.structs.replace(config, deviations=tuple(str(here / name) for name in config.deviations))


def local_deviations(config: Config) -> tuple[Deviation, ...]:
    """Return the deviations of the files that the settings name; raise UsageError where one cannot be read."""
    found: list[Deviation] = []
    for name in config.deviations:
        try:
            found.extend(read_deviations(Path(name).read_text(encoding="utf-8"), name))
        except OSError as error:
            raise UsageError(
                f"{name}: deviations file named in the settings cannot be read: {error.strerror}"
            ) from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{name}: deviations file named in the settings is not text in UTF-8: {error}") from error
        except DeviationError as error:
            raise UsageError(str(error)) from error
    return tuple(found)


def near(name: str, known: list[str]) -> str:
    """Return "; did you mean A, B?" with the names nearest to `name`, or what is known where none is near."""
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return f"; did you mean {', '.join(matches)}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else ""


def _with_near_key(message: str) -> str:
    unknown = re.search(r"unknown field `([^`]*)`(.*)", message)
    if not unknown:
        return message
    struct = BackendConfig if "backends" in unknown[2] else Config
    return f"unknown key {unknown[1]!r}{unknown[2]}{near(unknown[1], list(struct.__struct_fields__))}"
