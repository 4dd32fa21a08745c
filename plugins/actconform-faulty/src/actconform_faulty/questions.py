"""Faults of models that one ordinary batch does not show: large numbers, means far from 0, NaN, ties, other batches, the loss's cotangent."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from actconform import Program
from actconform_faulty.graphs import nodes
from actconform_faulty.injected import Answering, fault
from actconform_faulty.layers import in_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto
    from torch import Tensor

    from actconform.types import Bundle

    Array = np.ndarray[Any, Any]

FAMILY = "questions of models"
BATCH, WIDE_BATCH = 4, 5  # of the small models; from which on a kernel for large batches is taken
FRAMEWORK, RUNTIME = {"blames": "framework"}, {"blames": "runtime"}


class LossCotangent(Program):
    """A program that pulls back another cotangent than it is given, natively or as an input of the graph."""

    def __init__(self, healthy: Program, change: Callable[[Array], Array]) -> None:
        self._healthy, self._change = healthy, change
        self.implementation, self.placement = healthy.implementation, healthy.placement

    def forward(self, inputs: Bundle) -> Bundle:
        cotangents = {name: self._changed(array) for name, array in inputs.items() if name.startswith("ct_")}
        return self._healthy.forward({**inputs, **cotangents})

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        return self._healthy.vjp(inputs, {name: self._changed(array) for name, array in cotangents.items()})

    def _changed(self, cotangent: Array) -> Array:
        return np.asarray(self._change(cotangent.astype(np.float64)), cotangent.dtype)


class FirstOfItsShape:
    """Give the first answer to inputs of one shape again: they were taken for constants."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, ...], dict[str, Array]] = {}

    def __call__(self, inputs: dict[str, Array], outputs: dict[str, Array]) -> dict[str, Array]:
        return self._answers.setdefault(inputs["x"].shape, outputs)


# The loss's cotangent

for _into, _name, _what, _change in (
    ("torch", "ignored", "the loss's cotangent is taken to be 1", np.ones_like),
    ("torch", "clipped", "the loss's cotangent is clipped to 1", lambda ct: np.clip(ct, -1.0, 1.0)),
    ("torch", "twice", "the loss's cotangent is multiplied in twice", lambda ct: ct * ct),
    ("torch", "integer", "the loss's cotangent is cut to an integer", np.trunc),
    ("torch", "f8", "the loss's cotangent has three bits of mantissa", lambda ct: np.ldexp(np.round(np.frexp(ct)[0] * 16) / 16, np.frexp(ct)[1])),
    ("ort", "ignored", "the loss's cotangent is taken to be 1", np.ones_like),
    ("ort", "saturated", "the loss's cotangent ends at 255", lambda ct: np.minimum(ct, 255.0)),
):  # fmt: skip

    def _pulled(program: Program, _: object, change: Callable[[Array], Array] = _change) -> Program:
        return LossCotangent(program, change)

    fault(
        _into, f"loss-cotangent-{_name}", FAMILY, _what, "linear-stack/gradient/f32",
        findings="scaled-error", blames="framework" if _into == "torch" else "runtime",
    )(_pulled)  # fmt: skip


# Large numbers, and means far from 0


@fault(
    "torch", "layer-norm-one-pass", FAMILY, "variance is the mean of squares less the square of the mean",
    "attention-block/value/f32", findings="scaled-error nan-made", **FRAMEWORK,
)  # fmt: skip
def layer_norm_one_pass(program: Program, _: object) -> Program:
    def one_pass(healthy: Any, x: Tensor) -> Tensor:
        norm, mean = healthy[0], x.mean(-1, keepdim=True)
        variance = (x * x).mean(-1, keepdim=True) - mean * mean
        return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias

    return in_layer(program, "norm1", one_pass)


@fault(
    "torch", "batch-norm-one-pass", FAMILY, "variance of the batch is the mean of squares less the square of the mean",
    "image-cnn-softmax2@training/value/f32", findings="scaled-error nan-made", **FRAMEWORK,
)  # fmt: skip
def batch_norm_one_pass(program: Program, _: object) -> Program:
    def one_pass(healthy: Any, x: Tensor) -> Tensor:
        norm, over = healthy[0], (0, 2, 3)
        mean = x.mean(over, keepdim=True)
        variance = (x * x).mean(over, keepdim=True) - mean * mean
        return (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]

    return in_layer(program, "norm1", one_pass)


@fault(
    "torch", "layer-softmax-unshifted", FAMILY, "a softmax does not take off the maximum",
    "mlp-softmax/value/f32", findings="nan-made", **FRAMEWORK,
)  # fmt: skip
def softmax_unshifted(program: Program, _: object) -> Program:
    return in_layer(program, "act2", lambda _, x: x.exp() / x.exp().sum(-1, keepdim=True))


