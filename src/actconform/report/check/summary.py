"""A check in words and counts, for the screen and the page: the first fault, whose it is, how much was judged and how sharply."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from actconform.checking.spread import LIMIT
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from actconform.checking.result import (
        CheckResult,
        LevelCheck,
        ModelFault,
        OutputCheck,
        RoundingTie,
        RuntimeCheck,
        TensorCheck,
    )

NAME_LETTERS = 60  # of a name in a sentence
BARELY = 1.05  # times a bound: "1 times" would say nothing
SENTENCE_LETTERS = 400  # of a foreign sentence
SPREAD_MEANS = "how far the truth moves when every tensor is off by one rounding"
ROUNDED_ONCE = ("Add", "Sub", "Mul", "Cast")
BLAME_MEANS = {
    "framework": "the framework's own computation",
    "exporter": "the export: the graph is not the model as it was trained",
    "graph": "the graph as it is written, whatever computes it",
    "runtime": "the runtime's own computation",
    "runtime:optimizer": "the runtime's optimizer",
    "convention": "a convention: the standard leaves the result open",
    "version": "the version of the runtime",
    "undetermined": "not determined: the evidence does not decide",
}


class LevelPower(NamedTuple):
    """How much was judged at one level, over its samples."""

    level: str
    tensors: int
    loosest: float
    """The largest bound over the magnitude of its tensor: what a fault must exceed to be seen everywhere."""
    loosest_node: str
    blind: int = 0
    """Tensors beside these whose bound is no smaller than their values: no error could be seen there."""


class UnjudgedNodes(NamedTuple):
    """Nodes that no level judged, for one reason."""

    reason: str
    nodes: list[str]
    operators: list[str]


def name_shown(name: str, letters: int = NAME_LETTERS) -> str:
    """Return a foreign name on one line, its middle left out where it is long."""
    line = one_line(name, letters * 40)
    if len(line) <= letters:
        return line
    end = letters // 2
    return f"{line[: letters - end - 1]}…{line[-end:]}"


def number_shown(value: float) -> str:
    """Return a number to three digits; infinity as ∞."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    words = f"{value:,.0f}" if 1000 <= abs(value) < 1e5 else f"{value:.3g}"
    return re.sub(r"e([+-])0*", lambda match: f"e{match[1].strip('+')}", words)


def level_words(level: str) -> str:
    """Return at which level layers were shown: a framework that runs as it was trained has none."""
    return f"at level {name_shown(level)}" if level else "as it runs"


def share_shown(looseness: float) -> str:
    """Return a bound as a share of its tensor's largest value."""
    if math.isinf(looseness):
        return "unbounded"
    return f"{number_shown(100 * looseness)} %" if looseness >= 0.001 else number_shown(looseness)


def fault_sentence(fault: ModelFault) -> str:
    """Return what is wrong at the first place that rounding does not explain, without the place itself."""
    tensor, output = fault.tensor, fault.output
    if fault.words:
        return one_line(fault.words, SENTENCE_LETTERS)
    if tensor is not None:
        together = len(tensor.segment) > 1
        read = f"what the {len(tensor.segment)} nodes up to it read is fine" if together else "what it read is fine"
        return f"{_of_tensor(tensor)}; {read}"
    if output is not None:
        words = output_words(output)
        verb = "has" if words[0].isdigit() else "is"
        return f"output {name_shown(output.name)} {verb} {words}; no layer that was judged is over its bound"
    return "rounding does not explain it"


def fault_place(fault: ModelFault) -> str:
    """Return the node of a fault with its operator, after the layer of the trained model where that is known."""
    if fault.layer and fault.layer != fault.node:
        return (
            f"{name_shown(fault.layer)} ({' '.join(filter(None, (name_shown(fault.op_type), name_shown(fault.node))))})"
        )
    return f"{name_shown(fault.node)} ({name_shown(fault.op_type)})" if fault.op_type else name_shown(fault.node)


