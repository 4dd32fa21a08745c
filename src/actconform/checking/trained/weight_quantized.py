"""Weights that a graph holds as integers with a scale."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_batch_norm import EPSILONS, FoldedWeight, folded_weights
from actconform.checking.trained.weight_ledger import Deviation
from actconform.checking.trained.weight_nearest import nearest_partners
from actconform.checking.trained.weight_values import canonical
from actconform.onnx.evaluate.contrib.blockwise import unpacked
from actconform.onnx.evaluate.quantized import spread_over
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actconform.checking.flatten import FlatNode
    from actconform.checking.trained.weight_check import WeightState
    from actconform.checking.trained.weight_ledger import Ledger
    from actconform.checking.trained.weight_nearest import Partner
    from actconform.checking.trained.weight_values import Array


class Places(NamedTuple):
    """Where a node reads an integer weight, its scale (-1: elsewhere) and its zero point, and along which axis these lie."""

    codes: int
    scale: int
    zero: int
    axis: int


# Where nodes read an integer bias, and the two scales whose product is its step.
BIASES = {"QLinearConv": (8, 1, 4), "QGemm": (6, 1, 4)}
TINY = float(np.finfo(np.float32).tiny)
PLACES = {
    "DequantizeLinear": Places(0, 1, 2, 1),
    "QLinearConv": Places(3, 4, 5, 0),
    "QLinearMatMul": Places(3, 4, 5, -1),
    "QGemm": Places(3, 4, 5, -1),
    "DynamicQuantizeMatMul": Places(1, 2, 3, -1),
    "MatMulIntegerToFloat": Places(1, 3, 5, -1),
    "MatMulInteger": Places(1, -1, 3, -1),
    "ConvInteger": Places(1, -1, 3, 0),
}


class Codes(NamedTuple):
    """Integers that stand for the elements of a weight, less their zero point."""

    initializer: str
    dtype: str
    integers: Array
    """In float64."""
    step: Array | None
    """The difference of the values of two integers, so that it broadcasts; None where the node does not have it."""
    axis: int

    def values(self) -> Array:
        return canonical((self.integers * (1.0 if self.step is None else self.step)).astype(np.float32))


def match_quantized(ledger: Ledger) -> None:
    """Settle the weights that are most like the values of integer constants."""
    nodes = {initializer: node for initializer, node in _quantized(ledger) if initializer not in ledger.taken}
    if not nodes:
        return
    folded = {f"{fold.parameter} folded": fold for fold in folded_weights(ledger)}
    plain = {name: FoldedWeight(name, None, partial(_trained, ledger, name)) for name in ledger.open_parameters()}
    weights = plain | folded
    fetched: dict[str, Callable[[], Array]] = {
        key: weight.values
        for key, weight in weights.items()
        if weight.values().dtype.kind == "f" and weight.values().size > 1
    }
    for pair in nearest_partners(fetched, {name: partial(_values, ledger, name, node) for name, node in nodes.items()}):
        weight = weights[pair.parameter]
        codes = _codes(ledger, pair.initializer, nodes[pair.initializer])
        if weight.parameter not in ledger.checks and codes:
            _settle(ledger, weight, codes, pair)
    for fold in folded.values():
        fold.settle_norm(ledger)


def _trained(ledger: Ledger, parameter: str, _epsilon: float) -> Array:
    return ledger.trained(parameter)


def _quantized(ledger: Ledger) -> Iterator[tuple[str, FlatNode]]:
    """Yield the integer constants that stand for weights, and a node that reads each."""
    for node in ledger.graph.nodes:
        inputs = list(node.proto.input)
        bias = BIASES.get(node.proto.op_type, (len(inputs),))[0]
        if bias < len(inputs) and inputs[bias] in ledger.constants:
            yield inputs[bias], node
        if node.proto.op_type == "MatMulNBits" and inputs[1] in ledger.constants:
            yield inputs[1], node
        for start in (
            (0, 3)
            if node.proto.op_type == "QLinearMatMul"
            else (PLACES.get(node.proto.op_type, Places(-1, 0, 0, 0)).codes,)
        ):
            if 0 <= start < len(inputs) and inputs[start] in ledger.constants:
                yield inputs[start], node


def _values(ledger: Ledger, initializer: str, node: FlatNode) -> Array:
    codes = _codes(ledger, initializer, node)
    return codes.values() if codes else np.zeros(0, np.float32)


def _codes(ledger: Ledger, initializer: str, node: FlatNode) -> Codes | None:
    """Return the integers of a constant as a node reads them; None where scale or zero point are no constants."""
    inputs = [ledger.constants.get(name) if name else None for name in node.proto.input]
    stated = {
        item.name: int(item.i) for item in node.proto.attribute if item.name in {"axis", "block_size", "N", "K", "bits"}
    }
    if node.proto.op_type == "MatMulNBits":
        return _blocks(initializer, inputs, stated)
    if initializer in node.proto.input[6:]:
        return _bias(initializer, inputs, *BIASES[node.proto.op_type])
    places = PLACES[node.proto.op_type]
    if node.proto.op_type == "QLinearMatMul" and node.proto.input[0] == initializer:
        places = Places(0, 1, 2, -2)
    stored = ledger.constants[initializer]
    axis, block = stated.get("axis", places.axis), stated.get("block_size", 0)
    scale = inputs[places.scale] if 0 <= places.scale < len(inputs) else None
    zero = inputs[places.zero] if places.zero < len(inputs) else None
    if places.scale >= 0 and scale is None:
        return None
    integers = stored.astype(np.float64)
    if zero is not None:
        integers -= spread_over(zero.astype(np.float64), stored, axis, block)
    step = None if scale is None else spread_over(scale.astype(np.float64), stored, axis, block)
    return Codes(initializer, stored.dtype.name, integers, step, axis % max(1, stored.ndim))


def _bias(initializer: str, inputs: list[Array | None], place: int, left: int, right: int) -> Codes | None:
    stored, scales = inputs[place], (inputs[left], inputs[right])
    if stored is None or scales[0] is None or scales[1] is None:
        return None
    step = scales[0].astype(np.float64) * scales[1].astype(np.float64).reshape(-1)
    return Codes(initializer, stored.dtype.name, stored.astype(np.float64), step, 0)


def _blocks(initializer: str, inputs: list[Array | None], stated: dict[str, int]) -> Codes | None:
    """Return the integers of a MatMulNBits of com.microsoft: [N, K], each block along K with a scale and a zero point."""
    packed, scales = inputs[1], inputs[2]
    if packed is None or scales is None:
        return None
    n, k, bits, size = (stated[name] for name in ("N", "K", "bits", "block_size"))
    blocks = -(-k // size)
    integers = unpacked(packed.reshape(n * blocks, -1), bits, size).reshape(n, blocks * size)[:, :k].astype(np.float64)
    zeros = inputs[3] if len(inputs) > 3 else None
    centre = np.full((n, blocks), 2.0 ** (bits - 1))
    if zeros is not None:
        centre = unpacked(zeros.reshape(n, -1), bits, blocks) if zeros.dtype == np.uint8 else zeros.reshape(n, blocks)
    centre, steps = (np.repeat(part.reshape(n, blocks).astype(np.float64), size, 1)[:, :k] for part in (centre, scales))
    return Codes(initializer, f"uint{bits}", integers - centre, steps, 0)


def _settle(ledger: Ledger, weight: FoldedWeight, codes: Codes, pair: Partner) -> None:
    errors = [
        _errors(ledger, weight.with_epsilon(epsilon), codes, pair)
        for epsilon in (EPSILONS if weight.norm else EPSILONS[:1])
    ]
    gaps, steps, step = min(errors, key=lambda error: float(error[1].max()))
    index, shape = int(gaps.argmax()), weight.values().shape
    deviation = Deviation(int(np.count_nonzero(gaps)), float(gaps.flat[index]), pair.layout.place(index, shape))
    text = f"{weight.words()}quantized to {codes.dtype}{_per(step, codes)}"
    # The division before the rounding may have moved a value over the middle between two integers.
    beyond = int(np.count_nonzero(steps > 0.5 * (1 + 2.0**-12)))
    if beyond:
        text += f": {beyond:,} of {number_of(gaps.size, 'value')} are off by more than half a step, by up to {steps.max():.3g} steps"
    else:
        text += f": every value within half a step of {np.abs(step).max():.3g}"
    text += "" if pair.layout.in_order(shape) else "; transposed"
    state: WeightState = "different" if steps.max() > 1 else "quantized"
    ledger.settle(weight.parameter, [codes.initializer], state, text, deviation=deviation)
    ledger.enter_owner(weight.parameter, [codes.initializer])


def _errors(ledger: Ledger, trained: Array, codes: Codes, pair: Partner) -> tuple[Array, Array, Array]:
    """Return how far each element is from its integer's value, the same in steps, and the step."""
    wanted = pair.layout.apply(trained).astype(np.float64)
    step = codes.step if codes.step is not None else _step_elsewhere(ledger, wanted, codes)
    gaps = np.abs(wanted - codes.integers * step)
    with np.errstate(all="ignore"):
        # The quotient that was rounded to an integer, and the weight once folded, have errors of their own, relative to them.
        steps = np.nan_to_num((gaps - np.abs(wanted) * 2.0**-21) / np.abs(step))
    return gaps, steps, step


