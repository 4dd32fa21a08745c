"""Rules on activations: softmax and its like where they compute nothing, hide units, or are applied twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from actconform.linting.followed_units import NONLINEAR, NORMALIZING, followed_units
from actconform.linting.linted_graph import is_standard, name_of
from actconform.plugin.lint_rule import LintRule
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from actconform.linting.activations import GraphActivation
    from actconform.linting.linted_graph import LintedGraph
    from actconform.linting.linted_model import LintedModel
    from actconform.types.lint import LintObservation

SOFTMAXES = ("softmax", "log-softmax")
DECIDED = 0.9  # a softmax that reaches it can still tell its classes apart
_RECURRENT = ("LSTM", "GRU", "RNN")
_ACTIVE = NONLINEAR | NORMALIZING | {"Softmax", "LogSoftmax"}
_WEIGHING = frozenset({"MatMul", "Einsum", "Mul", "Gemm"})  # what multiplies values by weights


def _softmax_of_one_unit(model: LintedModel) -> Iterator[LintObservation]:
    for activation in model.activations:
        if activation.kind not in SOFTMAXES or activation.units != 1 or _is_attention(activation):
            continue
        value = 1 if activation.kind == "softmax" else 0
        axes = ", ".join(map(str, activation.axes))
        yield model.at(
            activation.node,
            f"{activation.kind} over axis {axes}, which has 1 unit: the output is {value} whatever the input, and its gradient 0",
            {"units": 1, "output": value, "gradient": 0},
        )


def _softmax_in_a_hidden_layer(model: LintedModel) -> Iterator[LintObservation]:
    for activation in model.activations:
        if (
            activation.kind != "softmax"
            or activation.units == 1
            or len(activation.axes) != 1
            or _is_attention(activation)
        ):
            continue
        graph = activation.graph
        places = followed_units(graph, activation.result, activation.axes[0])
        layers = (
            _layer_of_units(model, graph, node, tensor, axis)
            for tensor, axis in places.items()
            if axis is not None
            for node in graph.readers.get(tensor, ())
        )
        layer = next(filter(None, layers), None)
        if layer is not None:
            units = activation.units
            size = (
                f"{number_of(units, 'unit')}, whose rank is {units - 1:,}"
                if units
                else "units, one fewer of which are independent"
            )
            yield model.at(
                activation.node,
                f"softmax before the layer {layer}: {size}, as they sum to 1",
                {"units": units, "rank": units - 1} if units else {},
            )


def _layer_of_units(model: LintedModel, graph: LintedGraph, node: onnx.NodeProto, tensor: str, axis: int) -> str | None:
    """Return in words the layer of weights that a node is, where its input is a tensor with units along an axis; None where it is none.

    A product with weights that has no bias and no activation behind it may be an expectation, sum p_i v_i, which is what softmax is for.
    """
    if not is_standard(node) or node.input[0] != tensor or len(node.input) < 2 or not graph.is_constant(node.input[1]):
        return None
    if node.op_type in _RECURRENT:
        return _words(model, node) if axis == 2 else None
    dims = graph.dims(tensor)
    is_last = dims is not None and axis == len(dims) - 1
    fits = axis == 1 if node.op_type in {"Conv", "ConvTranspose"} else is_last and node.op_type in {"MatMul", "Gemm"}
    biased = len(node.input) > 2 and bool(node.input[2])
    return _words(model, node) if fits and (biased or _has_bias_or_activation(graph, node.output[0])) else None


def _has_bias_or_activation(graph: LintedGraph, name: str) -> bool:
    return any(
        reader.node is not None
        and (
            reader.node.op_type in _ACTIVE
            or (reader.node.op_type == "Add" and any(graph.is_constant(each) for each in reader.node.input))
        )
        for reader in graph.destinations(name)
    )


def _is_attention(activation: GraphActivation) -> bool:
    """Whether the values weigh others that are computed too: attention, a gate, a mixture of experts."""
    graph = activation.graph
    axis = activation.axes[0] if len(activation.axes) == 1 else None
    units = followed_units(graph, activation.result, axis)
    return any(
        node.op_type in _WEIGHING and any(name not in units and not graph.is_constant(name) for name in node.input[:2])
        for tensor in units
        for node in graph.readers.get(tensor, ())
    )


class _Pair(NamedTuple):
    """An activation of another, but for a constant factor."""

    outer: GraphActivation
    inner: GraphActivation
    factor: float | None
    """By which the inner values are multiplied between the two; None where it has several values."""

    @property
    def shown_factor(self) -> str:
        return "" if self.factor == 1 else f" times {'a constant' if self.factor is None else f'{self.factor:.4g}'}"


def _applied_twice(model: LintedModel) -> Iterator[LintObservation]:
    for pair in _pairs(model):
        outer, inner = pair.outer, pair.inner
        if outer.kind not in SOFTMAXES:
            continue
        if inner.kind == "log-softmax":
            if outer.kind == "softmax" and pair.factor == 1:  # the softmax itself again: exp(log p) / 1
                message = "softmax of log-softmax, which is the first softmax again: one of the two is idle"
                yield model.at(outer.node, message, severity="warning")
        elif inner.kind == "softmax" or (inner.kind == "sigmoid" and not _is_attention(outer)):
            most = _largest_share(pair)
            spread = "" if most is None else f": no output is larger than {most[0]} = {most[1]:.3g}"
            yield model.at(
                outer.node,
                f"{outer.kind} of the {inner.kind} {_label(inner)}{pair.shown_factor}{spread if outer.kind == 'softmax' else ''}",
                {"units": outer.units} if outer.units else {},
                "warning" if most is not None and most[1] >= DECIDED else None,
            )


def _largest_share(pair: _Pair) -> tuple[str, float] | None:
    """Return the formula and the value of the largest softmax of values from 0 to a factor; None where units or factor are not known."""
    units, factor = pair.outer.units, pair.factor
    if not units or factor is None or factor <= 0:
        return None
    power = "e" if factor == 1 else f"e^{factor:.4g}"
    return f"{power} / ({power} + {units - 1:,})", 1 / (1 + (units - 1) * math.exp(-factor))


def _sigmoid_twice(model: LintedModel) -> Iterator[LintObservation]:
    for pair in _pairs(model):
        inner = pair.inner
        if pair.outer.kind != "sigmoid" or inner.kind not in {"sigmoid", "softmax"}:
            continue
        message = f"sigmoid of the {inner.kind} {_label(inner)}{pair.shown_factor}"
        if pair.factor is None:
            yield model.at(pair.outer.node, message)
            continue
        end = 0.5 + 0.5 * math.tanh(pair.factor / 2)
        least, most = sorted((0.5, round(end, 4)))
        yield model.at(
            pair.outer.node,
            f"{message}: all outputs lie between {least:.4g} and {most:.4g}",
            {"least": least, "most": most},
        )


def _relu_before_softmax(model: LintedModel) -> Iterator[LintObservation]:
    for pair in _pairs(model):
        outer, inner = pair.outer, pair.inner
        is_positive = pair.factor is not None and pair.factor > 0
        if outer.kind in SOFTMAXES and inner.kind == "relu" and is_positive and not _is_attention(outer):
            yield model.at(
                outer.node,
                f"{outer.kind} of the relu {_label(inner)}: classes with logits below 0 all get the same probability, and no gradient",
            )


def _pairs(model: LintedModel) -> Iterator[_Pair]:
    """Yield each activation whose argument another gives, directly or times a constant, but for softmaxes over different axes."""
    for outer in model.activations:
        graph, factor = outer.graph, 1.0
        name = graph.origin(outer.argument)
        several = False
        while name not in model.by_result and (scaled := _scaled(graph, name)) is not None:
            name, scale = graph.origin(scaled[0]), scaled[1]
            several = several or scale is None
            factor *= 1.0 if scale is None else scale
        inner = model.by_result.get(name)
        if inner is not None and inner.graph is graph and not _over_another_axis(outer, inner):
            yield _Pair(outer, inner, None if several else factor)


def _scaled(graph: LintedGraph, name: str) -> tuple[str, float | None] | None:
    """Return the tensor that a Mul or Div by a constant scales, and the factor; None where it has several values. None for other nodes."""
    node = graph.giver(name)
    if node is None or not is_standard(node) or node.op_type not in {"Mul", "Div"}:
        return None
    values, constant = node.input
    if node.op_type == "Mul" and graph.is_constant(values):
        values, constant = constant, values
    if graph.is_constant(values) or not graph.is_constant(constant):
        return None
    scale = graph.scalar(constant)
    if node.op_type == "Mul" or scale is None:
        return values, scale
    return values, 1 / scale if scale else None


def _over_another_axis(outer: GraphActivation, inner: GraphActivation) -> bool:
    """Whether two softmaxes surely normalize over different axes, as in attention over rows, then over columns."""
    if inner.kind not in SOFTMAXES or len(inner.axes) != 1 or not outer.axes:
        return False
    axis = followed_units(inner.graph, inner.result, inner.axes[0]).get(outer.argument)
    return axis is not None and axis not in outer.axes


def _label(activation: GraphActivation) -> str:
    return one_line(name_of(activation.node), 80)


def _words(model: LintedModel, node: onnx.NodeProto) -> str:
    observed = model.at(node, "")
    return f"{observed.layer or observed.node} ({observed.operator})"


ACTIVATION_RULES = (
    LintRule(
        code="AC101",
        name="softmax-over-one-unit",
        severity="error",
        why="softmax(z)_i = exp(z_i) / sum_j exp(z_j) is 1 where there is one unit, and d softmax / d z = s (1 - s) = 0: nothing is learned.",
        hint="Use a sigmoid for one probability, or two units or more; check the axis.",
        check=_softmax_of_one_unit,
    ),
    LintRule(
        code="AC102",
        name="softmax-in-a-hidden-layer",
        severity="warning",
        why="The n outputs of a softmax sum to 1, so that they span n - 1 dimensions and one unit's growth shrinks all others: W s + b = (W + b 1^T) s.",
        hint="Use relu, gelu or tanh between layers; keep softmax for the output and for weights of an average.",
        check=_softmax_in_a_hidden_layer,
    ),
    LintRule(
        code="AC103",
        name="softmax-twice",
        severity="error",
        why="softmax(softmax(z)) and softmax(sigmoid(z)) see inputs between 0 and 1: the largest probability of n classes is e / (e + n - 1), and gradients are small.",
        hint="Remove one of them.",
        check=_applied_twice,
    ),
    LintRule(
        code="AC104",
        name="sigmoid-twice",
        severity="error",
        why="sigmoid(p) of a probability p lies between sigmoid(0) = 0.5 and sigmoid(1) = 0.7311: no answer is ever 'no'.",
        hint="Remove one of them.",
        check=_sigmoid_twice,
    ),
    LintRule(
        code="AC105",
        name="relu-before-softmax",
        severity="warning",
        why="softmax(max(z, 0)) cannot give a class less than exp(0) = 1 against the others' exp(z): no class can be ruled out, and below 0 the gradient is 0.",
        hint="Give softmax the linear output of the last layer.",
        check=_relu_before_softmax,
    ),
)
