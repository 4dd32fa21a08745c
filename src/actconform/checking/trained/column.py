"""A trained model held against a graph: its outputs end to end, its layers in float64 and as it runs, its weights."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
        """Judge the layers of one sample: in float64 where the framework can, and as it runs."""
        sample = self._samples[place]
        inputs = arrays_in_trained_layout(self._column.inputs, sample.inputs)
        exact: TrainedRun | RunFailure = RunFailure("refused", "")
        if "float64" in opened.precisions:
            exact = self._runs.layers(inputs, RunMode("float64", self._column.mode.training))
        if isinstance(exact, RunFailure) and exact.message:
            self._notes.append(f"{self._runs.name} does not compute it in float64: {exact.message}")
        native = self._runs.layers(inputs, self._column.mode)
        if isinstance(native, RunFailure):
            yield LevelCheck(name="", sample=place, marks="surviving", failure=f"{native.kind}: {native.message}")
        recorded = exact if isinstance(exact, TrainedRun) else native
        if isinstance(recorded, RunFailure):
            return
        graph = forward_part(sample.graph)
        self._compare_weights(graph, recorded)
        self._layers.append(TrainedRun(layers=recorded.layers))
        owners = self._weights.owners if self._weights else {}
        matching = self._matchings[place] = _matching(sample, graph, recorded, owners)
        if isinstance(exact, TrainedRun):
            arrays = arrays_in_graph_layout(self._column.outputs, exact.outputs)
            self._exact += [_exact_verdict(sample, place, name, array) for name, array in arrays.items()]
            yield self._judged(sample, LevelCheck(name=EXACT, sample=place, marks="surviving"), matching, exact, exact)
        if isinstance(native, TrainedRun) and not self._column.is_graph:
            yield self._judged(sample, LevelCheck(name="", sample=place, marks="surviving"), matching, recorded, native)
        fault = isinstance(exact, TrainedRun)
        if fault and opened.trainable and not self._column.mode.training and self._part(place):
            training = self._runs.layers(inputs, RunMode("float64", training=True))
            if isinstance(training, TrainedRun):
                check = LevelCheck(name=TRAINING, sample=place, marks="surviving")
                yield self._judged(sample, check, matching, recorded, training)

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

    def _judged(
        self, sample: CheckedSample, check: LevelCheck, matching: Matching, matched: TrainedRun, run: TrainedRun
    ) -> LevelCheck:
        """Return the verdicts on a run's layers; `matched` is the run that the matching speaks of."""
        graph = forward_part(sample.graph)
        shown = dict(_shown(matching, matched, run))
        arrays = arrays_in_graph_layout(self._column.outputs, run.outputs)
        shown |= {name: array for name, array in arrays.items() if name not in shown and _is_shown(graph, name, array)}
        if check.name not in (EXACT, TRAINING):
            shown = {name: _as_stored(graph, name, array) for name, array in shown.items()}
        judge = Judge(graph, inputs_of(graph, sample.inputs), shown, rounded=self._rounded(graph))
        tensors = list(judge.take(shown))
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


def _shown(matching: Matching, matched: TrainedRun, run: TrainedRun) -> Iterator[tuple[str, Array]]:
    """Yield the tensors of the graph that a run shows, by the layers and their outputs that were matched in another run of the model."""
    places = {index: (layer.name, k) for layer in reversed(matched.layers) for k, index in enumerate(layer.outputs)}
    places_in_run = {(layer.name, k): index for layer in run.layers for k, index in enumerate(layer.outputs)}
    for match in matching.matches:
        index = match.trained if run is matched else places_in_run.get(places.get(match.trained, ("", -1)), -1)
        if index < 0:
            continue
        array = run.tensors[index]
        if array.shape == matched.tensors[match.trained].shape:
            yield match.tensor, in_graph_layout(match, array)


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