def _per(step: Array, codes: Codes) -> str:
    if step.size == 1:
        return ""
    return f" for each index along axis {codes.axis}" if step.size == codes.integers.shape[codes.axis] else " in blocks"


def _step_elsewhere(ledger: Ledger, wanted: Array, codes: Codes) -> Array:
    """Return the step of integers that no scale is read with: a constant near what fits best, else that itself."""
    axes = tuple(i for i in range(wanted.ndim) if i != codes.axis)
    products, squares = wanted * codes.integers, codes.integers**2
    fits: list[Array] = [np.sum(products, keepdims=True) / max(1.0, float(np.sum(squares)))]
    fits.append(np.sum(products, axes, keepdims=True) / np.maximum(1.0, np.sum(squares, axes, keepdims=True)))
    steps = list(fits)
    for name in ledger.open_constants():
        constant = ledger.constants[name]
        for fit in fits:
            if constant.size == fit.size and constant.dtype.kind == "f":
                scale = constant.astype(np.float64).reshape(fit.shape)
                steps += [scale] if np.all(np.abs(scale - fit) <= 0.1 * np.abs(fit)) else []
    return min(
        steps, key=lambda step: float(np.max(np.abs(wanted - codes.integers * step) / np.maximum(np.abs(step), TINY)))
    )
