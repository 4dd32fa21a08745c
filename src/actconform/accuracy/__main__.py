"""`make accuracy`: measure the primitives of frameworks and runtimes; print tables, or text for a register of causes."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform.accuracy.library import AccuracyRequest, MeasuredLibrary, measure_library
from actconform.accuracy.points import DTYPES, POINTS
from actconform.accuracy.primitives import PRIMITIVES
from actconform.accuracy.statement import merged, table, toml
from actconform.errors import near
from actconform.files import read_bytes
from actconform.plugin.loader import load_plugins
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.plugin.interfaces import Backend

FEWEST = 20_000
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("backends", nargs=-1, metavar="[BACKEND]...")
@click.option("--primitive", "primitives", multiple=True, type=click.Choice(tuple(PRIMITIVES)), help="Only this one.")
@click.option("--dtype", "dtypes", multiple=True, type=click.Choice(tuple(DTYPES)), help="Only this one.")
@click.option(
    "--points", default=POINTS, show_default=True, type=click.IntRange(FEWEST), help="float32 inputs of each."
)
@click.option("--exhaustive", is_flag=True, help="Ask all float32 patterns: minutes for each primitive.")
@click.option(
    "--merge", multiple=True, type=FILE, metavar="FILE", help="Take in what --json wrote; measure only BACKENDs."
)
@click.option("--json", "json_file", type=FILE, help="Write all figures there.")
@click.option("--toml", "as_toml", is_flag=True, help="Print [[library]] tables for a causes.toml instead.")
def main(  # noqa: PLR0913, PLR0917  one parameter an option
    backends: tuple[str, ...],
    primitives: tuple[str, ...],
    dtypes: tuple[str, ...],
    points: int,
    exhaustive: bool,
    merge: tuple[Path, ...],
    json_file: Path | None,
    as_toml: bool,
) -> None:
    """Measure the primitives that BACKENDs compute activations with, by default all that show theirs, a process each.

    Exit code 1 where one of them does not run here.
    """
    vector = AccuracyRequest(primitives or tuple(PRIMITIVES), dtypes or tuple(DTYPES), None if exhaustive else points)
    chosen = _chosen(backends, measuring=bool(backends) or not merge)
    measured = [_read(path) for path in merge]
    absent = 0
    for name, answer in _answers(chosen, vector):
        if isinstance(answer, str):
            click.echo(f"{name}: {one_line(answer)}", err=True)
            absent += 1
        else:
            measured.append([answer])
    libraries = merged(each for several in measured for each in several)
    for library in libraries:
        click.echo(toml(library) if as_toml else table(library))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(libraries), indent=1) + b"\n")
    sys.exit(1 if absent else 0)


def _chosen(names: tuple[str, ...], *, measuring: bool) -> dict[str, type[Backend]]:
    """Return the backends of these names, by default all, that have a library of their own; raise UsageError for others."""
    backends = load_plugins().backends
    # One that inherits it would be measured as the other.
    showing = {name: backend for name, backend in backends.items() if "library" in vars(backend)}
    for name in names:
        if name not in backends:
            raise click.UsageError(f"there is no backend {name!r}{near(name, list(showing))}")
        if name not in showing:
            raise click.UsageError(f"{name} shows no primitives of its own: choose from {', '.join(showing)}")
    return {name: showing[name] for name in names or (showing if measuring else ())}


def _answers(chosen: dict[str, type[Backend]], vector: AccuracyRequest) -> Iterator[tuple[str, MeasuredLibrary | str]]:
    """Yield each backend's name with what was measured, or why not. One is measured here, several in a process each."""
    if len(chosen) == 1:
        ((name, backend),) = chosen.items()
        yield name, measure_library(backend, vector)
        return
    for name, backend in chosen.items():
        # Two frameworks in one process change each other's settings of the processor.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                yield name, pool.submit(measure_library, backend, vector).result()
            except BrokenProcessPool:
                yield name, "its process ended before it was done"


def _read(path: Path) -> list[MeasuredLibrary]:
    try:
        return msgspec.json.decode(read_bytes(path), type=list[MeasuredLibrary])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.UsageError(f"--merge {path}: {error}; wanted a file that --json wrote") from error


if __name__ == "__main__":
    main()
