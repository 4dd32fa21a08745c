"""`actconform check`: whether runtimes compute a user's own model as rounding allows, and if not, where and whose fault it is."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np
from msgspec.structs import replace

from actconform.checking.draw import parsed_range
from actconform.checking.float16 import as_float16, conversion_note, overflowing_weights
from actconform.checking.gradients import add_cotangents, difference_note, with_gradients
from actconform.checking.inputs import write_sample
from actconform.checking.model_check import check_model
from actconform.checking.open_runtime import open_runtime
from actconform.checking.samples import draw_user_samples, read_user_samples
from actconform.checking.source import read_source
from actconform.errors import Unsupported, UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.check.check_json import CHECK, write_json
from actconform.report.check.node_data import NODE_DATA, write_node_data
from actconform.report.check.page import PAGE, write_page
from actconform.report.issue.from_check import MINIMAL, attach
from actconform.report.terminal.check_progress import CheckProgress
from actconform.report.terminal.check_screen import print_check
from actconform.report.terminal.console import open_console
from actconform.say import say
from actconform.settings import read_config
from actconform.text import one_line
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

    from actconform.checking.model_check import CheckedSample
    from actconform.checking.result import CheckResult
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source

DEFAULT_RUNTIME = "ort-cpu"


@click.command("check")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--inputs", type=click.Path(path_type=Path), help="Inputs: .npz, .npy, a folder of them, test_data_set_0."
)
@click.option(
    "--reference", type=click.Path(path_type=Path), help="Outputs saved elsewhere for --inputs, as .npz or .npy."
)
@click.option("--range", "ranges", multiple=True, help="Values of an input that is drawn: x=0:255 (repeatable).")
@click.option("--samples", type=click.IntRange(1, 1000), help="How many inputs are drawn (default: one for each size).")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of what is drawn.")
@click.option("--runtime", "runtimes", multiple=True, help="ort-cpu (default), openvino, ort-cpu@1.26 (repeatable).")
@click.option("--gradients", is_flag=True, help="Check the gradients of the model too.")
@click.option("--dtype", type=click.Choice(["f16"]), help="Check the model converted to float16.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("actconform-check"), show_default=True)
@click.option("--html", is_flag=True, help="Write a page: every layer's error against its bound.")
@click.option("--json", "as_json", is_flag=True, help="Print check.json instead of the screen.")
@click.option("--minimize", is_flag=True, help="Cut what differs to the smallest model, with a program that shows it.")
@click.option("--max-memory", type=click.FloatRange(min=0.01), help="In GiB (default: what the machine has available).")
@click.option("--timeout", type=click.FloatRange(min=1.0), help="Seconds that a call of a runtime may take.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings (default: ./actconform.toml).")
def command(**arguments: Any) -> int:
    """Tell whether runtimes compute MODEL, an ONNX file, as rounding allows.

    The truth is the graph in float64. Each output is held against how far rounding moves it, and each node against an error bound
    given what it read: the first node that rounding does not explain is named, with whose fault it is.

    Exit code 0: rounding explains every answer; 1: it does not; 2: wrong usage, or a file that cannot be read.
    """
    options = _Options(**arguments)
    _expect_consistent(options)
    config = read_config(options.config_path)
    catalog = configured(load_plugins(), config)
    source = read_source(options.model, max_memory=options.memory)
    with ExitStack() as stack:
        runtimes = [
            stack.enter_context(open_runtime(name, catalog, config, _say_aside, timeout=options.timeout))
            for name in dict.fromkeys(options.runtimes or (DEFAULT_RUNTIME,))
        ]
        progress = stack.enter_context(CheckProgress(open_console(to_stderr=True)))
        progress.stage("inputs")
        samples, notes = _samples(options, source, runtimes)
        _make_folder(options.out)
        try:
            checked = _variant(options, source, samples, notes)
            result = check_model(checked, samples, runtimes, progress, seed=None if options.inputs else options.seed)
            notes += _second_looks(options, source, samples[0])
        except (Unsupported, ValueError) as error:
            raise UsageError(f"{one_line(str(options.model))} cannot be evaluated: {one_line(str(error))}") from error
        result = replace(result, notes=(*result.notes, *notes))
        wrote, unwritten = _write(options, result, checked, samples)
        if options.as_json and not unwritten:
            sys.stdout.buffer.write((options.out / CHECK).read_bytes())
        screen = open_console(to_stderr=options.as_json)
        print_check(screen, result, wrote)
        if unwritten:
            raise unwritten
        if options.minimize:
            progress.stage("minimizing")
            say(_minimal(options, result, samples, runtimes), err=options.as_json)
    return 0 if result.explained else 1


class _Options(NamedTuple):
    """The command line."""

    model: Path
    inputs: Path | None
    reference: Path | None
    ranges: tuple[str, ...]
    samples: int | None
    seed: int
    runtimes: tuple[str, ...]
    gradients: bool
    dtype: str | None
    out: Path
    html: bool
    as_json: bool
    minimize: bool
    max_memory: float | None
    timeout: float | None
    config_path: Path | None

    @property
    def memory(self) -> int | None:
        """Bytes that a check may take."""
        return None if self.max_memory is None else int(self.max_memory * 2**30)


def _expect_consistent(options: _Options) -> None:
    """Raise UsageError for options that do not go together."""
    if options.inputs is not None and (options.ranges or options.samples):
        raise UsageError("--range and --samples are for inputs that are drawn: leave them out, or leave out --inputs")
    if options.reference is not None and options.inputs is None:
        raise UsageError("--reference has the outputs for certain inputs: give these with --inputs")
    if options.reference is not None and (options.gradients or options.dtype):
        raise UsageError("--reference has outputs of the model as it is: leave out --gradients and --dtype")
    if not str(options.out).strip("."):
        raise UsageError("--out is empty: name a folder for check.json")
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {one_line(str(options.out))}: is a file: name a folder")


def _say_aside(text: str) -> None:
    say(text, err=True)


def _samples(
    options: _Options, source: Source, runtimes: Sequence[RuntimeRuns]
) -> tuple[list[CheckedSample], list[str]]:
    """Return the user's samples, or drawn ones, and notes about them."""
    if options.inputs is not None:
        return read_user_samples(options.inputs, source, options.reference, options.memory)
    ranges = dict(map(parsed_range, options.ranges))
    drawn = draw_user_samples(
        source, runtimes, seed=options.seed, count=options.samples, ranges=ranges, max_memory=options.memory
    )
    return drawn, []


