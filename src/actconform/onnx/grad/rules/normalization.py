"""Normalizations: x with its mean taken off, divided by its standard deviation or norm; 16-bit ones are done in float32.

With h = (x - mean) / deviation and the cotangent c of h, dx = (c - mean(c) - h mean(c h)) / deviation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.onnx.grad.rules.registry import rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.onnx.grad.rules.graph_builder import GraphBuilder
    from actconform.onnx.grad.rules.registry import Cotangents, Node


def _standardized(b: GraphBuilder, x: str, axes: Sequence[int], epsilon: float) -> tuple[str, str]:
    """Return h = (x - mean) r and r = 1 / sqrt(variance + epsilon) over the axes, with the biased variance."""
    centred = b.Sub(x, b.mean_over(x, axes))
    inverse = b.Reciprocal(b.Sqrt(b.Add(b.mean_over(b.Mul(centred, centred), axes), epsilon)))
    return b.Mul(centred, inverse), inverse


def _through(b: GraphBuilder, c: str, h: str, inverse: str, axes: Sequence[int]) -> str:
    """Return r (c - mean(c) - h mean(c h)): dx of h = (x - mean) r."""
    along_h = b.Mul(h, b.mean_over(b.Mul(c, h), axes))
    return b.Mul(inverse, b.Sub(b.Sub(c, b.mean_over(c, axes)), along_h))


def _by_channel(b: GraphBuilder, vector: str, rank: int) -> str:
    return b.Reshape(vector, b.integers([-1] + [1] * (rank - 2)))


@rule("BatchNormalization", widen=True)
def batch_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """BatchNormalization, y = scale h + bias with h over each channel, by the given mean and variance or the batch's.

    By the given ones dx = g scale / deviation, dmean = -sum dx and dvariance = -sum dx (x - mean) / (2 deviation^2). In
    training the running ones pass on their own cotangents: momentum of it to the given ones, the rest to the batch's.
    """
    rank = b.rank(node.inputs[0])
    axes = [0, *range(2, rank)]
    x, scale, _, mean, variance = node.inputs
    y, *running = g
    scale = _by_channel(b, scale, rank)
    dmean = dvariance = None
    if node.attributes["training_mode"]:
        h, inverse = _standardized(b, x, axes, node.attributes["epsilon"])
        dx = _through(b, b.Mul(y, scale), h, inverse, axes) if y else None
        dx, dmean, dvariance = _through_running(b, node, (x, dx), running, axes)
    else:
        inverse = b.Reciprocal(b.Sqrt(b.Add(_by_channel(b, variance, rank), node.attributes["epsilon"])))
        h = b.Mul(b.Sub(x, _by_channel(b, mean, rank)), inverse)
        dx = b.Mul(y, b.Mul(scale, inverse))
        if node.wants(3):
            dmean = b.Neg(b.sum_over(dx, axes, keepdims=False))
        if node.wants(4):
            dvariance = b.sum_over(b.Mul(dx, b.Mul(h, b.Mul(inverse, -0.5))), axes, keepdims=False)
    dscale = b.sum_over(b.Mul(y, h), axes, keepdims=False) if node.wants(1) and y else None
    dbias = b.sum_over(y, axes, keepdims=False) if node.wants(2) and y else None
    return [dx, dscale, dbias, dmean, dvariance]


def _through_running(
    b: GraphBuilder, node: Node, x_and_dx: tuple[str, str | None], running: Cotangents, axes: Sequence[int]
) -> tuple[str | None, str | None, str | None]:
    """Return dx, with what flows from the running mean and variance added, and the cotangents of the given ones.

    d(batch mean) / dx = 1 / n and d(batch variance) / dx = 2 (x - mean) / n, of n elements a channel.
    """
    x, dx = x_and_dx
    rank, momentum = b.rank(node.inputs[0]), node.attributes["momentum"]
    d_running: list[str | None] = [None, None]
    centred = b.Sub(x, b.mean_over(x, axes))
    for i, c in enumerate(running):
        if not c:
            continue
        d_running[i] = b.Mul(c, momentum)
        count = b.Cast(b.Div(b.Size(x), b.Size(c)), to=b.element_type)
        share = _by_channel(b, b.Div(b.Mul(c, 1.0 - momentum), count), rank)
        more = b.Mul(b.Mul(share, 2.0), centred) if i else b.expand_like(share, node.inputs[0])
        dx = b.Add(dx, more) if dx else more
    return dx, d_running[0], d_running[1]


@rule("LayerNormalization", widen=True)
def layer_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """LayerNormalization, y = scale h + bias, with h over the axes from `axis` on.

    It may give the mean and r = 1 / deviation too, whose cotangents c pass on c / n and -r^2 h c / n, of n elements.
    """
    rank = b.rank(node.inputs[0])
    axes = range(b.axis(node.attributes["axis"], node.inputs[0]), rank)
    (x, scale), (y, *statistics) = node.inputs[:2], g
    h, inverse = _standardized(b, x, axes, node.attributes["epsilon"])
    dx = _through(b, b.Mul(y, scale), h, inverse, axes) if y else None
    for i, c in enumerate(statistics):
        if c:
            slope = b.Neg(b.Mul(b.Mul(inverse, inverse), h)) if i else b.expand_like(b.constant(1.0), node.inputs[0])
            more = b.Div(b.Mul(c, slope), b.Cast(b.Div(b.Size(x), b.Size(c)), to=b.element_type))
            dx = b.Add(dx, more) if dx else more
    dscale = b.sum_to(b.Mul(y, h), node.inputs[1], node.inputs[0]) if node.wants(1) and y else None
    dbias = b.sum_to(y, node.inputs[2], node.inputs[0]) if node.wants(2) and y else None
    return [dx, dscale, dbias]


@rule("RMSNormalization", widen=True)
def rms_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """RMSNormalization, y = scale h, h = x r, r = 1 / sqrt(mean(x^2) + epsilon): of c = g scale, dx = r (c - h mean(c h))."""
    rank = b.rank(node.inputs[0])
    axes = range(b.axis(node.attributes["axis"], node.inputs[0]), rank)
    (x, scale), (y,) = node.inputs, g
    assert y
    inverse = b.Reciprocal(b.Sqrt(b.Add(b.mean_over(b.Mul(x, x), axes), node.attributes["epsilon"])))
    h, c = b.Mul(x, inverse), b.Mul(y, scale)
    dx = b.Mul(inverse, b.Sub(c, b.Mul(h, b.mean_over(b.Mul(c, h), axes))))
    dscale = b.sum_to(b.Mul(y, h), node.inputs[1], node.inputs[0]) if node.wants(1) else None
    return [dx, dscale]


@rule("InstanceNormalization", widen=True)
def instance_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """InstanceNormalization, y = scale h + bias, with h over each channel of each image."""
    rank = b.rank(node.inputs[0])
    axes = range(2, rank)
    (x, scale), (y,) = node.inputs[:2], g
    assert y
    h, inverse = _standardized(b, x, axes, node.attributes["epsilon"])
    dx = _through(b, b.Mul(y, _by_channel(b, scale, rank)), h, inverse, axes)
    return [dx, *_of_channels(b, node, y, h, [0, *axes])]


@rule("GroupNormalization", widen=True)
def group_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """GroupNormalization, y = scale h + bias, with h over each group of channels of each image."""
    rank = b.rank(node.inputs[0])
    grouped = b.integers([0, node.attributes["num_groups"], -1])
    (x, scale), (y,) = node.inputs[:2], g
    assert y
    h, inverse = _standardized(b, b.Reshape(x, grouped), [2], node.attributes["epsilon"])
    c = b.Reshape(b.Mul(y, _by_channel(b, scale, rank)), grouped)
    dx = b.reshape_like(_through(b, c, h, inverse, [2]), node.inputs[0])
    by_channel = b.reshape_like(h, node.inputs[0])
    return [dx, *_of_channels(b, node, y, by_channel, [0, *range(2, rank)])]


def _of_channels(b: GraphBuilder, node: Node, g: str, h: str, axes: Sequence[int]) -> list[str | None]:
    """Return dscale = sum g h and dbias = sum g over all axes but the channels'."""
    return [
        b.sum_over(b.Mul(g, h), axes, keepdims=False) if node.wants(1) else None,
        b.sum_over(g, axes, keepdims=False) if node.wants(2) else None,
    ]