def _of_tensor(tensor: TensorCheck) -> str:
    if tensor.shape != tensor.wanted_shape:
        return f"shape {list(tensor.shape)} where {list(tensor.wanted_shape)} is right"
    if tensor.nonfinite:
        return f"{number_of(tensor.nonfinite, 'element is', 'elements are')} NaN or infinite, or should be"
    if tensor.bound == 0 or math.isinf(tensor.ratio):
        return f"{tensor.got:.9g} where it must be exactly {tensor.wanted:.9g}"
    if tensor.ratio < BARELY:
        return "just over its bound"
    return f"{number_shown(tensor.ratio)} times its bound"


def uncounted_words(tensor: TensorCheck) -> str:
    """Return what is wrong at a tensor over its bound in a column without a fault, as where showing it changes what runs."""
    return f"{_of_tensor(tensor)}, as shown; every output is explained all the same: no fault"


def output_words(output: OutputCheck) -> str:
    """Return the verdict of one output end to end, in words."""
    if output.unjudged:
        return f"not judged: {one_line(output.unjudged, SENTENCE_LETTERS)}"
    verdict = "explained" if output.explained else "NOT explained by rounding"
    if output.reason:
        return f"{verdict}: {one_line(output.reason, SENTENCE_LETTERS)}"
    if output.nonfinite:
        return f"{verdict}: {number_of(output.nonfinite, 'element is', 'elements are')} NaN or infinite, or should be"
    if math.isinf(output.spreads):
        return f"{verdict}: {output.got:.9g} where no rounding makes it other than {output.wanted:.9g}"
    words = f"{number_shown(output.spreads)} spreads (limit {LIMIT:g}): {verdict}"
    return f"{words}, where rounding decides otherwise" if output.tied else words


def tie_sentences(ties: Sequence[RoundingTie]) -> Iterator[str]:
    """Yield where rounding decides: a sentence for each node, of the sample in which most elements are concerned."""
    most: dict[str, RoundingTie] = {}
    for tie in ties:
        if tie.node not in most or tie.elements > most[tie.node].elements:
            most[tie.node] = tie
    for tie in most.values():
        count = f"{tie.elements:,} of {number_of(tie.size, 'element')} {'lies' if tie.elements == 1 else 'lie'}"
        yield f"rounding decides at {name_shown(tie.node)} ({name_shown(tie.op_type)}): {count} within rounding of its jump"


def relative_error(output: OutputCheck) -> float:
    """Return the largest error over the largest magnitude of the truth; the error itself where that is 0."""
    return output.error / output.magnitude if output.magnitude else output.error


def worst_outputs(runtime: RuntimeCheck) -> list[OutputCheck]:
    """Return each output of the model once, in the sample where it is worst; those that are not explained first."""
    worst: dict[str, OutputCheck] = {}
    for output in runtime.outputs:
        before = worst.get(output.name)
        if before is None or _gravity(output) > _gravity(before):
            worst[output.name] = output
    return sorted(worst.values(), key=lambda output: output.explained)


def _gravity(output: OutputCheck) -> tuple[bool, bool, float]:
    return not output.explained, not output.unjudged, output.spreads if not math.isnan(output.spreads) else math.inf


def decisions(runtime: RuntimeCheck, name: str) -> tuple[int, int]:
    """Return how many rows of an output decide for the same element as the truth, over all samples, and how many there are."""
    rows = [output for output in runtime.outputs if output.name == name]
    return sum(output.decided_alike for output in rows), sum(output.decisions for output in rows)


def worst_tensor(levels: Iterable[LevelCheck]) -> tuple[LevelCheck, TensorCheck] | None:
    """Return the tensor with the largest ratio and its level; None where nothing was judged.

    An addition is correctly rounded and its bound is half a unit, so it reaches 1 in any sound runtime: what is within its bound
    and ROUNDED_ONCE counts only where there is nothing else.
    """
    pairs = [(level, tensor) for level in levels for tensor in level.tensors]
    telling = [pair for pair in pairs if pair[1].op_type not in ROUNDED_ONCE or not pair[1].explained]
    return max(telling or pairs, key=lambda pair: pair[1].ratio, default=None)


