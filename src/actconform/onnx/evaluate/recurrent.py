"""The correctly rounded evaluator's recurrent layers: LSTM, GRU and RNN, step by step as the standard's formulas have them, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from actconform.errors import Unsupported
from actconform.onnx.evaluate.elementwise import operation
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actconform.onnx.evaluate.elementwise import Array, OperatorNode

_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha: np.where(x < 0, alpha * np.expm1(x), x),
    "hardsigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0.0, 1.0),
    "leakyrelu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "relu": lambda x: np.maximum(x, 0.0),
    "scaledtanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "sigmoid": expit,
    "softplus": lambda x: np.logaddexp(x, 0.0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
    "thresholdedrelu": lambda x, alpha: np.where(x > alpha, x, 0.0),
}
# the functions with parameters, in the order alpha, beta; None where the standard has no default
_PARAMETERS: dict[str, tuple[float | None, ...]] = {
    "affine": (None, None),
    "elu": (1.0,),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01,),
    "scaledtanh": (None, None),
    "thresholdedrelu": (1.0,),
}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}


class Activation(NamedTuple):
    """An activation function by the standard's name in lower case, with its parameters: alpha, then beta, where it has them."""

    name: str
    parameters: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        y: Array = _FUNCTIONS[self.name](x, *self.parameters)
        return y


class _Weights(NamedTuple):
    """What one direction of a layer works with. Gates stand one below the other, as the standard orders them."""

    w: Array
    r: Array
    w_bias: Array
    r_bias: Array
    peepholes: Array
    functions: list[Activation]
    prepared: Callable[[Array], Array]
    """What the recurrence reads of the hidden states: the last of a sequence once behind its end, then zeros."""


@operation("LSTM", "GRU", "RNN")
def recurrent_layer(  # noqa: PLR0913, PLR0917  as the standard orders them
    node: OperatorNode,
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    lengths: Array | None = None,
    h: Array | None = None,
    c: Array | None = None,
    p: Array | None = None,
    prepared: Callable[[Array], Array] = lambda states: states,
) -> tuple[Array, ...]:
    """Return the hidden states of all steps, and the last states. Behind a sequence's end are zeros.

    `prepared` is what the recurrence reads of the hidden states (batch, hidden) of a step.
    """
    attributes = node.attributes
    batch_first = bool(attributes.get("layout"))
    if batch_first:
        x = x.transpose(1, 0, 2)
        h, c = (None if state is None else state.transpose(1, 0, 2) for state in (h, c))
    ends = ["forward", "reverse"] if attributes["direction"] == "bidirectional" else [attributes["direction"]]
    batch, hidden = x.shape[1], r.shape[-1]
    lengths = np.full(batch, len(x)) if lengths is None else lengths
    directions = []
    for i, end in enumerate(ends):
        bias = np.zeros(2 * r.shape[1]) if b is None else b[i]
        peepholes = np.zeros(3 * hidden) if p is None else p[i]
        weights = _Weights(
            w[i], r[i], bias[: len(bias) // 2], bias[len(bias) // 2 :], peepholes, activations_of(node, i), prepared
        )
        states = [np.zeros((batch, hidden)) if state is None else state[i].copy() for state in (h, c)]
        directions.append(
            _run(node, weights, x, states[: 2 if node.op_type == "LSTM" else 1], lengths, back=end == "reverse")
        )
    y, *last = (np.stack(each, axis) for each, axis in zip(zip(*directions, strict=True), (1, 0, 0), strict=False))
    if batch_first:
        return y.transpose(2, 0, 1, 3), *(state.transpose(1, 0, 2) for state in last)
    return y, *last


def activations_of(node: OperatorNode, direction: int) -> list[Activation]:
    """Return the activations of a direction of a layer; each that has parameters takes the next ones of the node's lists.

    Raises Unsupported for a name that the standard does not list, and where it has no default for a parameter that is left out.
    """
    usual = _USUAL[node.op_type]
    stated = [each.decode() if isinstance(each, bytes) else each for each in node.attributes.get("activations") or []]
    names = [name.lower() for name in stated] or [*usual] * (direction + 1)
    lists = [iter(node.attributes.get(f"activation_{name}") or []) for name in ("alpha", "beta")]
    activations = [_with_parameters(name, lists) for name in names[: (direction + 1) * len(usual)]]
    return activations[direction * len(usual) :]


def _with_parameters(name: str, lists: Sequence[Iterator[float]]) -> Activation:
    if name not in _FUNCTIONS:
        raise Unsupported(f"the correctly rounded evaluator does not know the activation {one_line(name)}")
    defaults = _PARAMETERS.get(name, ())
    parameters = []
    for stated, default in zip(lists, defaults, strict=False):
        parameter = next(stated, default)
        if parameter is None:
            raise Unsupported(f"the activation {name} needs activation_alpha and activation_beta")
        parameters.append(parameter)
    return Activation(name, tuple(parameters))


def _run(
    node: OperatorNode, weights: _Weights, x: Array, states: list[Array], lengths: Array, *, back: bool
) -> list[Array]:
    """Return the hidden states of all steps in the order of time, and the last states, of one direction."""
    y = np.zeros((len(x), *states[0].shape))
    from_input = x @ weights.w.T + weights.w_bias
    for step in range(len(x)):
        read = [weights.prepared(np.where(step <= lengths[:, None], states[0], 0.0)), *states[1:]]
        rows = np.flatnonzero(step < lengths)
        times = lengths[rows].astype(np.int64) - 1 - step if back else step
        after = _STEPS[node.op_type](node, weights, from_input[times, rows], [state[rows] for state in read])
        for state, new in zip(states, after, strict=True):
            state[rows] = new
        y[times, rows] = after[0]
    return [y, *states]


def _clipped(node: OperatorNode, gate: Array) -> Array:
    clip = node.attributes.get("clip")
    return gate if clip is None else np.clip(gate, -clip, clip)


def _lstm(node: OperatorNode, weights: _Weights, from_input: Array, states: Sequence[Array]) -> list[Array]:
    h, c = states
    f, g, last = weights.functions
    gates = from_input + h @ weights.r.T + weights.r_bias
    to_input, to_output, to_forget, to_cell = np.split(gates, 4, axis=-1)
    peep_input, peep_output, peep_forget = np.split(weights.peepholes, 3)
    i = f(_clipped(node, to_input + peep_input * c))
    forget = 1 - i if node.attributes.get("input_forget") else f(_clipped(node, to_forget + peep_forget * c))
    after = forget * c + i * g(_clipped(node, to_cell))
    return [f(_clipped(node, to_output + peep_output * after)) * last(after), after]


def _gru(node: OperatorNode, weights: _Weights, from_input: Array, states: Sequence[Array]) -> list[Array]:
    (h,) = states
    f, g = weights.functions
    update, reset, new = np.split(from_input, 3, axis=-1)
    r_update, r_reset, r_new = (part.T for part in np.split(weights.r, 3))
    b_update, b_reset, b_new = np.split(weights.r_bias, 3)
    z = f(_clipped(node, update + h @ r_update + b_update))
    r = f(_clipped(node, reset + h @ r_reset + b_reset))
    inner = r * (h @ r_new + b_new) if node.attributes.get("linear_before_reset") else (r * h) @ r_new + b_new
    return [(1 - z) * g(_clipped(node, new + inner)) + z * h]


def _rnn(node: OperatorNode, weights: _Weights, from_input: Array, states: Sequence[Array]) -> list[Array]:
    return [weights.functions[0](_clipped(node, from_input + states[0] @ weights.r.T + weights.r_bias))]


_STEPS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
