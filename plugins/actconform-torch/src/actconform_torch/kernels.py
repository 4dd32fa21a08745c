"""Which torch function computes each kernel, and the compositions for those that torch has no function for.

`NATIVE` and `COMPOSED` are data: what a program says of itself is made from the same entry that it calls.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from actconform.plugin import framework
from actconform.plugin.framework import Composition, Native, register_implementations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from actconform import Kernel
    from actconform.plugin.framework import Implementation


def implement(kernel: Kernel) -> Implementation:
    """Return what computes `kernel`; raise `Unsupported` where there is nothing."""
    return framework.implement("torch", kernel)


def _scaled_silu(x: Tensor, beta: float) -> Tensor:
    from torch import sigmoid

    return x * sigmoid(beta * x)


def _quick_gelu(x: Tensor, alpha: float) -> Tensor:
    return _scaled_silu(x, alpha)


def _hard_sigmoid_onnx(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0.0, 1.0)


def _relu_squared(x: Tensor) -> Tensor:
    from torch.nn.functional import relu

    return relu(x).square()


def _squareplus(x: Tensor, b: float) -> Tensor:
    from torch import full_like, hypot

    # Halves and hypot: neither x^2 nor the sum overflows.
    half = x / 2
    return half + hypot(half, full_like(x, sqrt(b) / 2))


def _sparse_plus(x: Tensor) -> Tensor:
    from torch import where

    # Clamped, the parabola has a finite derivative where the other branch is taken: no 0 * inf.
    return where(x < 1, (x.clamp(-1, 1) + 1).square() / 4, x)


def _sparse_sigmoid(x: Tensor) -> Tensor:
    return (x.clamp(-1, 1) + 1) / 2


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    from torch.nn.functional import prelu

    # torch takes the slope along axis 1, the catalog along the last: in a matrix the two are one.
    return prelu(x.reshape(-1, x.shape[-1]), slope).reshape(x.shape)


def _hardmax(x: Tensor) -> Tensor:
    from torch.nn.functional import one_hot

    return one_hot(x.argmax(dim=-1), x.shape[-1]).to(x.dtype)


def _sparsemax(x: Tensor) -> Tensor:
    import torch

    # A shift changes nothing but keeps huge logits from absorbing the 1; what lies 1 or more below the maximum is outside
    # the support, and clamped its sums stay finite; 16-bit cumulative sums would drift.
    z = (x - x.detach().amax(dim=-1, keepdim=True)).float().clamp(min=-2.0)
    ordered = z.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(dim=-1) - 1
    support = (ordered > excess / torch.arange(1, z.shape[-1] + 1, device=z.device)).sum(dim=-1, keepdim=True)
    # A row with a NaN has an empty support: index 0 is legal, and its NaN spreads through tau.
    tau = excess.gather(-1, (support - 1).clamp(min=0)) / support
    return torch.relu(z - tau).to(x.dtype)


def _maxout(x: Tensor, pieces: float) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, int(pieces)).amax(dim=-1)


def _reglu(x: Tensor) -> Tensor:
    from torch.nn.functional import relu

    a, b = x.chunk(2, dim=-1)
    return relu(a) * b


def _swiglu(x: Tensor) -> Tensor:
    from torch.nn.functional import silu

    a, b = x.chunk(2, dim=-1)
    return silu(a) * b


def _geglu(x: Tensor) -> Tensor:
    from torch.nn.functional import gelu

    a, b = x.chunk(2, dim=-1)
    return gelu(a) * b


F = "torch.nn.functional"

NATIVE: Mapping[str, Native] = {
    "linear": Native("torch.nn.Identity"),
    "sigmoid": Native(f"{F}.sigmoid"),
    "tanh": Native(f"{F}.tanh"),
    "relu": Native(f"{F}.relu"),
    "leaky-relu": Native(f"{F}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-0.2": Native(f"{F}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-0.3": Native(f"{F}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-default": Native(f"{F}.leaky_relu"),
    "elu": Native(f"{F}.elu"),
    "elu-half": Native(f"{F}.elu", {"alpha": "alpha"}),
    "selu": Native(f"{F}.selu"),
    "celu": Native(f"{F}.celu", {"alpha": "alpha"}),
    "softsign": Native(f"{F}.softsign"),
    "gelu-erf": Native(f"{F}.gelu", {}, {"approximate": "none"}),
    "gelu-tanh": Native(f"{F}.gelu", {}, {"approximate": "tanh"}),
    "gelu-default": Native(f"{F}.gelu"),
    "silu": Native(f"{F}.silu"),
    "mish": Native(f"{F}.mish"),
    "softplus": Native(f"{F}.softplus"),
    "softplus-beta": Native(f"{F}.softplus", {"beta": "beta"}),
    "log-sigmoid": Native(f"{F}.logsigmoid"),
    "hard-sigmoid-relu6": Native(f"{F}.hardsigmoid"),
    "hard-sigmoid-default": Native(f"{F}.hardsigmoid"),
    "hard-swish": Native(f"{F}.hardswish"),
    "hard-tanh": Native(f"{F}.hardtanh"),
    "relu6": Native(f"{F}.relu6"),
    "thresholded-relu": Native(f"{F}.threshold", {"threshold": "alpha"}, {"value": 0.0}),
    "threshold": Native(f"{F}.threshold", {"threshold": "threshold", "value": "default"}),
    "hard-shrink": Native(f"{F}.hardshrink", {"lambd": "lambda"}),
    "soft-shrink": Native(f"{F}.softshrink", {"lambd": "lambda"}),
    "tanh-shrink": Native(f"{F}.tanhshrink"),
    "exponential": Native("torch.exp"),
    "softmax": Native(f"{F}.softmax", {"dim": "axis"}),
    "softmax-axis1": Native(f"{F}.softmax", {"dim": "axis"}),
    "log-softmax": Native(f"{F}.log_softmax", {"dim": "axis"}),
    "log-softmax-axis1": Native(f"{F}.log_softmax", {"dim": "axis"}),
    "softmin": Native(f"{F}.softmin", {"dim": "axis"}),
    # amax, not max(dim): a pure reduction, as ReduceMax is. It shares the gradient of a tie out; max(dim) picks one.
    "max": Native("torch.amax", {"dim": "axis"}),
    "argmax": Native("torch.argmax", {"dim": "axis"}),
    "glu": Native(f"{F}.glu", {"dim": "axis"}),
}

COMPOSED: Mapping[str, Composition] = {
    "prelu": Composition(f"{F}.prelu", _prelu),
    "swish": Composition("composition: x * torch.sigmoid({beta} * x)", _scaled_silu),
    "quick-gelu": Composition("composition: x * torch.sigmoid({alpha} * x)", _quick_gelu),
    "hard-sigmoid-onnx": Composition("composition: ({alpha} * x + {beta}).clamp(0, 1)", _hard_sigmoid_onnx),
    "relu-squared": Composition(f"composition: {F}.relu(x).square()", _relu_squared),
    "squareplus": Composition("composition: x / 2 + torch.hypot(x / 2, sqrt({b}) / 2)", _squareplus),
    "sparse-plus": Composition("composition: torch.where(x < 1, (x.clamp(-1, 1) + 1).square() / 4, x)", _sparse_plus),
    "sparse-sigmoid": Composition("composition: (x.clamp(-1, 1) + 1) / 2", _sparse_sigmoid),
    "hardmax": Composition(f"composition: {F}.one_hot(x.argmax(-1))", _hardmax),
    "sparsemax": Composition("composition: torch.relu(x - tau), tau from sort and cumsum in float32", _sparsemax),
    "maxout": Composition("composition: x.reshape(..., n, {pieces}).amax(-1)", _maxout),
    "reglu": Composition(f"composition: {F}.relu(a) * b, a and b by chunk", _reglu),
    "swiglu": Composition(f"composition: {F}.silu(a) * b, a and b by chunk", _swiglu),
    "geglu": Composition(f"composition: {F}.gelu(a) * b, a and b by chunk", _geglu),
}

register_implementations("torch", {**NATIVE, **COMPOSED})
