"""`make stability`: a fast matrix run again and again; no verdict may change without a changed fact that explains it.

Each run is its own `actconform run`, in its own folder and without the exports that earlier runs kept, under one of SETTINGS:
numbers of threads, capabilities of torch, levels of oneDNN, and TensorFlow with it and without; some of them again, so that
pure repeats are among them.
Exit code 1 where what became of a case differs between two runs that had the same facts.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actconform.plugin.loader import load_plugins
from actconform.run.recorder import REPORT, RESULTS, read_facts, read_results
from actconform.text import number_of, visible
from actconform.types import Route, base_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actconform.types import Result

    Facts = Mapping[str, str]
    JobResult = tuple[str, ...]

# The stated fast matrix, values and gradients in float32. Kernels whose code differs by capability and level, or by the place
# of an element in its array: what oneDNN computes, what is vectorized by hand, NaN and zeros in the vector loop and after it,
# sums over rows. Small models: products and their sums, convolution and pooling, attention with layer normalization. Both
# frameworks natively and the runtime on our graphs; exports of a few, for each costs a second when none is kept.
KERNELS = ("relu", "leaky-relu", "elu", "selu", "gelu-erf", "gelu-tanh", "silu", "mish", "softplus", "sigmoid", "tanh")
ROW_KERNELS = ("softmax", "log-softmax", "max")
MODELS = ("mlp-relu", "image-cnn-sigmoid", "attention-block", "blobs-mlp")
ROUTES = ("torch", "keras", "authored+ort-cpu")
EXPORTED = ("gelu-erf", "mish", "softmax", "mlp-relu", "attention-block")
MATRIX = (
    *(f"{subject}/*/f32/{route}" for subject in (*KERNELS, *ROW_KERNELS, *MODELS) for route in ROUTES),
    *(f"{subject}/*/f32/torch-dynamo+ort-cpu" for subject in EXPORTED),
)

LEAVING_SECONDS = 15.0  # what a run has to end its workers after Ctrl-C
TICK_SECONDS = 1.0


class Setting(msgspec.Struct, frozen=True):
    """What one run is started with: the number of threads, and variables of its environment."""

    threads: int
    env: dict[str, str] = {}

    def __str__(self) -> str:
        """Return the words by which the run is known."""
        words = [f"{name}={value}" for name, value in self.env.items()] or ["as the machine is"]
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {' '.join(words)}"


# TensorFlow's default depends on the processor: ON shows oneDNN where the default is without it, at each level too.
ON, OFF = {"TF_ENABLE_ONEDNN_OPTS": "1"}, {"TF_ENABLE_ONEDNN_OPTS": "0"}
OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", **ON}
MIDDLE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", **ON}
SETTINGS = (
    Setting(1),
    Setting(2),
    Setting(1, OLD),
    Setting(2, OLD),
    Setting(1, MIDDLE),
    Setting(2, MIDDLE),
    Setting(1, ON),
    Setting(1, OFF),
    Setting(1),
    Setting(2),
    Setting(2, OLD),
)
STEERED = {name for setting in SETTINGS for name in setting.env}


class Ran(msgspec.Struct, frozen=True):
    """What a run left: its results by case, and for each line of it the facts by backend, exporting ones too."""

    name: str
    results: dict[str, Result]
    lines: dict[str, dict[str, dict[str, str]]]


class Difference(msgspec.Struct, frozen=True):
    """A case of which two runs say different things; `changed` are the facts that differ between them, none: unexplained."""

    case: str
    runs: tuple[str, str]
    said: tuple[str, str]
    changed: tuple[str, ...] = ()


class _Seen(msgspec.Struct, frozen=True):
    run: str
    facts: Facts
    outcome: JobResult


def differences(runs: Sequence[Ran], sources: Mapping[str, str]) -> list[Difference]:
    """Return what differs, case by case: every other outcome under the same facts, and every one that other facts brought.

    An outcome is the verdict with the classes of findings by tensor; numbers may differ. No fact explains a result that is
    lacking, nor one of a process whose facts are not known. `sources` maps each exporter to the framework that it is run in.
    """
    found: list[Difference] = []
    for case in sorted({case for run in runs for case in run.results}):
        line = _line_of(case, sources)
        seen: list[_Seen] = []
        for run in runs:
            now = _Seen(run.name, _facts(run, line), outcome(run.results.get(case)))
            before = _to_compare(seen, now)
            if before is not None and before.outcome != now.outcome:
                found.append(_difference(case, before, now))
            if now not in seen:
                seen.append(now)
    return found


def _to_compare(seen: Sequence[_Seen], now: _Seen) -> _Seen | None:
    """Return the first with the same facts; else, where this outcome is new, the one of the fewest other facts."""
    same = next((one for one in seen if not _changed(one, now)), None)
    if same is not None or not seen or any(one.outcome == now.outcome for one in seen):
        return same
    return min(seen, key=lambda one: len(_changed(one, now)))


def _difference(case: str, before: _Seen, now: _Seen) -> Difference:
    one, other = set(before.outcome), set(now.outcome)
    said = [
        ", ".join(seen.outcome[:1] + tuple(word for word in seen.outcome[1:] if word not in one & other))
        for seen in (before, now)
    ]
    return Difference(case, (before.run, now.run), (said[0], said[1]), _changed(before, now))


def _line_of(case: str, sources: Mapping[str, str]) -> str:
    """Return the line that a case runs in, by which its facts are kept: its worker, after the framework that exports for it."""
    route = Route.of(case.rpartition("/")[2])
    source = sources.get(base_name(route.exporter))
    return f"{source}+{route.worker}" if source else route.worker


def _facts(run: Ran, line: str) -> Facts:
    by_backend = run.lines.get(line, {})
    return {f"{backend} {name}": value for backend, facts in by_backend.items() for name, value in facts.items()}


def outcome(result: Result | None) -> JobResult:
    """Return what became of a case: its verdict, and the classes of its findings by tensor; numbers are left out."""
    if result is None:
        return ("no result",)
    return (str(result.verdict), *sorted({f"{one.class_} at {one.tensor}" for one in result.findings}))


def _changed(before: _Seen, now: _Seen) -> tuple[str, ...]:
    """Return the facts that differ between two results; none where one is lacking or its facts are, which explain nothing."""
    if not (before.facts and now.facts) or ("no result",) in (before.outcome, now.outcome):
        return ()
    names = sorted(name for name in before.facts.keys() | now.facts if before.facts.get(name) != now.facts.get(name))
    return tuple(f"{name} {before.facts.get(name, 'unknown')} -> {now.facts.get(name, 'unknown')}" for name in names)


def run_once(setting: Setting, name: str, patterns: Sequence[str], folder: Path) -> Ran:
    """Run `actconform run` on the patterns under a setting and return what it left in `folder`, a new one.

    Shows how many results have come where standard error is a terminal. Raises ClickException with the run's own words where
    it made no report; an interrupted one is ended, and waited for.
    """
    folder.mkdir()
    settings = folder / "actconform.toml"
    settings.write_text(f"threads = {setting.threads}\n", encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if key not in STEERED}
    env |= {**setting.env, "ACTCONFORM_CACHE": str(folder / "exports")}
    program = str(Path(sys.executable).with_name("actconform"))
    command = [program, "run", *patterns, "--config", str(settings), "--out", str(folder)]
    with (folder / "log").open("wb") as log:
        # in a session of its own: Ctrl-C is handed on to it once, by `_wait`
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        _wait(process, folder)
    if not (folder / REPORT).exists():
        said = (folder / "log").read_text(encoding="utf-8", errors="replace").strip()
        raise click.ClickException(f"{name} made no report (exit code {process.returncode}):\n{said}")
    return Ran(name, {result.case: result for result in read_results(folder)}, read_facts(folder).lines)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TICK_SECONDS)
            if sys.stderr.isatty():
                results = folder / RESULTS
                count = results.read_bytes().count(b"\n") if results.exists() else 0
                click.echo(f"\r  {count} results\r", nl=False, err=True)
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def say(runs: Sequence[Ran], found: Sequence[Difference]) -> bool:
    """Print what changed with facts, in short, and all that did without; return whether there was none of the latter."""
    explained = Counter(one.changed for one in found if one.changed)
    for changed, count in explained.items():
        click.echo(f"explained: {number_of(count, 'case')}, by {'; '.join(changed)}")
        click.echo("\n".join(f"  {visible(_words(one))}" for one in found if one.changed == changed))
    unexplained = [one for one in found if not one.changed]
    for one in unexplained:
        click.echo(f"UNEXPLAINED: {visible(_words(one))}")
    cases = len({case for run in runs for case in run.results})
    click.echo(
        f"{'NOT STABLE' if unexplained else 'STABLE'}: {number_of(cases, 'case')} in {number_of(len(runs), 'run')}; {number_of(len(unexplained), 'change')} without "
        f"a changed fact, {sum(explained.values())} with one."
    )
    return not unexplained


def _words(one: Difference) -> str:
    return f"{one.case}: {one.said[0]} in {one.runs[0]}; {one.said[1]} in {one.runs[1]}"


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--runs", default=len(SETTINGS), show_default=True, type=click.IntRange(2), help="How many runs.")
def main(patterns: tuple[str, ...], runs: int) -> None:
    """Run PATTERNs (default: the fast matrix) under changing settings; exit with 1 where a verdict changed without a fact."""
    sources = {name: exporter.source for name, exporter in load_plugins().exporters.items()}
    done = []
    with tempfile.TemporaryDirectory(prefix="actconform-") as place:
        for number, setting in enumerate(itertools.islice(itertools.cycle(SETTINGS), runs), 1):
            started = time.perf_counter()
            done.append(run_once(setting, f"run {number}", patterns or MATRIX, Path(place) / str(number)))
            counts = Counter(str(result.verdict) for result in done[-1].results.values())
            words = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
            click.echo(f"run {number}: {setting}: {words}; {time.perf_counter() - started:.0f} s")
    sys.exit(0 if say(done, differences(done, sources)) else 1)


if __name__ == "__main__":
    main()
