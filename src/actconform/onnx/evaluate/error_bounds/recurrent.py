"""Error bounds of recurrent layers: LSTM, GRU and RNN, in running-error arithmetic along the steps.

Where a run shows the hidden states of all steps, each step is judged from the state that it read: errors do not pile up from
step to step, and the bound of a long layer, or of one that quantizes, stays finite. The sum before an activation may be
taken in any order: input, recurrence, both biases and the peephole are the terms of one sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from actconform.onnx.evaluate.error_bounds.activations import activated
from actconform.onnx.evaluate.error_bounds.registry import Approximation, BoundContext, error_bound
from actconform.onnx.evaluate.error_bounds.rounding_errors import as_bounded, lost_in_sum
from actconform.onnx.evaluate.recurrent import Activation, activations_of
from actconform.tolerance.running_error import Bounded, sum_factor, widest

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.computation import Array
    from actconform.onnx.evaluate.elementwise import OperatorNode
    from actconform.oracle.rounding import F64
    from actconform.types.dtypes import FloatFormat

    # what the recurrence makes of the hidden states before it multiplies
    Preparation = Callable[[Bounded], Bounded]


class _Sums(NamedTuple):
    """Sums of products before they are rounded: their values, sums of sizes, and the errors that they pass on."""

    value: F64
    size: F64
    passed_on: F64
    terms: int

    def __add__(self, more: _Sums) -> _Sums:  # type: ignore[override]  # sums are added, not joined
        return _Sums(
            self.value + more.value,
            self.size + more.size,
            self.passed_on + more.passed_on,
            self.terms + more.terms,
        )

    def part(self, place: slice) -> _Sums:
        """Return those of some gates."""
        return _Sums(self.value[..., place], self.size[..., place], self.passed_on[..., place], self.terms)

    def at(self, step: int) -> _Sums:
        return _Sums(self.value[step], self.size[step], self.passed_on[step], self.terms)

    def rounded(self, fmt: FloatFormat) -> Bounded:
        """One sum of all terms in any order; in 16 bits products are rounded too, and the few partial sums once more each."""
        factor = sum_factor(self.terms, fmt) + (4.0 * fmt.unit_roundoff if fmt.bits == 16 else 0.0)
        error = factor * (self.size + self.passed_on) + lost_in_sum(self.terms, fmt)
        return Bounded(self.value, error + self.passed_on, fmt)


def _term(x: Bounded) -> _Sums:
    return _Sums(x.value, np.abs(x.value), x.error, 1)


def _product(x: Bounded, matrix: Bounded) -> _Sums:
    """Return x W, W of (columns of x, gates)."""
    size = np.abs(x.value) @ np.abs(matrix.value)
    passed_on = np.zeros_like(size)
    if x.error.any():
        passed_on = x.error @ (np.abs(matrix.value) + matrix.error)
    if matrix.error.any():
        passed_on = passed_on + np.abs(x.value) @ matrix.error
    return _Sums(x.value @ matrix.value, size, passed_on, matrix.value.shape[0])


class _Layer(NamedTuple):
    """One direction: matrices of (columns, gates), biases of input and recurrence, peepholes; None where there are none."""

    node: OperatorNode
    input_matrix: Bounded
    recurrence: Bounded
    biases: tuple[Bounded, Bounded] | None
    peepholes: Bounded | None
    functions: list[Activation]
    prepared: Preparation

    @property
    def hidden(self) -> int:
        return int(self.recurrence.value.shape[0])

    def gate(self, i: int) -> slice:
        return slice(i * self.hidden, (i + 1) * self.hidden)

    def from_state(self, h: Bounded, first: int, last: int) -> _Sums:
        """Return what a hidden state gives to the gates from `first` to before `last`, its bias with it."""
        place = slice(first * self.hidden, last * self.hidden)
        sums = _product(self.prepared(h), self.recurrence[:, place])
        return sums if self.biases is None else sums + _term(self.biases[1][place])

    def before(self, sums: _Sums) -> Bounded:
        """Return what an activation gets."""
        clip = self.node.attributes.get("clip")
        rounded = sums.rounded(self.recurrence.fmt)
        return rounded.clip(-clip, clip) if clip else rounded


class _Step(Protocol):
    """The states after a step, the hidden one first, from what the input gives to the gates and the states before."""

    def __call__(self, layer: _Layer, from_input: _Sums, states: list[Bounded]) -> list[Bounded]: ...


def _lstm(layer: _Layer, from_input: _Sums, states: list[Bounded]) -> list[Bounded]:
    """Gates in the order input, output, forget, cell; peepholes in that of the first three."""
    h, c = states
    f, g, last = layer.functions
    sums = from_input + layer.from_state(h, 0, 4)

    def gate(i: int, cell: Bounded) -> Bounded:
        part = sums.part(layer.gate(i))
        if layer.peepholes is not None:
            part += _term(layer.peepholes[layer.gate(i)] * cell)
        return activated(f, layer.before(part))

    input_gate = gate(0, c)
    forget = 1.0 - input_gate if layer.node.attributes.get("input_forget") else gate(2, c)
    after = forget * c + input_gate * activated(g, layer.before(sums.part(layer.gate(3))))
    return [gate(1, after) * activated(last, after), after]


def _gru(layer: _Layer, from_input: _Sums, states: list[Bounded]) -> list[Bounded]:
    """Gates in the order update, reset, hidden. The new state as it is written, or from the difference of old and new."""
    (h,) = states
    f, g = layer.functions
    sums = from_input.part(slice(2 * layer.hidden)) + layer.from_state(h, 0, 2)
    update, reset = (activated(f, layer.before(sums.part(layer.gate(i)))) for i in (0, 1))
    if layer.node.attributes.get("linear_before_reset"):
        inner = _term(reset * layer.from_state(h, 2, 3).rounded(h.fmt))
    else:
        inner = layer.from_state(reset * h, 2, 3)
    new = activated(g, layer.before(from_input.part(layer.gate(2)) + inner))
    return [widest((1.0 - update) * new + update * h, update * (h - new) + new)]


def _rnn(layer: _Layer, from_input: _Sums, states: list[Bounded]) -> list[Bounded]:
    return [activated(layer.functions[0], layer.before(from_input + layer.from_state(states[0], 0, 1)))]


_STEPS: dict[str, _Step] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


class _StepOrder(NamedTuple):
    """The order of steps: which time each sequence of the batch is at in each step, and whether it still goes on."""

    times: Array
    goes_on: Array
    observed: F64 | None
    """Of the hidden states as a run showed them (times, batch, hidden)."""

    def in_order(self, x: F64) -> F64:
        """Return an array (times, batch, ...) in the order of steps."""
        ordered: F64 = x[self.times, np.arange(x.shape[1])]
        return ordered

    def back(self, steps: F64) -> F64:
        """Return an array in the order of steps in the order of times, zeros behind the end of a sequence."""
        result = np.zeros_like(steps)
        step, row = np.nonzero(self.goes_on)
        result[self.times[step, row], row] = steps[step, row]
        return result


def _run(layer: _Layer, x: Bounded, states: list[Bounded], direction: _StepOrder) -> list[Bounded]:
    """Return the hidden states of all times, and the last states."""
    from_inputs = _product(x, layer.input_matrix)
    if layer.biases is not None:
        from_inputs += _term(layer.biases[0])
    shape = (len(x.value), *states[0].value.shape)
    values, all_errors = np.zeros(shape), np.zeros(shape)
    shown = None if direction.observed is None else direction.in_order(direction.observed)
    for step in range(len(values)):
        before = direction.goes_on[step - 1] if step else np.ones(direction.goes_on.shape[1], np.bool_)
        h = states[0] if shown is None or not step else _seen(shown[step - 1], states[0], before)
        # behind the end of a sequence its last state is read once, then zeros: what that gives is of no use, but what
        # quantizes the states of a batch together reads them all
        read = [
            Bounded(np.where(before[:, None], h.value, 0.0), np.where(before[:, None], h.error, 0.0), h.fmt),
            *states[1:],
        ]
        after = _STEPS[layer.node.op_type](layer, from_inputs.at(step), read)
        going = direction.goes_on[step][:, None]
        states = [
            Bounded(np.where(going, new.value, old.value), np.where(going, new.error, old.error), new.fmt)
            for new, old in zip(after, states, strict=True)
        ]
        values[step], all_errors[step] = states[0].value, states[0].error
    y = Bounded(direction.back(values), direction.back(all_errors), x.fmt)
    return [y, *states]


def _seen(shown: F64, h: Bounded, going: Array) -> Bounded:
    """Return the hidden states of sequences that go on as a run showed them.

    Of 16 bits a layer may have kept wider numbers, rounded for the run to show; one that does rounds nothing else meanwhile.
    """
    going = going[:, None]
    return Bounded(np.where(going, shown, h.value), np.where(going, 0.0, h.error), h.fmt)


class LayerInputs(NamedTuple):
    """Inputs of a recurrent layer, matrices with gates along the last axis (directions, columns, gates)."""

    x: Bounded
    input_matrix: Bounded
    recurrence: Bounded
    bias: Bounded | None
    lengths: Array | None
    h: Bounded | None
    c: Bounded | None
    peepholes: Bounded | None


def bounded_layer(
    context: BoundContext, kind: str, inputs: LayerInputs, prepared: Preparation = lambda x: x
) -> tuple[Approximation, ...]:
    """Return the bounds of the hidden states of all steps, and of the last states. Behind a sequence's end are zeros."""
    attributes, fmt = context.node.attributes, context.float_format
    batch_first = bool(attributes.get("layout"))
    observed = next(iter(context.observed), None)
    x, states = inputs.x, [inputs.h, inputs.c][: 2 if kind == "LSTM" else 1]
    if batch_first:
        x = x.moved(lambda v: v.swapaxes(0, 1))
        states = [state and state.moved(lambda v: v.swapaxes(0, 1)) for state in states]
        observed = None if observed is None else observed.transpose(1, 2, 0, 3)
    ends = ["forward", "reverse"] if attributes["direction"] == "bidirectional" else [attributes["direction"]]
    node = context.node._replace(op_type=kind)
    steps, batch = x.value.shape[:2]
    empty = np.zeros((batch, inputs.recurrence.value.shape[1]))
    results = []
    for i, end in enumerate(ends):
        layer = _layer(node, inputs, i, prepared)
        direction = _direction(
            steps, batch, inputs.lengths, end == "reverse", None if observed is None else observed[:, i]
        )
        initial = [Bounded(empty, empty, fmt) if state is None else state[i] for state in states]
        results.append(_run(layer, x.moved(direction.in_order), initial, direction))
    y, *last = (_stacked(parts, axis) for parts, axis in zip(zip(*results, strict=True), (1, 0, 0), strict=False))
    if batch_first:
        y, last = y.moved(lambda v: v.transpose(2, 0, 1, 3)), [each.moved(lambda v: v.swapaxes(0, 1)) for each in last]
    return tuple(Approximation(each.value, each.error) for each in (y, *last))


