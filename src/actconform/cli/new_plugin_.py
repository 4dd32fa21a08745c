"""`actconform new-plugin`: write the package of a backend, which installs and keeps its contract at once."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform.cli import announced
from actconform.errors import UsageError
from actconform.plugin.loader import installed, load_plugins, plugin_versions
from actconform.plugin.scaffold import distribution, module, write_package
from actconform.run.select import ALL
from actconform.say import say
from actconform.types import DRIVER_EXPORTER

if TYPE_CHECKING:
    from actconform.plugin.loader import Catalog
    from actconform.plugin.scaffold import Kind

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 40
RESERVED = {ALL: "with --backend it means every backend", DRIVER_EXPORTER: "it is the driver's own exporter"}


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["framework", "runtime"]),
    default="framework",
    show_default=True,
    help="A framework builds kernels and models of its own functions; a runtime loads ONNX graphs.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make (default: ./actconform-NAME).")
def command(name: str, kind: Kind, out: Path | None) -> int:
    """Write a package that adds the backend NAME: it installs, keeps the contract, and computes relu until you add more."""
    _refuse_bad(name)
    _refuse_taken(name, announced(load_plugins()))
    folder = out or Path(distribution(name))
    try:
        written = write_package(name, kind, folder)
    except FileExistsError:
        raise UsageError(
            f"{folder} exists already, and nothing was written: remove it, or name another --out"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder} cannot be written: {error.strerror}; name another --out"
        ) from error
    for path in written:
        say(f"wrote {path}")
    say(f"next: pip install -e {os.path.relpath(folder)}; actconform check-plugin {name}")
    return 0


def _refuse_bad(name: str) -> None:
    if name in RESERVED:
        raise UsageError(f"a backend cannot be called {name!r}: {RESERVED[name]}; choose another name")
    if NAME.fullmatch(name) and len(name) <= LONGEST and not name.startswith("actconform-"):
        return
    words = re.findall(r"[a-z0-9]+", name.lower().removeprefix("actconform"))
    better = "-".join(words)[:LONGEST].strip("-").lstrip("0123456789-")
    hint = f"; try {better!r}" if better and better not in RESERVED else ""
    raise UsageError(
        f"a backend cannot be called {name!r}: wanted at most {LONGEST} lower case letters and digits, words joined by "
        f"hyphens, a letter first, without actconform- before it{hint}"
    )


def _refuse_taken(name: str, catalog: Catalog) -> None:
    """Raise UsageError for a name that something installed has: two of the same name cannot be loaded together."""
    owners = [
        *(f"the backend {name} of {plugin}" for backend, plugin in catalog.backend_plugin.items() if backend == name),
        *(
            f"the exporter {name} of {plugin}"
            for exporter, plugin in catalog.exporter_plugin.items()
            if exporter == name
        ),
        *(f"the plugin {name} ({point.value})" for point in installed() if point.name == name),
        *(f"the distribution {package}" for package in plugin_versions() if package.lower() == distribution(name)),
        *([f"the module {module(name)}"] if find_spec(module(name)) else []),
    ]
    if owners:
        raise UsageError(f"{name!r} is taken by {owners[0]}: choose another name, or uninstall that first")
