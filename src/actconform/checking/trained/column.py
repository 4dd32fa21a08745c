"""A trained model held against a graph: its outputs end to end, its layers in float64 and as it runs, its weights."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from actconform.checking.checked_sample import (
    CheckedSample,
    Progress,
    depends_on_answers,
    judged_samples,
    output_check,
)
from actconform.checking.flatten import wide
from actconform.checking.judge import Judge
from actconform.checking.low_precision import is_low_precision
from actconform.checking.result import LevelCheck, OutputCheck, RuntimeCheck, TensorCheck, TrainedCheck
from actconform.checking.runs import RunFailure
from actconform.checking.trained.backward import backward, forward_part, has_gradients, inputs_of, without_padding_row
from actconform.checking.trained.fault import EXACT, TRAINING, Observations, fault_of_trained
from actconform.checking.trained.layer_matching import in_graph_layout, match_layers
from actconform.checking.trained.model_runs import NATIVE
from actconform.checking.trained.names import arrays_in_graph_layout, arrays_in_trained_layout
from actconform.checking.trained.weights import compare_weights
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE
from actconform.types.trained import RunMode, TrainedRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.flatten import Array, FlatGraph
    from actconform.checking.trained.layer_matching import Matching
    from actconform.checking.trained.model_runs import ModelRuns
    from actconform.checking.trained.names import NamedPair
    from actconform.checking.trained.weights import WeightsComparison
    from actconform.types.trained import OpenedModel


@dataclass
class TrainedColumn:
    """A trained model beside a graph, and which of their tensors are the same."""

    runs: ModelRuns
    source: str
    """As the user names it."""
    inputs: Sequence[NamedPair]
    outputs: Sequence[NamedPair]
    mode: RunMode = NATIVE
    """How it runs in production: the precision that is checked, training mode or not."""
    is_graph: bool = False
    """Whether it is an ONNX file in the role of the trained model."""
    exporter: str = ""
    """That made the graph from it just now; "" for a file of the user."""
    failure: RunFailure | None = None
    """Why it gave no outputs at the first inputs: then it is not run again."""
    notes: list[str] = field(default_factory=list)
    shown: dict[str, Mapping[str, Array]] = field(default_factory=dict)
    """Beside a graph in low precision, by level: the tensors of the graph that it showed on the first sample."""


def check_trained(
    column: TrainedColumn, samples: Sequence[CheckedSample], progress: Progress
) -> tuple[RuntimeCheck, TrainedCheck]:
    """Return the verdict on a trained model as on a runtime, and how its layers and weights lie in the graph.

    `samples` have their truth. A fault of the framework is part of the result.
    """
    return _Check(column, samples, progress).run()


class _Check:
    def __init__(self, column: TrainedColumn, samples: Sequence[CheckedSample], progress: Progress) -> None:
        self._column = column
        self._runs = column.runs
        self._samples = samples
        self._progress = progress
        self._weights: WeightsComparison | None = None
        self._matchings: dict[int, Matching] = {}
        self._exact: list[OutputCheck] = []
        self._layers: list[TrainedRun] = []
        self._notes = list(column.notes)

    def run(self) -> tuple[RuntimeCheck, TrainedCheck]:
        started = time.perf_counter()
        self._progress.stage(f"{self._runs.name}: {self._column.source}")
        opened = self._runs.open()
        column = RuntimeCheck(name=self._runs.name, facts=dict(self._runs.facts), status="failed")
        trained = TrainedCheck(source=self._column.source, framework=self._runs.name)
        if isinstance(opened, RunFailure):
            return replace(column, status="unavailable", reason=opened.message), trained
        trained = replace(trained, about=opened.about)
        outputs = self._column.failure or self._outputs()
        if isinstance(outputs, RunFailure):
            reason = f"{outputs.kind}: {outputs.message}"
            return replace(column, reason=reason, seconds=time.perf_counter() - started), trained
        self._progress.outputs(self._runs.name, outputs)
        levels: list[LevelCheck] = []
        for place in judged_samples(outputs, self._samples):
            levels += self._levels(place, opened)
        if any(has_gradients(sample.inputs) for sample in self._samples):
            outputs += self._gradients(opened)
        observed = Observations(
            self._samples, outputs, self._exact, levels, self._matchings, self._weights, self._layers
        )
        fault = fault_of_trained(self._column, opened, observed)
        judged = not all(output.unjudged for output in outputs) or (
            any(level.tensors for level in levels) and not self._unsteady
        )
        column = replace(
            column,
            status="not explained" if fault or self._mutated else "explained" if judged else "not judged",
            reason=""
            if judged or fault
            else f"nothing of it could be judged: {outputs[0].unjudged if outputs else 'it gave no output'}",
            outputs=outputs,
            levels=levels,
            unsteady=tuple(self._unsteady),
            mutated=tuple(self._mutated),
            fault=fault,
            seconds=time.perf_counter() - started,
        )
        return column, self._described(trained)

    def _outputs(self) -> list[OutputCheck] | RunFailure:
        """Return the verdicts end to end: the worse of two runs where they differ."""
        self._unsteady: dict[str, None] = {}
        self._mutated: dict[str, None] = {}
        outputs = []
        for place, sample in enumerate(self._samples):
            result = self._runs.run(
                arrays_in_trained_layout(self._column.inputs, sample.inputs), self._column.mode, twice=True
            )
            if isinstance(result, RunFailure):
                return result
            self._mutated.update(dict.fromkeys(result.mutated))
            arrays = arrays_in_graph_layout(self._column.outputs, result.run.outputs if result.run else {})
            again = arrays_in_graph_layout(self._column.outputs, result.second)
            for pair in self._column.outputs:
                first = _verdict(sample, place, pair.graph, arrays.get(pair.graph))
                if pair.trained in result.unsteady:
                    self._unsteady[pair.graph] = None
                    second = _verdict(sample, place, pair.graph, again.get(pair.graph))
                    first = max(first, second, key=lambda output: (not output.explained, output.spreads))
                outputs.append(first)
        return outputs

    def _gradients(self, opened: OpenedModel) -> list[OutputCheck]:
        """Return the verdicts on the framework's gradients, as it runs; those in float64 are kept with the exact outputs."""
        if not opened.differentiable:
            self._notes.append(f"{self._runs.name} gives no gradients of it: they were not compared")
            return []
        column, checks = self._column, []
        training = column.mode.training
        for place, sample in enumerate(self._samples):
            for mode in (
                (RunMode("float64", training), column.mode) if "float64" in opened.precisions else (column.mode,)
            ):
                gradients = backward(
                    self._runs, (column.inputs, column.outputs), sample.graph, sample.inputs, mode, self._weights
                )
                if isinstance(gradients, RunFailure):
                    self._notes.append(f"gradients of {self._runs.name} were not compared: {gradients.message}")
                    break
                for name in list(gradients):
                    gradients[name], row = without_padding_row(
                        gradients[name], sample.graph.truth.get(name, gradients[name])
                    )
                    if row is not None:
                        self._notes.append(
                            f"row {row} of {name} is 0 in {self._runs.name}: a padding index has no gradient there, by convention"
                        )
                if mode.precision == "float64":
                    self._exact += [_exact_verdict(sample, place, name, array) for name, array in gradients.items()]
                else:
                    checks += [_verdict(sample, place, name, array) for name, array in gradients.items()]
        return checks

    def _levels(self, place: int, opened: OpenedModel) -> Iterator[LevelCheck]:
        """Judge the layers of one sample: in float64 where the framework can, and as it runs. One run is held at a time."""
        inputs = arrays_in_trained_layout(self._column.inputs, self._samples[place].inputs)
        exact = self._exact_run(inputs, opened)
        has_exact, partners = exact is not None, None
        if exact is not None:
            partners = self._partners(place, exact)
            arrays = arrays_in_graph_layout(self._column.outputs, exact.outputs)
            self._exact += [_exact_verdict(self._samples[place], place, name, array) for name, array in arrays.items()]
            yield self._judged(place, EXACT, partners, exact)
        exact = None  # before the next run is as large
        if not (has_exact and self._column.is_graph):
            yield from self._native_level(place, inputs, partners)
        if has_exact and opened.trainable and not self._column.mode.training and self._part(place):
            yield from self._training_level(place, inputs, partners)

    def _exact_run(self, inputs: Mapping[str, Array], opened: OpenedModel) -> TrainedRun | None:
        """Return the run in float64; None, with a note, where the framework does not compute the model so."""
        if "float64" not in opened.precisions:
            return None
        run = self._runs.layers(inputs, RunMode("float64", self._column.mode.training))
        if isinstance(run, RunFailure):
            self._notes.append(f"{self._runs.name} does not compute it in float64: {run.message}")
            return None
        return run

    def _partners(self, place: int, run: TrainedRun) -> _Partners:
        """Return which tensors of the graph are those of a run, and compare the weights, whose owners help to tell."""
        sample = self._samples[place]
        graph = forward_part(sample.graph)
        self._compare_weights(graph, run)
        self._layers.append(TrainedRun(layers=run.layers))
        owners = self._weights.owners if self._weights else {}
        matching = self._matchings[place] = _matching(sample, graph, run, owners)
        return _Partners.of(matching, run)

    def _native_level(
        self, place: int, inputs: Mapping[str, Array], partners: _Partners | None
    ) -> Iterator[LevelCheck]:
        """Judge the layers of one sample as the framework runs; without `partners` these layers are matched themselves."""
        run = self._runs.layers(inputs, self._column.mode)
        if isinstance(run, RunFailure):
            failure = f"{run.kind}: {run.message}"
            yield LevelCheck(name="", sample=place, marks="surviving", failure=failure)
            return
        partners = partners or self._partners(place, run)
        if not self._column.is_graph:
            yield self._judged(place, "", partners, run)

    def _training_level(
        self, place: int, inputs: Mapping[str, Array], partners: _Partners | None
    ) -> Iterator[LevelCheck]:
        """Judge the layers of one sample in training mode, which the export may have been made in."""
        run = self._runs.layers(inputs, RunMode("float64", training=True))
        if isinstance(run, TrainedRun) and partners is not None:
            yield self._judged(place, TRAINING, partners, run)

    def _part(self, place: int) -> bool:
        """Return whether the float64 outputs of a sample are not those of the graph."""
        return any(not output.explained for output in self._exact if output.sample == place)

    def _compare_weights(self, graph: FlatGraph, run: TrainedRun) -> None:
        if self._weights is not None:
            return
        parameters = self._runs.parameters()
        if isinstance(parameters, RunFailure):
            self._notes.append(f"weights were not compared: {parameters.message}")
        elif parameters:
            self._weights = compare_weights(parameters, graph, run.layers)

    def _judged(self, place: int, level: str, partners: _Partners, run: TrainedRun) -> LevelCheck:
        """Return the verdicts on a run's layers, and keep what it showed where the noise of a format is to be held against it."""
        sample = self._samples[place]
        graph = forward_part(sample.graph)
        shown = dict(partners.shown(run))
        if place == 0 and level != TRAINING and is_low_precision(sample.graph):
            self._column.shown[level] = dict(shown)
        arrays = arrays_in_graph_layout(self._column.outputs, run.outputs)
        shown |= {name: array for name, array in arrays.items() if name not in shown and _is_shown(graph, name, array)}
        if level not in (EXACT, TRAINING):
            shown = {name: _as_stored(graph, name, array) for name, array in shown.items()}
        judge = Judge(graph, inputs_of(graph, sample.inputs), shown, rounded=self._rounded(graph))
        tensors = list(judge.take(shown))
        check = LevelCheck(name=level, sample=place, marks="surviving")
        return replace(check, tensors=tensors, unjudged=_unspanned(judge, tensors))

    def _rounded(self, graph: FlatGraph) -> dict[str, float]:
        """Return the constants that are no trained weight to the last bit, with their errors: they were computed when the graph was made."""
        checks = self._weights.checks if self._weights else ()
        same = {name for check in checks if check.exact for name in check.initializers}
        errors = self._weights.rounding_errors if self._weights else {}
        return {name: errors.get(name, 0.0) for name in graph.constants if name not in same}

    def _described(self, trained: TrainedCheck) -> TrainedCheck:
        matching = next(iter(self._matchings.values()), None)
        if matching is not None:
            trained = replace(
                trained,
                matches=list(matching.matches),
                unmatched=list(matching.unmatched),
                fused=tuple(matching.folded),
                layer_of=dict(matching.layer_of),
            )
        if self._weights is not None:
            trained = replace(trained, weights=list(self._weights.checks), foreign=tuple(self._weights.foreign))
        return replace(trained, notes=tuple(dict.fromkeys(self._notes)))