@rule("LpNormalization", widen=True)
def lp_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """LpNormalization, y = x / |x|_p: dx = (g - s sum(g y)) / |x|_p, s = y for p = 2, s = sign(x) for p = 1.

    Where the norm is 0, dx is 0.
    """
    axis, p = b.axis(node.attributes["axis"], node.inputs[0]), node.attributes["p"]
    x, (y,) = node.inputs[0], g
    assert y
    total = b.sum_over(b.Abs(x) if p == 1 else b.Mul(x, x), [axis])
    norm = total if p == 1 else b.Sqrt(total)
    zero = b.Equal(norm, 0.0)
    inverse = b.Where(zero, 0.0, b.Reciprocal(b.Where(zero, 1.0, norm)))
    h = b.Mul(x, inverse)
    slope = b.Sign(x) if p == 1 else h
    dx = b.Mul(inverse, b.Sub(y, b.Mul(slope, b.sum_over(b.Mul(y, h), [axis]))))
    return [dx]


@rule("MeanVarianceNormalization", widen=True)
def mean_variance_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """MeanVarianceNormalization, y = (x - mean) / q with q = deviation + 1e-9.

    dx = (g - mean(g)) / q - (x - mean) mean(g (x - mean)) / (q^2 deviation), without the second term where all is equal.
    """
    axes = [b.axis(axis, node.inputs[0]) for axis in node.attributes["axes"]]
    x, (y,) = node.inputs[0], g
    assert y
    centred = b.Sub(x, b.mean_over(x, axes))
    deviation = b.Sqrt(b.mean_over(b.Mul(centred, centred), axes))
    shifted = b.Add(deviation, 1e-9)
    h = b.Div(centred, shifted)
    per_deviation = b.Div(centred, b.Where(b.Equal(deviation, 0.0), 1.0, deviation))
    along_x = b.Mul(per_deviation, b.mean_over(b.Mul(y, h), axes))
    return [b.Div(b.Sub(b.Sub(y, b.mean_over(y, axes)), along_x), shifted)]


