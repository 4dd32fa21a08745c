"""Faults of gradients: reductions forgotten, branches detached, derivatives of another function, cotangents not used."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
from msgspec.structs import replace

from actconform_faulty.changed import with_gradient
from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Kernel, Model, Program
    from actconform_faulty.changed import Array, Tensors

FAMILY = "gradients"
OFF = {"findings": "scaled-error", "blames": "framework"}
KINK = {"findings": "kink", "blames": "framework"}
RUNTIME = {"findings": "scaled-error", "blames": "runtime"}


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@fault("torch", "relu-straight-through", FAMILY, "the cotangent as it came", "relu/gradient/f32", **OFF)
def relu_straight_through(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, _d: tensors["ct_y"])


@fault("torch", "hard-tanh-straight-through", FAMILY, "the cotangent as it came", "hard-tanh/gradient/f16", **OFF)
def hard_tanh_straight_through(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, _d: tensors["ct_y"])


@fault("torch", "sigmoid-saturates", FAMILY, "the derivative is 0 beyond 10", "sigmoid/gradient/f32", **OFF)
def sigmoid_saturates(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, d: np.where(np.abs(tensors["x"]) > 10, 0, d))


@fault("torch", "relu-kink", FAMILY, "the derivative at 0 is 2", "relu/gradient/f32", **KINK)
def relu_kink(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, d: np.where(tensors["x"] == 0, 2 * tensors["ct_y"], d))


@fault(
    "torch", "leaky-relu-kink", FAMILY, "the derivative at 0 is 0, on neither side", "leaky-relu/gradient/f32", **KINK
)
def leaky_relu_kink(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, d: d * np.abs(np.sign(tensors["x"])))


@fault("torch", "silu-one-term", FAMILY, "sigmoid(x) without x sigmoid'(x)", "silu/gradient/f32", **OFF)
def silu_one_term(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, _d: tensors["ct_y"] * sigmoid(tensors["x"]))


@fault("torch", "gelu-other-gradient", FAMILY, "the derivative of the tanh variant", "gelu-erf/gradient/f32", **OFF)
def gelu_other_gradient(program: Program, kernel: Kernel) -> Program:
    from actconform_torch.backend import TorchBackend

    other = TorchBackend().build(replace(kernel, name="gelu-tanh"), "f32")
    return with_gradient(program, lambda tensors, _d: other.vjp({"x": tensors["x"]}, {"y": tensors["ct_y"]})["d_x"])


@fault(
    "torch",
    "softsign-sign",
    FAMILY,
    "the derivative of |x| is forgotten: minus below 0",
    "softsign/gradient/f32",
    **OFF,
)
def softsign_sign(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, d: np.where(tensors["x"] < 0, -d, d))


@fault("torch", "tanh-ignores-cotangent", FAMILY, "the cotangent is taken for 1", "tanh/gradient/f32", **OFF)
def tanh_ignores_cotangent(program: Program, _: Kernel) -> Program:
    return with_gradient(program, lambda tensors, d: d / tensors["ct_y"])


@fault("torch", "elu-stale-cotangent", FAMILY, "the cotangent of the call before", "elu/gradient/f32", **OFF)
def elu_stale_cotangent(program: Program, _: Kernel) -> Program:
    before: list[Array] = []

    def stale(tensors: Tensors, d: Array) -> Array:
        before.append(tensors["ct_y"])
        used = before.pop(0) if len(before) > 1 else tensors["ct_y"]
        return d / tensors["ct_y"] * np.resize(used, d.shape)

    return with_gradient(program, stale)


def softmax_gradient(mean: Callable[[Array], Array]) -> Callable[[Tensors, Array], Array]:
    def gradient(tensors: Tensors, _d: Array) -> Array:
        e = np.exp(tensors["x"] - tensors["x"].max(axis=-1, keepdims=True))
        p = e / e.sum(axis=-1, keepdims=True)
        return p * (tensors["ct_y"] - mean(p * tensors["ct_y"]))

    return gradient


@fault("torch", "softmax-mean-for-sum", FAMILY, "the row's mean for its sum", "softmax/gradient/f32", **OFF)
def softmax_mean_for_sum(program: Program, _: Kernel) -> Program:
    return with_gradient(program, softmax_gradient(lambda terms: terms.mean(axis=-1, keepdims=True)))


@fault("torch", "softmax-diagonal", FAMILY, "the diagonal of the Jacobian alone", "softmax/gradient/f32", **OFF)
def softmax_diagonal(program: Program, _: Kernel) -> Program:
    return with_gradient(program, softmax_gradient(lambda terms: terms))


@fault(
    "torch",
    "max-tie-to-all",
    FAMILY,
    "each of several maxima takes the whole cotangent",
    "max/gradient/f32",
    findings="property",
    blames="framework",
)
def max_tie_to_all(program: Program, _: Kernel) -> Program:
    def whole(tensors: Tensors, d: Array) -> Array:
        ties = tensors["x"] == tensors["x"].max(axis=-1, keepdims=True)
        return np.where(ties, tensors["ct_y"][..., None], d)

    return with_gradient(program, whole)


@fault(
    "torch",
    "max-tie-by-bf16",
    FAMILY,
    "what equals the maximum in bfloat16 has a part of its gradient",
    "max/gradient/f32",
    **OFF,
)
def max_tie_by_bf16(program: Program, _: Kernel) -> Program:
    def shared(tensors: Tensors, d: Array) -> Array:
        x = tensors["x"].astype(ml_dtypes.bfloat16).astype(np.float32)
        ties = x == x.max(axis=-1, keepdims=True)
        return np.where(np.isnan(d), d, ties * tensors["ct_y"][..., None] / ties.sum(axis=-1, keepdims=True))

    return with_gradient(program, shared)


@fault("torch", "prelu-one-row", FAMILY, "the slope's gradient is that of the first row", "prelu/gradient/f32", **OFF)
def prelu_one_row(program: Program, _: Kernel) -> Program:
    def first(tensors: Tensors, _d: Array) -> Array:
        x, ct = (tensors[name].reshape(-1, tensors[name].shape[-1])[0] for name in ("x", "ct_y"))
        return np.where(x > 0, 0, x * ct)

    return with_gradient(program, first, "slope")


@fault("torch", "glu-gate-detached", FAMILY, "the gate has no gradient", "glu/gradient/f32", **OFF)
def glu_gate_detached(program: Program, _: Kernel) -> Program:
    def detached(_tensors: Tensors, d: Array) -> Array:
        passed = d.copy()
        passed[..., d.shape[-1] // 2 :] = 0
        return passed

    return with_gradient(program, detached)


@fault("torch", "stack-times-batch", FAMILY, "summed over the batch, not averaged", "linear-stack/gradient/f32", **OFF)
def stack_times_batch(program: Program, model: Model) -> Program:
    def summed(_tensors: Tensors, outputs: Tensors) -> Tensors:
        return {name: d * d.dtype.type(model.batch) for name, d in outputs.items()}

    return Answering(program, vjp=summed)


@fault(
    "torch",
    "query-transposed",
    FAMILY,
    "a square kernel's gradient, transposed",
    "attention-softmax/gradient/f32",
    **OFF,
)
def query_transposed(program: Program, _: Model) -> Program:
    return with_gradient(program, lambda _tensors, d: d.T, "query.kernel")


@fault("torch", "bias-one-row", FAMILY, "the bias has the gradient of one row", "linear-stack/gradient/f32", **OFF)
def bias_one_row(program: Program, _: Model) -> Program:
    def first(tensors: Tensors, _d: Array) -> Array:
        off = program.forward(tensors)["y"] - tensors["target"]
        return np.sign(off[0]) / off.size

    return with_gradient(program, first, "dense3.bias")


@fault("torch", "key-detached", FAMILY, "the keys have no gradient", "attention-softmax/gradient/f32", **OFF)
def key_detached(program: Program, _: Model) -> Program:
    return with_gradient(program, lambda _tensors, d: np.zeros_like(d), "key.kernel")


@fault(
    "torch",
    "residual-detached",
    FAMILY,
    "half of what came back is lost, as where one branch of a residual is",
    "attention-block/gradient/f32",
    **OFF,
)
def residual_detached(program: Program, _: Model) -> Program:
    return with_gradient(program, lambda _tensors, d: d / 2)


@fault("ort", "relu-straight-through", FAMILY, "the cotangent as it came", "relu/gradient/f32", **RUNTIME)
def graph_relu_straight_through(program: Program, _: None) -> Program:
    return with_gradient(program, lambda tensors, _d: tensors["ct_y"])


@fault(
    "ort", "stack-times-batch", FAMILY, "summed over the batch, not averaged", "linear-stack/gradient/f32", **RUNTIME
)
def graph_stack_times_batch(program: Program, _: None) -> Program:
    def summed(tensors: Tensors, outputs: Tensors) -> Tensors:
        return {name: d * d.dtype.type(len(tensors["x"])) for name, d in outputs.items()}

    return Answering(program, summed)


@fault(
    "ort",
    "value-transposed",
    FAMILY,
    "a square kernel's gradient, transposed",
    "attention-softmax/gradient/f32",
    **RUNTIME,
)
def graph_value_transposed(program: Program, _: None) -> Program:
    return with_gradient(program, lambda _tensors, d: np.ascontiguousarray(d.T), "value.kernel")


@fault("ort", "sigmoid-saturates", FAMILY, "the derivative is 0 beyond 10", "sigmoid/gradient/f32", **RUNTIME)
def graph_sigmoid_saturates(program: Program, _: None) -> Program:
    return with_gradient(program, lambda tensors, d: np.where(np.abs(tensors["x"]) > 10, 0, d))
