"""`actconform check`: whether runtimes and frameworks compute a user's own model as rounding allows, and if not, where and whose fault it is."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from msgspec.structs import replace

from actconform.checking.session import CheckRequest, check_graphs, expect_consistent_request
from actconform.checking.trained.sources import named_source
from actconform.cli import _completion, _options
from actconform.errors import UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.check.check_files import check_files, write_smallest
from actconform.report.check.check_json import CHECK
from actconform.report.check.exports import EXPORTS, ExportsResult, collect_exports, write_exports
from actconform.report.check.node_data import NODE_DATA
from actconform.report.check.page import PAGE
from actconform.report.issue.exported_layer import exporter_fault
from actconform.report.issue.from_check import MINIMAL, MINIMAL_EXPORTER
from actconform.report.terminal.check_progress import CheckProgress
from actconform.report.terminal.check_screen import print_check, print_exports
from actconform.report.terminal.console import open_console
from actconform.say import say
from actconform.settings import read_config
from actconform.text import one_line
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from actconform.checking.session import CheckedGraph

COMPARED_ALONE = (
    "NEXT     is it still the model that was trained? --against net:make, model.keras, before.onnx ... tells"
)


@click.command("check")
@click.argument("source")
@click.option(
    "--against",
    "against",
    multiple=True,
    help="The trained model beside it: package.module:factory, .keras, SavedModel, .pt2 ..., another .onnx, or saved outputs (repeatable).",
)
@click.option(
    "--inputs", type=click.Path(path_type=Path), help="Inputs: .npz, .npy, a folder of them, test_data_set_0."
)
@click.option(
    "--reference", type=click.Path(path_type=Path), help="Outputs saved elsewhere for --inputs, as .npz or .npy."
)
@click.option("--range", "ranges", multiple=True, help="Values of an input that is drawn: x=0:255 (repeatable).")
@click.option("--samples", type=click.IntRange(1, 1000), help="How many inputs are drawn (default: one for each size).")
@_options.drawing_seed
@_options.checked_runtimes
@click.option(
    "--exporter",
    "exporters",
    multiple=True,
    shell_complete=_completion.exporters,
    help="Of a trained SOURCE: torch-dynamo, tf2onnx ... (repeatable; default: all that take it).",
)
@click.option("--gradients", is_flag=True, help="Check the gradients of the model too.")
@click.option(
    "--train-mode", "train_mode", is_flag=True, help="Compare in training mode: Dropout and BatchNorm as they train."
)
@click.option("--dtype", type=click.Choice(["f16", "bf16"]), help="Check the model converted to this format.")
@click.option(
    "--autocast", type=click.Choice(["f16", "bf16"]), help="Run the trained model in automatic mixed precision."
)
@click.option(
    "--data", help="A data set to compare over: .npz, .npy, a folder of samples, or module:function that yields them."
)
@click.option("--batch", type=click.IntRange(1), help="Samples of --data at once (default: what the model declares).")
@click.option(
    "--metric", help="Your own over --data: module:function of outputs and sample, or of expected and actual."
)
@click.option("--worst", type=click.IntRange(0, 1000), default=5, show_default=True, help="Samples of --data to keep.")
@_options.trust
@click.option("--out", type=click.Path(path_type=Path), default=Path("actconform-check"), show_default=True)
@click.option("--html", is_flag=True, help="Write a page: every layer's error against its bound.")
@click.option("--json", "as_json", is_flag=True, help="Print check.json instead of the screen.")
@click.option("--minimize", is_flag=True, help="Cut what differs to the smallest model, with a program that shows it.")
@click.option("--max-memory", type=click.FloatRange(min=0.01), help="In GiB (default: what the machine has available).")
@_options.call_timeout
@_options.config
def command(**arguments: Any) -> int:
    """Tell whether SOURCE computes as rounding allows: an ONNX file in runtimes, or a trained model with its exports.

    SOURCE is an ONNX file, package.module:factory (a torch module, Keras or JAX model, with or without example inputs), .keras, a SavedModel,
    .tflite, .pt2 or TorchScript. The truth of a graph is the graph in float64. Each output is held against how far rounding moves it, and each layer
    against an error bound given what it read: the first that rounding does not explain is named, with whose fault it is.

    Exit code 0: rounding explains every answer; 1: it does not; 2: wrong usage, or a file that cannot be read.
    """
    options = _Options(**arguments)
    request = options.request
    expect_consistent_request(request)
    _expect_folder(options)
    config = read_config(options.config_path)
    catalog = configured(load_plugins(), config)
    with ExitStack() as stack:
        progress = stack.enter_context(CheckProgress(open_console(to_stderr=True)))
        graphs = check_graphs(request, catalog, config, progress, _say_aside, partial(_make_folder, options.out))
        stack.callback(graphs.close)
        result = collect_exports(options.source, graphs, partial(_report, options, progress))
    return _conclude(options, result)


class _Options(NamedTuple):
    """The command line."""

    source: str
    against: tuple[str, ...]
    inputs: Path | None
    reference: Path | None
    ranges: tuple[str, ...]
    samples: int | None
    seed: int
    runtimes: tuple[str, ...]
    exporters: tuple[str, ...]
    gradients: bool
    train_mode: bool
    dtype: str | None
    autocast: str | None
    data: str | None
    batch: int | None
    metric: str | None
    worst: int
    trust: bool
    out: Path
    html: bool
    as_json: bool
    minimize: bool
    max_memory: float | None
    timeout: float | None
    config_path: Path | None

    @property
    def request(self) -> CheckRequest:
        """What is checked."""
        options = self._asdict()
        fields = {name: options[name] for name in CheckRequest._fields if name in options}
        return CheckRequest(**fields, config=self.config_path)


def _expect_folder(options: _Options) -> None:
    """Raise UsageError where `--out` is no folder."""
    if not str(options.out).strip("."):
        raise UsageError("--out is empty: name a folder for check.json")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {one_line(str(options.out))}: is a file: name a folder")


def _say_aside(text: str) -> None:
    say(text, err=True)


def _report(options: _Options, progress: CheckProgress, graph: CheckedGraph) -> None:
    """Write the files of one graph and print its screen, or its check.json where it is the only one."""
    folder = options.out / graph.folder
    wrote, unwritten = _write(options, graph, folder)
    if options.as_json and not unwritten and not graph.folder:
        sys.stdout.buffer.write((folder / CHECK).read_bytes())
    print_check(open_console(to_stderr=options.as_json), graph.result, wrote)
    if unwritten:
        raise unwritten
    if graph.result.explained and not (options.as_json or graph.columns or options.against or options.reference):
        say(COMPARED_ALONE)
    if options.minimize:
        progress.stage("minimizing")
        say(_minimal(graph, folder), err=options.as_json)


def _conclude(options: _Options, result: ExportsResult) -> int:
    """Write what came of all exports and print it, where there are any; return the exit code."""
    if all(export.folder or export.failure for export in result.exports):
        named = named_source(options.source)
        result = replace(result, kind=named.trained.kind if named.trained else "")
        write_exports(result, options.out)
        if options.as_json:
            sys.stdout.buffer.write((options.out / EXPORTS).read_bytes())
        print_exports(open_console(to_stderr=options.as_json), result)
    return 0 if result.explained else 1


def _make_folder(folder: Path) -> None:
    """Make the folder of a check. Raises UsageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {one_line(str(folder))}: cannot be written: {error.strerror}") from error


