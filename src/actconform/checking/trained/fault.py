"""Whose fault it is where a trained model and a graph part: the exporter's, the framework's, or the file is of another model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from actconform.checking.fault import end_to_end_words, measure_words, producer, source_line, visible_end_to_end
from actconform.checking.gradients import GRADIENT
from actconform.checking.low_precision import is_low_precision
from actconform.checking.result import Blame, LevelCheck, ModelFault, OutputCheck, TensorCheck
from actconform.checking.structure import is_defined, opsets_of
from actconform.checking.trained.weight_batch_norm import MEANS, VARIANCES
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.text import listed, number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.checked_sample import CheckedSample
    from actconform.checking.trained.column import TrainedColumn
    from actconform.checking.trained.layer_matching import Matching
    from actconform.checking.trained.weights import WeightCheck, WeightsComparison
    from actconform.types.trained import OpenedModel, TrainedRun

EXACT = "float64"  # the level at which the framework computes in float64
TRAINING = "float64, training mode"
MOST_NODES = 8
MOST_WEIGHTS = 3  # that evidence names
LAST_BITS = 1e-5  # of weights of usual size: what is smaller is no other training, but the same done again
ANOTHER_MODEL = 0.5  # share of the weights that differ from which on the file is of another checkpoint


class Observations(NamedTuple):
    """What a trained model and a graph were seen to do on the samples."""

    samples: Sequence[CheckedSample]
    outputs: Sequence[OutputCheck]
    exact: Sequence[OutputCheck]
    """The verdicts on outputs in float64, empty where the framework cannot compute it so."""
    levels: Sequence[LevelCheck]
    matchings: Mapping[int, Matching]
    """By sample."""
    weights: WeightsComparison | None
    runs: Sequence[TrainedRun]
    """Those that were matched, for the layers' own weights."""


def fault_of_trained(column: TrainedColumn, opened: OpenedModel, observed: Observations) -> ModelFault | None:
    """Return the first layer, or output, at which the graph is not what the framework computes; None where rounding explains all."""
    if (fault := _undefined_operator(column, observed)) is not None:
        return fault
    for name in (EXACT, ""):
        for level in observed.levels:
            wrong = next(
                (tensor for tensor in level.tensors if not tensor.explained and _counts(observed, level, tensor)), None
            )
            if level.name == name and wrong is not None:
                return _of_layer(column, opened, observed, level, wrong)
    if (fault := _other_weight(column, observed)) is not None:
        return fault
    if not column.mode.training and (fault := _left_in_training(column, observed)) is not None:
        return fault
    for output in (*observed.exact, *observed.outputs):
        if not output.explained:
            return _of_output(column, observed, output, is_exact=any(output is each for each in observed.exact))
    return None


def _of_layer(
    column: TrainedColumn, opened: OpenedModel, observed: Observations, level: LevelCheck, tensor: TensorCheck
) -> ModelFault:
    matching = observed.matchings.get(level.sample)
    layer = layer_of_tensor(matching, tensor.tensor, tensor.node)
    blame, evidence = _blame(column, observed, exact=level.name == EXACT)
    words = f"{opened.framework} gives {measure_words(tensor)}"
    evidence = [
        f"layer {one_line(layer, 120)}: {words}" if layer else words,
        *_of_segment(observed, level, tensor),
        *_of_weights(observed, layer),
        *_training_mode(observed, level, tensor),
        *evidence,
    ]
    evidence.append(visible_end_to_end(observed.outputs, level.sample))
    sample = observed.samples[level.sample]
    return ModelFault(
        blame=blame,
        node=tensor.node,
        op_type=tensor.op_type,
        sample=level.sample,
        level=level.name,
        tensor=tensor,
        segment=tensor.segment,
        layer=layer,
        source=source_line(sample.graph, tensor.node),
        evidence=tuple(evidence),
    )


def _other_weight(column: TrainedColumn, observed: Observations) -> ModelFault | None:
    """Return the fault of a graph with a weight that is not the trained one, though these inputs do not show it: a row that none of them picks."""
    graph = observed.samples[0].graph
    if is_low_precision(graph) or observed.weights is None:
        return None
    for check in filter(_is_proof, observed.weights.checks):
        node = next((node for node in graph.nodes if not set(check.initializers).isdisjoint(node.inputs)), None)
        if node is not None:
            blame, evidence = _blame(column, observed, exact=True)
            return ModelFault(
                blame=blame,
                node=node.name,
                op_type=node.proto.op_type,
                sample=0,
                layer=check.layer or layer_of_tensor(observed.matchings.get(0), node.proto.output[0], node.name),
                source=source_line(graph, node.name),
                evidence=(
                    f"weight {one_line(check.parameter, 120)}: {check.words}",
                    "at these inputs rounding would explain what comes of it",
                    *evidence[: int(blame == "graph")],
                ),
            )
    return None


