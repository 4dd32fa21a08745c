"""Each kind of layer of functions of JAX, which has no layers of its own: images and parameters lie as the catalog has them.

`actconform.catalog.models.layer_kinds` defines the kinds. A layer is a function of its inputs, in order, and of its parameters by
short name. `jax.nn.standardize` takes the variance as the mean of squares less the square of the mean by default; that is
left as users get it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from actconform import Unsupported
from actconform.catalog.models.layer_kinds import CLIP
from actconform_jax.kernels import implement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jax import Array

    from actconform.types.model import Layer, Shape

    Named = Mapping[str, Array]


class Site(NamedTuple):
    """A layer in its model: the shapes that it reads, without the batch, and whether the model is training."""

    layer: Layer
    shapes: tuple[Shape, ...]
    training: bool

    def number(self, setting: str) -> float:
        return float(self.layer.settings[setting])  # type: ignore[arg-type]

    def pair(self, setting: str) -> tuple[int, int]:
        rows, columns = cast("tuple[int, int]", self.layer.settings[setting])
        return rows, columns

    @property
    def padding(self) -> str:
        return str(self.layer.settings["padding"]).upper()


class Built(NamedTuple):
    """What computes a layer: in words, and a function of its parameters by short name and its inputs."""

    text: str
    compute: Callable[..., Array]


def plain(text: str, function: Callable[..., Array]) -> Built:
    """Return a layer without parameters: a function of its inputs alone."""
    return Built(text, lambda _, *inputs: function(*inputs))


def _dense(_: Site) -> Built:
    return Built("composition: jnp.matmul(x, kernel) + bias", lambda p, x: x @ p["kernel"] + p["bias"])


def _conv2d(site: Site) -> Built:
    from jax import lax

    convolve = partial(
        lax.conv_general_dilated,
        window_strides=site.pair("strides"),
        padding=site.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    text = "composition: jax.lax.conv_general_dilated(x, kernel) + bias"
    return Built(text, lambda p, x: convolve(x, p["kernel"]) + p["bias"])


def _max_pool(site: Site) -> Built:
    from jax import lax
    from jax import numpy as jnp

    window, strides = (1, *site.pair("size"), 1), (1, *site.pair("strides"), 1)
    # A number of Python, not an array: only then JAX sees that it is a maximum, which it can differentiate.
    return plain(
        "jax.lax.reduce_window(-inf, jax.lax.max)",
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, site.padding),
    )


def _up_sampling(site: Site) -> Built:
    rows, columns = site.pair("size")
    return plain("jax.numpy.repeat", lambda x: x.repeat(rows, axis=1).repeat(columns, axis=2))


def _batch_norm(site: Site) -> Built:
    from jax.nn import standardize

    epsilon = site.number("epsilon")
    axes = tuple(range(len(site.shapes[0])))

    def normalize(p: Named, x: Array) -> Array:
        mean, variance = (None, None) if site.training else (p["mean"], p["variance"])
        return standardize(x, axes, mean=mean, variance=variance, epsilon=epsilon) * p["gamma"] + p["beta"]

    return Built("composition: jax.nn.standardize(x) * gamma + beta", normalize)


def _layer_norm(site: Site) -> Built:
    from jax.nn import standardize

    epsilon = site.number("epsilon")

    def normalize(p: Named, x: Array) -> Array:
        return standardize(x, epsilon=epsilon) * p["gamma"] + p["beta"]

    return Built("composition: jax.nn.standardize(x) * gamma + beta", normalize)


def _dropout(site: Site) -> Built:
    rate = site.number("rate")
    if not site.training:
        return plain("composition: x", lambda x, *_: x)
    if len(site.layer.inputs) == 1:
        raise Unsupported(f"layer {site.layer.name}: jax has no dropout that draws its own mask; give the layer a mask")
    return plain(f"composition: x * mask / (1 - {rate:g})", lambda x, mask: x * mask / (1.0 - rate))


def _flatten(_: Site) -> Built:
    return plain("jax.numpy.reshape", lambda x: x.reshape(x.shape[0], -1))


def _reshape(site: Site) -> Built:
    shape: tuple[int, ...] = site.layer.settings["shape"]  # type: ignore[assignment]
    return plain("jax.numpy.reshape", lambda x: x.reshape(-1, *shape))


def _activation(site: Site) -> Built:
    import msgspec

    from actconform.catalog.kernels import UNARY
    from actconform.catalog.kernels.rows import ROWS

    wanted = site.layer.settings["kernel"]
    kernel = next((one for one in UNARY + ROWS if one.name == wanted), None)
    if kernel is None:
        raise Unsupported(f"layer {site.layer.name}: the catalog has no kernel {wanted!r}")
    return plain(*implement(msgspec.structs.replace(kernel, axis=-1)))


def _add(_: Site) -> Built:
    return plain("jax.numpy.add", lambda a, b: a + b)


def _multiply(_: Site) -> Built:
    return plain("jax.numpy.multiply", lambda a, b: a * b)


def _affine(site: Site) -> Built:
    scale, shift = site.number("scale"), site.number("shift")
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


def written(text: str, function: Callable[..., Array]) -> Callable[[Site], Built]:
    """Return the builder of a layer that is a composition without settings and parameters."""
    return lambda _: plain(f"composition: {text}", function)


BUILDERS: dict[str, Callable[[Site], Built]] = {
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
