"""What is wrong with a graph as it is written, whatever computes it: nodes that break the standard, weights that are NaN or infinite."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from onnx import TensorProto

from actconform._version import __version__
from actconform.checking.fault import line_of_source
from actconform.checking.ill_typed import ill_typed_nodes
from actconform.checking.model_check import answers_of_runtimes
from actconform.checking.nonfinite_weights import nonfinite_weights
from actconform.checking.result import CheckResult, ModelFault, RuntimeCheck
from actconform.checking.spoiling_weights import first_spoiling
from actconform.text import labelled, listed, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.malformed import Malformed
    from actconform.checking.nonfinite_weights import NonfiniteWeight
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.source import Source

GRAPH = "graph"  # the name of the column
_FEW = 3  # names in a sentence


def malformed_graph(nodes: Sequence[Malformed], exporter: str = "") -> RuntimeCheck:
    """Return a column with the gravest of a graph's malformed nodes, of which there is at least one.

    The blame is the exporter's where it has just made the graph.
    """
    first, *rest = sorted(nodes, key=lambda each: each.readable)
    evidence = [
        "the standard does not define what the node computes: onnx's checker refuses the graph, and runtimes may"
    ]
    others = [f"{node_name(each.node)} ({each.node.op_type})" for each in rest]
    if others:
        evidence.append(f"so it is at {_names(others)}")
    return _column(first.node, first.words, [*evidence, first.advice], exporter)


def ill_typed_graph(source: Source, exporter: str = "") -> RuntimeCheck | None:
    """Return a column with the first node whose operator does not take the types that it reads or gives; None where there is none.

    The blame is the exporter's where it has just made the graph.
    """
    nodes = list(ill_typed_nodes(source.light))
    if not nodes:
        return None
    first, *rest = nodes
    evidence = ["the standard does not define the operator for these types: a runtime may refuse the graph"]
    advice = "put a Cast before the node, or convert all of the model to one type, and export it anew"
    if rest:
        evidence.append(f"so is it at {_names(node_name(each.node) for each in rest)}")
    return _column(first.node, first.words, [*evidence, advice], exporter)


def _column(node: onnx.NodeProto, words: str, evidence: Sequence[str], exporter: str) -> RuntimeCheck:
    fault = ModelFault(
        blame="exporter" if exporter else "graph",
        node=node_name(node),
        op_type=node.op_type,
        sample=0,
        words=words,
        source=line_of_source(node),
        evidence=tuple(evidence),
    )
    return RuntimeCheck(name=GRAPH, status="at fault", fault=fault)


def unevaluated(
    source: Source, samples: Sequence[CheckedSample], seed: int | None, column: RuntimeCheck, reason: str
) -> CheckResult:
    """Return the result for a graph that cannot be evaluated at all, for what `column` says of it; `reason` is a note on that."""
    return CheckResult(
        model=source.path.name,
        sha256=source.sha256,
        opset=source.opset,
        nodes=source.nodes,
        samples=[sample.facts for sample in samples],
        runtimes=[column],
        notes=(*source.notes, reason),
        seed=seed,
        actconform=__version__,
    )


class WeightsOfGraph(NamedTuple):
    """What a check has to say of the weights that are NaN or infinite."""

    column: RuntimeCheck | None
    """With the first that spoils an output; None where none does."""
    notes: tuple[str, ...] = ()
    """Those that may spoil an output at other inputs, and do not with these."""


def weights_of_graph(
    source: Source, samples: Sequence[CheckedSample], runtimes: Sequence[RuntimeRuns] = ()
) -> WeightsOfGraph:
    """Return what there is to say of weights that are NaN, or infinite where that is no mask and no bound.

    `samples` have been evaluated, with the answers of `runtimes`; they are evaluated again with ordinary numbers in those weights.
    """
    weights = nonfinite_weights(source)
    if not weights:
        return WeightsOfGraph(None)
    answers = [answers_of_runtimes(runtimes, sample.inputs) for sample in samples]
    spoiled = first_spoiling(source, samples, answers, weights)
    if spoiled is None:
        return WeightsOfGraph(None, tuple(_harmless(weights)))
    first, *rest = weights[spoiled.place :]
    evidence = [_way(first), *spoiled.sentences]
    if rest:
        evidence.append(f"not finite either: {_names(each.label for each in rest)}")
    fault = ModelFault(
        blame="graph",
        node=node_name(first.reader),
        op_type=first.reader.op_type,
        sample=0,
        words=f"{first.label} {first.words}",
        source=line_of_source(first.reader),
        evidence=(*evidence, _advice(first)),
    )
    column = RuntimeCheck(name=GRAPH, status="at fault", fault=fault)
    return WeightsOfGraph(column, tuple(_harmless(weights[: spoiled.place])))


def _harmless(weights: Sequence[NonfiniteWeight]) -> Iterator[str]:
    for weight in weights[:_FEW]:
        yield f"{weight.label} {weight.words}; in float64 it spoils no output with these inputs; with others it may, and so may a runtime that lets it through: {_way(weight)}"
    if len(weights) > _FEW:
        yield f"so it is with {_names(each.label for each in weights[_FEW:])}"


def node_name(node: onnx.NodeProto) -> str:
    """Return what a check calls a node of the model: its name, or operator and first output."""
    return node.name or f"{node.op_type}:{next(filter(None, node.output), '')}"


def _way(weight: NonfiniteWeight) -> str:
    values = "NaN" if weight.nan else "an infinity"
    by = labelled(node_name(weight.spoiled), weight.spoiled.op_type)
    if weight.output:
        return f"it comes to output {one_line(weight.output, 80)} as it is, from {by}"
    if weight.spoiled is weight.reader:
        return f"{one_line(weight.reader.op_type, 80)} computes with it: {values} there is no mask and no bound"
    return f"it comes to {by}, which computes with it: {values} there is no mask and no bound"


def _advice(weight: NonfiniteWeight) -> str:
    if weight.element_type == TensorProto.FLOAT16 and not weight.nan:
        return "float16 ends at 65,504, and a larger number becomes infinite when it is converted: keep this weight in float32, or scale it"
    if weight.attribute:
        return "look for it where the model is made, in the arguments of that layer, and export it anew"
    return "look for it in the trained weights: a training that diverged leaves NaN; if they are sound, export or convert the model anew"


def _names(names: Iterable[str]) -> str:
    return listed([one_line(name, 80) for name in names], _FEW)
