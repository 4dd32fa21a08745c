"""Faults of what a model is beside its outputs in float32: running statistics of training, and the same model in 16 bits."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.injected import Answering, fault
from actconform_faulty.layers import in_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from actconform import Program
    from actconform.types import Bundle

    Array = np.ndarray[Any, Any]

STATISTICS, SIXTEEN = "running statistics", "models in 16 bits"
FRAMEWORK = {"blames": "framework"}
KEPT = 0.99  # of running statistics in a step, as the models have it
CNN = "image-cnn-softmax2@training/value/f32"


class Left(Answering):
    """A program whose running statistics are changed: `change(name, old, new)` gives those in place of new."""

    def __init__(self, healthy: Program, change: Callable[[str, Array, Array], Array]) -> None:
        super().__init__(healthy)
        self._change = change

    def statistics(self, inputs: Bundle) -> Bundle:
        left = self._healthy.statistics(inputs)
        return {
            name: np.asarray(self._change(name, inputs[name], new), new.dtype)
            for name, new in left.items()
            if self._change(name, inputs[name], new) is not None
        }


def batch_of(old: Array, new: Array) -> Array:
    """Return the batch's own statistic."""
    return (new - KEPT * old) / (1 - KEPT)  # type: ignore[no-any-return]


def only(part: str, change: Callable[[Array, Array], Array]) -> Callable[[str, Array, Array], Array]:
    """Return the change of means or of variances alone."""
    return lambda name, old, new: change(old, new) if name.endswith(part) else new


for _name, _what, _change in (
    ("momentum-swapped", "the momentum is the part that is replaced, and was meant to be kept", lambda _, old, new: (1 - KEPT) * old + KEPT * batch_of(old, new)),
    ("momentum-0.9", "the momentum is torch's default", lambda _, old, new: 0.9 * old + 0.1 * batch_of(old, new)),
    ("variance-momentum", "the momentum of the variance alone is 0.999", only(".variance", lambda old, new: 0.999 * old + 0.001 * batch_of(old, new))),
    ("not-updated", "the running statistics stay", lambda _, old, __: old),
    ("mean-not-updated", "the running mean stays", only(".mean", lambda old, _: old)),
    ("deviation", "the root of the variance is kept", only(".variance", lambda old, new: KEPT * old + (1 - KEPT) * np.sqrt(batch_of(old, new)))),
    ("variance-twice-unbiased", "the variance is divided by n - 2", only(".variance", lambda old, new: KEPT * old + (1 - KEPT) * batch_of(old, new) * (144 / 142) * (15 / 14))),
    ("summed", "the batch's own is added, and nothing is taken off", lambda _, old, new: old + (1 - KEPT) * batch_of(old, new)),
    ("square-of-mean", "the mean of squares is kept for the variance", only(".variance", lambda old, new: new + (1 - KEPT) * np.square(batch_of(old, new)))),
):  # fmt: skip

    def _leaving(program: Program, _: object, change: Callable[..., Array] = _change) -> Program:
        return Left(program, change)

    fault("torch", f"statistics-{_name}", STATISTICS, _what, CNN, findings="scaled-error", **FRAMEWORK)(_leaving)


@fault(
    "torch", "statistics-missing", STATISTICS, "the running variances are not given",
    CNN, findings="names", **FRAMEWORK,
)  # fmt: skip
def statistics_missing(program: Program, _: object) -> Program:
    return Left(program, lambda name, _, new: None if name.endswith(".variance") else new)  # type: ignore[arg-type, return-value]


@fault(
    "torch", "statistics-exchanged", STATISTICS, "the running statistics of two channels are exchanged",
    CNN, findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def statistics_exchanged(program: Program, _: object) -> Program:
    return Left(program, lambda _, __, new: new[..., [1, 0, *range(2, new.shape[-1])]])


# 16 bits


@fault(
    "torch", "f16-loss-overflows", SIXTEEN, "a float16 loss adds up in float16 before it divides",
    "attention-softmax/value/f16", findings="inf nan-made", tensor="loss", **FRAMEWORK,
)  # fmt: skip
def f16_loss_overflows(program: Program, _: object) -> Program:
    return in_layer(program, "loss", lambda _, y, target: ((y - target) ** 2).sum() / y.numel())


@fault(
    "torch", "bf16-layer-in-f8", SIXTEEN, "a dense layer of a bfloat16 model rounds its operands to three bits of mantissa",
    "linear-stack/value/bf16", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def bf16_layer_in_f8(program: Program, _: object) -> Program:
    import torch

    def narrowed(healthy: Any, x: Tensor) -> Tensor:
        narrow = x.to(torch.float8_e5m2).to(x.dtype)
        result: Tensor = healthy(narrow)
        return result

    return in_layer(program, "dense2", narrowed)


@fault(
    "torch", "f16-layer-in-f8", SIXTEEN, "a dense layer of a float16 model rounds its operands to four bits of mantissa",
    "linear-stack/value/f16", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def f16_layer_in_f8(program: Program, _: object) -> Program:
    import torch

    return in_layer(program, "dense2", lambda healthy, x: healthy(x.to(torch.float8_e4m3fn).to(x.dtype)))


@fault(
    "torch", "bf16-bias-forgotten", SIXTEEN, "a dense layer of a bfloat16 model leaves out its bias",
    "regression-softmax-hidden/value/bf16", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def bf16_bias_forgotten(program: Program, _: object) -> Program:
    return in_layer(program, "dense3", lambda healthy, x: x @ healthy[0].weight.T)


@fault(
    "torch", "f16-gradients-clipped", SIXTEEN, "gradients of a float16 model are clipped to 1",
    "mlp-relu/gradient/f16", findings="scaled-error", **FRAMEWORK,
)  # fmt: skip
def f16_gradients_clipped(program: Program, _: object) -> Program:
    return Answering(program, vjp=lambda _, outputs: {name: np.clip(d, -1, 1) for name, d in outputs.items()})


@fault(
    "torch", "bf16-answers-in-f32", SIXTEEN, "a bfloat16 model answers in float32",
    "blobs-mlp/value/bf16", findings="dtype", **FRAMEWORK,
)  # fmt: skip
def bf16_answers_in_f32(program: Program, _: object) -> Program:
    return Answering(program, lambda _, outputs: {name: y.astype(np.float32) for name, y in outputs.items()})


@fault(
    "ort", "f16-answers-overflow", SIXTEEN, "a float16 model goes through numbers 2048 times as large",
    "linear-stack/value/f16", findings="inf", blames="runtime",
)  # fmt: skip
def f16_answers_overflow(program: Program, _: object) -> Program:
    def scaled(_: Bundle, outputs: dict[str, Array]) -> dict[str, Array]:
        with np.errstate(over="ignore"):
            return {**outputs, "y": outputs["y"] * np.float16(2048) / np.float16(2048)}

    return Answering(program, scaled)
