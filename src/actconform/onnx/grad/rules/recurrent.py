"""Recurrent layers. LSTM, GRU and RNN are written out by the standard's formulas as a Scan over time, and that is differentiated.

What the operator itself computed stays the operator's own; the Scan computes the gates anew, which it does not return. The
products with the inputs are outside of the Scan, one for all steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from actconform.onnx.grad.rules.bodies import typed
from actconform.onnx.grad.rules.graph_builder import GraphBuilder
from actconform.onnx.grad.rules.registry import rule

if TYPE_CHECKING:
    from actconform.onnx.grad.rules.registry import Cotangents, Node

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_WITHOUT_NUMBERS = {name.lower(): name for name in ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")}
_INPUTS = ("x", "w", "r", "b", "lengths", "h", "c", "p")


class _Layer(NamedTuple):
    """One direction of a layer: its size, what it applies to gates, and the names of weights that every step reads."""

    hidden: int
    activations: list[str]
    clip: float | None
    input_forget: bool
    linear_before_reset: bool
    weights: str  # the recurrent ones, transposed: (hidden, gates * hidden)
    late_bias: str | None  # of a GRU whose reset gate scales the recurrent bias too
    peepholes: list[str]


# from the gates' products with the inputs at one step, and the states, to the states after it
_Step: TypeAlias = Callable[[GraphBuilder, _Layer, str, list[str]], list[str]]


@rule("LSTM", "GRU", "RNN")
def recurrent(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """LSTM, GRU, RNN: the gradient of the layer written out as a Scan."""
    names = {name: x for name, x in zip(_INPUTS, node.inputs, strict=False) if x}
    wanted = [name for i, name in enumerate(_INPUTS) if node.wants(i)]
    arriving = {f"y{i}": cotangent for i, cotangent in enumerate(g) if cotangent}
    gradient_model = b.differentiate(_definition(b, node), wanted, list(arriving), keep_outputs=False)
    names |= {f"ct_{y}": cotangent for y, cotangent in arriving.items()}
    gradients = dict(zip(wanted, b.paste(gradient_model.graph, names), strict=True))
    return [b.same_as(gradients[name], names[name]) if name in gradients else None for name in _INPUTS]


def _definition(b: GraphBuilder, node: Node) -> onnx.ModelProto:
    """Return the layer as a model of ordinary operators, with inputs `_INPUTS` and outputs y0, y1, y2."""
    kinds = zip(_INPUTS, node.inputs, strict=False)
    graph = onnx.GraphProto(name="layer", input=[b.described(x, name) for name, x in kinds if x])
    model = helper.make_model(graph, opset_imports=b.imports, ir_version=10)
    w = GraphBuilder(model, model.graph, "layer_", b.differentiate)
    w.at(node, b.element_type)
    batch_first = bool(node.attributes.get("layout"))
    x = w.Transpose("x", perm=[1, 0, 2]) if batch_first else "x"
    ends = ["forward", "reverse"] if node.attributes["direction"] == "bidirectional" else [node.attributes["direction"]]
    parts = [_direction(w, node, x, i, reverse=end == "reverse") for i, end in enumerate(ends)]
    y, *states = (
        w.Concat(*(w.Unsqueeze(part, w.integers([axis])) for part in each), axis=axis)
        for each, axis in zip(zip(*parts, strict=True), (1, 0, 0), strict=False)
    )
    if batch_first:
        y, states = w.Transpose(y, perm=[2, 0, 1, 3]), [w.Transpose(state, perm=[1, 0, 2]) for state in states]
    for i, each in enumerate((y, *states)):
        w.nodes.append(helper.make_node("Identity", [each], [f"y{i}"]))
        dims = [None] * (3 if i else 4)
        model.graph.output.append(helper.make_tensor_value_info(f"y{i}", b.element_type, dims))
    model.graph.node.extend(w.nodes)
    model.graph.initializer.extend(w.initializers)
    return model


def _direction(w: GraphBuilder, node: Node, x: str, i: int, *, reverse: bool) -> list[str]:
    """Return the hidden states of all steps (time, batch, hidden), and the last states, each (batch, hidden)."""
    gates, hidden = _GATES[node.op_type], _hidden(w, node)

    def part(name: str, axis: int = 0) -> str:
        return w.Gather(name, w.constant(np.array(i)), axis=axis)

    layer = _Layer(
        hidden,
        _activations(node, i),
        node.attributes.get("clip"),
        bool(node.attributes.get("input_forget")),
        bool(node.attributes.get("linear_before_reset")),
        w.Transpose(part("r"), perm=[1, 0]),
        None,
        _split(w, part("p"), 3, hidden) if node.input(7) else [],
    )
    products = w.MatMul(x, w.Transpose(part("w"), perm=[1, 0]))
    if node.input(3):
        biases = _split(w, part("b"), 2 * gates, hidden)
        if layer.linear_before_reset:
            layer = layer._replace(late_bias=biases.pop())
            biases.append(w.constant(np.zeros(hidden)))
        products = w.Add(products, w.Add(w.Concat(*biases[:gates], axis=0), w.Concat(*biases[gates:], axis=0)))
    batch_first = bool(node.attributes.get("layout"))
    initial = []
    for input_, name in ((5, "h"), (6, "c"))[: 2 if node.op_type == "LSTM" else 1]:
        initial.append(part(name, int(batch_first)) if node.input(input_) else _zeros(w, products, hidden))
    return _run(w, node, layer, products, initial, reverse=reverse)


def _hidden(w: GraphBuilder, node: Node) -> int:
    size = node.attributes.get("hidden_size") or (w.shape("r") or (None,))[-1]
    if size is None:
        raise node.refuse("hidden_size must be stated, or the shape of R known")
    return int(size)


def _activations(node: Node, i: int) -> list[str]:
    """Return the functions that a direction applies. Raises UnsupportedOperator where one takes numbers of its own."""
    usual = _ACTIVATIONS[node.op_type]
    stated = node.attributes.get("activations")
    functions = stated[i * len(usual) : (i + 1) * len(usual)] if stated else usual
    for name in functions:
        if name.lower() not in _WITHOUT_NUMBERS:
            raise node.refuse(
                f"its activation {name} has no rule: {', '.join(_WITHOUT_NUMBERS.values())} have; "
                "or export the layer unrolled, as cells of MatMul and activations"
            )
    return [_WITHOUT_NUMBERS[name.lower()] for name in functions]


def _split(w: GraphBuilder, x: str, n: int, size: int, axis: int = 0) -> list[str]:
    return w.outputs(n, "Split", x, w.integers([size] * n), axis=axis) if n > 1 else [x]


def _zeros(w: GraphBuilder, products: str, hidden: int) -> str:
    batch = w.Shape(products, start=1, end=2)
    number = w.constant(0.0)
    return w.Expand(number, w.Concat(batch, w.integers([hidden]), axis=0))


def _run(w: GraphBuilder, node: Node, layer: _Layer, products: str, initial: list[str], *, reverse: bool) -> list[str]:
    """Return what one direction gives. A sequence that is over keeps its last state, and gives zeros."""
    read, lengths = [products], None
    if node.input(4):
        lengths = w.Cast("lengths", to=TensorProto.INT64)
        if reverse:
            read = [w.ReverseSequence(products, lengths, time_axis=0, batch_axis=1)]
        time = w.Range(w.constant(np.array(0)), w.Squeeze(w.Shape(products, end=1)), w.constant(np.array(1)))
        read.append(w.Less(w.Unsqueeze(time, w.integers([1, 2])), w.Unsqueeze(lengths, w.integers([0, 2]))))
    back = int(reverse and lengths is None)
    *last, y = w.outputs(
        len(initial) + 1,
        "Scan",
        *initial,
        *read,
        body=_body(w, node, layer, len(initial), over=lengths is not None),
        num_scan_inputs=len(read),
        scan_input_directions=[back] * len(read),
        scan_output_directions=[back],
    )
    if lengths and reverse:
        y = w.ReverseSequence(y, lengths, time_axis=0, batch_axis=1)
    return [y, *last]


def _body(w: GraphBuilder, node: Node, layer: _Layer, n_states: int, *, over: bool) -> onnx.GraphProto:
    """Return one step as the body of a Scan; `over` says that a second input tells for which sequences it goes on."""
    prefix = w.prefix()
    states = [f"{prefix}state{i}" for i in range(n_states)]
    x, going = f"{prefix}x", f"{prefix}going"
    graph = onnx.GraphProto(name="step", input=[typed(name, w.element_type) for name in (*states, x)])
    if over:
        graph.input.append(typed(going, TensorProto.BOOL))
    model = helper.make_model(graph, opset_imports=w.imports)
    s = GraphBuilder(model, model.graph, prefix, w.differentiate)
    s.at(node, w.element_type)
    after = _STEPS[node.op_type](s, layer, x, states)
    y = after[0]
    if over:
        y = s.Where(going, y, 0.0)
        after = [s.Where(going, new, old) for new, old in zip(after, states, strict=True)]
    results = [s.Identity(each) for each in (*after, y)]
    graph.output.extend(typed(name, w.element_type) for name in results)
    graph.node.extend(s.nodes)
    graph.initializer.extend(s.initializers)
    return graph


def _applied(s: GraphBuilder, layer: _Layer, i: int, gate: str) -> str:
    """Return the layer's activation `i` of a gate, which is clipped first where the layer clips."""
    if layer.clip is not None:
        gate = s.Clip(gate, -layer.clip, layer.clip)
    return s.outputs(1, layer.activations[i], gate)[0]


