"""`actconform env`: the environments that requirements of the settings have made."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
import msgspec

from actconform.say import say
from actconform.workers.environments import environments_folder, prune, stored_environments

if TYPE_CHECKING:
    from actconform.workers.environments import Environment

DAY = 86_400.0
KEPT_DAYS = 30


@click.group("env", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Environments of other versions: made where `[backends.NAME]` has requirements, or by `actconform blame`."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all fields.")
def list_(as_json: bool) -> int:
    """List the environments, the last used first: key, requirements, own packages, size, last use."""
    environments = stored_environments()
    if as_json:
        sys.stdout.buffer.write(
            msgspec.json.format(msgspec.json.encode([_fields(environment) for environment in environments]), indent=1)
            + b"\n"
        )
        return 0
    for environment in environments:
        say(_line(environment))
    say(f"{len(environments)} in {environments_folder()}")
    return 0


@command.command("prune")
@click.option("--days", default=KEPT_DAYS, show_default=True, type=click.IntRange(0), help="Keep what was used since.")
@click.option("--all", "everything", is_flag=True, help="Remove all.")
def prune_(days: int, everything: bool) -> int:
    """Remove the environments that were not used for some days, and the remains of killed builds."""
    for environment in prune(-1.0 if everything else days * DAY):
        say(f"removed {environment.folder.name}  {_requirements(environment)}")
    return 0


def _line(environment: Environment) -> str:
    has = (
        ", ".join(f"{name} {version}" for name, version in environment.about.packages.items())
        if environment.about
        else ""
    )
    used = datetime.fromtimestamp(environment.used, UTC).strftime("%Y-%m-%d")
    return f"{environment.folder.name}  {_requirements(environment)}  ({has or 'nothing of its own'})  {_size(environment) >> 20} MiB  used {used}"


def _requirements(environment: Environment) -> str:
    return ", ".join(environment.about.requirements) if environment.about else "incomplete"


def _fields(environment: Environment) -> dict[str, Any]:
    about = msgspec.to_builtins(environment.about) if environment.about else {}
    return {
        "key": environment.folder.name,
        "folder": str(environment.folder),
        **about,
        "bytes": _size(environment),
        "used": environment.used,
    }


def _size(environment: Environment) -> int:
    return sum(path.lstat().st_size for path in environment.folder.rglob("*") if path.is_file())
