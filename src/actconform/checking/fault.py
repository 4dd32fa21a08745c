"""Whose fault a difference is: the graph's, the runtime's, its optimizer's, a version's, or undetermined; with what shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from actconform.checking.alone import ratio_alone
from actconform.checking.checked_sample import quantizes
from actconform.checking.judge import judged_level
from actconform.checking.known_cause import known_cause
from actconform.checking.known_rewrite import known_rewrite
from actconform.checking.narrow_sums import SATURATION, saturates
from actconform.checking.result import Blame, LevelCheck, ModelFault, OutputCheck, RuntimeCheck, TensorCheck
from actconform.checking.runs import RunFailure
from actconform.checking.spread import LIMIT
from actconform.text import listed, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.flatten import FlatGraph
    from actconform.checking.model_file import ModelFile
    from actconform.checking.runs import RuntimeRuns

ALIKE = 4.0  # two runtimes whose numbers differ by less than this part of their error may both be right, and the truth wrong
_FEW = 3  # names in a sentence
MOST_ALONE = 16  # nodes that run by themselves


def first_fault(
    runs: RuntimeRuns,
    original: ModelFile,
    samples: Sequence[CheckedSample],
    outputs: Sequence[OutputCheck],
    levels: Sequence[LevelCheck],
) -> ModelFault | None:
    """Return the first thing that rounding does not explain, in the order of the graph; None where it explains all.

    `original` is the file of the user's model, from which the runtime made `outputs`.
    """
    for level in levels:
        wrong, evidence = _first_wrong(runs, samples[level.sample], level)
        if wrong is not None:
            plain = [each for each in levels if each.sample == level.sample and each.marks == "all"]
            return _of_node(runs, samples[level.sample], level, wrong, outputs, evidence, plain)
    for output in outputs:
        if not output.explained:
            of_sample = [level for level in levels if level.sample == output.sample]
            return _of_output(runs, original, samples[output.sample], output, of_sample)
    return None


def _first_wrong(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck) -> tuple[TensorCheck | None, list[str]]:
    """Return the first tensor over its bound that counts, and evidence on it.

    Where all tensors are marked and the runtime may fuse nodes all the same, or the marks move the final outputs, what a mark
    shows need not be what the next node read: there a node counts only if it is wrong by itself, too.
    """
    wrong = [tensor for tensor in level.tensors if not tensor.explained]
    if not wrong or level.marks == "surviving" or not (level.moved or not runs.levels):
        return (wrong[0] if wrong else None), []
    for tensor in wrong[:MOST_ALONE]:
        ratio = ratio_alone(runs, sample, level, tensor)
        if ratio is None:
            return tensor, [
                "the node could not be run by itself to confirm it: what a mark shows may not be what is read"
            ]
        if ratio > 1:
            return tensor, [f"by itself, on what it read, the node is over its bound too: {ratio:,.3g} times"]
    return None, []


def _of_node(
    runs: RuntimeRuns,
    sample: CheckedSample,
    level: LevelCheck,
    tensor: TensorCheck,
    outputs: Sequence[OutputCheck],
    confirmation: Sequence[str],
    unoptimized: Sequence[LevelCheck],
) -> ModelFault:
    """Return the fault of a tensor; `unoptimized` are the checks of the sample where nothing is optimized, in which all is right."""
    optimized = level.marks == "surviving" and bool(runs.levels)
    right = {name for check in unoptimized for verdict in check.tensors for name in verdict.segment}
    fused = optimized and right.issuperset(tensor.segment)
    evidence = [measure_words(tensor), *confirmation]
    narrow = saturates(runs, sample, level, tensor)
    if fused:
        evidence.append(f"without optimization ({runs.levels[0]}) every node that was judged is within its bound")
    if narrow:
        evidence += SATURATION
    elif fused:
        evidence += _optimizer(runs, sample, level)
    elif optimized:
        evidence.append(
            f"without optimization ({runs.levels[0]}) it was not judged, so it may be the optimizer's or not"
        )
    cause = None if optimized else known_cause(runs, sample, level, tensor)
    cause = cause or known_rewrite(runs, sample, level, tensor)
    if cause is not None:
        evidence.append(cause.words)
    evidence.append(visible_end_to_end(outputs, level.sample))
    return ModelFault(
        blame="runtime" if narrow or not optimized else "runtime:optimizer" if fused else "undetermined",
        node=tensor.node,
        op_type=tensor.op_type,
        sample=level.sample,
        level=level.name,
        tensor=tensor,
        segment=tensor.segment,
        source=source_line(sample.graph, tensor.node),
        evidence=tuple(evidence),
        cause=cause.id if cause else "",
    )


def measure_words(tensor: TensorCheck) -> str:
    """Return by how much a tensor is off, as a sentence."""
    of = f"{len(tensor.segment)} nodes up to it" if len(tensor.segment) > 1 else "the node"
    if tensor.shape != tensor.wanted_shape:
        return f"its shape is {list(tensor.shape)}, and {of} should give {list(tensor.wanted_shape)}"
    if tensor.nonfinite:
        return f"{number_of(tensor.nonfinite, 'element is', 'elements are')} NaN or infinite, or should be, given what {of} read"
    place = f" at {list(tensor.place)}" if tensor.place else ""
    if tensor.bound == 0 or not np.isfinite(tensor.ratio):
        return f"{tensor.got:.9g}{place} where it must be exactly {tensor.wanted:.9g}, given what {of} read"
    times = f"{tensor.ratio:,.3g} times what rounding allows"
    return f"{tensor.got:.9g}{place} where {tensor.wanted:.9g} is right, given what {of} read: {times} (± {tensor.bound:.3g})"


def _optimizer(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck) -> Iterator[str]:
    """Yield which single optimization is at fault, where leaving it out puts every segment right: by halving their list."""
    suspects = runs.optimizers
    if not suspects or not _right_without(runs, sample, level, suspects):
        return
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        if _right_without(runs, sample, level, half):
            suspects = half
        elif _right_without(runs, sample, level, suspects[len(half) :]):
            suspects = suspects[len(half) :]
        else:
            yield f"without the optimizations {listed(suspects, _FEW)} every segment is within its bound, and no half of them suffices"
            return
    yield f"without the optimization {suspects[0]} every segment is within its bound"


def _right_without(runs: RuntimeRuns, sample: CheckedSample, level: LevelCheck, optimizers: Sequence[str]) -> bool:
    """Return whether every segment is within its bound where these optimizations are left out."""
    left_out = f"without {', '.join(optimizers)}"
    surviving = runs.surviving(sample.file, left_out)
    if isinstance(surviving, RunFailure):
        return False
    check = LevelCheck(name=left_out, sample=level.sample, marks="surviving")
    again = judged_level(check, runs, sample, left_out, surviving)
    return bool(again.tensors) and all(verdict.explained for verdict in again.tensors)


def _of_output(
    runs: RuntimeRuns, original: ModelFile, sample: CheckedSample, output: OutputCheck, levels: Sequence[LevelCheck]
) -> ModelFault:
    """Return the fault of an output that no node explains: by what runs without optimization, and what the graph makes of it."""
    graph = sample.graph
    blame, reasons = _blame_of_output(runs, original, sample, output, levels)
    node, op_type = producer(graph, output.name)
    evidence = [end_to_end_words(output), *reasons]
    if graph.overflow:
        evidence.insert(1, f"the graph overflows as written: {graph.overflow.words}")
        if blame == "graph":
            node, op_type = graph.overflow.node, graph.overflow.op_type
    return ModelFault(
        blame=blame,
        node=node,
        op_type=op_type,
        sample=output.sample,
        output=output,
        source=source_line(graph, node),
        evidence=tuple(evidence),
    )


def _blame_of_output(
    runs: RuntimeRuns, original: ModelFile, sample: CheckedSample, output: OutputCheck, levels: Sequence[LevelCheck]
) -> tuple[Blame, list[str]]:
    """Return whose fault an output is that no node explains, and the sentences that show it; overflow aside."""
    overflows = sample.graph.overflow is not None
    if overflows and (output.overflowed or output.nonfinite):
        return "graph", []
    blame, evidence = _blame_by_other_runs(runs, original, sample, output)
    if blame is None and output.reason:
        blame = "runtime"  # no rounding takes an output away, or gives it another shape
    if blame is not None or overflows:
        return blame or "graph", evidence
    if any(_judges_all(each, output) for each in levels):
        evidence.append(
            "every node is within its bound given what it read: the graph makes rounding this large on the way, "
            "in more than the straight line that spreads follow"
        )
        return "graph", evidence
    if any(output.name in each.moved for each in levels):
        if _right_where_shown(levels, output):
            evidence.append(
                "where all tensors are shown it is right, and every node that was judged: it is wrong only without"
            )
            return "runtime", evidence
        evidence.append("marking tensors moves it: what the marks show may not be what ran without them")
    judged = {name for each in levels for verdict in each.tensors for name in verdict.segment}
    if unjudged := {node.node for each in levels for node in each.unjudged} - judged:
        evidence.append(f"{number_of(len(unjudged), 'node')} could not be judged, and one of them may be at fault")
    if unbounded := [name for name, bounded in _bounded_nodes(levels).items() if not bounded]:
        evidence.append(f"what {listed(unbounded, _FEW)} read bounds nothing there, and one of them may be at fault")
    return "undetermined", evidence


def by_levels(
    outputs: Sequence[OutputCheck], samples: Sequence[CheckedSample], levels: Sequence[LevelCheck]
) -> list[OutputCheck]:
    """Return the outputs, those explained that a quantized graph gives whose every node is right, given what it read, at every level.

    Where the exact result of a node lies on a midpoint, or within rounding of it, either level is right; what follows differs by whole
    levels then, and no draw of rounding need go the same way.
    """
    return [
        replace(output, explained=True, tied=True) if _only_levels_differ(output, samples, levels) else output
        for output in outputs
    ]


def _only_levels_differ(output: OutputCheck, samples: Sequence[CheckedSample], levels: Sequence[LevelCheck]) -> bool:
    if output.explained or output.reason or output.overflowed or output.nonfinite:
        return False
    of_sample = [level for level in levels if level.sample == output.sample]
    right = bool(of_sample) and all(
        _judges_all(level, output) and all(tensor.explained for tensor in level.tensors) for level in of_sample
    )
    return right and quantizes(samples[output.sample].graph)


def _right_where_shown(levels: Sequence[LevelCheck], output: OutputCheck) -> bool:
    """Return whether a run with marks, in which nothing is over its bound, gives this output."""
    return any(
        each.sample == output.sample
        and output.name in each.moved
        and any(tensor.tensor == output.name for tensor in each.tensors)
        and all(tensor.explained for tensor in each.tensors)
        for each in levels
    )


def _blame_by_other_runs(
    runs: RuntimeRuns, original: ModelFile, sample: CheckedSample, output: OutputCheck
) -> tuple[Blame | None, list[str]]:
    """Return whose fault an output is that is right without optimization, or where the runtime gets the flat graph; else None."""
    level, evidence = runs.levels[0] if runs.levels else "", []
    plain = _again(runs, original, sample, output, level) if level else None
    if plain is not None and plain.explained:
        by = f"{plain.spreads:.3g} spreads, which rounding explains"
        return "runtime:optimizer", [f"without optimization ({level}) it is off by {by}"]
    if plain is not None:
        evidence.append(f"without optimization ({level}) it is off too, by {plain.spreads:,.3g} spreads")
    flat = _again(runs, sample.file, sample, output, level)
    if flat is None or not flat.explained:
        return None, evidence
    by = f"{flat.spreads:.3g} spreads, which rounding explains"
    return "runtime", [*evidence, f"with functions and control flow taken apart it is off by {by}"]


def _bounded_nodes(levels: Sequence[LevelCheck]) -> dict[str, bool]:
    """Return for each node that was judged whether its bound was finite at some level."""
    bounded: dict[str, bool] = {}
    for tensor in (tensor for level in levels for tensor in level.tensors):
        bounded[tensor.node] = bounded.get(tensor.node, False) or bool(np.isfinite(tensor.looseness))
    return bounded


def _judges_all(level: LevelCheck, output: OutputCheck) -> bool:
    """Return whether a level leaves no room for a fault: every node judged, by bounds that say something, in what ran unmarked."""
    complete = level.tensors and not level.unjudged and not level.failure
    return bool(complete) and output.name not in level.moved and np.isfinite(level.loosest)


def _again(
    runs: RuntimeRuns, file: ModelFile, sample: CheckedSample, output: OutputCheck, level: str
) -> OutputCheck | None:
    """Return the verdict on an output where the runtime computes the model of another file, or at another level; None without answer."""
    answer = runs.outputs(file, sample.inputs, level)
    if answer.failure or output.name not in answer.outputs:
        return None
    array = answer.outputs[output.name]
    return sample.verdict(OutputCheck(name=output.name, sample=output.sample, shape=array.shape), array)


def fault_of_saved(outputs: Sequence[OutputCheck]) -> ModelFault | None:
    """Return the fault of the first saved output that rounding does not explain: the graph is not what made it."""
    for output in outputs:
        if not output.explained:
            return ModelFault(
                blame="graph",
                node=output.name,  # which node it is nobody can tell from the outputs
                op_type="",
                sample=output.sample,
                output=output,
                evidence=(
                    end_to_end_words(output),
                    (
                        "the graph, in float64, does not give what was saved: it was exported from another model, with other "
                        "weights or in another mode, or what was saved had other inputs"
                    ),
                ),
            )
    return None


def producer(graph: FlatGraph, output: str) -> tuple[str, str]:
    """Return the node that gives an output, and its operator."""
    node = next((node for node in reversed(graph.nodes) if output in node.outputs), None)
    return (node.name, node.proto.op_type) if node else (output, "")


def end_to_end_words(output: OutputCheck) -> str:
    """Return by how much an output is off, as a sentence."""
    if output.reason:
        return f"output {output.name}: {output.reason}"
    if output.overflowed:
        return f"output {output.name}: {number_of(output.overflowed, 'element is', 'elements are')} infinite, since the format ends below their true values"
    if output.nonfinite:
        return f"output {output.name}: {number_of(output.nonfinite, 'element is', 'elements are')} NaN or infinite, or should be"
    if not np.isfinite(output.spreads):
        return f"output {output.name} is {output.got:.9g} at {list(output.place)} where no rounding makes it other than {output.wanted:.9g}"
    return (
        f"output {output.name} is {output.got:.9g} at {list(output.place)} where {output.wanted:.9g} is right: "
        f"{output.spreads:,.3g} spreads, and at most {LIMIT:g} are explained by rounding"
    )


def visible_end_to_end(outputs: Sequence[OutputCheck], sample: int) -> str:
    """Return which outputs of a sample are off by more than rounding explains, as a sentence."""
    off = [output.name for output in outputs if not output.explained and output.sample == sample]
    return (
        f"end to end {listed(off, _FEW)} is off by more than {LIMIT:g} spreads"
        if off
        else "end to end rounding still hides it"
    )


def source_line(graph: FlatGraph, node_name: str) -> str:
    """Return the line of the user's program that a node of a flat graph comes from; "" where there is no such node or line."""
    node = next((node.proto for node in graph.nodes if node.name == node_name), None)
    return "" if node is None else line_of_source(node)