@rule("LRN", widen=True)
def local_response_normalization(b: GraphBuilder, node: Node, g: Cotangents) -> Cotangents:
    """LRN, y = x s^-beta, s = bias + alpha / size sum x^2 over the `size` channels around each.

    dx = g s^-beta - 2 alpha beta / size x times the sum of g x s^(-beta - 1) over the channels that see x.
    """
    alpha, beta, bias, size = (node.attributes[name] for name in ("alpha", "beta", "bias", "size"))
    x, (y,) = node.inputs[0], g
    assert y
    channels = (b.shape(x) or (None, None))[1]
    furthest = size if channels is None else channels - 1
    reach = min((size - 1) // 2, furthest), min(size // 2, furthest)
    near = _over_channels(b, b.Mul(x, x), *reach)
    s = b.Add(b.Mul(near, alpha / size), bias)
    direct = b.Mul(y, b.Pow(s, -beta))
    back = _over_channels(b, b.Div(b.Mul(direct, x), s), *reversed(reach))
    return [b.Sub(direct, b.Mul(b.Mul(x, back), 2 * alpha * beta / size))]


def _over_channels(b: GraphBuilder, x: str, before: int, after: int) -> str:
    """Return for every channel (N, C, ...) the sum of x over itself and so many channels before and after it."""
    rows = b.Reshape(x, b.Concat(b.Shape(x, end=2), b.integers([-1]), axis=0))
    columns = b.Unsqueeze(rows, b.integers([1]))  # (N, 1, C, pixels)
    ones = b.Expand(1.0, b.integers([1, 1, before + 1 + after, 1]))
    return b.reshape_like(b.Conv(columns, ones, pads=[before, 0, after, 0]), x)
