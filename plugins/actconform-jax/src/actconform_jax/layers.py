"""Each kind of layer of functions of JAX, which has no layers of its own: images and parameters lie as the catalog has them.

`actconform.catalog.models.layer_kinds` defines the kinds. A layer is a function of its inputs, in order, and of its parameters by
short name. `jax.nn.standardize` takes the variance as the mean of squares less the square of the mean by default; that is
left as users get it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

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
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    text = "composition: jax.lax.conv_general_dilated(x, kernel) + bias"
    return BuiltLayer(text, lambda p, x: convolve(x, p["kernel"]) + p["bias"])


def _max_pool(context: LayerContext) -> BuiltLayer:
    from jax import lax
    from jax import numpy as jnp

    window, strides = (1, *context.pair("size"), 1), (1, *context.pair("strides"), 1)
    # A number of Python, not an array: only then JAX sees that it is a maximum, which it can differentiate.
    return plain(
        "jax.lax.reduce_window(-inf, jax.lax.max)",
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, _padding(context)),
    )


def _up_sampling(context: LayerContext) -> BuiltLayer:
    rows, columns = context.pair("size")
    return plain("jax.numpy.repeat", lambda x: x.repeat(rows, axis=1).repeat(columns, axis=2))


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


BUILDERS: dict[str, Callable[[LayerContext], BuiltLayer]] = {
    "dense": _dense,
    "conv2d": _conv2d,
    "max-pool": _max_pool,
    "up-sampling": _up_sampling,
    "batch-norm": _batch_norm,
    "layer-norm": _layer_norm,
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
}
