"""The data of the page of a check: every text once, each tensor as one row of numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from actconform.checking.spread import LIMIT
from actconform.report.check.agreement_summary import agreement_sentences
from actconform.report.check.summary import (
    BLAME_MEANS,
    SPREAD_MEANS,
    check_headline,
    check_verdict,
    fault_sentence,
    powers,
    relative_error,
    tie_sentences,
    uncounted_words,
    unjudged_nodes,
    worst_tensor,
)
from actconform.report.check.trained_summary import layer_sentences, weight_sentences
from actconform.report.html.page_values import Texts, short_number, shown
from actconform.text import shortened, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.noise_result import NoiseCheck
    from actconform.checking.result import (
        CheckResult,
        LevelCheck,
        ModelFault,
        Numbers,
        OutputCheck,
        RuntimeCheck,
        TensorCheck,
        TrainedCheck,
    )

LETTERS = 600  # of a text around the layers
DIGITS = 9  # of values: enough to tell two neighbours in f32 apart


def check_page_data(result: CheckResult) -> dict[str, Any]:
    """Return the data of the page for JSON: numbers that are not finite are "nan", "inf" and "-inf"."""
    texts = Texts()
    runs = list(_runs(result))
    trained_layers = next((trained.layer_of for trained in result.trained if trained.layer_of), {})
    layers = list(_layers(runs, texts, trained_layers))
    page = {
        "model": result.model,
        "sha256": result.sha256,
        "opset": result.opset,
        "nodes": result.nodes,
        "operators": [[name, count] for name, count in result.operators.items()],
        "explained": result.explained,
        "verdict": check_verdict(result),
        "headline": check_headline(result),
        "spread": SPREAD_MEANS,
        "blames": BLAME_MEANS,
        "limit": LIMIT,
        "samples": [
            {
                "origin": sample.origin,
                "inputs": [
                    [name, shape_shown(shape), sample.drawn.get(name, "")] for name, shape in sample.shapes.items()
                ],
            }
            for sample in result.samples
        ],
        "runtimes": [_runtime(runtime, texts) for runtime in result.runtimes],
        "runs": [[place, level.name, level.sample, level.marks] for place, level in runs],
        "graph": [
            [
                each.output,
                each.sample,
                *map(short_number, (each.spread, each.magnitude)),
                each.ill_conditioned,
                each.overflows,
            ]
            for each in result.graph
        ],
        "answered": result.answered,
        "notes": [*result.notes, *tie_sentences(result.ties)],
        "agreement": list(agreement_sentences(result.agreement)),
        "noise": _noise(result.noise),
        "command": result.command,
        "actconform": result.actconform,
        "seconds": short_number(result.seconds),
    }
    weights = [
        [
            texts(weight.name),
            texts(shape_shown(weight.shape)),
            texts(weight.dtype),
            *map(short_number, (weight.lowest, weight.highest)),
        ]
        for weight in result.weights
    ]
    trained = [_trained(each, texts) for each in result.trained]
    return {**_brief(page), "layers": layers, "weights": weights, "trained": trained, "texts": shown(texts.all())}


def _noise(noise: NoiseCheck | None) -> dict[str, Any] | None:
    """Return a graph in low precision: sentences, and a row for each layer: truth, expected noise, what came."""
    if noise is None:
        return None
    columns = list(dict.fromkeys(got.name for layer in noise.layers for got in layer.got))
    rows = []
    for layer in noise.layers:
        errors = {got.name: [short_number(got.error), short_number(got.ratio)] for got in layer.got}
        numbers = (layer.magnitude, layer.largest, layer.noise, layer.relative, layer.lost_bits)
        beyond = layer.overflowed + layer.underflowed + layer.clipped
        rows.append(
            [layer.place, layer.format, *map(short_number, numbers), beyond, [errors.get(name) for name in columns]]
        )
    return {"format": noise.format, "truth": noise.truth, "summary": noise.summary, "columns": columns, "rows": rows}


def _trained(trained: TrainedCheck, texts: Texts) -> dict[str, Any]:
    """Return a trained model beside the graph: sentences, and a row for each layer and weight."""
    layers = [
        [*map(texts, (match.layer, match.kind, match.node, match.tensor, f"its {match.by}"))]
        for match in trained.matches
    ]
    layers += [[*map(texts, (layer.layer, layer.kind, "", "", layer.reason))] for layer in trained.unmatched]
    weights = [
        [*map(texts, (check.parameter, check.state, check.words, ", ".join(check.initializers))), check.exact]
        for check in trained.weights
    ]
    words = {
        "source": trained.source,
        "framework": trained.framework,
        "about": trained.about,
        "layerWords": list(layer_sentences(trained)),
        "weightWords": list(weight_sentences(trained)),
    }
    return {**_brief(words), "layers": layers, "weights": weights}


def _brief(value: Any) -> Any:
    """Return a value of the page with every text in it made visible, and its middle left out where it is long: check.json has all."""
    if isinstance(value, str):
        return shortened(visible(value), LETTERS)
    if isinstance(value, dict):
        return {shortened(visible(key), LETTERS): _brief(item) for key, item in value.items()}
    return [_brief(item) for item in value] if isinstance(value, list | tuple) else value


def shape_shown(shape: Numbers) -> str:
    """Return a shape as "1 × 3 × 224"; of a scalar "scalar"."""
    return " × ".join(map(str, shape)) or "scalar"


def _runs(result: CheckResult) -> Iterator[tuple[int, LevelCheck]]:
    """Yield each run with marks, with the place of its runtime."""
    for place, runtime in enumerate(result.runtimes):
        for level in runtime.levels:
            yield place, level


def _layers(
    runs: Sequence[tuple[int, LevelCheck]], texts: Texts, trained_layers: Mapping[str, str]
) -> Iterator[list[Any]]:
    """Yield a row for each tensor of each run, in the order of the graph."""
    rows = []
    orders: dict[int, dict[str, int]] = {}
    for _, level in runs:
        if len(level.tensors) > len(orders.get(level.sample, {})):
            orders[level.sample] = {tensor.tensor: place for place, tensor in enumerate(level.tensors)}
    for run, (_, level) in enumerate(runs):
        place = 0
        for tensor in level.tensors:
            place = orders[level.sample].get(tensor.tensor, place)
            rows.append((place, run, tensor))
    for place, run, tensor in sorted(rows, key=lambda row: row[:2]):
        yield [run, place, *_tensor(tensor, texts, trained_layers)]


def _tensor(tensor: TensorCheck, texts: Texts, trained_layers: Mapping[str, str]) -> list[Any]:
    numbers = (
        tensor.ratio,
        tensor.error,
        tensor.bound,
        tensor.looseness,
        tensor.magnitude,
        tensor.lowest,
        tensor.highest,
    )
    return [
        *(texts(name) for name in (tensor.node, tensor.op_type, tensor.tensor, shape_shown(tensor.shape))),
        *map(short_number, numbers),
        *map(_value, (tensor.got, tensor.wanted)),
        texts(", ".join(map(str, tensor.place))),
        list(tensor.histogram),
        [texts(name) for name in tensor.segment] if len(tensor.segment) > 1 else [],
        tensor.overflowed,
        tensor.nonfinite,
        texts(shape_shown(tensor.wanted_shape)) if tensor.wanted_shape != tensor.shape else None,
        texts(trained_layers[tensor.node]) if trained_layers.get(tensor.node) else None,
    ]


def _runtime(runtime: RuntimeCheck, texts: Texts) -> dict[str, Any]:
    largest = worst_tensor(runtime.levels)
    return {
        "name": runtime.name,
        "status": runtime.status,
        "reason": runtime.reason,
        "facts": runtime.facts,
        "seconds": short_number(runtime.seconds),
        "unsteady": runtime.unsteady,
        "mutated": runtime.mutated,
        "outputs": [_output(output) for output in runtime.outputs],
        "fault": None if runtime.fault is None else _fault(runtime.fault, texts),
        "largest": None if largest is None else _largest(*largest),
        "powers": [
            [power.level, power.tensors, short_number(power.loosest), power.loosest_node, power.blind]
            for power in powers(runtime)
        ],
        "unjudged": [[group.reason, group.operators, group.nodes] for group in unjudged_nodes(runtime)],
        "failures": [[level.name, level.sample, level.failure] for level in runtime.levels if level.failure],
        "moved": [[level.name, level.sample, level.moved] for level in runtime.levels if level.moved],
    }


def _largest(level: LevelCheck, tensor: TensorCheck) -> list[Any]:
    words = "" if tensor.explained else uncounted_words(tensor)
    return [short_number(tensor.ratio), tensor.node, tensor.op_type, level.name, words]


def _output(output: OutputCheck) -> list[Any]:
    numbers = (output.spreads, output.error, relative_error(output), output.spread)
    return [
        output.name,
        output.sample,
        shape_shown(output.shape),
        output.explained,
        output.unjudged or output.reason,
        bool(output.unjudged),
        *map(short_number, numbers),
        *map(_value, (output.got, output.wanted)),
        ", ".join(map(str, output.place)),
        output.nonfinite,
        output.overflowed,
        output.decisions,
        output.decided_alike,
    ]


def _fault(fault: ModelFault, texts: Texts) -> dict[str, Any]:
    return {
        "blame": fault.blame,
        "node": fault.node,
        "op": fault.op_type,
        "sample": fault.sample,
        "level": fault.level,
        "tensor": None if fault.tensor is None else texts(fault.tensor.tensor),
        "sentence": fault_sentence(fault),
        "layer": fault.layer,
        "segment": fault.segment,
        "source": fault.source,
        "evidence": fault.evidence,
    }


def _value(value: float) -> float | str:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
