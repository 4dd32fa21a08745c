"""`make architectures`: `actconform check` on architectures that nobody tuned to, every export of each, and with faults.

Each check is a process of its own, as its user would start it. Exit code 1 where rounding does not explain an export as it is, where no
exporter takes an architecture, where a limit of time or memory is passed, or where a fault is not told first at its layer with its blame.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec
import numpy as np
import onnx

from actconform.errors import UsageError
from actconform.report.check.check_json import CHECK, read_json
from actconform.report.check.exports import EXPORTS, ExportCheck, ExportsResult
from benchmarks.architecture_faults import INJECTIONS, changed, node_at
from benchmarks.architecture_models import ARCHITECTURES, FAULTY, FOLDER, PAIRS, PLACE, WHEELS, Pair, fetched
from benchmarks.process_tree import Usage, run_measured
from benchmarks.stability import MIDDLE, OLD
from benchmarks.zoo import MUST_BE_EXACT, Row, table
from benchmarks.zoo import PLACE as FAULTY_TENSOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.result import CheckResult, ModelFault
    from benchmarks.architecture_faults import Injection
    from benchmarks.architecture_models import Architecture

INJECTED = "faulty-model"
SECONDS, MOST_BYTES = 30.0, 8 << 30
"""Of a check with a fault; of every check."""

INSTRUCTIONS = {"as the machine is": {}, "AVX2": MIDDLE, "SSE4.1": OLD}
"""Environments of the frameworks; ONNX Runtime takes what the processor has."""


class Checked(NamedTuple):
    """What came of one command: the checks of each graph, what it took, its last words."""

    exports: Sequence[ExportCheck]
    usage: Usage
    words: str


def checked(source: str, *options: str, env: Mapping[str, str] | None = None) -> Checked:
    """Run `actconform check` in a process of its own, in the folder of which `benchmarks` is a package."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "actconform", "check", source, "--out", folder, *options]
        usage, words = run_measured(command, {**os.environ, **(env or {})})
        whole, alone = Path(folder, EXPORTS), Path(folder, CHECK)
        if whole.exists():
            exports = msgspec.json.decode(whole.read_bytes(), type=ExportsResult, strict=False).exports
        else:
            exports = [ExportCheck(result=read_json(alone))] if alone.exists() else []
    return Checked(exports, usage, next(reversed(words.strip().splitlines()), "no result"))


def healthy_rows(
    name: str, source: str, seconds: float, refused: Sequence[str], *options: str, env: Mapping[str, str] | None = None
) -> Iterator[Row]:
    """Yield a line for each export of a model as it is; exporters in `refused` are known not to take it."""
    run = checked(source, *options, env=env)
    took = (f"{run.usage.seconds:.1f} ({run.usage.cpu_seconds:.1f})", f"{run.usage.peak_bytes / 2**20:,.0f}")
    failures = []
    if run.usage.least_seconds > seconds:
        failures.append(f"{run.usage.least_seconds:.0f} s are more than {seconds:.0f}")
    if run.usage.peak_bytes > MOST_BYTES:
        failures.append(f"{run.usage.peak_bytes / 2**30:.1f} GiB are more than {MOST_BYTES / 2**30:.0f}")
    if all(export.result is None for export in run.exports):
        failures.append(next((export.failure for export in run.exports), run.words))
    for export in run.exports or [ExportCheck()]:
        if export.result is None:
            if export.failure and export.exporter not in refused:
                failures.append(f"{export.exporter} failed: {export.failure}")
            cells: tuple[str, ...] = (name, export.exporter, f"refused: {export.failure}"[:120], *("",) * 3)
        else:
            failures += _failures(export.result)
            cells = (name, export.exporter or "the file", *_numbers(export.result))
        yield Row((*cells, *took), "; ".join(failures))
        took, failures = ("", ""), []


def _failures(result: CheckResult) -> Iterator[str]:
    """Yield why a healthy model's check is not as it should be."""
    for column in result.runtimes:
        if column.status != "explained":
            yield f"{column.name}: {column.status} {column.reason} {_told(column.fault)}".strip()
        yield from (f"{column.name}, level {level.name}: {level.failure}" for level in column.levels if level.failure)
    if not any(tensor for column in result.runtimes for level in column.levels for tensor in level.tensors):
        yield "no layer was judged"
    if not any(trained.matches for trained in result.trained):
        yield "no layer was matched"