class _Partners(NamedTuple):
    """Which tensors of a graph the layers of a model give, as they were matched in one run of it: so they do in every run."""

    matching: Matching
    givers: Mapping[int, tuple[str, int]]
    """The layer that gave each tensor of that run, and as which of its outputs."""
    shapes: Sequence[tuple[int, ...]]

    @classmethod
    def of(cls, matching: Matching, run: TrainedRun) -> _Partners:
        """Return the partners that were matched in `run`, none of whose tensors is kept."""
        return cls(matching, _givers(run), [array.shape for array in run.tensors])

    def shown(self, run: TrainedRun) -> Iterator[tuple[str, Array]]:
        """Yield the tensors of the graph that a run of the model shows."""
        givers = _givers(run)
        places = {giver: place for place, giver in givers.items()}
        for match in self.matching.matches:
            giver = self.givers.get(match.trained)
            place = match.trained if givers.get(match.trained) == giver else places.get(giver or ("", -1), -1)
            if place >= 0 and run.tensors[place].shape == self.shapes[match.trained]:
                yield match.tensor, in_graph_layout(match, run.tensors[place])


def _givers(run: TrainedRun) -> dict[int, tuple[str, int]]:
    """Return by the place of a tensor the first layer that gave it, and as which of its outputs."""
    return {place: (layer.name, k) for layer in reversed(run.layers) for k, place in enumerate(layer.outputs)}