@fault(
    "torch", "layer-softmax-unshifted-bf16", FAMILY, "a softmax in bfloat16 does not take off the maximum",
    "mlp-softmax/value/bf16", findings="nan-made", **FRAMEWORK,
)  # fmt: skip
def softmax_unshifted_bf16(program: Program, _: object) -> Program:
    return in_layer(program, "act2", lambda _, x: x.exp() / x.exp().sum(-1, keepdim=True))


@fault(
    "torch", "layer-sigmoid-by-exp", FAMILY, "a gate is exp(x) / (1 + exp(x))",
    "dnc-memory/value/f32", findings="nan-made", **FRAMEWORK,
)  # fmt: skip
def sigmoid_by_exp(program: Program, _: object) -> Program:
    return in_layer(program, "erase", lambda _, x: x.exp() / (1 + x.exp()))


@fault(
    "torch", "logits-clipped", FAMILY, "the loss clips logits at 30",
    "maxout-mlp/value/f32", findings="scaled-error", tensor="loss", **FRAMEWORK,
)  # fmt: skip
def logits_clipped(program: Program, _: object) -> Program:
    return in_layer(program, "loss", lambda healthy, z, target: healthy(z.clamp(-30, 30), target))


@fault(
    "torch", "cross-entropy-of-softmax", FAMILY, "a cross entropy takes the logarithm of a softmax",
    "maxout-mlp/value/f32", findings="nan-made inf", tensor="loss", **FRAMEWORK,
)  # fmt: skip
def cross_entropy_of_softmax(program: Program, _: object) -> Program:
    return in_layer(program, "loss", lambda _, z, target: -(target * z.softmax(-1).log()).sum(-1).mean())


@fault(
    "torch", "cross-entropy-with-epsilon", FAMILY, "a cross entropy adds 1e-9 to the softmax of which it takes the logarithm",
    "maxout-mlp/value/f32", findings="scaled-error", tensor="loss", **FRAMEWORK,
)  # fmt: skip
def cross_entropy_with_epsilon(program: Program, _: object) -> Program:
    return in_layer(program, "loss", lambda _, z, target: -(target * (z.softmax(-1) + 1e-9).log()).sum(-1).mean())


@fault(
    "torch", "binary-cross-entropy-of-sigmoid", FAMILY, "a cross entropy of logits takes logarithms of a sigmoid",
    "multinomial-latent/value/f32", findings="nan-made inf", tensor="loss", **FRAMEWORK,
)  # fmt: skip
def binary_cross_entropy_of_sigmoid(program: Program, _: object) -> Program:
    return in_layer(
        program, "loss", lambda _, z, t: -(t * z.sigmoid().log() + (1 - t) * (1 - z.sigmoid()).log()).mean()
    )


