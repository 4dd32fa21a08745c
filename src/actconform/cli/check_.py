"""`actconform check`: a user's own model, whether its runtimes compute it as rounding allows, and if not, where and whose fault it is."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actconform.check.draw import draw_samples, parsed_range
from actconform.check.inputs import read_samples
from actconform.check.model_check import CheckedSample, check_model
from actconform.check.model_file import ModelFile
from actconform.check.open_runtime import open_runtime
from actconform.check.result import SampleFacts
from actconform.check.runs import RunFailure
from actconform.check.source import read_source
from actconform.plugin.loader import load_plugins
from actconform.say import say
from actconform.settings import read_config
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.check.draw import Range
    from actconform.check.inputs import InputSample
    from actconform.check.model_check import Progress
    from actconform.check.runs import RuntimeRuns
    from actconform.check.source import Source
    from actconform.types.case import Bundle

DEFAULT_RUNTIME = "ort-cpu"


@click.command("check")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--inputs", type=click.Path(path_type=Path), help="Inputs: .npz, .npy, a folder of them, test_data_set_0.")
@click.option("--range", "ranges", multiple=True, help="Values of an input that is drawn: x=0:255 (repeatable).")
@click.option("--samples", type=click.IntRange(1, 1000), help="How many inputs are drawn (default: one for each size).")
@click.option("--seed", default=0, show_default=True, help="Of what is drawn.")
@click.option("--runtime", "runtimes", multiple=True, help="ort-cpu, openvino, ort-cpu@1.26 ... (repeatable).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("actconform-check"), show_default=True)
@click.option("--max-memory", type=click.FloatRange(min=0.01), help="In GiB (default: what the machine has available).")
@click.option("--timeout", type=click.FloatRange(min=1.0), help="Seconds a call of a runtime may take.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Settings (default: ./actconform.toml).")
@click.option("--html", is_flag=True, help="Write a page: every layer's error against its bound.")
@click.option("--json", "as_json", is_flag=True, help="Print check.json instead of the screen.")
@click.option("--minimize", is_flag=True, help="Cut what differs to the smallest model, with a program that shows it.")
def command(  # noqa: PLR0913, PLR0917  click hands over each option
    model: Path,
    inputs: Path | None,
    ranges: tuple[str, ...],
    samples: int | None,
    seed: int,
    runtimes: tuple[str, ...],
    out: Path,
    max_memory: float | None,
    timeout: float | None,
    config_path: Path | None,
    html: bool,
    as_json: bool,
    minimize: bool,
) -> int:
    """Tell whether runtimes compute MODEL, an ONNX file, as rounding allows.

    The truth is the graph in float64. Each output is held against how far rounding moves it, and each node against an error bound
    given what it read: the first node that rounding does not explain is named, with whose fault it is.

    Exit code 0: rounding explains every answer; 1: it does not; 2: wrong usage or a file that cannot be read.
    """
    memory = None if max_memory is None else int(max_memory * 2**30)
    config = read_config(config_path)
    catalog = configured(load_plugins(), config)
    source = read_source(model, max_memory=memory)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_runtime(name, catalog, config, lambda text: say(text, err=True), timeout=timeout))
            for name in dict.fromkeys(runtimes or (DEFAULT_RUNTIME,))
        ]
        if inputs is not None:
            taken = _read(inputs, source)
        else:
            taken = _drawn(source, opened, seed, samples, dict(parsed_range(text) for text in ranges), memory)
        result = check_model(source, taken, opened, Quiet(), seed=None if inputs else seed)
    for runtime in result.runtimes:
        say(f"{runtime.name}: {runtime.status} {runtime.reason}")
        for output in runtime.outputs:
            say(f"  {output.sample} {output.name} {output.shape} {output.spreads:.3g} {output.unjudged}")
        for level in runtime.levels:
            say(f"  {level.name} {level.marks} {len(level.tensors)} {len(level.unjudged)} {level.loosest:.2g} {level.moved} {level.failure}")
        if runtime.fault:
            say("  " + chr(10).join(("FAULT", runtime.fault.blame, runtime.fault.node, *runtime.fault.evidence)))
    return 0 if result.explained else 1


def _read(path: Path, source: Source) -> list[CheckedSample]:
    """Return the user's own inputs, and say what is remarkable about them."""
    read = read_samples(path, source)
    for note in read.notes:
        say(f"note: {note}", err=True)
    return [_sample(sample, f"{path.name}/{sample.name}" if len(read.samples) > 1 else path.name) for sample in read.samples]


def _sample(sample: InputSample, origin: str, drawn: Mapping[str, str] | None = None) -> CheckedSample:
    shapes = {name: array.shape for name, array in sample.arrays.items()}
    return CheckedSample(sample.arrays, SampleFacts(origin=origin, shapes=shapes, drawn=dict(drawn or {})))


def _drawn(
    source: Source,
    runtimes: Sequence[RuntimeRuns],
    seed: int,
    count: int | None,
    ranges: Mapping[str, Range],
    max_memory: int | None,
) -> list[CheckedSample]:
    """Return inputs drawn from the signature, of sizes that a runtime takes."""
    with ModelFile(source.model) as file:
        usable = next((runs for runs in runtimes if not isinstance(runs.start(), RunFailure)), None)

        def refusal(arrays: Bundle) -> str | None:
            answer = usable.outputs(file, arrays) if usable else None
            return answer.failure.message if answer and answer.failure else None

        drawn = draw_samples(source, seed=seed, count=count, ranges=ranges, accepts=refusal, max_memory=max_memory)
    return [_sample(sample, f"drawn by seed {seed}", sample.words) for sample in drawn]


class Quiet:
    def stage(self, name: str, total: int = 0) -> None:
        pass
    def step(self, count: int = 1) -> None:
        pass
    def outputs(self, runtime: str, outputs: Sequence[object]) -> None:
        pass