def line_of_source(node: onnx.NodeProto) -> str:
    """Return the line of the user's program that a node comes from, where its exporter kept it; "" elsewhere.

    torch's dynamo exporter keeps a stack trace in the node's metadata, others a text in its doc string.
    """
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    trace = next((text for key, text in metadata.items() if "stack_trace" in key), "") or node.doc_string
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    places = [place for place, line in enumerate(lines) if line.startswith("File ")]
    places = [place for place in places if "site-packages" not in lines[place]] or places  # the user's own file
    if not places:
        return lines[0] if lines else ""
    return " ".join(lines[places[-1] : places[-1] + 2])


def attributed(runtimes: Sequence[RuntimeCheck]) -> list[RuntimeCheck]:
    """Return the runtimes with what their faults say together: of versions of one runtime, and of two that are off alike."""
    return [replace(runtime, fault=_together(runtime, runtimes)) if runtime.fault else runtime for runtime in runtimes]


def _together(runtime: RuntimeCheck, runtimes: Sequence[RuntimeCheck]) -> ModelFault | None:
    fault = runtime.fault
    if fault is None:
        return None
    rest = [peer for peer in runtimes if peer.name != runtime.name and peer.status in ("explained", "not explained")]
    evidence, blame = list(fault.evidence), fault.blame
    for peer in rest:
        same_place = peer.fault is not None and peer.fault.node == fault.node
        if same_place and peer.fault is not None and _off_alike(fault, peer.fault):
            if not _versions_of_one(runtime.name, peer.name):
                blame = "undetermined"
                evidence.append(
                    f"{peer.name} gives the same there: either both read the standard otherwise than actconform's evaluator, "
                    "or both have the fault"
                )
        elif peer.status == "explained":
            judged = any(level.tensors for level in peer.levels)
            evidence.append(f"{peer.name} is {'within every bound' if judged else 'explained by rounding end to end'}")
            if _versions_of_one(runtime.name, peer.name):
                evidence.append(f"so it is a matter of the version: {_facts(runtime)} against {_facts(peer)}")
    return replace(fault, blame=blame, evidence=tuple(evidence))


def _off_alike(first: ModelFault, second: ModelFault) -> bool:
    if first.tensor is None or second.tensor is None:
        return False
    got = first.tensor.got, second.tensor.got
    off = abs(first.tensor.got - first.tensor.wanted)
    return first.tensor.place == second.tensor.place and abs(got[0] - got[1]) * ALIKE <= off


def _versions_of_one(first: str, second: str) -> bool:
    return first.partition("@")[0] == second.partition("@")[0]


def _facts(runtime: RuntimeCheck) -> str:
    package = runtime.name.partition("@")[0]
    versions = [value for key, value in runtime.facts.items() if key in {"onnxruntime", "openvino", package}]
    return f"{runtime.name} {versions[0]}" if versions else runtime.name
