"""The noise of a format for a check: which graphs are in low precision, what is their truth, and what each column gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from actconform.checking.flatten import flatten
from actconform.checking.judge import PIECE_BYTES, marks_of
from actconform.checking.model_file import ModelFile
from actconform.checking.noise import noise_check, truth_of_original
from actconform.checking.result import ModelFault
from actconform.checking.trained.fault import EXACT
from actconform.onnx.evaluate.element_types import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.flatten import Array
    from actconform.checking.noise_result import NoiseCheck, NoiseGot
    from actconform.checking.result import CheckResult, RuntimeCheck
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.checking.trained.column import TrainedColumn


def noise_of(
    sample: CheckedSample,
    runtimes: Sequence[RuntimeRuns],
    columns: Sequence[TrainedColumn],
    result: CheckResult,
    converted_from: Source | None,
) -> NoiseCheck:
    """Return the noise of the graph's format on its first sample, beside what runtimes and trained models gave.

    The truth is that of the trained model where there is one, else of the float32 graph `converted_from`, else the graph's own.
    """
    graph = sample.graph
    got: dict[str, Mapping[str, Array]] = {runs.name: _shown(runs, sample) for runs in runtimes}
    truth, name = None, ""
    for column in columns:
        exact = column.shown.get(EXACT)
        if exact and truth is None:
            truth, name = exact, _truth_name(column)
        got[_column_name(column)] = column.shown.get("", {})
    if truth is None and converted_from is not None:
        inputs = {
            name: array.astype(np.float32) if graph.types.get(name) in FORMATS else array
            for name, array in sample.inputs.items()
            if name in converted_from.inputs or name in converted_from.optional_inputs
        }
        truth = truth_of_original(flatten(converted_from.model, inputs), inputs, graph)
        name = f"{converted_from.path.name} in float64"
    layer_of = next((each.layer_of for each in result.trained if each.layer_of), {})
    got = {column: tensors for column, tensors in got.items() if tensors}
    if truth is None:
        return noise_check(graph, sample.inputs, got, layer_of=layer_of)
    return noise_check(graph, sample.inputs, got, truth=truth, truth_name=name, layer_of=layer_of)


def judged_by_noise(result: CheckResult, columns: Sequence[TrainedColumn]) -> CheckResult:
    """Return the result of a quantized graph with trained models held against what quantization does: rounding in floats does not explain it.

    Where the graph is the first trained model, soundly quantized, that column is explained; else its fault is the layer that was not.
    """
    noise = result.noise
    if noise is not None:
        result = _with_noise_beside_faults(_without_noise_for_fault(result, noise, columns), noise, columns)
    if noise is None or "int" not in noise.format or not columns or noise.truth != _truth_name(columns[0]):
        return result
    column = result.runtimes[0]
    if column.status not in ("explained", "not explained"):
        return result
    if noise.is_the_model:
        column = _within(noise, column)
    else:
        column = replace(column, status="not explained", fault=_fault_of_noise(noise, columns[0]))
    return replace(result, runtimes=[column, *result.runtimes[1:]])


def _without_noise_for_fault(result: CheckResult, noise: NoiseCheck, columns: Sequence[TrainedColumn]) -> CheckResult:
    """Return the result in which no framework is accused of what the format's noise explains: it rounds elsewhere than the graph does."""
    runtimes = list(result.runtimes)
    for place, column in enumerate(columns):
        fault, name = runtimes[place].fault, _column_name(column)
        compared = any(got.name == name for got in _all_got(noise))
        if fault is not None and fault.blame == "framework" and compared and name not in noise.beyond:
            runtimes[place] = _within(noise, runtimes[place])
    return replace(result, runtimes=runtimes)


def _with_noise_beside_faults(result: CheckResult, noise: NoiseCheck, columns: Sequence[TrainedColumn]) -> CheckResult:
    """Return the result in which the fault of a runtime says how the noise of the format stands beside it: another question."""
    runtimes = list(result.runtimes)
    for place in range(len(columns), len(runtimes)):
        fault, name = runtimes[place].fault, runtimes[place].name
        if fault is not None and name not in noise.beyond and any(got.name == name for got in _all_got(noise)):
            words = (
                f"what it gives is within the noise of {noise.format} all the same: another question, what the format costs "
                "and not whether the runtime computes the graph"
            )
            runtimes[place] = replace(runtimes[place], fault=replace(fault, evidence=(*fault.evidence, words)))
    return replace(result, runtimes=runtimes)


def _all_got(noise: NoiseCheck) -> Iterator[NoiseGot]:
    return (got for layer in noise.layers for got in layer.got)


def _within(noise: NoiseCheck, column: RuntimeCheck) -> RuntimeCheck:
    """Return a column as explained by the noise of the format."""
    words = f"within the noise of {noise.format}"
    outputs = [
        output if output.explained else replace(output, explained=True, reason=words) for output in column.outputs
    ]
    return replace(column, status="explained", fault=None, outputs=outputs)


def _column_name(column: TrainedColumn) -> str:
    return f"{column.runs.name} {column.mode.precision}"


def _fault_of_noise(noise: NoiseCheck, column: TrainedColumn) -> ModelFault:
    """Return the fault of a graph that is not the trained model brought into its format soundly."""
    suspects = [noise.range_lost, noise.converted_wrong]
    layer = next(layer for name in suspects if name for layer in noise.layers if layer.node == name)
    return ModelFault(
        blame="graph" if column.is_graph else "exporter",
        node=layer.node,
        op_type=layer.op_type,
        sample=noise.sample,
        layer=layer.layer,
        evidence=(f"quantization to {noise.format} loses more there than its steps explain", *noise.summary),
    )


def _truth_name(column: TrainedColumn) -> str:
    return f"{column.source} in float64"


def _shown(runs: RuntimeRuns, sample: CheckedSample) -> dict[str, Array]:
    """Return all tensors of the graph as a runtime shows them where it optimizes nothing, and its outputs as it runs."""
    graph = sample.graph
    level = runs.levels[0] if runs.levels else ""
    shown: dict[str, Array] = {}
    with ModelFile(graph.model) as file:  # that of the check itself is gone
        for piece in runs.marked(
            file, sample.inputs, marks_of(graph, graph.types), budget_bytes=PIECE_BYTES, level=level, final={}
        ):
            shown.update(piece.values)
        if shown:
            shown.update(runs.outputs(file, sample.inputs).outputs)
    return shown