def _lstm(s: GraphBuilder, layer: _Layer, x: str, states: list[str]) -> list[str]:
    h, c = states
    i, o, f, new = _split(s, s.Add(x, s.MatMul(h, layer.weights)), 4, layer.hidden, axis=1)
    if layer.peepholes:
        i, f = s.Add(i, s.Mul(layer.peepholes[0], c)), s.Add(f, s.Mul(layer.peepholes[2], c))
    i = _applied(s, layer, 0, i)
    f = s.Sub(1.0, i) if layer.input_forget else _applied(s, layer, 0, f)
    after = s.Add(s.Mul(f, c), s.Mul(i, _applied(s, layer, 1, new)))
    if layer.peepholes:
        o = s.Add(o, s.Mul(layer.peepholes[1], after))
    return [s.Mul(_applied(s, layer, 0, o), s.outputs(1, layer.activations[2], after)[0]), after]


def _gru(s: GraphBuilder, layer: _Layer, x: str, states: list[str]) -> list[str]:
    (h,), n = states, layer.hidden
    sizes = s.integers([2 * n, n])
    gates, new = s.outputs(2, "Split", x, sizes, axis=1)
    weights, new_weights = s.outputs(2, "Split", layer.weights, sizes, axis=1)
    z, r = (_applied(s, layer, 0, each) for each in _split(s, s.Add(gates, s.MatMul(h, weights)), 2, n, axis=1))
    if layer.linear_before_reset:
        inner = s.MatMul(h, new_weights)
        inner = s.Mul(r, s.Add(inner, layer.late_bias) if layer.late_bias else inner)
    else:
        inner = s.MatMul(s.Mul(r, h), new_weights)
    new = _applied(s, layer, 1, s.Add(new, inner))
    return [s.Add(s.Mul(s.Sub(1.0, z), new), s.Mul(z, h))]


def _rnn(s: GraphBuilder, layer: _Layer, x: str, states: list[str]) -> list[str]:
    (h,) = states
    return [_applied(s, layer, 0, s.Add(x, s.MatMul(h, layer.weights)))]


_STEPS: dict[str, _Step] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
