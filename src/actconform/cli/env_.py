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
    """List the environments, the last used first: key, requirements, what each has itself, size, last use."""
    all_ = stored_environments()
    if as_json:
        sys.stdout.buffer.write(
            msgspec.json.format(msgspec.json.encode([_fields(one) for one in all_]), indent=1) + b"\n"
        )
        return 0
    for one in all_:
        say(_line(one))
    say(f"{len(all_)} in {environments_folder()}")
    return 0


@command.command("prune")
@click.option("--days", default=KEPT_DAYS, show_default=True, type=click.IntRange(0), help="Keep what was used since.")
@click.option("--all", "everything", is_flag=True, help="Remove all.")
def prune_(days: int, everything: bool) -> int:
    """Remove the environments that were not used for some days, and what is left of builds that were killed."""
    for one in prune(-1.0 if everything else days * DAY):
        say(f"removed {one.folder.name}  {_requirements(one)}")
    return 0


def _line(one: Environment) -> str:
    has = ", ".join(f"{name} {version}" for name, version in one.about.packages.items()) if one.about else ""
    used = datetime.fromtimestamp(one.used, UTC).strftime("%Y-%m-%d")
    return (
        f"{one.folder.name}  {_requirements(one)}  ({has or 'nothing of its own'})  {_size(one) >> 20} MiB  used {used}"
    )


def _requirements(one: Environment) -> str:
    return ", ".join(one.about.requirements) if one.about else "not whole"


def _fields(one: Environment) -> dict[str, Any]:
    about = msgspec.to_builtins(one.about) if one.about else {}
    return {"key": one.folder.name, "folder": str(one.folder), **about, "bytes": _size(one), "used": one.used}


def _size(one: Environment) -> int:
    return sum(path.lstat().st_size for path in one.folder.rglob("*") if path.is_file())
