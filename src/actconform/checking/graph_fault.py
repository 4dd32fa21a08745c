"""What is wrong with a graph as it is written, whatever computes it: nodes that are ill-typed, weights that are NaN or infinite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from actconform._version import __version__
from actconform.checking.fault import line_of_source
from actconform.checking.ill_typed import ill_typed_nodes
from actconform.checking.nonfinite_weights import nonfinite_weights
from actconform.checking.result import CheckResult, ModelFault, RuntimeCheck
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.nonfinite_weights import NonfiniteWeight
    from actconform.checking.source import Source

GRAPH = "graph"  # the name of the column
_FEW = 3  # names in a sentence


def ill_typed_graph(source: Source, exporter: str = "") -> RuntimeCheck | None:
    """Return a column with the first node whose operator does not take the types that it reads or gives; None where there is none.

    The blame is the exporter's where it has just made the graph.
    """
    nodes = list(ill_typed_nodes(source.light))
    if not nodes:
        return None
    first, *rest = nodes
    evidence = ["the standard does not define the operator for these types: a runtime may refuse the graph"]
    if rest:
        evidence.append(f"so is it at {_listed(node_name(each.node) for each in rest)}")
    evidence.append("put a Cast before the node, or convert all of the model to one type, and export it anew")
    fault = ModelFault(
        blame="exporter" if exporter else "graph",
        node=node_name(first.node),
        op_type=first.node.op_type,
        sample=0,
        words=first.words,
        source=line_of_source(first.node),
        evidence=tuple(evidence),
    )
    return RuntimeCheck(name=GRAPH, status="at fault", fault=fault)


def unevaluated(
    source: Source, samples: Sequence[CheckedSample], seed: int | None, ill_typed: RuntimeCheck, reason: str
) -> CheckResult:
    """Return the result for a graph that cannot be evaluated at all, since it is ill-typed; `reason` is what the evaluation said."""
    return CheckResult(
        model=source.path.name,
        sha256=source.sha256,
        opset=source.opset,
        nodes=source.nodes,
        samples=[sample.facts for sample in samples],
        runtimes=[ill_typed],
        notes=(*source.notes, reason),
        seed=seed,
        actconform=__version__,
    )


def weights_of_graph(source: Source, samples: Sequence[CheckedSample]) -> RuntimeCheck | None:
    """Return a column with the first weight that is NaN or infinite where that spoils the result; None where there is none.

    `samples` have been evaluated: the evidence says what became of the outputs.
    """
    weights = nonfinite_weights(source)
    if not weights:
        return None
    first, *rest = weights
    evidence = [_way(first), *_spoiled_outputs(samples)]
    if rest:
        evidence.append(f"so is it in {_listed(each.name for each in rest)}")
    fault = ModelFault(
        blame="graph",
        node=node_name(first.reader),
        op_type=first.reader.op_type,
        sample=0,
        words=f"weight {one_line(first.name, 80)} {first.words}",
        source=line_of_source(first.reader),
        evidence=(*evidence, _advice(first)),
    )
    return RuntimeCheck(name=GRAPH, status="at fault", fault=fault)


def node_name(node: onnx.NodeProto) -> str:
    """Return what a check calls a node of the model: its name, or operator and first output."""
    return node.name or f"{node.op_type}:{next(filter(None, node.output), '')}"


def _way(weight: NonfiniteWeight) -> str:
    values = "NaN" if weight.nan else "an infinity"
    if weight.spoiled is weight.reader:
        return f"{weight.reader.op_type} computes with it: {values} there is no mask and no bound, and comes out as NaN or infinity"
    by = f"{one_line(node_name(weight.spoiled), 80)} ({one_line(weight.spoiled.op_type, 80)})"
    return f"it comes to {by}, which computes with it: {values} there is no mask and no bound"


def _spoiled_outputs(samples: Sequence[CheckedSample]) -> Iterator[str]:
    """Yield which true outputs are NaN or infinite in the sample where most elements are, or that none is."""
    worst: dict[str, tuple[int, int, int]] = {}
    for place, sample in enumerate(samples):
        for name, truth in sample.graph.truth.items():
            count = truth.size - int(np.count_nonzero(np.isfinite(truth))) if truth.dtype.kind == "f" else 0
            if count > worst.get(name, (0, 0, 0))[0]:
                worst[name] = count, truth.size, place + 1
    for name, (count, size, place) in worst.items():
        yield f"output {one_line(name, 80)} is NaN or infinite in {count:,} of {number_of(size, 'element')} of sample {place}, as the graph is written"
    if not worst:
        yield "with these inputs no output is NaN or infinite"


def _advice(weight: NonfiniteWeight) -> str:
    if weight.element_type == TensorProto.FLOAT16 and not weight.nan:
        return "float16 ends at 65,504, and a larger number becomes infinite when it is converted: keep this weight in float32, or scale it"
    return "look for it in the trained weights: a training that diverged leaves NaN; if they are sound, export or convert the model anew"


def _listed(names: Iterable[str]) -> str:
    shown = [one_line(name, 80) for name in names]
    return ", ".join(shown[:_FEW]) + (f" and {len(shown) - _FEW:,} more" if len(shown) > _FEW else "")