def _remove_earlier(options: _Options, out: Path) -> None:
    """Take out of the folder what an earlier check wrote, but for what this one reads: its model, its inputs. Raises OSError."""
    paths = (Path(options.source), *map(Path, options.against), options.inputs, options.reference)
    read = [path.resolve() for path in paths if path is not None]
    earlier = [out / name for name in (CHECK, PAGE, NODE_DATA, MINIMAL, MINIMAL_EXPORTER)]
    earlier += [folder for folder in out.glob("test_data_set_*") if any(folder.glob("input_*.pb"))]
    for path in earlier:
        if any(kept.is_relative_to(path.resolve()) for kept in read):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write(options: _Options, graph: CheckedGraph, out: Path) -> tuple[list[str], OSError | None]:
    """Write the files of a check; return their names, and the first error, which names its file."""
    names: list[str] = []
    for path, write in check_files(graph, out, inputs=options.inputs is None, html=options.html).items():
        try:
            if not names:
                out.mkdir(parents=True, exist_ok=True)
                _remove_earlier(options, out)
            write()
        except OSError as error:
            return names, OSError(error.errno, error.strerror, str(path))
        names.append(str(path))
    return names, None


def _minimal(graph: CheckedGraph, out: Path) -> str:
    """Cut the first fault of an exporter, and of a runtime, out of the model; return what was written, or why nothing was."""
    lines = [f"WROTE    {folder}: {_listed(folder)}" for folder in write_smallest(graph, out)]
    fault = exporter_fault(graph)
    if fault is not None and not any(MINIMAL_EXPORTER in line for line in lines):
        lines.append("--minimize: neither a layer exported alone nor a part of the graph shows the exporter's fault")
    if lines:
        return "\n".join(lines)
    if graph.result.explained:
        return "--minimize: rounding explains every answer, there is nothing to cut out"
    return "--minimize: no runtime or exporter has a fault of its own that could be cut out of the model"


def _listed(folder: Path) -> str:
    names = ("model.onnx", "test_data_set_0", "inputs.npz", "repro.py", "issue.md")
    return ", ".join(name for name in names if (folder / name).exists())
