"""`actconform doctor`: what is usable here, what is missing, and how to fix it."""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np
from rich.padding import Padding

from actconform._version import __version__
from actconform.errors import WorkerError
from actconform.machine.cpu import cpu_capability, cpu_features
from actconform.plugin.loader import load_plugins
from actconform.report.terminal.console import open_console, plain
from actconform.run.scheduler import PROCESS_FACTS, facts_of
from actconform.say import say
from actconform.settings import Config, read_config
from actconform.testdata.golden.store import golden_dir
from actconform.testdata.golden.verify import by_folder, verify_folders
from actconform.workers.from_settings import configured, configured_worker, with_environments

if TYPE_CHECKING:
    from actconform.plugin.loader import Catalog

KNOWN_PLUGINS = {
    "actconform-keras": "keras",
    "actconform-torch": "torch",
    "actconform-onnxruntime": "ort",
}  # and the extra that brings it, with what it needs


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """Start every backend and say what it is; exit code 1 where one that needs no GPU, or the goldens, are not usable."""
    config = read_config()
    catalog = configured(load_plugins(), config)
    with ThreadPoolExecutor(len(catalog.backends) or 1) as pool:
        backends = list(pool.map(lambda name: _backend(name, config), catalog.backends))
    report = {
        "actconform": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_capability(),
        "machine": platform.machine(),
        "cpu_features": " ".join(cpu_features()) or "none",
        "subnormals": "kept" if np.float32(1e-40) * np.float32(1.0) != 0 else "flushed",
        "backends": backends,
        "plugins not installed": [
            f'{name}: pip install "actconform[{extra}]"'
            for name, extra in KNOWN_PLUGINS.items()
            if _version(name) is None
        ],
        "broken plugins": [msgspec.to_builtins(broken) for broken in catalog.broken],
        "goldens": _goldens(catalog),
    }
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    else:
        _show(report)
    sick = [b for b in backends if b["problem"] and not catalog.backends[b["backend"]].optional]
    return 1 if sick or report["plugins not installed"] or catalog.broken or report["goldens"] != "verified" else 0


def _backend(name: str, config: Config) -> dict[str, Any]:
    worker = configured_worker(name, with_environments(config, [name], partial(say, err=True)))
    try:
        hello = worker.start()
    except WorkerError as error:
        return {"backend": name, "problem": str(error), "facts": {}, "from": ""}
    finally:
        worker.close()
    return {"backend": name, "problem": hello.unavailable, "facts": facts_of(hello), "from": hello.provider}


def _goldens(catalog: Catalog) -> str:
    folders = by_folder(catalog.provable.values(), catalog.goldens, golden_dir())
    return "; ".join(verify_folders(folders, catalog.provable)) or "verified"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _show(report: dict[str, Any]) -> None:
    console = open_console()
    log = not console.is_terminal

    def show(text: str, indent: int = 0) -> None:
        if log:
            console.print(" " * indent + text, soft_wrap=True)
        else:
            console.print(Padding(text, (0, 0, 0, indent), expand=False))

    show(f"actconform {report['actconform']} · Python {report['python']} · {plain(report['platform'])}")
    show(f"cpu: {plain(report['cpu'])} ({plain(report['cpu_features'])})")
    show(f"subnormals {report['subnormals']}; goldens: {plain(report['goldens'])}")
    for backend in report["backends"]:
        mark = "[red]✗[/]" if backend["problem"] else "[green]✓[/]"
        show(f"{mark} [bold]{plain(backend['backend'])}[/]  {plain(backend['from'])}".rstrip())
        for line in backend["problem"].replace("; ", "\n").splitlines():
            show(plain(line), 4)
        for fact, value in backend["facts"].items():
            if fact in PROCESS_FACTS and value == report[fact]:
                continue  # as the first two lines say
            show(f"{plain(fact)}: {plain(value)}", 4)
    for line in report["plugins not installed"]:
        show(f"[red]✗[/] {plain(line)}")
    for broken in report["broken plugins"]:
        show(f"[red]✗[/] plugin {plain(broken['name'])} ({plain(broken['distribution'])}): {plain(broken['reason'])}")
