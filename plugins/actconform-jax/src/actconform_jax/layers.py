"""Each kind of layer of functions of JAX, which has no layers of its own: images and parameters lie as the catalog has them.

`actconform.catalog.models.layer_kinds` defines the kinds. A layer is a function of its inputs, in order, and of its parameters by
short name. `jax.nn.standardize` takes the variance as the mean of squares less the square of the mean by default; that is
left as users get it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform import Unsupported
from actconform.catalog.models.layer_kinds import CLIP
from actconform_jax.kernels import implement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jax import Array

    from actconform.plugin.framework import LayerContext

    Named = Mapping[str, Array]


class BuiltLayer(NamedTuple):
    """What computes a layer: in words, and a function of its parameters by short name and its inputs."""

    text: str
    compute: Callable[..., Array]


def plain(text: str, function: Callable[..., Array]) -> BuiltLayer:
    """Return a layer without parameters: a function of its inputs alone."""
    return BuiltLayer(text, lambda _, *inputs: function(*inputs))


def _dense(_: LayerContext) -> BuiltLayer:
    return BuiltLayer("composition: jnp.matmul(x, kernel) + bias", lambda p, x: x @ p["kernel"] + p["bias"])


def _padding(context: LayerContext) -> str:
    return str(context.layer.settings["padding"]).upper()


def _conv2d(context: LayerContext) -> BuiltLayer:
    from jax import lax

    convolve = partial(
        lax.conv_general_dilated,
        window_strides=context.pair("strides"),
        padding=_padding(context),
        rhs_dilation=context.pair("dilations"),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=int(context.number("groups")),
    )
    text = "composition: jax.lax.conv_general_dilated(x, kernel) + bias"
    return BuiltLayer(text, lambda p, x: convolve(x, p["kernel"]) + p["bias"])


def _conv2d_transpose(context: LayerContext) -> BuiltLayer:
    from jax import lax

    transpose = partial(
        lax.conv_transpose,
        strides=context.pair("strides"),
        padding=_padding(context),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        transpose_kernel=True,  # as that of the convolution whose transpose it is
    )
    text = "composition: jax.lax.conv_transpose(x, kernel) + bias"
    return BuiltLayer(text, lambda p, x: transpose(x, p["kernel"]) + p["bias"])


def _max_pool(context: LayerContext) -> BuiltLayer:
    from jax import lax
    from jax import numpy as jnp

    window, strides = (1, *context.pair("size"), 1), (1, *context.pair("strides"), 1)
    # A number of Python, not an array: only then JAX sees that it is a maximum, which it can differentiate.
    return plain(
        "jax.lax.reduce_window(-inf, jax.lax.max)",
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, _padding(context)),
    )


def _average_pool(context: LayerContext) -> BuiltLayer:
    from jax import lax
    from jax import numpy as jnp

    window, strides = (1, *context.pair("size"), 1), (1, *context.pair("strides"), 1)

    def total(x: Array) -> Array:
        summed: Array = lax.reduce_window(x, 0.0, lax.add, window, strides, _padding(context))
        return summed

    return plain(
        "composition: jax.lax.reduce_window(x, 0, jax.lax.add) / jax.lax.reduce_window(1, 0, jax.lax.add)",
        lambda x: total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype)),
    )


def _global_average_pool(_: LayerContext) -> BuiltLayer:
    return plain("jax.numpy.mean", lambda x: x.mean(axis=(1, 2)))


def _up_sampling(context: LayerContext) -> BuiltLayer:
    rows, columns = context.pair("size")
    return plain("jax.numpy.repeat", lambda x: x.repeat(rows, axis=1).repeat(columns, axis=2))


def _bilinear_resize(context: LayerContext) -> BuiltLayer:
    from jax.image import resize

    def resized(x: Array) -> Array:
        return resize(x, (len(x), *context.shape), "bilinear", antialias=False)

    return plain("jax.image.resize", resized)


def _batch_norm(context: LayerContext) -> BuiltLayer:
    from jax.nn import standardize

    epsilon = context.number("epsilon")
    axes = tuple(range(len(context.shapes[0])))

    def normalize(p: Named, x: Array) -> Array:
        mean, variance = (None, None) if context.training else (p["mean"], p["variance"])
        return standardize(x, axes, mean=mean, variance=variance, epsilon=epsilon) * p["gamma"] + p["beta"]

    return BuiltLayer("composition: jax.nn.standardize(x) * gamma + beta", normalize)


def _layer_norm(context: LayerContext) -> BuiltLayer:
    from jax.nn import standardize

    epsilon = context.number("epsilon")

    def normalize(p: Named, x: Array) -> Array:
        return standardize(x, epsilon=epsilon) * p["gamma"] + p["beta"]

    return BuiltLayer("composition: jax.nn.standardize(x) * gamma + beta", normalize)


def _image_norm(context: LayerContext) -> BuiltLayer:
    from jax.nn import standardize

    *_, channels = context.shapes[0]
    groups = int(context.number("groups")) if context.layer.kind == "group-norm" else channels
    epsilon = context.number("epsilon")

    def normalize(p: Named, x: Array) -> Array:
        grouped = x.reshape(x.shape[0], -1, groups, channels // groups)
        return standardize(grouped, (1, 3), epsilon=epsilon).reshape(x.shape) * p["gamma"] + p["beta"]

    return BuiltLayer("composition: jax.nn.standardize(x by groups) * gamma + beta", normalize)


def _rms_norm(context: LayerContext) -> BuiltLayer:
    from jax.lax import rsqrt
    from jax.numpy import square

    epsilon = context.number("epsilon")

    def normalize(p: Named, x: Array) -> Array:
        return x * rsqrt(square(x).mean(axis=-1, keepdims=True) + epsilon) * p["gamma"]

    return BuiltLayer("composition: x * jax.lax.rsqrt(jnp.square(x).mean(-1) + epsilon) * gamma", normalize)


def _l2_normalize(context: LayerContext) -> BuiltLayer:
    from jax.numpy import maximum
    from jax.numpy.linalg import norm

    epsilon = context.number("epsilon")
    text = "composition: x / jnp.maximum(jnp.linalg.norm(x), epsilon)"
    return plain(text, lambda x: x / maximum(norm(x, axis=-1, keepdims=True), epsilon))


def _embedding(_: LayerContext) -> BuiltLayer:
    return BuiltLayer("composition: table[ids]", lambda p, ids: p["table"][ids.astype(int)])


def _scanned(step: Callable[[Any, Array], tuple[Any, Array]], state: Any, x: Array) -> Array:
    """Return the states of all steps, the batch first."""
    from jax.lax import scan

    states: Array = scan(step, state, x.swapaxes(0, 1))[1].swapaxes(0, 1)
    return states


def _lstm(_: LayerContext) -> BuiltLayer:
    from jax.nn import sigmoid
    from jax.numpy import split, tanh, zeros

    def lstm(p: Named, x: Array) -> Array:
        def step(state: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            h, c = state
            i, f, g, o = split(gates + h @ p["recurrent"], 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            return (h, c), h

        start = zeros((x.shape[0], len(p["recurrent"])), x.dtype)
        return _scanned(step, (start, start), x @ p["kernel"] + p["bias"])

    return BuiltLayer("composition: jax.lax.scan of jax.nn.sigmoid, jnp.tanh", lstm)


def _gru(_: LayerContext) -> BuiltLayer:
    from jax.nn import sigmoid
    from jax.numpy import split, tanh, zeros

    def gru(p: Named, x: Array) -> Array:
        def step(h: Array, gates: Array) -> tuple[Array, Array]:
            z, r, n = split(gates, 3, axis=-1)
            u_z, u_r, u_n = split(h @ p["recurrent"] + p["bias"][1], 3, axis=-1)
            z = sigmoid(z + u_z)
            h = z * h + (1.0 - z) * tanh(n + sigmoid(r + u_r) * u_n)
            return h, h

        start = zeros((x.shape[0], len(p["recurrent"])), x.dtype)
        return _scanned(step, start, x @ p["kernel"] + p["bias"][0])

    return BuiltLayer("composition: jax.lax.scan of jax.nn.sigmoid, jnp.tanh", gru)


def _masked_softmax(_: LayerContext) -> BuiltLayer:
    from jax.nn import softmax

    return plain("jax.nn.softmax(where=mask)", lambda x, mask: softmax(x, where=mask.astype(bool)))


def _dropout(context: LayerContext) -> BuiltLayer:
    rate = context.number("rate")
    if not context.training:
        return plain("composition: x", lambda x, *_: x)
    if len(context.layer.inputs) == 1:
        raise Unsupported(
            f"layer {context.layer.name}: jax has no dropout that draws its own mask; give the layer a mask"
        )
    return plain(f"composition: x * mask / (1 - {rate:g})", lambda x, mask: x * mask / (1.0 - rate))


def _flatten(_: LayerContext) -> BuiltLayer:
    return plain("jax.numpy.reshape", lambda x: x.reshape(x.shape[0], -1))


def _reshape(context: LayerContext) -> BuiltLayer:
    shape: tuple[int, ...] = context.layer.settings["shape"]  # type: ignore[assignment]
    return plain("jax.numpy.reshape", lambda x: x.reshape(-1, *shape))


def _activation(context: LayerContext) -> BuiltLayer:
    text, function, _ = implement(context.kernel)
    return plain(text, function)


def _add(_: LayerContext) -> BuiltLayer:
    return plain("jax.numpy.add", lambda a, b: a + b)


def _multiply(_: LayerContext) -> BuiltLayer:
    return plain("jax.numpy.multiply", lambda a, b: a * b)


def _affine(context: LayerContext) -> BuiltLayer:
    scale, shift = context.number("scale"), context.number("shift")
    return plain(f"composition: {scale:g} * x + {shift:g}", lambda x: scale * x + shift)


def _squared_error(y: Array, target: Array) -> Array:
    return ((y - target) ** 2).mean()


def _absolute_error(y: Array, target: Array) -> Array:
    from jax.numpy import abs as absolute

    return absolute(y - target).mean()


def _binary(y: Array, target: Array) -> Array:
    from jax.numpy import clip, log

    y = clip(y, *CLIP)
    return -(target * log(y) + (1.0 - target) * log(1.0 - y)).mean()


def _binary_from_logits(z: Array, target: Array) -> Array:
    from jax.nn import log_sigmoid

    return -(target * log_sigmoid(z) + (1.0 - target) * log_sigmoid(-z)).mean()


def _categorical(y: Array, target: Array) -> Array:
    from jax.numpy import clip, log

    y = clip(y / y.sum(axis=-1, keepdims=True), *CLIP)
    return -(target * log(y)).sum(axis=-1).mean()


def _categorical_from_logits(z: Array, target: Array) -> Array:
    from jax.nn import log_softmax

    return -(target * log_softmax(z)).sum(axis=-1).mean()


def written(text: str, function: Callable[..., Array]) -> Callable[[LayerContext], BuiltLayer]:
    """Return the builder of a layer that is a composition without settings and parameters."""
    return lambda _: plain(f"composition: {text}", function)


def _attention(context: LayerContext) -> BuiltLayer:
    from jax.nn import dot_product_attention, softmax

    scale = context.shapes[0][-1] ** -0.5
    if context.shapes[1] != context.shapes[2]:  # dot_product_attention wants values as wide as keys
        text = "composition: jax.nn.softmax(q @ k.T / sqrt(d)) @ v"

        def product(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
            where = None if mask is None else mask.astype(bool)[:, None]
            return softmax(q @ k.swapaxes(-1, -2) * scale, where=where) @ v

        return plain(text, product)

    def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
        # (batch, t, heads, d), of one head
        keys = None if mask is None else mask.astype(bool)[:, None, None]
        mixed: Array = dot_product_attention(q[:, :, None], k[:, :, None], v[:, :, None], mask=keys)
        return mixed[:, :, 0]

    return plain("jax.nn.dot_product_attention", attention)


def _multi_head_attention(context: LayerContext) -> BuiltLayer:
    from jax.nn import dot_product_attention

    steps, width = context.shapes[0]
    heads = int(context.number("heads"))

    def attention(p: Named, x: Array) -> Array:
        q, k, v = (
            (x @ p[f"{one}-kernel"] + p[f"{one}-bias"]).reshape(-1, steps, heads, width // heads) for one in "qkv"
        )
        mixed: Array = dot_product_attention(q, k, v)
        return mixed.reshape(-1, steps, width) @ p["o-kernel"] + p["o-bias"]

    return BuiltLayer("composition: jnp.matmul, jax.nn.dot_product_attention", attention)


def _cosine_similarity(context: LayerContext) -> BuiltLayer:
    from jax.numpy.linalg import norm

    one_key = len(context.shapes[1]) == 1

    def similarity(memory: Array, key: Array) -> Array:
        keys = key[:, None] if one_key else key
        products = keys @ memory.swapaxes(-1, -2)
        found: Array = products / (norm(keys, axis=-1, keepdims=True) * norm(memory, axis=-1)[:, None])
        return found[:, 0] if one_key else found

    return plain("composition: keys @ memory.T / (jnp.linalg.norm(keys) * jnp.linalg.norm(memory))", similarity)


def _interpolate(gate: Array, a: Array, b: Array) -> Array:
    return gate * a + (1.0 - gate) * b


def _circular_shift(context: LayerContext) -> BuiltLayer:
    from jax.numpy import roll, stack

    width = context.shapes[1][0]

    def shift(w: Array, s: Array) -> Array:
        rolled = [roll(w, j - (width - 1) // 2, axis=-1) for j in range(width)]
        return (stack(rolled, axis=-1) * s[:, None]).sum(axis=-1)

    return plain("composition: sum of s_j * jnp.roll(w, j - (k - 1) / 2)", shift)


def _sharpen(w: Array, gamma: Array) -> Array:
    powers = w**gamma
    return powers / powers.sum(axis=-1, keepdims=True)


def _read(context: LayerContext) -> BuiltLayer:
    if len(context.shapes[0]) == 1:
        return plain("jax.numpy.matmul", lambda w, memory: (w[:, None] @ memory)[:, 0])
    return plain("jax.numpy.matmul", lambda w, memory: w @ memory)


def _write(memory: Array, w: Array, erase: Array, add: Array) -> Array:
    w = w[..., None]
    return memory * (1.0 - w * erase[:, None]) + w * add[:, None]


def _retention(free: Array, w: Array) -> Array:
    return (1.0 - free[..., None] * w).prod(axis=1)


def _usage(u: Array, w: Array, retention: Array) -> Array:
    return (u + w - u * w) * retention


def _allocation(u: Array) -> Array:
    from jax import numpy as jnp

    order = jnp.argsort(u, axis=-1, stable=True)
    ordered = jnp.take_along_axis(u, order, axis=-1)
    before = jnp.cumprod(jnp.concatenate([jnp.ones_like(u[:, :1]), ordered[:, :-1]], axis=-1), axis=-1)
    return jnp.put_along_axis(jnp.zeros_like(u), order, (1.0 - ordered) * before, axis=-1, inplace=False)


def _link(link: Array, w: Array, p: Array) -> Array:
    from jax import numpy as jnp

    rows, columns = w[:, :, None], w[:, None]
    moved = (1.0 - rows - columns) * link + rows * p[:, None]
    return jnp.where(jnp.eye(link.shape[-1], dtype=bool), 0.0, moved)


def _precedence(p: Array, w: Array) -> Array:
    return (1.0 - w.sum(axis=-1, keepdims=True)) * p + w


def _directional(context: LayerContext) -> BuiltLayer:
    if context.number("transposed"):
        return plain("jax.numpy.matmul", lambda link, w: w @ link)
    return plain("jax.numpy.matmul", lambda link, w: w @ link.swapaxes(1, 2))


def _mix(modes: Array, a: Array, b: Array, c: Array) -> Array:
    return modes[..., 0:1] * a + modes[..., 1:2] * b + modes[..., 2:3] * c


BUILDERS: dict[str, Callable[[LayerContext], BuiltLayer]] = {
    "dense": _dense,
    "conv2d": _conv2d,
    "conv2d-transpose": _conv2d_transpose,
    "max-pool": _max_pool,
    "average-pool": _average_pool,
    "global-average-pool": _global_average_pool,
    "up-sampling": _up_sampling,
    "bilinear-resize": _bilinear_resize,
    "batch-norm": _batch_norm,
    "layer-norm": _layer_norm,
    "group-norm": _image_norm,
    "instance-norm": _image_norm,
    "rms-norm": _rms_norm,
    "l2-normalize": _l2_normalize,
    "embedding": _embedding,
    "lstm": _lstm,
    "gru": _gru,
    "masked-softmax": _masked_softmax,
    "dropout": _dropout,
    "flatten": _flatten,
    "reshape": _reshape,
    "activation": _activation,
    "add": _add,
    "multiply": _multiply,
    "affine": _affine,
    "mean-squared-error": written("((y - t) ** 2).mean()", _squared_error),
    "mean-absolute-error": written("jnp.abs(y - t).mean()", _absolute_error),
    "binary-cross-entropy": written("-(t * jnp.log(y) + (1 - t) * jnp.log(1 - y)).mean(), y by jnp.clip", _binary),
    "binary-cross-entropy-from-logits": written(
        "-(t * jax.nn.log_sigmoid(z) + (1 - t) * jax.nn.log_sigmoid(-z)).mean()", _binary_from_logits
    ),
    "categorical-cross-entropy": written("-(t * jnp.log(y / y.sum(-1))).sum(-1).mean(), y by jnp.clip", _categorical),
    "categorical-cross-entropy-from-logits": written(
        "-(t * jax.nn.log_softmax(z)).sum(-1).mean()", _categorical_from_logits
    ),
    "attention": _attention,
    "multi-head-attention": _multi_head_attention,
    "cosine-similarity": _cosine_similarity,
    "interpolate": written("gate * a + (1 - gate) * b", _interpolate),
    "circular-shift": _circular_shift,
    "sharpen": written("w ** gamma / (w ** gamma).sum(-1)", _sharpen),
    "read": _read,
    "write": written("memory * (1 - w * erase) + w * add", _write),
    "retention": written("(1 - free * w).prod(1)", _retention),
    "usage": written("(u + w - u * w) * retention", _usage),
    "allocation": written("jnp.argsort(stable=True), jnp.cumprod, jnp.put_along_axis", _allocation),
    "link": written("(1 - w_i - w_j) * l + w_i * p_j, jnp.where of the diagonal", _link),
    "precedence": written("(1 - w.sum(-1)) * p + w", _precedence),
    "directional": _directional,
    "mix": written("modes_0 * a + modes_1 * b + modes_2 * c", _mix),
}