def _is_proof(check: WeightCheck) -> bool:
    """Return whether a constant is this weight for certain, and not as it was trained: what differs throughout may be another's, or folded."""
    known_kind = check.kind in ("one element", "rounded and back", "truncated to 8 bits")
    mostly_equal = 0 < check.differing <= math.prod(check.shape) // 2
    return check.state == "different" and check.largest_difference > 0 and (known_kind or mostly_equal)


def _counts(observed: Observations, level: LevelCheck, tensor: TensorCheck) -> bool:
    """Return whether a tensor over its bound is evidence: a partner by order alone is a guess, unless the outputs part too."""
    matching = observed.matchings.get(level.sample)
    match = next((match for match in matching.matches if match.tensor == tensor.tensor), None) if matching else None
    if match is None or match.by != "order":
        return True
    outputs = observed.exact if level.name == EXACT else observed.outputs
    return any(not output.explained for output in outputs if output.sample == level.sample)


def _undefined_operator(column: TrainedColumn, observed: Observations) -> ModelFault | None:
    """Return the fault of a graph with an operator of the standard's domain that the standard does not have: nothing can run it."""
    for place, sample in enumerate(observed.samples):
        graph = sample.graph
        opsets = opsets_of(graph.model)
        for node in graph.nodes:
            if node.proto.domain in STANDARD and not is_defined(node.proto, opsets):
                writer = f"{column.exporter} wrote" if column.exporter else "the file has"
                operator = one_line(node.proto.op_type)
                return ModelFault(
                    blame="exporter",
                    node=node.name,
                    op_type=node.proto.op_type,
                    sample=place,
                    layer=layer_of_tensor(observed.matchings.get(place), node.proto.output[0], node.name),
                    source=source_line(graph, node.name),
                    evidence=(
                        f"{writer} the operator {operator}, which the standard does not have at opset {opsets['']}: no runtime need run it",
                    ),
                )
    return None


def _left_in_training(column: TrainedColumn, observed: Observations) -> ModelFault | None:
    """Return the fault of a graph that has a Dropout in training mode, which drops at random: nothing behind it can be judged."""
    for place, sample in enumerate(observed.samples):
        graph = sample.graph
        for node in graph.nodes:
            if node.proto.op_type == "Dropout" and node.computation is None:
                by = f" by {column.exporter}" if column.exporter else ""
                return ModelFault(
                    blame="exporter",
                    node=node.name,
                    op_type="Dropout",
                    sample=place,
                    layer=layer_of_tensor(observed.matchings.get(place), node.proto.output[0], node.name),
                    source=source_line(graph, node.name),
                    evidence=(
                        f"it was exported{by} in training mode: the Dropout drops at random, and what is behind it cannot be judged",
                        "export it after model.eval(), or with training=False",
                    ),
                )
    return None


def _of_output(column: TrainedColumn, observed: Observations, output: OutputCheck, *, is_exact: bool) -> ModelFault:
    graph = observed.samples[output.sample].graph
    node, op_type = producer(graph, output.name)
    blame, evidence = _blame(column, observed, exact=is_exact)
    where = "in float64 " if is_exact else ""
    return ModelFault(
        blame=blame,
        node=node,
        op_type=op_type,
        sample=output.sample,
        level=EXACT if is_exact else "",
        output=output,
        layer=_layer_of_gradient(observed, output.name)
        or layer_of_tensor(observed.matchings.get(output.sample), output.name, node),
        source=source_line(graph, node),
        evidence=(
            f"{where}{end_to_end_words(output)}",
            "no layer that could be matched is over its bound",
            *_of_weights(observed, ""),
            *evidence,
        ),
    )


def _layer_of_gradient(observed: Observations, output: str) -> str:
    """Return the layer whose weight an output is the gradient of; "" where it is none."""
    weight = output.removeprefix(GRADIENT)
    checks = observed.weights.checks if observed.weights and weight != output else ()
    return next((check.layer or check.parameter for check in checks if weight in check.initializers), "")


def _blame(column: TrainedColumn, observed: Observations, *, exact: bool) -> tuple[Blame, list[str]]:
    """Return whose fault it is that the two part, in float64 or only as the framework runs, and what shows it."""
    name = column.runs.name
    if column.is_graph:
        return "graph", [f"both graphs were evaluated in float64: {one_line(column.source)} and the model part there"]
    if not exact:
        return _blame_as_it_runs(name, observed)
    weights = observed.weights.checks if observed.weights else []
    statistics = (*MEANS, *VARIANCES)  # an export in training mode has none
    different = [
        check
        for check in weights
        if check.state == "different" or (check.state == "missing" and not check.parameter.endswith(statistics))
    ]
    if len(different) > 1 and len(different) >= ANOTHER_MODEL * len(weights):
        return "graph", [_of_other_weights(different, len(weights))]
    by = f"exported by {column.exporter}: " if column.exporter else ""
    return "exporter", [
        f"{by}the trained model in float64, and the graph in float64, part there: no runtime is involved"
    ]