def _numbers(result: CheckResult) -> tuple[str, ...]:
    matched = {match.layer for trained in result.trained for match in trained.matches}
    missed = {each.layer for trained in result.trained for each in trained.unmatched} - matched
    tensors = [tensor for column in result.runtimes for level in column.levels for tensor in level.tensors]
    return (
        "explained" if result.explained else "not explained",
        f"{len(matched)} of {len(matched) + len(missed)}",
        f"{max((output.spreads for column in result.runtimes for output in column.outputs), default=0.0):.2g}",
        f"{max((tensor.ratio for tensor in tensors), default=0.0):.2g}",
    )


def _told(fault: ModelFault | None) -> str:
    return f"({fault.blame} at {fault.layer or 'no layer'}, {fault.node})" if fault else ""


def exported(name: str, exporter: str, mode: str, folder: Path) -> Path:
    """Return the file that an exporter makes of an architecture, in a process of its own where it is not in `folder` yet.

    Raises ClickException where it fails.
    """
    path = folder / f"{name}.{exporter}.{mode}.onnx"
    if not path.exists():
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.architecture_exports"]
        half_written = path.with_suffix(".part")
        words = [*command, name, exporter, str(half_written), "--mode", mode]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            last = next(reversed(done.stderr.strip().splitlines()), "")
            raise click.ClickException(f"{exporter} could not export {name}: {last}")
        half_written.rename(path)
    return path


def injected_row(injection: Injection, folder: Path) -> Row:
    """Return the line of a fault: found where the first verdict is on its layer, with its blame, within SECONDS."""
    told = (injection.architecture, injection.name, " or ".join(injection.layers), injection.blame)
    try:
        model = onnx.load(exported(injection.architecture, injection.exporter, injection.mode, folder))
        faulty = changed(model, injection)
    except (UsageError, click.ClickException) as error:
        return Row((*told, *("",) * 3), str(error))
    architecture = next(each for each in (*ARCHITECTURES, FAULTY) if each.name == injection.architecture)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "model.onnx")
        onnx.save(faulty, path)
        options, env = ["--against", architecture.source], {}
        if injection.in_runtime:
            options += ["--runtime", f"{INJECTED}@{injection.name}"]
            env[FAULTY_TENSOR] = node_at(model, injection.operator, injection.at).output[0]
        if injection.length:
            options += ["--inputs", str(_longer(model, injection.length, Path(place, "inputs.npz")))]
        run = checked(str(path), *options, env=env)
    result = run.exports[0].result if run.exports else None
    if result is None:
        return Row((*told, *("",) * 3), run.words)
    faults = [column.fault for column in result.runtimes if column.fault]
    if not faults:
        states = ", ".join(f"{column.name} {column.status} {column.reason}".strip() for column in result.runtimes)
        return Row((*told, *("",) * 3), f"not found: {states}")
    failures = list(_wrong(faults, injection))
    if run.usage.least_seconds > SECONDS:
        failures.append(f"{run.usage.least_seconds:.0f} s are more than {SECONDS:.0f}")
    tensor = faults[0].tensor
    ratio = "" if tensor is None else f"{tensor.ratio:,.3g}" if tensor.ratio < MUST_BE_EXACT else "must be exact"
    return Row((*told, faults[0].layer or faults[0].node, ratio, f"{run.usage.seconds:.0f}"), "; ".join(failures))


def _wrong(faults: Sequence[ModelFault], injection: Injection) -> Iterator[str]:
    first = faults[0]
    if not any(_within(first.layer, name) for name in injection.layers):
        yield f"told at {first.layer or 'no layer'} (node {first.node})"
    blames = list(dict.fromkeys(fault.blame for fault in faults))
    if blames != [injection.blame]:
        yield f"blamed on {', '.join(blames)}"


def _within(layer: str, name: str) -> bool:
    """Return whether a layer is the one of that name, in any of its calls, or a function that it calls itself."""
    path, _, function = layer.partition(":")
    return path.partition("#")[0] == name and (bool(path) or bool(function))