def _layer(node: OperatorNode, inputs: LayerInputs, i: int, prepared: Preparation) -> _Layer:
    gates = inputs.recurrence.value.shape[-1]
    bias = None if inputs.bias is None else (inputs.bias[i, :gates], inputs.bias[i, gates:])
    peepholes = None if inputs.peepholes is None else inputs.peepholes[i]
    functions = activations_of(node, i)
    return _Layer(node, inputs.input_matrix[i], inputs.recurrence[i], bias, peepholes, functions, prepared)


def _direction(steps: int, batch: int, lengths: Array | None, back: bool, observed: F64 | None) -> _StepOrder:
    ends = np.full(batch, steps) if lengths is None else np.asarray(lengths).astype(np.int64)
    step = np.broadcast_to(np.arange(steps)[:, None], (steps, batch))
    times = np.maximum(ends - 1 - step, 0) if back else step
    return _StepOrder(times, step < ends, observed)


def _stacked(parts: tuple[Bounded, ...], axis: int) -> Bounded:
    value, error = (
        np.stack([part.value for part in parts], axis),
        np.stack([part.error for part in parts], axis),
    )
    return Bounded(value, error, parts[0].fmt)


@error_bound("LSTM", "GRU", "RNN")
def _recurrent(  # noqa: PLR0913, PLR0917  as the standard orders them
    context: BoundContext,
    x: Approximation,
    w: Approximation,
    r: Approximation,
    b: Approximation | None = None,
    lengths: Approximation | None = None,
    h: Approximation | None = None,
    c: Approximation | None = None,
    p: Approximation | None = None,
) -> tuple[Approximation, ...]:
    fmt = context.float_format

    def turned(matrix: Approximation) -> Bounded:
        return as_bounded(matrix, fmt).moved(lambda v: v.swapaxes(1, 2))

    bias, h_0, c_0, peepholes = (None if each is None else as_bounded(each, fmt) for each in (b, h, c, p))
    ends = None if lengths is None else lengths.value
    inputs = LayerInputs(as_bounded(x, fmt), turned(w), turned(r), bias, ends, h_0, c_0, peepholes)
    return bounded_layer(context, context.node.op_type, inputs)
