"""Rules on activations: softmax and its like where they compute nothing, hide units, or are applied twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.linting.linted_graph import is_standard, name_of
from actconform.plugin.lint_rule import LintRule
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

    from actconform.linting.activations import GraphActivation
    from actconform.linting.linted_graph import LintedGraph, Reader
    from actconform.linting.linted_model import LintedModel
    from actconform.types.lint import LintObservation

SOFTMAXES = ("softmax", "log-softmax")
_RECURRENT = ("LSTM", "GRU", "RNN")
_NONLINEAR = frozenset(
    "Relu LeakyRelu PRelu Elu Selu Celu Gelu Sigmoid Tanh HardSigmoid HardSwish Swish Mish Softplus Softsign Softmax LogSoftmax "  # noqa: SIM905
    "ThresholdedRelu Clip Max Erf".split()
)


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
        layer = next(filter(None, (_hidden_layer(model, reader) for reader in _followed(activation))), None)
        if layer is not None:
            units = activation.units
            size = (
                f"{units:,} units, whose rank is {units - 1:,}"
                if units
                else "units, one fewer of which are independent"
            )
            yield model.at(
                activation.node,
                f"softmax before the layer {layer}: {size}, as they sum to 1",
                {"units": units, "rank": units - 1} if units else {},
            )


def _followed(activation: GraphActivation) -> Iterator[Reader]:
    """Yield what reads the units, through normalizations and scalings that keep them dependent."""
    graph = activation.graph
    pending = list(graph.destinations(activation.result, activation.axes[0]))
    while pending:
        reader = pending.pop()
        node = reader.node
        if node is None or not _is_affine(graph, reader):
            yield reader
            continue
        pending += graph.destinations(node.output[0], reader.axis)


def _is_affine(graph: LintedGraph, reader: Reader) -> bool:
    node = reader.node
    if node is None or not is_standard(node):
        return False
    if node.op_type == "BatchNormalization":
        return bool(node.input[0] == reader.tensor)
    return node.op_type in {"Add", "Mul", "Sub", "Div"} and any(graph.is_constant(name) for name in node.input)


def _hidden_layer(model: LintedModel, reader: Reader) -> str | None:
    """Return the layer of weights whose input the units are, in words; None where it is none.

    A product with weights that has no bias and no activation behind it may be an expectation, sum p_i v_i, which is what softmax is for.
    """
    graph = next(graph for graph in model.graphs if reader.node is None or reader.tensor in graph.readers)
    node, axis = reader.node, reader.axis
    if node is None or not is_standard(node) or axis is None:
        return None
    dims = graph.dims(reader.tensor)
    last = None if dims is None else len(dims) - 1
    if node.op_type in _RECURRENT and node.input[0] == reader.tensor and axis == 2 and graph.is_constant(node.input[1]):
        return _words(model, node)
    if node.input[0] != reader.tensor or len(node.input) < 2 or not graph.is_constant(node.input[1]):
        return None
    fits = axis == 1 if node.op_type == "Conv" else axis == last if node.op_type in {"MatMul", "Gemm"} else False
    biased = len(node.input) > 2 and bool(node.input[2])
    return _words(model, node) if fits and (biased or _has_bias_or_activation(graph, node.output[0])) else None


def _has_bias_or_activation(graph: LintedGraph, name: str) -> bool:
    return any(
        reader.node is not None
        and (
            reader.node.op_type in _NONLINEAR
            or (reader.node.op_type == "Add" and any(graph.is_constant(each) for each in reader.node.input))
            or reader.node.op_type == "BatchNormalization"
        )
        for reader in graph.destinations(name)
    )


def _is_attention(activation: GraphActivation) -> bool:
    """Whether the values weigh others that are computed too: attention, a gate, a mixture of experts."""
    graph = activation.graph
    for reader in graph.destinations(activation.result):
        node = reader.node
        if node is None or node.op_type not in {"MatMul", "Einsum", "Mul", "Gemm"}:
            continue
        factors = [name for name in node.input[:2] if name != reader.tensor]
        if factors and not any(graph.is_constant(name) for name in factors):
            return True
    return False


def _applied_twice(model: LintedModel) -> Iterator[LintObservation]:
    for activation, inner in _pairs(model):
        if activation.kind in SOFTMAXES and inner.kind in SOFTMAXES and not _lost_axis(activation, inner):
            units = activation.units
            spread = (
                f": no output is larger than e / (e + {units - 1:,}) = {2.718281828 / (1.718281828 + units):.3g}"
                if units
                else ""
            )
            if inner.kind == "log-softmax":
                if activation.kind == "softmax":  # the softmax itself again: exp(log p) / 1
                    yield model.at(
                        activation.node,
                        "softmax of log-softmax, which is the first softmax again: one of the two is idle",
                        severity="warning",
                    )
                continue
            yield model.at(
                activation.node,
                f"{activation.kind} of the softmax {_label(inner)}{spread if activation.kind == 'softmax' else ''}",
                {"units": units} if units else {},
            )


def _lost_axis(activation: GraphActivation, inner: GraphActivation) -> bool:
    """Whether the two surely normalize over different axes, as in attention over rows, then over columns."""
    direct = activation.argument == inner.result
    return direct and bool(activation.axes) and bool(inner.axes) and activation.axes != inner.axes


def _sigmoid_twice(model: LintedModel) -> Iterator[LintObservation]:
    for activation, inner in _pairs(model):
        if activation.kind == "sigmoid" and inner.kind in {"sigmoid", "softmax"}:
            yield model.at(
                activation.node,
                f"sigmoid of the {inner.kind} {_label(inner)}: all outputs lie between 0.5 and 0.7311",
                {"least": 0.5, "most": 0.7311},
            )


def _relu_before_softmax(model: LintedModel) -> Iterator[LintObservation]:
    for activation, inner in _pairs(model):
        if activation.kind in SOFTMAXES and inner.kind == "relu" and not _is_attention(activation):
            yield model.at(
                activation.node,
                f"{activation.kind} of the relu {_label(inner)}: classes with logits below 0 all get the same probability, and no gradient",
            )


def _pairs(model: LintedModel) -> Iterator[tuple[GraphActivation, GraphActivation]]:
    """Yield each activation whose argument another gives, with that."""
    for activation in model.activations:
        inner = model.by_result.get(activation.graph.origin(activation.argument))
        if inner is not None and inner.graph is activation.graph:
            yield activation, inner


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
        why="softmax(softmax(z)) sees inputs between 0 and 1: the largest probability of n classes is e / (e + n - 1), and gradients are small.",
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