def _forward(options: _Options, source: Source) -> onnx.ModelProto:
    return as_float16(source.model) if options.dtype else source.model


def _variant(options: _Options, source: Source, samples: Sequence[CheckedSample], notes: list[str]) -> Source:
    """Return what is checked: the model, converted or with gradients where that is asked for; samples follow it."""
    model = _forward(options, source)
    if options.dtype:
        if beyond := overflowing_weights(source.model):
            notes.append(f"weights with values beyond float16, which become infinite: {', '.join(beyond[:5])}")
        for sample in samples:
            sample.inputs = {
                name: array.astype(np.float16) if array.dtype == np.float32 else array
                for name, array in sample.inputs.items()
            }
    if options.gradients:
        for sample in samples:
            sample.inputs = add_cotangents(model, sample.inputs, options.seed)
        model = with_gradients(model)
    return source if model is source.model else source.with_model(model)


def _second_looks(options: _Options, source: Source, sample: CheckedSample) -> list[str]:
    """Return what says whether a converted model, or gradients, are those of the model itself."""
    notes = []
    if options.dtype:
        inputs = {name: array for name, array in sample.inputs.items() if name in source.inputs}
        notes.append(conversion_note(source.model, inputs, sample.graph.truth))
    if options.gradients:
        notes.append(difference_note(_forward(options, source), sample.graph, sample.inputs))
    return notes


def _make_folder(folder: Path) -> None:
    """Make the folder of a check. Raises UsageError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {one_line(str(folder))}: cannot be written: {error.strerror}") from error


def _remove_earlier(options: _Options) -> None:
    """Take out of the folder what an earlier check wrote, but for what this one reads: its model, its inputs. Raises OSError."""
    read = [path.resolve() for path in (options.model, options.inputs, options.reference) if path is not None]
    earlier = [options.out / name for name in (CHECK, PAGE, NODE_DATA, MINIMAL)]
    earlier += [folder for folder in options.out.glob("test_data_set_*") if any(folder.glob("input_*.pb"))]
    for path in earlier:
        if any(kept.is_relative_to(path.resolve()) for kept in read):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write(
    options: _Options, result: CheckResult, source: Source, samples: Sequence[CheckedSample]
) -> tuple[list[str], OSError | None]:
    """Write the files of a check; return their names, and the first error, which names its file."""
    written: dict[Path, Callable[[], object]] = {options.out / CHECK: lambda: write_json(result, options.out)}
    for i, sample in enumerate(samples if options.inputs is None else ()):
        folder = options.out / f"test_data_set_{i}"
        written[folder] = partial(write_sample, folder, sample.inputs, source)
    if options.html:
        written[options.out / PAGE] = lambda: write_page(result, options.out)
        written[options.out / NODE_DATA] = lambda: write_node_data(result, options.out)
    names: list[str] = []
    for path, write in written.items():
        try:
            if not names:
                _remove_earlier(options)
            write()
        except OSError as error:
            return names, OSError(error.errno, error.strerror, str(path))
        names.append(str(path))
    return names, None


def _minimal(
    options: _Options, result: CheckResult, samples: Sequence[CheckedSample], runtimes: Sequence[RuntimeRuns]
) -> str:
    """Cut the first fault of a runtime out of the model; return what was written, or why nothing was."""
    for runs in runtimes:
        checked = next((runtime for runtime in result.runtimes if runtime.name == runs.name), None)
        if checked is not None and checked.fault is not None:
            attach(result, checked.fault, samples[checked.fault.sample], runs, options.out)
            return f"WROTE    {options.out / MINIMAL}: model.onnx, test_data_set_0, repro.py, issue.md"
    if result.explained:
        return "--minimize: rounding explains every answer, there is nothing to cut out"
    return "--minimize: no runtime has a fault of its own that could be cut out of the model"
