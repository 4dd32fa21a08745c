"""The check of one model: truth, runtimes' answers end to end, then every node given what it read, then whose fault it is."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from actconform._version import __version__
from actconform.checking.checked_sample import judged_samples, output_check
from actconform.checking.fault import attributed, by_levels, fault_of_saved, first_fault
from actconform.checking.flatten import FlatGraph, flatten, wide
from actconform.checking.judge import ShownLevel, judged_level
from actconform.checking.model_file import ModelFile
from actconform.checking.nonfinite_outputs import nonfinite_notes
from actconform.checking.result import (
    CheckResult,
    Conditioning,
    LevelCheck,
    OutputCheck,
    RoundingTie,
    RuntimeCheck,
    TrainedCheck,
    Weight,
)
from actconform.checking.runs import RunFailure, RuntimeOutputs
from actconform.checking.spread import ill_conditioned
from actconform.checking.trained.column import check_trained
from actconform.checking.truth import DRAWS, draws
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

    from actconform.checking.checked_sample import CheckedSample, Progress
    from actconform.checking.flatten import Answers
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source
    from actconform.checking.trained.column import TrainedColumn
    from actconform.types.case import Bundle

SAVED = "saved outputs"


def check_model(
    source: Source,
    samples: Sequence[CheckedSample],
    runtimes: Sequence[RuntimeRuns],
    progress: Progress,
    *,
    seed: int | None = None,
    trained: Sequence[TrainedColumn] = (),
) -> CheckResult:
    """Return the result of a check of a model with `samples` on `runtimes`, which are open, and beside `trained` models.

    A fault of a runtime is part of the result. Raises Unsupported where the graph cannot be taken apart at all, and ValueError,
    naming the node, where it fails at these inputs.
    """
    started = time.perf_counter()
    with ExitStack() as files:
        original = evaluate(source, samples, runtimes, progress, files)
        compared = [check_trained(column, samples, progress) for column in trained]
        matching = next((each for _, each in compared if each.layer_of), None)
        results = [column for column, _ in compared]
        results += [_with_layer(_checked(runs, original, samples, progress), matching) for runs in runtimes]
        if any(sample.saved is not None for sample in samples):
            results.append(_saved(samples))
    graph = samples[0].graph
    return CheckResult(
        model=source.path.name,
        sha256=source.sha256,
        opset=source.opset,
        nodes=len(graph.nodes),
        operators=dict(Counter(node.proto.op_type for node in graph.nodes).most_common()),
        samples=[sample.facts for sample in samples],
        runtimes=attributed(results),
        trained=[each for _, each in compared],
        exporter=next((column.exporter for column in trained), ""),
        graph=[each for i, sample in enumerate(samples) for each in _conditioning(sample, i)],
        ties=[each for i, sample in enumerate(samples) for each in _ties(sample, i)],
        weights=_weights(graph),
        answered=tuple(node.name for node in graph.nodes if any(name in graph.answered for name in node.outputs)),
        notes=(*source.notes, *nonfinite_notes(samples)),
        seed=seed,
        actconform=__version__,
        seconds=time.perf_counter() - started,
    )


def evaluate(
    source: Source,
    samples: Sequence[CheckedSample],
    runtimes: Sequence[RuntimeRuns],
    progress: Progress,
    files: ExitStack,
) -> ModelFile:
    """Give the samples the truth of the model on them, and return the model's file; `files` holds the files as long as they are used.

    `runtimes` answer for nodes that cannot be evaluated. Samples with equal flat graphs share weights and file. Raises as
    `check_model` does.
    """
    distinct: list[CheckedSample] = []
    for i, sample in enumerate(samples):
        progress.stage(f"truth of sample {i + 1} of {len(samples)}", 1 + DRAWS)
        sample.graph = flatten(source.model, sample.inputs, answers_of_runtimes(runtimes, sample.inputs))
        alike = next((before for before in distinct if sample.graph.shares(before.graph)), None)
        if alike is None:
            distinct.append(sample)
        sample.file = alike.file if alike else files.enter_context(ModelFile(sample.graph.model))
        progress.step()
        sample.draws = draws(sample.graph, sample.inputs, progress=progress.step)
    return files.enter_context(ModelFile(source.model))


def answers_of_runtimes(runtimes: Sequence[RuntimeRuns], inputs: Bundle) -> Answers:
    """Return what asks the runtimes for tensors that cannot be evaluated here, until the first that answers."""

    def ask(model: onnx.ModelProto, names: Sequence[str]) -> Bundle | None:
        with ModelFile(model) as file:
            for runs in runtimes:
                answer = runs.outputs(file, inputs)
                if not answer.failure and all(name in answer.outputs for name in names):
                    return {name: answer.outputs[name] for name in names}
        return None

    return ask


def _checked(
    runs: RuntimeRuns, original: ModelFile, samples: Sequence[CheckedSample], progress: Progress
) -> RuntimeCheck:
    started = time.perf_counter()
    progress.stage(f"{runs.name}: outputs")
    facts = runs.start()
    if isinstance(facts, RunFailure):
        return RuntimeCheck(name=runs.name, status="unavailable", reason=facts.message)
    runtime = RuntimeCheck(name=runs.name, facts=dict(facts), status="failed")
    answers = runs.outputs_of_all(original, [sample.inputs for sample in samples])
    if failure := next((answer.failure for answer in answers if answer.failure), None):
        reason = f"{failure.kind}: {failure.message}"
        return replace(runtime, reason=reason, seconds=time.perf_counter() - started)
    outputs = [
        _answered(sample, i, name, answer)
        for i, (sample, answer) in enumerate(zip(samples, answers, strict=True))
        for name in sample.graph.outputs
    ]
    progress.outputs(runs.name, outputs)
    levels: list[LevelCheck] = []
    for place in judged_samples(outputs, samples):
        levels += _levels(runs, samples[place], place, progress)
    outputs = by_levels(outputs, samples, levels)
    drawn = all(
        output.name in answer.unsteady for output in outputs for answer in answers
    )  # random numbers in the graph
    if all(output.unjudged for output in outputs) and (drawn or not any(level.tensors for level in levels)):
        reason = f"nothing of what it gave could be judged: {outputs[0].unjudged if outputs else 'it gave no output'}"
        seconds = time.perf_counter() - started
        return replace(runtime, status="not judged", reason=reason, outputs=outputs, levels=levels, seconds=seconds)
    fault = first_fault(runs, original, samples, outputs, levels)
    mutated = tuple(dict.fromkeys(name for answer in answers for name in answer.mutated))
    return replace(
        runtime,
        status="explained" if fault is None and not mutated else "not explained",
        outputs=outputs,
        levels=levels,
        mutated=mutated,
        unsteady=tuple(dict.fromkeys(name for answer in answers for name in answer.unsteady)),
        fault=fault,
        seconds=time.perf_counter() - started,
    )


def _with_layer(runtime: RuntimeCheck, matching: TrainedCheck | None) -> RuntimeCheck:
    """Return a runtime's verdict with the layer of the trained model at which its fault is."""
    if runtime.fault is None or matching is None:
        return runtime
    fault = runtime.fault
    layer = next((match.layer for match in matching.matches if match.node == fault.node), "")
    return replace(runtime, fault=replace(fault, layer=layer or matching.layer_of.get(fault.node, "")))


