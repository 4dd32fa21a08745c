"""`actconform blame --model`: which package of two lock files brings outputs of a model that rounding does not explain."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actconform.checking.checked_sample import output_check
from actconform.checking.difference import OutputDifference, output_difference
from actconform.checking.draw import parsed_range
from actconform.checking.model_check import evaluate
from actconform.checking.open_runtime import open_runtime, runtime_backend
from actconform.checking.result import OutputCheck  # noqa: TC001  msgspec reads annotations
from actconform.checking.runs import RunFailure
from actconform.checking.samples import draw_user_samples, read_user_samples
from actconform.checking.source import read_source
from actconform.cli import announced
from actconform.errors import NoEnvironmentError, Unsupported, UsageError
from actconform.plugin.loader import load_plugins
from actconform.report.across_runs.bisect_packages import Bump, Target, bisect, with_versions
from actconform.report.check.summary import name_shown, number_shown, output_words
from actconform.report.terminal.check_progress import CheckProgress
from actconform.report.terminal.console import open_console
from actconform.say import say
from actconform.settings import BackendConfig
from actconform.text import listed, number_of, one_line
from actconform.types import Result, Verdict
from actconform.types.json import finite
from actconform.workers.environments import is_installed
from actconform.workers.from_settings import configured
from actconform.workers.lock_files import read_lock_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.model_file import ModelFile
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.plugin.interfaces import Backend
    from actconform.plugin.loader import Catalog
    from actconform.report.across_runs.bisect_packages import Answer
    from actconform.settings import Config
    from actconform.types.case import Bundle

DEFAULT_RUNTIME = "ort-cpu"
OUTPUTS_SHOWN = 12
NAMES_SHOWN = 12


class ModelOptions(NamedTuple):
    """What of a model runs where, as `check` has it."""

    model: Path
    runtime: str | None
    inputs: Path | None
    ranges: tuple[str, ...]
    seed: int | None


class _Packages(NamedTuple):
    """The packages of two lock files: those of the runtime's process that changed, those that compute and did not, others in words."""

    changed: tuple[Bump, ...]
    unchanged: tuple[str, ...]
    not_tried: tuple[str, ...]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What the model gave in one environment: its outputs against the truth, or why it gave none."""

    versions: dict[str, str]
    outputs: list[OutputCheck] = []
    failure: str = ""

    @property
    def explained(self) -> bool:
        """Whether it gave outputs, all of which rounding explains."""
        return not self.failure and all(output.explained for output in self.outputs)


def blame_on_model(old: Path, new: Path, options: ModelOptions, config: Config, *, as_json: bool) -> int:
    """Print which packages bring outputs that rounding does not explain, or put them right; return the exit code.

    0: rounding explains the outputs with the new versions, or the packages are named; 1 otherwise.
    """
    catalog = configured(announced(load_plugins()), config)
    name = options.runtime or DEFAULT_RUNTIME
    backend = runtime_backend(name, catalog)
    if name not in catalog.backends and name.partition("@")[2] not in backend.variants:
        raise UsageError(f"{name}: the lock files say which versions run; name the runtime, {backend.name}")
    packages = _packages(old, new, backend)
    source = read_source(options.model)
    with ExitStack() as stack:
        progress = stack.enter_context(CheckProgress(open_console(to_stderr=True)))
        environments = _Environments(name, packages, catalog, config)
        with environments.opened(packages.changed) as runs:
            samples = _samples(options, source, runs)
            try:
                file = evaluate(source, samples, [runs], progress, stack)
            except (Unsupported, ValueError) as error:
                raise UsageError(
                    f"{one_line(str(options.model))} cannot be evaluated: {one_line(str(error))}"
                ) from error
            environments.load(file, samples)
            environments.ask(runs, packages.changed)
        blamed = _Blamed(name, packages, environments)
    if as_json:
        print_json(blamed.document())
    else:
        for line in blamed.lines():
            say(line)
    return blamed.exit_code


class _Environments:
    """The environments of the versions of packages, and what the model gives in each, which runs once."""

    def __init__(self, runtime: str, packages: _Packages, catalog: Catalog, config: Config) -> None:
        self._runtime, self._packages, self._catalog, self._config = runtime, packages, catalog, config
        self._answers: dict[frozenset[Bump], tuple[Answered, list[Bundle]]] = {}

    def load(self, file: ModelFile, samples: Sequence[CheckedSample]) -> None:
        """Take the model and its samples with their truth, as `evaluate` leaves them."""
        self._file, self.samples = file, samples

    def opened(self, new: Iterable[Bump]) -> RuntimeRuns:
        """Return the runtime with these packages new and all others old; raise NoEnvironmentError where it cannot run so."""
        packages, chosen = self._packages, frozenset(new)
        worker = self._runtime if self._runtime in self._catalog.backends else self._runtime.partition("@")[0]
        settings = self._config.backends.get(worker, BackendConfig())
        pinned = {canonicalize_name(Requirement(text).name) for text in packages.unchanged}
        others = [text for text in settings.requirements if canonicalize_name(Requirement(text).name) not in pinned]
        needed = [text for text in packages.unchanged if settings.python or not is_installed(text)]
        settings = with_versions(
            msgspec.structs.replace(settings, requirements=(*others, *needed)), packages.changed, chosen
        )
        config = msgspec.structs.replace(self._config, backends={**self._config.backends, worker: settings})
        runs = open_runtime(self._runtime, self._catalog, config, partial(say, err=True))
        facts = runs.start()
        if isinstance(facts, RunFailure):
            runs.close()
            versions = ", ".join(f"{package} {version}" for package, version in self._versions(chosen).items())
            raise NoEnvironmentError(f"{self._runtime} with {versions}: {one_line(facts.message)}")
        return runs

    def answered(self, new: Iterable[Bump]) -> tuple[Answered, list[Bundle]]:
        """Return what the model gives with these packages new: the verdicts, and the outputs of each sample."""
        chosen = frozenset(new)
        if chosen not in self._answers:
            with self.opened(chosen) as runs:
                self.ask(runs, chosen)
        return self._answers[chosen]

    def ask(self, runs: RuntimeRuns, new: Iterable[Bump]) -> None:
        """Keep what the model gives in a runtime that was opened with these packages new."""
        answers = runs.outputs_of_all(self._file, [sample.inputs for sample in self.samples])
        failure = next((answer.failure for answer in answers if answer.failure), None)
        outputs = [
            output_check(sample, i, name, array)
            for i, (sample, answer) in enumerate(zip(self.samples, answers, strict=True))
            for name, array in answer.outputs.items()
        ]
        reason = f"{failure.kind}: {one_line(failure.message)}" if failure else ""
        answered = Answered(versions=self._versions(frozenset(new)), outputs=outputs, failure=reason)
        self._answers[frozenset(new)] = answered, [dict(answer.outputs) for answer in answers]

    def _versions(self, new: frozenset[Bump]) -> dict[str, str]:
        return {package.fact: package.after if package in new else package.before for package in self._packages.changed}


class _Blamed:
    """Which packages make the difference between the old and the new versions, and how far outputs lie apart."""

    def __init__(self, runtime: str, packages: _Packages, environments: _Environments) -> None:
        everything = frozenset(packages.changed)
        self._packages = packages
        self._new, after = environments.answered(everything)
        self._old, before = environments.answered(())
        self.repaired = self._new.explained and not self._old.explained
        self.answers: list[Answer] = []
        if self._new.explained != self._old.explained:
            target = Target("model", verdict=Verdict.FAIL)

            def again(_: Sequence[str], new: frozenset[Bump]) -> Mapping[str, Result]:
                answered, _arrays = environments.answered(everything - new if self.repaired else new)
                verdict = Verdict.PASS if answered.explained else Verdict.FAIL
                result = Result(case="model", subject="model", aspect="value", dtype="", route=runtime, verdict=verdict)
                return {"model": result}

            self.answers = bisect([target], lambda _: everything, again)
        self.differences = (
            [] if self._new.failure or self._old.failure else list(_differences(environments.samples, before, after))
        )

    @property
    def exit_code(self) -> int:
        return 0 if self._new.explained or any(answer.packages for answer in self.answers) else 1

    def document(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "answers": self.answers,
            "packages": self._packages.changed,
            "not tried": self._packages.not_tried,
            "puts right": self.repaired,
            "old": self._old,
            "new": self._new,
            "differences": self.differences,
        }

    def lines(self) -> Iterator[str]:
        """Yield what a user reads."""
        changed = ", ".join(package.words for package in self._packages.changed)
        yield f"packages that changed: {changed or 'none that the runtime runs with'}"
        for versions, answered in (("old", self._old), ("new", self._new)):
            yield f"with the {versions} versions: {_verdict(answered)}"
            yield from _listed(
                f"{name_shown(output.name)}: {output_words(output)}"
                for output in answered.outputs
                if not output.explained
            )
        yield ""
        yield from self._conclusion()
        if self.differences:
            yield ""
            yield "from the old to the new versions:"
            yield from _listed(map(_difference_words, self.differences))
        failed = dict.fromkeys(text for answer in self.answers for text in answer.not_tried)
        yield from (f"not tried: {text}" for text in (*failed, *self._packages.not_tried))

    def _conclusion(self) -> Iterator[str]:
        if not self.answers:
            yield (
                "rounding explains the outputs with the old and with the new versions"
                if self._new.explained
                else "it is not a matter of these packages: rounding explains neither; `actconform check` tells where it begins"
            )
        for answer in self.answers:
            several = len(answer.packages) > 1
            does = (
                ("put" if several else "puts") + " it right"
                if self.repaired
                else "bring it"
                if several
                else "brings it"
            )
            how = {"alone": ", each alone", "together": ", together"}.get(answer.reason, "") if several else ""
            names = " and ".join(package.words for package in answer.packages)
            yield f"{names} {does}{how}" if names else f"not blamed: {answer.reason}"


def print_json(document: object) -> None:
    """Write a document to standard output as JSON."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(finite(document)), indent=1) + b"\n")


