"""`actconform list`: the kernels, models, experiments, backends, routes, cases and deviations."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

from actconform.cli import announced
from actconform.plugin.loader import load_plugins
from actconform.run.select import all_cases, routes
from actconform.say import say
from actconform.settings import read_config
from actconform.text import number_of
from actconform.types.json import finite
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from actconform.plugin.loader import Catalog

KINDS = ("kernels", "models", "experiments", "backends", "routes", "cases", "deviations")


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all fields.")
def command(kind: str, as_json: bool) -> int:
    """List what is installed: a line each, or all fields as JSON."""
    catalog = configured(announced(load_plugins()), read_config())
    items = _items(kind, catalog)
    if as_json:
        sys.stdout.buffer.write(
            msgspec.json.format(msgspec.json.encode(finite([full for _, full in items])), indent=1) + b"\n"
        )
        return 0
    for line, _ in items:
        say(line)
    return 0


def _items(kind: str, catalog: Catalog) -> list[tuple[str, Any]]:
    described: dict[str, list[tuple[str, str, Any]]] = {
        "kernels": [(k.name, k.definition, k) for k in catalog.kernels.values()],
        "models": [
            (m.name, f"{number_of(len(m.layers), 'layer')}, {number_of(m.size, 'parameter')}  {m.source}", m)
            for m in catalog.models.values()
        ],
        "experiments": [(e.name, e.about, e) for e in catalog.experiments.values()],
    }
    if kind in described:
        width = max((len(name) for name, _, _ in described[kind]), default=0)
        return [(f"{name:<{width}}  {words}", full) for name, words, full in described[kind]]
    if kind == "backends":
        return [
            (f"{name:<10}  {backend.kind:<9}  {catalog.backend_plugin[name]}", {"name": name, "kind": backend.kind})
            for name, backend in catalog.backends.items()
        ]
    if kind == "routes":
        return [(route, route) for route in routes(catalog)]
    if kind == "cases":
        return [(case.id, case) for case in all_cases(catalog)]
    return [(f"{cause.id}  {cause.reason}", cause) for cause in catalog.register.causes]