@fault(
    "torch", "activations-saturate", FAMILY, "a dense layer ends at 127, as 8 bits do",
    "linear-stack/value/f32", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def activations_saturate(program: Program, _: object) -> Program:
    return in_layer(program, "dense2", lambda healthy, x: healthy(x).clamp(-128, 127))


# NaN


@fault(
    "torch", "layer-relu-skips-nan", FAMILY, "a relu is the larger of x and 0, and NaN is no number",
    "mlp-relu/value/f32", findings="nan-lost", **FRAMEWORK,
)  # fmt: skip
def relu_skips_nan(program: Program, _: object) -> Program:
    return in_layer(program, "act1", lambda _, x: x.fmax(x.new_zeros(())))


@fault(
    "torch", "layer-pool-skips-nan", FAMILY, "a max pooling skips NaN",
    "bare-pools/value/f32", findings="nan-lost", **FRAMEWORK,
)  # fmt: skip
def pool_skips_nan(program: Program, _: object) -> Program:
    return in_layer(program, "pool1", lambda healthy, x: healthy(x.nan_to_num(nan=-np.inf)))


@fault(
    "torch", "nan-in-the-batch", FAMILY, "what is no number in one sample is none in all: a sum over the batch, times 0, is added",
    "mlp-relu/value/f32", findings="nan-made", tensor="y", **FRAMEWORK,
)  # fmt: skip
def nan_in_the_batch(program: Program, _: object) -> Program:
    return in_layer(program, "dense2", lambda healthy, x: healthy(x + 0 * x.sum()))


@fault(
    "torch", "loss-skips-nan", FAMILY, "the loss is the mean of what is a number",
    "linear-stack/value/f32", findings="nan-lost", tensor="loss", **FRAMEWORK,
)  # fmt: skip
def loss_skips_nan(program: Program, _: object) -> Program:
    return in_layer(program, "loss", lambda _, y, target: (y - target).abs().nanmean())


@fault(
    "torch", "attention-skips-nan", FAMILY, "attention replaces scores that are no numbers",
    "attention-softmax/value/f32", findings="nan-lost", tensor="y", **FRAMEWORK,
)  # fmt: skip
def attention_skips_nan(program: Program, _: object) -> Program:
    return in_layer(program, "attention", lambda healthy, q, k, v: healthy(q, k, v).nan_to_num(0.0))


# Pools


@fault(
    "torch", "pool-pads-with-0", FAMILY, "a max pooling pads with 0",
    "bare-pools/value/f32", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def pool_pads_with_0(program: Program, _: object) -> Program:
    return in_layer(program, "pool1", lambda healthy, x: healthy(x).clamp(min=0))


def _tied(share: Callable[[Tensor], Tensor]) -> Callable[[Program, object], Program]:
    """Return what pulls gradients of the first pool back to `share(equal)` of what is equal to the maximum of its window."""

    def inject(program: Program, _: object) -> Program:
        from torch.nn.functional import pad, unfold

        def pooled(_: Any, x: Tensor) -> Tensor:
            rows, columns = x.shape[2:]
            # as "same" pads 9 x 8: by 1 on both sides, and by 0 and 1
            windows = unfold(pad(x, (0, 1, 1, 1), value=-1e30), (3, 3), stride=2)
            windows = windows.reshape(len(x), x.shape[1], 9, (rows + 1) // 2, columns // 2)
            largest = windows.amax(2, keepdim=True)
            weights = share((windows == largest).detach())
            return (windows * weights).sum(2) + (largest[:, :, 0] - (windows * weights).sum(2)).detach()

        return in_layer(program, "pool1", pooled)

    return inject


fault(
    "torch", "pool-ties-all", FAMILY, "every element that is the maximum of its window gets the whole gradient",
    "bare-pools/gradient/f32", findings="scaled-error", **FRAMEWORK,
)(_tied(lambda equal: equal.float()))  # fmt: skip
fault(
    "torch", "pool-ties-shared", FAMILY, "elements that are the maximum of a window share its gradient",
    "bare-pools/gradient/f32", findings="scaled-error", **FRAMEWORK,
)(_tied(lambda equal: equal.float() / equal.sum(2, keepdim=True)))  # fmt: skip


# Batches


def _on_one(inputs: dict[str, Array], outputs: dict[str, Array]) -> dict[str, Array]:
    return {name: array[0] if array.ndim and len(inputs["x"]) == 1 else array for name, array in outputs.items()}


def _tail_repeated(inputs: dict[str, Array], outputs: dict[str, Array]) -> dict[str, Array]:
    """Give the samples beyond a multiple of four what the first of them gets, as a loop over four at once."""
    whole = len(inputs["x"]) // 4 * 4
    repeated = {name: array.copy() for name, array in outputs.items() if array.ndim}
    for array in repeated.values():
        array[whole:] = array[whole : whole + 1]
    return {**outputs, **repeated}


for _into, _blame in (("torch", FRAMEWORK), ("ort", RUNTIME)):
    fault(
        _into, "batch-1-squeezed", FAMILY, "a batch of one loses its axis",
        "linear-stack/value/f32", findings="shape", **_blame,
    )(lambda program, _: Answering(program, _on_one))  # fmt: skip
    fault(
        _into, "batch-tail", FAMILY, "samples beyond a multiple of four are all the same",
        "linear-stack/value/f32", findings="scaled-error", tensor="y", **_blame,
    )(lambda program, _: Answering(program, _tail_repeated))  # fmt: skip
    fault(
        _into, "inputs-cached", FAMILY, "inputs are taken for constants: one shape, one answer",
        "linear-stack/value/f32", findings="scaled-error", **_blame,
    )(lambda program, _: Answering(program, FirstOfItsShape()))  # fmt: skip


@fault(
    "torch", "batch-1-without-bias", FAMILY, "a product of a vector and a matrix forgets the bias",
    "linear-stack/value/f32", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def batch_1_without_bias(program: Program, _: object) -> Program:
    return in_layer(
        program, "dense2", lambda healthy, x: x @ healthy[0].weight.T if len(x) == 1 else healthy(x)
    )  # fmt: skip


@fault(
    "torch", "batch-statistics-in-large-batches", FAMILY, "in batches of five and more batch normalization takes the batch's statistics",
    "image-cnn-softmax2/value/f32", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def batch_statistics(program: Program, _: object) -> Program:
    def normalized(healthy: Any, x: Tensor) -> Tensor:
        if len(x) < WIDE_BATCH:
            return healthy(x)  # type: ignore[no-any-return]
        over = (0, 2, 3)
        standard = (x - x.mean(over, keepdim=True)) / x.var(over, unbiased=False, keepdim=True).sqrt()
        return standard * healthy[0].weight[:, None, None] + healthy[0].bias[:, None, None]

    return in_layer(program, "norm1", normalized)


@fault(
    "torch", "loss-of-the-built-batch", FAMILY, "the loss divides by the batch that the model was built for",
    "linear-stack/value/f32", findings="scaled-error", tensor="loss", **FRAMEWORK,
)  # fmt: skip
def loss_of_the_built_batch(program: Program, _: object) -> Program:
    return in_layer(program, "loss", lambda healthy, y, target: healthy(y, target) * len(y) / BATCH)


@fault(
    "torch", "gradient-of-one-sample", FAMILY, "the gradient of a parameter in a batch of one is taken for that of four",
    "linear-stack/gradient/f32", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def gradient_of_one_sample(program: Program, _: object) -> Program:
    def divided(tensors: dict[str, Array], outputs: dict[str, Array]) -> dict[str, Array]:
        d = outputs["d_dense1.bias"]
        return {**outputs, "d_dense1.bias": d / BATCH if len(tensors["x"]) == 1 else d}

    return Answering(program, vjp=divided)


# Graphs that a runtime rewrites


def on_proto(change: Callable[[ModelProto], None]) -> Callable[[bytes], bytes]:
    """Return what changes the bytes of a model as `change` changes the model in place."""

    def inject(model: bytes) -> bytes:
        proto = onnx.load_from_string(model)
        change(proto)
        return bytes(proto.SerializeToString())

    return inject


def _replaced(model: ModelProto, operator: str, write: Callable[[str, str, str], list[Any]]) -> None:
    """Replace each node of an operator by `write(its input, its output, a prefix of names)`."""
    for number, node in enumerate(list(nodes(model, operator))):
        index = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        for offset, new in enumerate(write(node.input[0], node.output[0], f"faulty{number}")):
            model.graph.node.insert(index + offset, new)


def _softmax_unshifted(x: str, y: str, prefix: str) -> list[Any]:
    return [
        helper.make_node("Exp", [x], [f"{prefix}/exp"]),
        helper.make_node("ReduceL1", [f"{prefix}/exp"], [f"{prefix}/sum"], keepdims=1),
        helper.make_node("Div", [f"{prefix}/exp", f"{prefix}/sum"], [y]),
    ]


def _relu_by_product(x: str, y: str, prefix: str) -> list[Any]:
    """Keep x where it is above 0, and else x - x of what is a number: NaN is not above 0."""
    return [
        helper.make_node("Sub", [x, x], [f"{prefix}/zero"]),
        helper.make_node("IsNaN", [x], [f"{prefix}/nan"]),
        helper.make_node("Constant", [], [f"{prefix}/none"], value_float=0.0),
        helper.make_node("Where", [f"{prefix}/nan", f"{prefix}/none", x], [f"{prefix}/clean"]),
        helper.make_node("Relu", [f"{prefix}/clean"], [y]),
    ]


@fault(
    "ort", "relu-skips-nan", FAMILY, "a relu gives 0 for NaN",
    "mlp-relu/value/f32", findings="nan-lost", on_graph=True, **RUNTIME,
)  # fmt: skip
def runtime_relu_skips_nan(model: bytes) -> bytes:
    return on_proto(lambda proto: _replaced(proto, "Relu", _relu_by_product))(model)


@fault(
    "ort", "pool-pads-with-0", FAMILY, "a max pooling pads with 0",
    "bare-pools/value/f32", findings="scaled-error", on_graph=True, **RUNTIME,
)  # fmt: skip
def runtime_pool_pads_with_0(model: bytes) -> bytes:
    def padded(proto: ModelProto) -> None:
        node = next(nodes(proto, "MaxPool"))
        y = node.output[0]
        node.output[0] = "faulty/pool"
        index = list(proto.graph.node).index(node)
        proto.graph.node.insert(index + 1, helper.make_node("Relu", ["faulty/pool"], [y]))

    return on_proto(padded)(model)


@fault(
    "ort", "layer-norm-one-pass", FAMILY, "variance is the mean of squares less the square of the mean, without epsilon's help",
    "attention-block/value/f32", findings="scaled-error nan-made", **RUNTIME,
)  # fmt: skip
def runtime_far_from_0(program: Program, _: object) -> Program:
    def blurred(inputs: dict[str, Array], outputs: dict[str, Array]) -> dict[str, Array]:
        """As float32 loses the digits of x * x: a share of u mean^2 / variance of the scale."""
        far = np.square(inputs["x"].mean()) * np.float32(2.0**-24)
        return {name: array * (1 + far) if name == "y" else array for name, array in outputs.items()}

    return Answering(program, blurred)