def _samples(options: ModelOptions, source: Source, runs: RuntimeRuns) -> list[CheckedSample]:
    if options.inputs is not None:
        if options.ranges:
            raise UsageError("--range is for inputs that are drawn: leave it out, or leave out --inputs")
        samples, notes = read_user_samples(options.inputs, source, None, None)
        for note in notes:
            say(note, err=True)
        return samples
    ranges = dict(map(parsed_range, options.ranges))
    return draw_user_samples(source, [runs], seed=options.seed or 0, count=None, ranges=ranges, max_memory=None)


def _packages(old: Path, new: Path, backend: type[Backend]) -> _Packages:
    """Return what differs between two lock files, as the processes of a backend see it.

    Raises UsageError where they have no package in common, or none of those that the backend runs with.
    """
    before, after = read_lock_file(old), read_lock_file(new)
    common = before.keys() & after.keys()
    files = f"{one_line(str(old))} and {one_line(str(new))}"
    if not backend.packages:
        raise UsageError(
            f"{backend.name} does not name the packages that compute: no lock file tells what it runs with"
        )
    computing = {canonicalize_name(package) for package in backend.packages}
    process = _required(computing)
    if not common & process:
        of = f"that {backend.name} runs with ({', '.join(backend.packages)} ...) " if common else ""
        raise UsageError(f"{files} have no package {of}in common")
    changed = sorted(package for package in common if before[package] != after[package])
    bumps = tuple(
        Bump(package, before[package], after[package], package, (backend.name,))
        for package in changed
        if package in process
    )
    unchanged = tuple(
        f"{package}=={before[package]}" for package in sorted(common & computing) if package not in changed
    )
    others = [f"{package} {before[package]} -> {after[package]}" for package in changed if package not in process]
    one_sided = [
        f"{package}: a version is in one of the two files alone"
        for package in sorted((before.keys() ^ after.keys()) & process)
    ]
    aside = [f"{listed(others, NAMES_SHOWN)}: {backend.name} does not run with it"] if others else []
    return _Packages(bumps, unchanged, (*one_sided, *aside))


