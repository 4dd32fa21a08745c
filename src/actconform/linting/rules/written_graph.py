"""Rules on what is wrong with a graph as it is written, whatever runs it: weights that are not finite, nodes that break the standard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from actconform.checking.ill_typed import ill_typed_nodes
from actconform.linting.linted_graph import name_of
from actconform.plugin.lint_rule import LintRule
from actconform.text import labelled, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.linting.linted_model import LintedModel
    from actconform.types.lint import LintObservation


def _nonfinite_weights(model: LintedModel) -> Iterator[LintObservation]:
    for weight in model.nonfinite_weights:
        if weight.element_type == TensorProto.FLOAT16 and not weight.nan:
            continue  # AC206 says why
        message = f"{weight.label} {weight.words}"
        if weight.output:
            message += f"; it comes to output {one_line(weight.output, 80)}"
        elif weight.spoiled is not weight.reader:
            message += f"; it comes to {labelled(name_of(weight.spoiled), weight.spoiled.op_type)}"
        numbers = {"nan": weight.nan, "infinite": weight.infinite, "elements": weight.size}
        yield model.at(weight.reader, message, numbers)


def _ill_typed(model: LintedModel) -> Iterator[LintObservation]:
    for node, words in ill_typed_nodes(model.proto):
        yield model.at(node, f"{one_line(node.op_type, 80)} {words}")


def _malformed(model: LintedModel) -> Iterator[LintObservation]:
    for each in model.malformed:
        message = f"{one_line(each.node.op_type, 80)} {each.words}; {each.advice}"
        if each.runs:
            yield model.at(each.node, f"{message}; ONNX Runtime has it at this opset all the same", severity="warning")
        else:
            yield model.at(each.node, message)


MALFORMED = LintRule(
    code="AC213",
    name="malformed-node",
    severity="error",
    why="The opset of a model says which definition of each operator holds. What has none there (Gelu before opset 20, axes of ReduceSum as an attribute since 13) is refused, or read as something else.",
    hint="Do what the message says: another opset, or a correction of what wrote the node.",
    check=_malformed,
)
"""The one rule for graphs whose nodes do not have the form that the other rules read."""

WRITTEN_RULES = (
    LintRule(
        code="AC211",
        name="weight-not-finite",
        severity="error",
        why="w x and w + x are NaN where w is; inf x is NaN for x = 0, and inf - inf is. An infinity that is only added to scores or bounds them is a mask.",
        hint="Look for it in the trained weights, where a training that diverged leaves NaN; if they are sound, export or convert the model anew.",
        check=_nonfinite_weights,
    ),
    LintRule(
        code="AC212",
        name="ill-typed-node",
        severity="error",
        why="The standard defines A + B for A and B of one type T out of a list (float32, float16, int64 ...), and each operator so: runtimes refuse other graphs.",
        hint="Put a Cast before the node, or convert all of the model to one type, and export it anew.",
        check=_ill_typed,
    ),
    MALFORMED,
)