def _as_stored(graph: FlatGraph, name: str, array: Array) -> Array:
    """Return a tensor as the graph's 16-bit format holds it: within a layer a framework may have kept more digits than it passed on."""
    dtype = STORAGE.get(graph.types.get(name, 0))
    if dtype is None or dtype.itemsize != 2 or array.dtype == dtype or graph.types[name] not in FORMATS:
        return array
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def _matching(sample: CheckedSample, graph: FlatGraph, run: TrainedRun, owners: Mapping[str, str]) -> Matching:
    """Return the layers that the graph has; of a converted graph by the values that it had before, which its format does not blur."""
    original = sample.original
    if original is None:
        return match_layers(graph, inputs_of(graph, sample.inputs), run, owners)
    inputs = {
        name: wide(array) if original.types.get(name) in FORMATS else array for name, array in sample.inputs.items()
    }
    matching = match_layers(original, inputs_of(original, inputs), run, owners)
    kept = tuple(match for match in matching.matches if graph.shapes.get(match.tensor) == match.shape)
    return replace(matching, matches=kept)


def _unspanned(judge: Judge, tensors: Sequence[TensorCheck]) -> list[Any]:
    """Return the nodes that were not judged, and that no verdict spans."""
    spanned = {name for tensor in tensors for name in tensor.segment}
    return [node for node in judge.unjudged if node.node not in spanned]


def _is_shown(graph: FlatGraph, name: str, array: Array) -> bool:
    return graph.shapes.get(name) == array.shape and any(name in node.outputs for node in graph.nodes)


def _verdict(sample: CheckedSample, place: int, name: str, array: Array | None) -> OutputCheck:
    """Return the verdict on an output of the framework; another float format than the graph's is no fault of its own here."""
    dtype = STORAGE.get(sample.graph.types.get(name, 0))
    if array is not None and dtype is not None and array.dtype != dtype and sample.graph.types[name] in FORMATS:
        with np.errstate(all="ignore"):
            array = array.astype(dtype)
    return output_check(sample, place, name, array)


def _exact_verdict(sample: CheckedSample, place: int, name: str, array: Array) -> OutputCheck:
    """Return the verdict on an output that the framework computed in float64."""
    output = OutputCheck(name=name, sample=place, shape=array.shape)
    if depends_on_answers(sample.graph, name):
        return replace(output, unjudged="it depends on a node that cannot be evaluated here")
    if name not in sample.graph.truth:
        return replace(output, unjudged=sample.graph.unknown.get(name, "its true value is not known"))
    return sample.verdict(output, array)
