"""Healthy but unusual: one layer of a model is computed in another order or by another algorithm, as accurately."""
# ruff: noqa: D103  one function a way to compute; what it is stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform_faulty.injected import healthy
from actconform_faulty.layers import in_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from actconform import Program

STACK, BLOCK, CNN, REGRESSION, ATTENTION = (
    "linear-stack/value/f32",
    "attention-block/value/f32",
    "image-cnn-softmax2/value/f32",
    "regression-softmax-hidden/value/f32",
    "attention-softmax/value/f32",
)


def dense(
    name: str, words: str, compute: Callable[[Tensor, Tensor, Tensor], Tensor], *, gradient: bool = False
) -> None:
    """Register a way to compute x W^T + b, asked in two layers."""
    cases = [STACK, "linear-stack/gradient/f32"] if gradient else [STACK, REGRESSION]

    @healthy("torch", f"dense-{name}", words, *cases)
    def _(program: Program, _: object) -> Program:
        def changed(layer: Any, x: Tensor) -> Tensor:
            return compute(x, layer[0].weight, layer[0].bias)

        return in_layer(in_layer(program, "dense1", changed), "dense2", changed)


def fused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Add one product after another with one rounding each: products of float32 numbers are exact in float64."""
    total = bias.expand(*x.shape[:-1], -1)
    for k in range(x.shape[-1]):
        total = (total.double() + x[..., k, None].double() * weight[:, k].double()).float()
    return total


def backwards(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    total = x[..., -1, None] * weight[:, -1]
    for k in range(x.shape[-1] - 2, -1, -1):
        total = total + x[..., k, None] * weight[:, k]
    return total + bias


def split(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    parts = [x[..., k::4] @ weight[:, k::4].T for k in range(4)]
    return (parts[0] + parts[1]) + (parts[2] + parts[3]) + bias


def compensated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Kahan's sum of the rounded products."""
    total = bias.expand(*x.shape[:-1], -1)
    lost = total * 0
    for k in range(x.shape[-1]):
        term = x[..., k, None] * weight[:, k] - lost
        wider = total + term
        lost, total = (wider - total) - term, wider
    return total


