"""Rules on an output's activation beside the loss, the targets, and what sample inputs show."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.plugin.lint_rule import LintRule
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actconform.linting.activations import GraphActivation
    from actconform.linting.linted_model import LintedModel
    from actconform.linting.unit_statistics import UnitStatistics
    from actconform.types.lint import LintObservation, Severity, TrainingLoss

FEW_ROWS = 32  # numbers a unit: a healthy relu is 0 for all of them once in 2^32
MANY = 0.1  # of the units


class _Range(NamedTuple):
    least: float
    most: float
    words: str


RANGES = {
    "softmax": _Range(0, 1, "0 to 1"),
    "sigmoid": _Range(0, 1, "0 to 1"),
    "tanh": _Range(-1, 1, "-1 to 1"),
    "relu": _Range(0, np.inf, "0 and up"),
}
GIVES = {"softmax": "probabilities", "sigmoid": "probabilities", "log-softmax": "log-probabilities"}


def _loss_from_logits(model: LintedModel) -> Iterator[LintObservation]:
    for output, activation in _outputs(model):
        for loss in model.losses:
            if loss.expects != "logits" or activation.kind not in GIVES or _gives_logits_too(model, activation):
                continue
            if activation.kind == "log-softmax" and loss.kind == "cross-entropy":
                message = f"output {output} is a log-softmax already, and {loss.place} takes its log-softmax again, which changes nothing"
                yield model.at(activation.node, message, severity="note")
                continue
            yield model.at(
                activation.node,
                f"output {output} is a {activation.kind}, and {loss.place} expects logits: it applies {_own_activation(loss)} once more{_condition(loss)}",
                {"loss": loss.place},
                None if loss.certain else "warning",
            )


def _loss_of_probabilities(model: LintedModel) -> Iterator[LintObservation]:
    if len(model.main.outputs) != 1:
        return
    (output,) = model.main.outputs
    activation = model.of_output(output)
    giver = model.main.giver(model.main.origin(output))
    for loss in model.losses:
        wanted = {"probabilities": ("softmax", "sigmoid"), "log-probabilities": ("log-softmax",)}.get(loss.expects)
        is_linear = giver is not None and giver.op_type in {"Gemm", "MatMul", "Conv", "Add"}
        is_wrong = (
            activation is not None and loss.expects == "log-probabilities" and activation.kind in {"softmax", "sigmoid"}
        )
        if wanted and giver is not None and ((activation is None and is_linear) or is_wrong):
            form = f"a {activation.kind}" if activation else f"linear ({giver.op_type})"
            yield model.at(
                giver,
                f"output {one_line(output, 80)} is {form}, and {loss.place} expects {loss.expects}{_condition(loss)}",
                {"loss": loss.place},
                None if loss.certain else "warning",
            )


def _cross_entropy_of_pairs(model: LintedModel) -> Iterator[LintObservation]:
    for output, activation in _outputs(model):
        for loss in model.losses:
            if loss.kind == "binary cross-entropy" and activation.kind == "softmax":
                units = activation.units
                severity: Severity = "note" if units == 2 else "warning"
                advice = (
                    "of two classes the two losses are the same where targets are one-hot"
                    if units == 2
                    else "it treats each class as a question of its own"
                )
                classes = f" of {number_of(units, 'class', 'classes')}" if units else ""
                yield model.at(
                    activation.node,
                    f"output {output} is a softmax{classes}, and {loss.place} is a binary cross-entropy: {advice}",
                    {"units": units, "loss": loss.place} if units else {"loss": loss.place},
                    severity,
                )


def _range_of_regression(model: LintedModel) -> Iterator[LintObservation]:
    regression = next((loss for loss in model.losses if loss.kind == "regression"), None)
    for output, activation in _outputs(model):
        if activation.kind not in RANGES:
            continue
        least, most, words = RANGES[activation.kind]
        targets = model.targets.get(output)
        if targets is None:
            if regression is not None and not model.targets:
                yield model.at(
                    activation.node,
                    f"output {output} is a {activation.kind}, which gives {words}, and {regression.place} is a loss of regression: "
                    "whether the targets lie there is not known, name them with --targets",
                    severity="note",
                )
            continue
        if targets.dtype.kind != "f" and (activation.kind == "softmax" or _is_classification(model)):
            continue  # numbers of classes
        values = targets.astype(np.float64)
        values = values[~np.isnan(values)]
        outside = int(((values < least) | (values > most)).sum())
        if outside:
            yield model.at(
                activation.node,
                f"output {output} is a {activation.kind}, which gives {words}; {outside:,} of {number_of(values.size, 'target')} lie outside, "
                f"from {np.min(values):.4g} to {np.max(values):.4g}",
                {
                    "outside": outside,
                    "targets": values.size,
                    "least": float(np.min(values)),
                    "most": float(np.max(values)),
                },
            )


def _dead_units(model: LintedModel) -> Iterator[LintObservation]:
    for each in model.units:
        if each.activation.kind == "relu" and each.dead:
            words = f"{each.dead:,} of {number_of(each.units, 'unit')} behind the relu are 0 for all {number_of(each.rows, 'value')} of the samples"
            yield model.at(
                each.activation.node, words + _caution(each), _counts(each, each.dead), _severity(each, each.dead)
            )


def _saturated_units(model: LintedModel) -> Iterator[LintObservation]:
    for each in model.units:
        activation = each.activation
        if (
            activation.kind not in {"sigmoid", "tanh"}
            or not each.saturated
            or _is_gate(activation)
            or _is_output(model, activation)
        ):
            continue
        ends = "0.0025 of 0 or 1" if activation.kind == "sigmoid" else "0.005 of -1 or 1"
        words = f"{each.saturated:,} of {number_of(each.units, 'unit')} behind the {activation.kind} are within {ends} for all {number_of(each.rows, 'value')} of the samples"
        yield model.at(
            activation.node, words + _caution(each), _counts(each, each.saturated), _severity(each, each.saturated)
        )


def _caution(each: UnitStatistics) -> str:
    return f": with fewer than {FEW_ROWS} values that may be chance" if each.rows < FEW_ROWS else ""


def _counts(each: UnitStatistics, count: int) -> dict[str, int | float | str]:
    return {"units": each.units, "count": count, "share": count / each.units, "values": each.rows}


def _severity(each: UnitStatistics, count: int) -> Severity:
    return "warning" if each.rows >= FEW_ROWS and count >= MANY * each.units else "note"


def _is_gate(activation: GraphActivation) -> bool:
    """Whether the values are factors of others, as in silu and in squeeze-and-excitation."""
    readers = list(activation.graph.destinations(activation.result))
    return any(reader.node is not None and reader.node.op_type == "Mul" for reader in readers)


def _is_output(model: LintedModel, activation: GraphActivation) -> bool:
    return any(model.of_output(output) is activation for output in model.main.outputs)


def _outputs(model: LintedModel) -> Iterator[tuple[str, GraphActivation]]:
    for value in model.main.body.output:
        activation = model.of_output(value.name)
        if activation is not None:
            yield one_line(value.name, 80), activation


def _gives_logits_too(model: LintedModel, activation: GraphActivation) -> bool:
    """Whether the argument of an activation is an output as well: the loss may be of that."""
    return any(model.main.origin(output) == model.main.origin(activation.argument) for output in model.main.outputs)


def _condition(loss: TrainingLoss) -> str:
    return "" if loss.certain else ", if it is given this output as it is"


def _own_activation(loss: TrainingLoss) -> str:
    return "sigmoid" if loss.kind == "binary cross-entropy" else "softmax"


def _is_classification(model: LintedModel) -> bool:
    return any(loss.kind != "regression" for loss in model.losses)


LOSS_RULES = (
    LintRule(
        code="AC111",
        name="activation-before-a-loss-from-logits",
        severity="error",
        why="A loss from logits computes -log softmax(z) or -log sigmoid(z) of what it is given: of probabilities it is softmax(softmax(z)), whose gradients vanish.",
        hint="Give the loss the linear output, or take the loss of probabilities (from_logits=False, NLLLoss of log_softmax, BCELoss).",
        check=_loss_from_logits,
        needs="--loss",
    ),
    LintRule(
        code="AC112",
        name="logits-into-a-loss-of-probabilities",
        severity="error",
        why="-log p needs 0 < p <= 1: of a linear output it is NaN below 0 and negative above 1; -p instead of -log p does not punish a wrong class.",
        hint="Add the activation that the loss expects, or take the loss from logits.",
        check=_loss_of_probabilities,
        needs="--loss",
    ),
    LintRule(
        code="AC113",
        name="binary-cross-entropy-behind-softmax",
        severity="warning",
        why="Binary cross-entropy sums -t log p - (1 - t) log(1 - p) over units that softmax couples: its gradient is not the p - t of cross-entropy.",
        hint="Use categorical cross-entropy for one class of many, or a sigmoid for labels that exclude nothing.",
        check=_cross_entropy_of_pairs,
        needs="--loss",
    ),
    LintRule(
        code="AC114",
        name="output-cannot-reach-the-targets",
        severity="error",
        why="sigmoid lies in (0, 1), tanh in (-1, 1), relu in [0, inf): a target outside leaves an error that no training removes.",
        hint="Leave the output of a regression linear, or scale the targets into the range.",
        check=_range_of_regression,
        needs="--targets",
    ),
    LintRule(
        code="AC121",
        name="dead-units",
        severity="warning",
        why="relu(z) = max(z, 0) has slope 0 for z < 0: a unit that is 0 for all samples gets no gradient from them, and does not come back.",
        hint="Lower the learning rate or the bias, or use leaky relu or elu; prune the units of a trained model.",
        check=_dead_units,
        needs="--inputs",
    ),
    LintRule(
        code="AC122",
        name="saturated-units",
        severity="warning",
        why="tanh' = 1 - tanh^2 and sigmoid' = s (1 - s): at the ends the slope is below 1 % of its largest, and no gradient passes.",
        hint="Scale inputs and initial weights, normalize before the activation, or use relu or gelu.",
        check=_saturated_units,
        needs="--inputs",
    ),
)