def _of_other_weights(different: Sequence[WeightCheck], count: int) -> str:
    words = f"{len(different)} of {number_of(count, 'weight')} are not those of the trained model"
    if all(check.state == "different" and check.largest_difference < LAST_BITS for check in different):
        return f"{words}, all in their last bits alone: does the factory give the same weights at each call?"
    return f"{words}: the file is of another checkpoint"


def _blame_as_it_runs(name: str, observed: Observations) -> tuple[Blame, list[str]]:
    if not observed.exact:
        differing = any(check.state == "different" for check in _changed(observed))
        return (
            ("exporter", [])
            if differing
            else ("undetermined", [f"{name} cannot compute it in float64, so it may be either's"])
        )
    if all(output.explained for output in observed.exact):
        return "framework", [f"{name} in float64 gives what the graph gives: what it computes as it runs does not"]
    return "exporter", [f"{name} in float64 does not give what the graph gives either"]


def _changed(observed: Observations) -> list[WeightCheck]:
    return [check for check in observed.weights.checks if not check.exact] if observed.weights else []


def _of_weights(observed: Observations, layer: str) -> Iterator[str]:
    """Yield what became of the weights that belong to the layer, or of all where there is no layer, unless they are as trained."""
    path = _path(layer)
    owned = {
        name
        for run in observed.runs
        for record in run.layers
        if _path(record.name) == path
        for name in record.parameters
    }
    changed = [
        check
        for check in _changed(observed)
        if check.state in ("different", "rounded", "missing") and (not layer or check.parameter in owned)
    ]
    for check in changed[:MOST_WEIGHTS]:
        yield f"weight {one_line(check.parameter, 120)}: {check.words}"
    if len(changed) > MOST_WEIGHTS:
        yield f"and {number_of(len(changed) - MOST_WEIGHTS, 'more weight is', 'more weights are')} not as they were trained"
    if layer and not changed and observed.weights:
        yield (
            "the weights of the layer itself are in the graph as they were trained"
            if owned
            else "it has no weights of its own"
        )


def _of_segment(observed: Observations, level: LevelCheck, tensor: TensorCheck) -> Iterator[str]:
    """Yield which nodes lie between what was read and the tensor, where there are several: any of them may be at fault."""
    if len(tensor.segment) > 1:
        operators = {node.name: node.proto.op_type for node in observed.samples[level.sample].graph.nodes}
        nodes = [f"{operators.get(name, '')} {one_line(name, 80)}" for name in tensor.segment]
        yield f"at fault is one of {listed(nodes, MOST_NODES)}"


def _path(layer: str) -> str:
    """Return the path of the layer that was called, or in which a function was."""
    return layer.partition(":")[0].partition("#")[0]


def _training_mode(observed: Observations, level: LevelCheck, tensor: TensorCheck) -> Iterator[str]:
    """Yield whether the graph is right for the model in training mode."""
    nodes = {node.name: node.proto for node in observed.samples[level.sample].graph.nodes}
    for name in tensor.segment:
        node = nodes[name]
        if node.op_type == "BatchNormalization" and any(a.name == "training_mode" and a.i for a in node.attribute):
            yield f"{one_line(name)} is a BatchNormalization in training mode: it was exported so, and uses the moments of the batch"
    yield from _of_the_batch(observed, level, tensor)
    for training in observed.levels:
        if training.name == TRAINING and training.sample == level.sample:
            same = next((each for each in training.tensors if each.tensor == tensor.tensor), None)
            if same is not None and same.explained:
                yield (
                    "with Dropout and BatchNorm in training mode the trained model gives what the graph gives: it was exported in training mode"
                )


def _of_the_batch(observed: Observations, level: LevelCheck, tensor: TensorCheck) -> Iterator[str]:
    """Yield whether the graph has the layer's scale or shift, and not its running statistics, which training alone does without."""
    path = _path(layer_of_tensor(observed.matchings.get(level.sample), tensor.tensor, tensor.node))
    checks = [check for check in observed.weights.checks if _path(check.layer) == path] if observed.weights else []
    statistics = [check for check in checks if check.parameter.endswith((*MEANS, *VARIANCES))]
    lost = [check for check in statistics if check.state == "missing"]
    present = [check for check in checks if check not in statistics and check.state != "missing"]
    if lost and len(lost) == len(statistics) and present:
        names = " and ".join(one_line(check.parameter, 120) for check in lost)
        yield f"the graph does not have {names}: it uses the statistics of the batch, as BatchNorm does in training mode: it was exported so"


def layer_of_tensor(matching: Matching | None, tensor: str, node: str) -> str:
    """Return the layer of the trained model that gives a tensor of the graph, else the one that its node belongs to; "" for none."""
    if matching is None:
        return ""
    layer = next((match.layer for match in matching.matches if match.tensor == tensor), "")
    return layer or matching.layer_of.get(node, "")
