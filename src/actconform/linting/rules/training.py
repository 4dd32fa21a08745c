"""Rules on nodes that an export left in training: normalization by the batch's own statistics, dropout that draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.linting.linted_graph import attribute_of, is_standard, name_of
from actconform.onnx.nested_graphs import graphs
from actconform.onnx.training_mode import DRAWING, TRAINING_IS_STATED
from actconform.plugin.lint_rule import LintRule
from actconform.text import one_line
from actconform.types.lint import LintFix

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from actconform.linting.linted_graph import LintedGraph
    from actconform.linting.linted_model import LintedModel
    from actconform.types.lint import LintObservation

_COMPARISONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")


def _norm_in_training(model: LintedModel) -> Iterator[LintObservation]:
    for graph in model.graphs:
        for node in graph.nodes:
            if _norm_trains(node, model.opset):
                yield model.at(
                    node,
                    "BatchNormalization normalizes by mean and variance of the batch that it gets: an answer depends on what else is in the batch",
                )


def _norm_trains(node: onnx.NodeProto, opset: int) -> bool:
    if node.op_type != "BatchNormalization" or not is_standard(node):
        return False
    if opset >= TRAINING_IS_STATED:
        return bool(attribute_of(node, "training_mode", 0))
    return sum(bool(name) for name in node.output) > 1


def _end_norm_training(proto: onnx.ModelProto, model: LintedModel) -> list[LintFix]:
    fixes = []
    for body in graphs(proto.graph):
        read = {name for node in body.node for name in node.input} | {value.name for value in body.output}
        for node in body.node:
            if not _norm_trains(node, model.opset) or read.intersection(filter(None, node.output[1:])):
                continue
            del node.output[1:]
            attributes = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend(attributes)
            change = "normalizes by the running mean and variance, as in inference"
            fixes.append(LintFix(code="AC201", node=one_line(name_of(node), 200), change=change, exact=False))
    return fixes


def _dropout_in_training(model: LintedModel) -> Iterator[LintObservation]:
    for graph in model.graphs:
        for node in graph.nodes:
            if not is_standard(node):
                continue
            if node.op_type == "Dropout" and (ratio := _drawn_share(graph, node)) is not None:
                yield model.at(
                    node, f"Dropout sets {ratio:.3g} of its input to 0 by chance in each run", {"ratio": ratio}
                )
            elif node.op_type in DRAWING and (product := _mask_product(graph, node)) is not None:
                yield model.at(
                    product,
                    f"a mask drawn by {node.op_type} {one_line(name_of(node), 80)} is multiplied in at each run: dropout in training",
                )


def _drawn_share(graph: LintedGraph, node: onnx.NodeProto) -> float | None:
    """Return the ratio of a Dropout that surely trains; None of another."""
    if len(node.input) < 3 or not node.input[2]:
        return None
    training = graph.scalar(node.input[2])
    ratio = graph.scalar(node.input[1]) if node.input[1] else 0.5
    return ratio if training and ratio else None


def _mask_product(graph: LintedGraph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the Mul or Where by which a drawn tensor, compared with a constant, masks another; None where it does not."""
    if node.op_type == "Bernoulli":
        masks = [node.output[0]]
    else:
        masks = [
            reader.node.output[0]
            for reader in graph.destinations(node.output[0])
            if reader.node is not None
            and reader.node.op_type in _COMPARISONS
            and any(graph.scalar(name) is not None for name in reader.node.input)
        ]
    for mask in masks:
        for reader in graph.destinations(mask):
            if reader.node is not None and reader.node.op_type in {"Mul", "Where", "SelectV2"}:
                return reader.node
    return None


def _end_dropout(proto: onnx.ModelProto, model: LintedModel) -> list[LintFix]:
    trained = {
        name_of(node)
        for graph in model.graphs
        for node in graph.nodes
        if node.op_type == "Dropout" and _drawn_share(graph, node)
    }
    fixes = []
    for body in graphs(proto.graph):
        for node in body.node:
            if node.op_type == "Dropout" and is_standard(node) and name_of(node) in trained:
                del node.input[2:]
                change = "passes its input on, as in inference"
                fixes.append(LintFix(code="AC202", node=one_line(name_of(node), 200), change=change, exact=False))
    return fixes


TRAINING_RULES = (
    LintRule(
        code="AC201",
        name="batch-norm-in-training-mode",
        severity="error",
        why="In training y = (x - mean(batch)) / sqrt(var(batch) + epsilon), in inference the running mean and variance stand there: of one row alone training gives the bias, whatever the row.",
        hint="Export in evaluation mode (model.eval(), training=False); --fix sets training_mode to 0.",
        check=_norm_in_training,
        fix=_end_norm_training,
    ),
    LintRule(
        code="AC202",
        name="dropout-in-training-mode",
        severity="error",
        why="In training y = x m / (1 - p) with a mask m that is drawn at each run; in inference y = x.",
        hint="Export in evaluation mode; in torch F.dropout(x, p) trains unless it is told training=self.training. --fix takes the mode off Dropout nodes.",
        check=_dropout_in_training,
        fix=_end_dropout,
    ),
)