def _required(names: Iterable[str]) -> set[str]:
    """Return packages and all that they require here, by their normalized names; one that is not installed requires nothing."""
    required: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in required:
            continue
        required.add(name)
        try:
            texts = metadata.requires(name) or ()
        except metadata.PackageNotFoundError:
            continue
        waiting += [
            canonicalize_name(requirement.name)
            for requirement in map(Requirement, texts)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    return required


def _differences(
    samples: Sequence[CheckedSample], before: Sequence[Bundle], after: Sequence[Bundle]
) -> Iterator[OutputDifference]:
    """Yield for each output the sample in which it differs most."""
    worst: dict[str, OutputDifference] = {}
    for i, (sample, first, second) in enumerate(zip(samples, before, after, strict=True)):
        for name in first.keys() & second.keys():
            apart = output_difference(name, i, first[name], second[name], sample.graph.types.get(name, 0))
            if name not in worst or _gravity(apart) > _gravity(worst[name]):
                worst[name] = apart
    for name in before[0]:
        if name in worst:
            yield worst[name]


def _gravity(difference: OutputDifference) -> tuple[bool, int, float, int]:
    return bool(difference.reason), difference.nonfinite, difference.relative, difference.differing


def _verdict(answered: Answered) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in answered.versions.items())
    beside = f" ({versions})" if versions else ""
    if answered.failure:
        return f"no outputs{beside}: {answered.failure}"
    unjudged = sum(bool(output.unjudged) for output in answered.outputs)
    aside = f"; {unjudged} not judged" if unjudged else ""
    off = sum(not output.explained for output in answered.outputs)
    total = len(answered.outputs)
    return f"rounding explains {total - off - unjudged} of {number_of(total, 'output')}{aside}{beside}"


def _difference_words(difference: OutputDifference) -> str:
    output = name_shown(difference.output)
    if difference.reason:
        return f"{output}: {difference.reason}"
    if not difference.differing:
        return f"{output}: the same numbers"
    ulp = f"{number_shown(difference.ulp)} ULP, " if difference.ulp else ""
    apart = f", by at most {ulp}{number_shown(difference.relative)} of the largest" if difference.relative else ""
    nonfinite = f", {difference.nonfinite:,} of them NaN or infinite" if difference.nonfinite else ""
    return f"{output}: {difference.differing:,} of {number_of(difference.elements, 'element')} differ{nonfinite}{apart}"


def _listed(lines: Iterable[str]) -> Iterator[str]:
    every = list(lines)
    yield from (f"  {line}" for line in every[:OUTPUTS_SHOWN])
    if len(every) > OUTPUTS_SHOWN:
        yield f"  … and {len(every) - OUTPUTS_SHOWN:,} more"