def powers(runtime: RuntimeCheck) -> list[LevelPower]:
    """Return for each level how many tensors were judged over all samples, the loosest bound, and how many bounds say nothing."""
    grouped: dict[str, list[TensorCheck]] = {}
    for level in runtime.levels:
        grouped.setdefault(level.name, []).extend(level.tensors)
    shown = []
    for name, tensors in grouped.items():
        telling = [tensor for tensor in tensors if tensor.looseness < 1]
        loosest = max(telling, key=lambda tensor: tensor.looseness, default=None)
        place = ("", 0.0) if loosest is None else (loosest.node, loosest.looseness)
        shown.append(LevelPower(name, len(telling), place[1], place[0], len(tensors) - len(telling)))
    return shown


def unjudged_nodes(runtime: RuntimeCheck) -> list[UnjudgedNodes]:
    """Return the nodes that were judged at no level, by reason, the most frequent first."""
    judged = {node for level in runtime.levels for tensor in level.tensors for node in (tensor.node, *tensor.segment)}
    grouped: dict[str, dict[str, str]] = {}
    for level in runtime.levels:
        for node in level.unjudged:
            if node.node not in judged:
                grouped.setdefault(node.reason, {})[node.node] = node.op_type
    groups = [
        UnjudgedNodes(reason, list(nodes), list(dict.fromkeys(nodes.values()))) for reason, nodes in grouped.items()
    ]
    return sorted(groups, key=lambda group: -len(group.nodes))


def batch_sizes(result: CheckResult) -> list[int]:
    """Return the first dimensions of the samples' first inputs, each once."""
    first = [next((shape for shape in sample.shapes.values() if shape), ()) for sample in result.samples]
    return list(dict.fromkeys(shape[0] for shape in first if shape))


def check_verdict(result: CheckResult) -> str:
    """Return the verdict of the whole check in a few words."""
    statuses = {runtime.status for runtime in result.runtimes}
    if result.explained:
        return "Explained by rounding"
    if "not explained" in statuses:
        return "Not explained by rounding"
    if "at fault" in statuses:
        return "The graph is at fault"
    return "Not every runtime answered" if "explained" in statuses else "Nothing was compared"


def check_headline(result: CheckResult) -> str:
    """Return the verdict of the whole check in one sentence."""
    faults = [(runtime, runtime.fault) for runtime in result.runtimes if runtime.fault is not None]
    if faults:
        runtime, fault = faults[0]
        return f"{_headline_place(runtime, fault)}: {fault_sentence(fault)}."
    if result.explained:
        return "Rounding explains every output and every layer that was judged."
    if any(runtime.status == "not explained" for runtime in result.runtimes):
        return "Rounding does not explain every output."
    if not any(runtime.status == "explained" for runtime in result.runtimes):
        unjudged = any(runtime.outputs for runtime in result.runtimes)
        return f"No runtime gave an answer{' that could be judged' if unjudged else ''}: nothing was compared."
    refused = [runtime.name for runtime in result.runtimes if runtime.status not in ("explained", "not explained")]
    return f"Rounding explains what was compared, but {_joined(refused)} gave no answer."


def _headline_place(runtime: RuntimeCheck, fault: ModelFault) -> str:
    if fault.words:
        return f"The graph is at fault at {fault_place(fault)}"
    place = f"{fault_place(fault)} on {name_shown(runtime.name)}"
    if fault.tensor is None:
        return f"Rounding does not explain {place}"
    return f"{place} is the first layer that rounding does not explain"


def _joined(names: Sequence[str]) -> str:
    return ", ".join(name_shown(name) for name in names)
