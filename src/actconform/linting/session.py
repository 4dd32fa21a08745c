"""One lint as the user asks for it: the source read or exported, rules applied, findings left out, fixes made."""

from __future__ import annotations

import hashlib
import re
import shutil
from contextlib import ExitStack
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

from actconform.checking.inputs import read_samples
from actconform.checking.runs import RunFailure
from actconform.checking.source import read_source
from actconform.checking.trained.beside import example_for
from actconform.checking.trained.exports import chosen_exporters, example_inputs, export_all, signature_source
from actconform.checking.trained.sources import NamedSource, named_source, open_trained
from actconform.errors import UsageError
from actconform.files import temporary_folder
from actconform.linting.linted_model import LintedModel
from actconform.linting.losses import named_loss
from actconform.linting.registry import OWN_RULES, parsed_ignores
from actconform.linting.rules.written_graph import MALFORMED
from actconform.linting.runtime_answers import runtime_answers
from actconform.linting.targets import read_targets
from actconform.linting.unit_statistics import unit_statistics
from actconform.text import number_of, one_line
from actconform.types.lint import SEVERITIES, LintFinding, LintResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.checking.source import Source
    from actconform.checking.trained.runs import TrainedRuns
    from actconform.linting.registry import Ignored
    from actconform.plugin.lint_rule import LintRule
    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.types.lint import LintObservation, TrainingLoss
    from actconform.types.trained import OpenedModel

    Arrays = Mapping[str, NDArray[Any]]

PREFIX = "actconform-lint-"
MOST_OF_A_RULE = 200  # findings
FRAMEWORKS = {"keras": "keras", "torch": "torch", "jax": "jax"}


class LintRequest(NamedTuple):
    """What the user asks for; the fields are those of the command line."""

    source: str
    inputs: Path | None = None
    targets: Path | None = None
    losses: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    exporter: str | None = None
    ignore: tuple[str, ...] = ()
    trust: bool = False
    seed: int = 0
    timeout: float | None = None


class LintedSource(NamedTuple):
    """What came of a lint, and the model that it was of."""

    result: LintResult
    model: LintedModel


class _Subject(NamedTuple):
    """The graph that is linted, and what else is known of it."""

    source: Source
    kind: str
    framework: str = ""
    layers: tuple[str, ...] = ()
    weight_layers: Mapping[str, str] | None = None
    losses: tuple[TrainingLoss, ...] = ()
    exporter: str = ""
    notes: tuple[str, ...] = ()
    read_samples: Callable[[Path], tuple[list[Arrays], list[str]]] | None = None
    """Returns the samples of a file as the graph takes them, and notes about them."""


def lint_source(
    request: LintRequest,
    catalog: Catalog,
    config: Config,
    say: Callable[[str], None] = lambda _: None,
    live: Mapping[str, TrainedRuns] = MappingProxyType({}),
) -> LintedSource:
    """Return the findings of all rules on an ONNX file, or on the graph that an exporter makes of a trained model.

    `live` are models of this process, by the text that names each in the request. Weights of an ONNX file beside it are read only
    where a rule needs their values, or sample inputs are given. Raises UsageError for what the user must change.
    """
    rules = (*OWN_RULES, *catalog.lint_rules)
    ignores = parsed_ignores(config.lint.ignore, rules, f"{one_line(config.path)}: [lint] ignore")
    ignores += parsed_ignores(request.ignore, rules, "--ignore")
    stated = tuple(named_loss(text) for text in request.losses)
    with ExitStack() as stack:
        subject = _subject(request, catalog, config, stack, live)
        targets = read_targets(request.targets, list(subject.source.outputs)) if request.targets else {}
        model = LintedModel(
            subject.source,
            framework=subject.framework,
            layers=subject.layers,
            weight_layers=subject.weight_layers,
            losses=stated or subject.losses,
            targets=targets,
            runtimes=runtime_answers(request.runtimes, subject.source, catalog, config, say, request.timeout),
        )
        notes = list(subject.notes)
        if not model.is_readable:
            notes.append(f"only {MALFORMED.code} is applied: the other rules read nodes as the standard defines them")
        elif request.inputs is not None and subject.read_samples is not None:
            samples, more = subject.read_samples(request.inputs)
            notes += more
            model.units = tuple(unit_statistics(model, samples))
    findings = sorted(rule_findings(rules, model), key=_gravest_first)
    remaining = [finding for finding in findings if not any(ignored.covers(finding) for ignored in ignores)]
    result = LintResult(
        source=one_line(request.source),
        kind=subject.kind,
        graph=_about(subject),
        findings=tuple(remaining),
        ignored=len(findings) - len(remaining),
        notes=tuple(notes),
        not_asked=_not_asked(rules, ignores, request, model) if model.is_readable else {},
    )
    return LintedSource(result, model)


def _not_asked(
    rules: Sequence[LintRule], ignores: Sequence[Ignored], request: LintRequest, model: LintedModel
) -> dict[str, tuple[str, ...]]:
    """Return by option the rules that had nothing to look at as it was not given; but for those that are left out anyway."""
    has = {
        "": True,
        "--loss": bool(model.losses),
        "--targets": bool(model.targets),
        "--inputs": request.inputs is not None,
        "--runtime": bool(model.runtimes),
    }
    left_out = {ignored.code for ignored in ignores if ignored.nodes == "*"}
    codes: dict[str, list[str]] = {}
    for rule in rules if model.is_readable else (MALFORMED,):
        if not has[rule.needs] and rule.code not in left_out:
            codes.setdefault(rule.needs, []).append(rule.code)
    return {option: tuple(group) for option, group in codes.items()}


def _gravest_first(finding: LintFinding) -> tuple[int, str]:
    return SEVERITIES.index(finding.severity), finding.code