def permuted(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    import torch

    order = torch.randperm(x.shape[-1], generator=torch.Generator().manual_seed(0))
    return x[..., order] @ weight[:, order].T + bias


def in_float64(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (x.double() @ weight.double().T + bias.double()).float()


dense("fused", "a dense layer by fused multiply-add, one term after another", fused)
dense("backwards", "a dense layer's sums from the last term to the first", backwards, gradient=True)
dense("split", "a dense layer's sums in four strides", split, gradient=True)
dense("compensated", "a dense layer's sums by Kahan", compensated)
dense("permuted", "a dense layer's sums in a fixed order that looks random", permuted, gradient=True)
dense("float64", "a dense layer in float64, rounded once", in_float64, gradient=True)


def winograd(layer: Any, x: Tensor) -> Tensor:
    """F(2x2, 3x3) of an image of even sizes, without padding: 16 products for 4 results (Lavin and Gray 2016)."""
    import torch

    weight, bias = layer[0].weight, layer[0].bias
    b = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    g = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    a = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
    tiles = x.unfold(2, 4, 2).unfold(3, 4, 2)  # batch, channels, rows, columns, 4, 4
    products = torch.einsum("ocij,bcrsij->borsij", g @ weight @ g.T, b @ tiles @ b.T)
    squares = a @ products @ a.T
    height, width = x.shape[-2:]
    return squares.permute(0, 1, 2, 4, 3, 5).reshape(len(x), -1, height - 2, width - 2) + bias[:, None, None]


@healthy("torch", "conv-winograd", "a convolution by Winograd's F(2x2, 3x3)", CNN)
def conv_winograd(program: Program, _: object) -> Program:
    return in_layer(in_layer(program, "conv1", winograd), "conv2", winograd)


@healthy(
    "torch",
    "conv-as-product",
    "a convolution as one matrix product of its patches",
    CNN,
    "image-cnn-softmax2/gradient/f32",
)
def conv_as_product(program: Program, _: object) -> Program:
    def patches(layer: Any, x: Tensor) -> Tensor:
        from torch.nn.functional import unfold

        weight, bias = layer[0].weight, layer[0].bias
        columns = unfold(x, weight.shape[-2:])
        product = weight.flatten(1) @ columns + bias[:, None]
        return product.view(len(x), -1, x.shape[-2] - 2, x.shape[-1] - 2)

    return in_layer(program, "conv2", patches)


def normalized(layer: Any, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    norm = layer[0]
    y: Tensor = (x - mean) * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
    return y


def welford(layer: Any, x: Tensor) -> Tensor:
    """Mean and variance in one pass, one element after another (Welford 1962)."""
    mean, squares = x[..., :1], x[..., :1] * 0
    for k in range(1, x.shape[-1]):
        element = x[..., k : k + 1]
        moved = mean + (element - mean) / (k + 1)
        mean, squares = moved, squares + (element - mean) * (element - moved)
    return normalized(layer, x, mean, squares / x.shape[-1])


def two_passes(layer: Any, x: Tensor) -> Tensor:
    mean = x.sum(-1, keepdim=True) * (1 / x.shape[-1])
    return normalized(layer, x, mean, (x - mean).square().sum(-1, keepdim=True) * (1 / x.shape[-1]))


@healthy("torch", "norm-welford", "a layer normalization's variance in one pass by Welford", REGRESSION, "regression-softmax-hidden/gradient/f32")  # fmt: skip
def norm_welford(program: Program, _: object) -> Program:
    return in_layer(program, "norm2", welford)


@healthy("torch", "norm-two-passes", "a layer normalization in two passes, times reciprocals", BLOCK, "attention-block/gradient/f32")  # fmt: skip
def norm_two_passes(program: Program, _: object) -> Program:
    return in_layer(program, "norm2", two_passes)


@healthy("torch", "norm-as-scale-and-shift", "a batch normalization as x s + t", CNN)
def norm_as_scale_and_shift(program: Program, _: object) -> Program:
    def scaled(layer: Any, x: Tensor) -> Tensor:
        norm = layer[0]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return x * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]

    return in_layer(program, "norm1", scaled)


def flash(_: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Keep a maximum, a sum and a result as keys are read two by two (Dao et al. 2022)."""
    import torch

    top = torch.full((*q.shape[:-1], 1), -torch.inf)
    total, result = torch.zeros_like(top), torch.zeros(*q.shape[:-1], v.shape[-1])
    for start in range(0, k.shape[-2], 2):
        scores = q @ k[..., start : start + 2, :].transpose(-1, -2) * q.shape[-1] ** -0.5
        higher = torch.maximum(top, scores.amax(-1, keepdim=True))
        weights, shrunk = (scores - higher).exp(), (top - higher).exp()
        total = total * shrunk + weights.sum(-1, keepdim=True)
        result, top = result * shrunk + weights @ v[..., start : start + 2, :], higher
    return result / total


@healthy("torch", "attention-online", "attention block by block, as flash attention", ATTENTION, "attention-softmax/gradient/f32")  # fmt: skip
def attention_online(program: Program, _: object) -> Program:
    return in_layer(program, "attention", flash)


@healthy("torch", "softmax-composed", "a softmax composed, and its gradient by autograd of that", "mlp-softmax/value/f32", "mlp-softmax/gradient/f32")  # fmt: skip
def softmax_composed(program: Program, _: object) -> Program:
    def composed(_: Any, x: Tensor) -> Tensor:
        e = (x - x.amax(-1, keepdim=True)).exp()
        return e / e.sum(-1, keepdim=True)

    return in_layer(program, "act3", composed)


@healthy("torch", "gradient-recomputed", "activations are computed again for the gradient", "linear-stack/gradient/f32")
def gradient_recomputed(program: Program, _: object) -> Program:
    def checkpointed(layer: Any, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        weight, bias = layer[0].weight, layer[0].bias
        again: Tensor = checkpoint(
            lambda *tensors: tensors[0] @ tensors[1].T + tensors[2], x, weight, bias, use_reentrant=False
        )
        return again

    return in_layer(program, "dense2", checkpointed)