def _saved(samples: Sequence[CheckedSample]) -> RuntimeCheck:
    """Return the verdict on saved outputs, as on a runtime's answers."""
    outputs = [
        output_check(sample, i, name, array)
        for i, sample in enumerate(samples)
        for name, array in (sample.saved or {}).items()
    ]
    fault = fault_of_saved(outputs)
    return RuntimeCheck(
        name=SAVED, status="explained" if fault is None else "not explained", outputs=outputs, fault=fault
    )


def _answered(sample: CheckedSample, place: int, name: str, answer: RuntimeOutputs) -> OutputCheck:
    """Return the verdict on an output of a runtime: on the worse of two answers where it does not give the same twice."""
    first = output_check(sample, place, name, answer.outputs.get(name))
    if name not in answer.unsteady:
        return first
    second = output_check(sample, place, name, answer.second.get(name))
    return second if (second.explained, -second.spreads) < (first.explained, -first.spreads) else first


def _levels(runs: RuntimeRuns, sample: CheckedSample, place: int, progress: Progress) -> Iterator[LevelCheck]:
    """Judge nodes at each level: all tensors marked where nothing is optimized, those that survive where it is."""
    earlier: list[ShownLevel] = []
    if runs.levels:
        yield _level(runs, sample, place, runs.levels[0], None, progress, earlier)
    for level in [level for level in runs.levels[-2:] if level != runs.levels[0]] if runs.levels else [""]:
        surviving = runs.surviving(sample.file, level)
        if not isinstance(surviving, RunFailure):
            yield _level(runs, sample, place, level, surviving, progress, earlier)
        elif not runs.levels:
            yield _level(runs, sample, place, level, None, progress, earlier)
        else:
            failure = f"which tensors survive is not known: {surviving.kind}: {surviving.message}"
            yield LevelCheck(name=level, sample=place, marks="surviving", failure=failure)


def _level(
    runs: RuntimeRuns,
    sample: CheckedSample,
    place: int,
    level: str,
    surviving: Sequence[str] | None,
    progress: Progress,
    earlier: list[ShownLevel],
) -> LevelCheck:
    progress.stage(f"{runs.name}: nodes{' at level ' + level if level else ''}", len(sample.graph.nodes))
    check = LevelCheck(name=level, sample=place, marks="all" if surviving is None else "surviving")
    return judged_level(check, runs, sample, level, surviving, progress.step, earlier)


def _conditioning(sample: CheckedSample, place: int) -> Iterator[Conditioning]:
    graph = sample.graph
    for name, truth in graph.truth.items():
        if truth.dtype.kind != "f" or not truth.size or not all(name in draw for draw in sample.draws):
            continue
        moved = [draw[name] for draw in sample.draws if draw[name].shape == truth.shape]
        yield Conditioning(
            output=name,
            sample=place,
            **ill_conditioned(truth, moved, FORMATS.get(graph.types.get(name, 0))),
            overflows=graph.overflow.words if graph.overflow else "",
        )


def _ties(sample: CheckedSample, place: int) -> Iterator[RoundingTie]:
    for node in sample.graph.nodes:
        if node.tie is not None:
            close = node.tie.close
            elements = int(np.count_nonzero(close))
            op_type = node.proto.op_type
            yield RoundingTie(node=node.name, op_type=op_type, sample=place, elements=elements, size=close.size)


def _weights(graph: FlatGraph) -> list[Weight]:
    weights = []
    for name, array in graph.constants.items():
        if graph.types[name] in FORMATS and array.size > 1:
            values = array if array.dtype.kind == "f" else wide(array)
            finite = values[np.isfinite(values)]
            numbers = finite if finite.size else np.full(1, np.nan)
            weights.append(
                Weight(
                    name=name,
                    shape=array.shape,
                    dtype=STORAGE[graph.types[name]].name,
                    lowest=float(numbers.min()),
                    highest=float(numbers.max()),
                )
            )
    return weights