def _longer(model: onnx.ModelProto, length: int, path: Path) -> Path:
    """Write whole numbers for each input of the graph, the second axis of another length than it was exported with."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {each.name: generator.integers(0, 100, (2, length)) for each in model.graph.input}
    np.savez(path, **arrays)
    return path


HEALTHY = (
    "architecture", "export", "verdict", "layers matched", "spreads", "error / bound", "s (CPU)", "MiB",
)  # fmt: skip
FOUND = ("architecture", "fault", "must be told at", "blame", "told at", "error / bound", "s")


def document(clean: Sequence[Row], injected: Sequence[Row]) -> str:
    """Return the page about both, in Markdown."""
    failures = [f"- {row.cells[0]}, {row.cells[1]}: {row.failure}" for row in (*clean, *injected) if row.failure]
    failed = "\n".join(["", "## What failed in this run", "", *failures, ""]) if failures else ""
    described = "\n".join(f"- `{each.name}`: {each.what}" for each in ARCHITECTURES)
    return f"""# Architectures beside their exports

Does [`actconform check`](trained.md) accept correct exports of common architectures, and does it find faults at the right layer? This page shows its results on
models in torch, Keras, JAX and transformers, to which nothing in actconform was tuned. `make architectures ARGS='--into docs/architectures.md'` writes it.

Weights are random with a fixed seed; gains, biases and the statistics of BatchNorm are moved away from one and zero.
The last lines are published pairs from the wheels {" and ".join(WHEELS)}: a TorchScript, a SavedModel and a TFLite file, each compared with the
ONNX file of the same wheel.

{described}

## As they are

Each model is exported by every exporter that accepts it. Each graph runs in ONNX Runtime and is compared with the framework; rounding must explain every output.
The columns:

- layers matched: layers, and functions within them, for which a tensor of the graph was identified;
- spreads: the worst error of an output, divided by how far rounding moves it;
- error / bound: the largest ratio over all layers and nodes; above 1 would be a false alarm;
- s (CPU): seconds of the clock, and of the processors, for all exports of a model; MiB: the peak memory of all processes together.

{table(HEALTHY, clean)}

## With a fault

The fault is in the export (blame `exporter`), in the runtime, in its optimizer, or in the framework. The first fault that the check names must be at this layer, or
at a function that the layer calls ("LAYER:FUNCTION"; "" is the model itself), and nothing else may be blamed. The time includes opening the framework.

{table(FOUND, injected)}
{failed}"""


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True, help="Of packages and exports."
)
@click.option("--only", multiple=True, help="Architectures and faults of this name (repeatable).")
@click.option(
    "--instructions", multiple=True, type=click.Choice(list(INSTRUCTIONS)), default=["as the machine is"], help="Sets (repeatable)."
)  # fmt: skip
@click.option("--healthy/--no-healthy", default=True, help="Whether models are checked as they are.")
@click.option("--faults/--no-faults", default=True, help="Whether faults are injected.")
@click.option("--into", type=click.Path(path_type=Path), help="Write both tables into this file.")
def main(
    folder: Path,
    only: tuple[str, ...],
    instructions: tuple[str, ...],
    *,
    healthy: bool,
    faults: bool,
    into: Path | None,
) -> None:
    """Check architectures as they are, and with faults; exit with 1 where something fails."""
    os.environ[PLACE] = str(folder.resolve())
    published = fetched(folder)
    clean: list[Row] = []
    for words in instructions if healthy else ():
        for model in (*ARCHITECTURES, *PAIRS):
            if not only or model.name in only:
                shown = model.name if words == "as the machine is" else f"{model.name}, {words}"
                clean += [_shown(row) for row in _rows(model, shown, published, INSTRUCTIONS[words])]
    (folder / "exports").mkdir(exist_ok=True)
    injected = [
        _shown(injected_row(injection, folder / "exports"))
        for injection in (INJECTIONS if faults else ())
        if not only or injection.name in only or injection.architecture in only
    ]
    failures = [row for row in (*clean, *injected) if row.failure]
    if into is not None:
        into.write_text(document(clean, injected), encoding="utf-8")
    hits = sum(1 for row in injected if not row.failure)
    click.echo(f"{len(clean)} exports; {hits} of {len(injected)} faults told; {len(failures)} failures")
    sys.exit(1 if failures else 0)


def _rows(model: Architecture | Pair, shown: str, published: Path, env: Mapping[str, str]) -> Iterator[Row]:
    if isinstance(model, Pair):
        against = model.against if ":" in model.against else str(published / model.against)
        options = ("--against", against, *model.options)
        return healthy_rows(shown, str(published / model.onnx), model.seconds, (), *options, env=env)
    return healthy_rows(shown, model.source, model.seconds, model.refused, env=env)


def _shown(row: Row) -> Row:
    click.echo(" | ".join(row.cells) + (f"\n    FAILED: {row.failure}" if row.failure else ""))
    return row


if __name__ == "__main__":
    main()