def _subject(
    request: LintRequest, catalog: Catalog, config: Config, stack: ExitStack, live: Mapping[str, TrainedRuns]
) -> _Subject:
    named = (
        NamedSource(request.source, "trained", live[request.source].source)
        if request.source in live
        else named_source(request.source, trusted=request.trust)
    )
    if named.kind == "outputs":
        raise UsageError(
            f"{one_line(request.source)}: holds arrays: name a model first, and this with --inputs or --targets"
        )
    if named.trained is None:
        if request.exporter:
            raise UsageError("--exporter is for a trained model, and this is an ONNX file already: leave it out")
        source = read_source(named.path, weights=request.inputs is not None)
        return _Subject(source, "onnx", notes=source.notes, read_samples=partial(_samples, source))
    runs = live.get(request.source) or open_trained(named.trained, catalog, config, stack, timeout=request.timeout)
    return _exported(runs, request, named.trained.kind, stack)


def _exported(runs: TrainedRuns, request: LintRequest, kind: str, stack: ExitStack) -> _Subject:
    """Return the graph of the first exporter that makes one of a trained model."""
    opened = runs.open()
    if isinstance(opened, RunFailure):
        raise UsageError(f"{one_line(request.source)}: {opened.message}")
    exporters = chosen_exporters((request.exporter,) if request.exporter else (), opened)
    if not exporters:
        raise UsageError(
            f"{one_line(request.source)}: no exporter takes {opened.about}: export it, and lint the ONNX file"
        )
    arrays, _ = example_inputs(runs, opened, request.inputs, seed=request.seed, max_memory=None)
    folder = temporary_folder(PREFIX)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    failures = []
    for name in exporters:
        (export,) = export_all(runs, (name,), arrays, folder, lambda _: None)
        if export.source is None:
            failures.append(f"{name}: {one_line(export.failure, 300)}")
            continue
        layers = {spec.name.rpartition(".")[0] for spec in opened.parameters}
        notes = (*opened.notes, *(f"{failure}; linted by the next exporter" for failure in failures))
        framework = FRAMEWORKS.get(opened.framework.partition("-")[0], "")
        source = with_fields(export.source, path=Path(request.source))
        by_weights = None if framework == "torch" else _weight_layers(runs, source)
        return _Subject(
            source,
            kind,
            framework,
            tuple(filter(None, layers)),
            by_weights,
            opened.losses,
            name,
            notes,
            partial(_trained_samples, runs, opened, source),
        )
    raise UsageError(f"{one_line(request.source)}: no exporter makes a graph of it: {'; '.join(failures)}")


def _samples(source: Source, path: Path) -> tuple[list[Arrays], list[str]]:
    saved = read_samples(path, source)
    return [sample.arrays for sample in saved.samples], saved.notes


def _trained_samples(
    runs: TrainedRuns, opened: OpenedModel, source: Source, path: Path
) -> tuple[list[Arrays], list[str]]:
    """Return samples that are named as the trained model names its inputs, as its graph takes them."""
    samples, notes = _samples(signature_source(runs, opened), path)
    return [example_for(source, opened, sample) for sample in samples], notes


def _weight_layers(runs: TrainedRuns, source: Source) -> dict[str, str]:
    """Return for each weight of a graph that has the numbers of one layer's alone, in whatever order, that layer.

    Names of nodes do not tell: an exporter numbers scopes anew, so that the layer "dense" is "dense_1" there.
    """
    parameters = runs.parameters()
    owners: dict[bytes, set[str]] = {}
    for name, array in {} if isinstance(parameters, RunFailure) else parameters.items():
        owners.setdefault(_numbers(array), set()).add(re.split(r"[/.](?=[^/.]*$)", name)[0])
    layers = {}
    for tensor in source.model.graph.initializer:
        owner = (
            owners.get(_numbers(source.array(tensor)), set()) if tensor.data_type == onnx.TensorProto.FLOAT else set()
        )
        if len(owner) == 1:
            layers[tensor.name] = next(iter(owner))
    return layers


def _numbers(array: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.sort(array, axis=None).tobytes()).digest()


def rule_findings(rules: Sequence[LintRule], model: LintedModel) -> Iterable[LintFinding]:
    """Yield what each rule sees in a model, at most MOST_OF_A_RULE of each; where it is malformed, that alone.

    Raises UsageError where a rule of a plugin fails.
    """
    for rule in rules if model.is_readable else (MALFORMED,):
        for place, observation in enumerate(_observations(rule, model)):
            if place == MOST_OF_A_RULE:
                break
            yield LintFinding(
                code=rule.code,
                rule=rule.name,
                severity=observation.severity or rule.severity,
                message=observation.message,
                why=rule.why,
                hint=rule.hint,
                node=observation.node,
                operator=observation.operator,
                layer=observation.layer,
                numbers=observation.numbers,
            )


def _observations(rule: LintRule, model: LintedModel) -> Iterable[LintObservation]:
    """Return what a rule sees; raise UsageError where a plugin's rule fails, naming it."""
    if rule in OWN_RULES:
        return rule.check(model)
    try:
        return list(rule.check(model))
    except Exception as error:
        raise UsageError(
            f"the rule {rule.code} ({rule.name}) of a plugin fails: {type(error).__name__}: {one_line(str(error), 300)}; "
            "tell its author"
        ) from error


def _about(subject: _Subject) -> str:
    model = subject.source.model
    producer = one_line(f"{model.producer_name} {model.producer_version}".strip(), 80)
    maker = f", by {producer}" if producer else ""
    by = f"{subject.exporter}: " if subject.exporter else ""
    return f"{by}opset {subject.source.opset}, {number_of(subject.source.nodes, 'node')}{maker}"
