"""Which function of JAX computes each kernel, and the compositions for those that JAX has no function for.

`NATIVE` and `COMPOSED` are data: what a program says of itself is made from the same entry that it calls.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actconform.plugin import framework
from actconform.plugin.framework import Composition, Native, register_implementations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jax import Array

    from actconform import Kernel
    from actconform.plugin.framework import Implementation


def implement(kernel: Kernel) -> Implementation:
    """Return what computes `kernel`; raise `Unsupported` where there is nothing."""
    return framework.implement("jax", kernel)


# Parameters are Python numbers: in JAX these take the type of the array beside them.


def _scaled_silu(x: Array, beta: float) -> Array:
    from jax.nn import sigmoid

    return x * sigmoid(beta * x)


def _quick_gelu(x: Array, alpha: float) -> Array:
    return _scaled_silu(x, alpha)


def _softplus_beta(x: Array, beta: float) -> Array:
    from jax.nn import softplus

    return softplus(beta * x) / beta


def _hard_sigmoid_onnx(x: Array, alpha: float, beta: float) -> Array:
    from jax.numpy import clip

    return clip(alpha * x + beta, 0.0, 1.0)


def _relu_squared(x: Array) -> Array:
    from jax.nn import relu
    from jax.numpy import square

    return square(relu(x))


def _threshold(x: Array, threshold: float, default: float) -> Array:
    from jax.numpy import where

    return where(x > threshold, x, default)


def _thresholded_relu(x: Array, alpha: float) -> Array:
    return _threshold(x, alpha, 0.0)


def _hard_shrink(x: Array, **parameters: float) -> Array:
    from jax.numpy import abs as absolute
    from jax.numpy import where

    return where(absolute(x) > parameters["lambda"], x, 0.0)


def _soft_shrink(x: Array, **parameters: float) -> Array:
    from jax.numpy import where

    bound = parameters["lambda"]
    return where(x > bound, x - bound, where(x < -bound, x + bound, 0.0))


def _tanh_shrink(x: Array) -> Array:
    from jax.nn import tanh

    return x - tanh(x)


def _prelu(x: Array, slope: Array) -> Array:
    from jax.nn import leaky_relu

    return leaky_relu(x, slope)


def _softmin(x: Array) -> Array:
    from jax.nn import softmax

    return softmax(-x, axis=-1)


def _hardmax(x: Array) -> Array:
    from jax.nn import one_hot
    from jax.numpy import argmax

    return one_hot(argmax(x, axis=-1), x.shape[-1], dtype=x.dtype)


def _sparsemax(x: Array) -> Array:
    from jax import lax
    from jax import numpy as jnp

    # A shift changes nothing but keeps huge logits from absorbing the 1; what lies 1 or more below the maximum is outside
    # the support, and clamped its sums stay finite; 16-bit cumulative sums would drift.
    z = jnp.maximum((x - lax.stop_gradient(x.max(axis=-1, keepdims=True))).astype(jnp.float32), -2.0)
    ordered = jnp.sort(z, axis=-1, descending=True)
    excess = jnp.cumsum(ordered, axis=-1) - 1.0
    support = (ordered > excess / jnp.arange(1, z.shape[-1] + 1)).sum(axis=-1, keepdims=True)
    # A row with a NaN has an empty support: index 0 is legal, and its NaN spreads through tau.
    tau = jnp.take_along_axis(excess, jnp.maximum(support - 1, 0), axis=-1) / support
    return jnp.maximum(z - tau, 0.0).astype(x.dtype)


def _maxout(x: Array, pieces: float) -> Array:
    return x.reshape(*x.shape[:-1], -1, int(pieces)).max(axis=-1)


def _gated(gate: str, x: Array) -> Array:
    from jax.numpy import split

    a, b = split(x, 2, axis=-1)
    activated: Array = GATES[gate]()(a)
    return activated * b


def _nn(name: str, **arguments: Any) -> Callable[..., Array]:
    function: Callable[..., Array] = getattr(import_module("jax.nn"), name)
    return partial(function, **arguments) if arguments else function


GATES: Mapping[str, Callable[[], Callable[..., Array]]] = {
    "relu": lambda: _nn("relu"),
    "silu": lambda: _nn("silu"),
    "gelu": lambda: _nn("gelu", approximate=False),
}

J = "jax.nn"

NATIVE: Mapping[str, Native] = {
    "linear": Native(f"{J}.identity"),
    "sigmoid": Native(f"{J}.sigmoid"),
    "tanh": Native(f"{J}.tanh"),
    "relu": Native(f"{J}.relu"),
    "leaky-relu": Native(f"{J}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-0.2": Native(f"{J}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-0.3": Native(f"{J}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-default": Native(f"{J}.leaky_relu"),
    "elu": Native(f"{J}.elu"),
    "elu-half": Native(f"{J}.elu", {"alpha": "alpha"}),
    "selu": Native(f"{J}.selu"),
    "celu": Native(f"{J}.celu", {"alpha": "alpha"}),
    "softsign": Native(f"{J}.soft_sign"),
    "gelu-erf": Native(f"{J}.gelu", {}, {"approximate": False}),
    "gelu-tanh": Native(f"{J}.gelu", {}, {"approximate": True}),
    "gelu-default": Native(f"{J}.gelu"),
    "silu": Native(f"{J}.silu"),
    "mish": Native(f"{J}.mish"),
    "softplus": Native(f"{J}.softplus"),
    "log-sigmoid": Native(f"{J}.log_sigmoid"),
    "squareplus": Native(f"{J}.squareplus", {"b": "b"}),
    "hard-sigmoid-relu6": Native(f"{J}.hard_sigmoid"),
    "hard-sigmoid-default": Native(f"{J}.hard_sigmoid"),
    "hard-swish": Native(f"{J}.hard_silu"),
    "hard-tanh": Native(f"{J}.hard_tanh"),
    "relu6": Native(f"{J}.relu6"),
    "exponential": Native("jax.numpy.exp"),
    "sparse-plus": Native(f"{J}.sparse_plus"),
    "sparse-sigmoid": Native(f"{J}.sparse_sigmoid"),
    "softmax": Native(f"{J}.softmax", {"axis": "axis"}),
    "softmax-axis1": Native(f"{J}.softmax", {"axis": "axis"}),
    "log-softmax": Native(f"{J}.log_softmax", {"axis": "axis"}),
    "log-softmax-axis1": Native(f"{J}.log_softmax", {"axis": "axis"}),
    "max": Native("jax.numpy.max", {"axis": "axis"}),
    "argmax": Native("jax.numpy.argmax", {"axis": "axis"}),
    "glu": Native(f"{J}.glu", {"axis": "axis"}),
}

COMPOSED: Mapping[str, Composition] = {
    "prelu": Composition(f"{J}.leaky_relu(negative_slope=slope)", _prelu),
    "swish": Composition(f"composition: x * {J}.sigmoid({{beta}} * x)", _scaled_silu),
    "quick-gelu": Composition(f"composition: x * {J}.sigmoid({{alpha}} * x)", _quick_gelu),
    "softplus-beta": Composition(f"composition: {J}.softplus({{beta}} * x) / {{beta}}", _softplus_beta),
    "hard-sigmoid-onnx": Composition("composition: jnp.clip({alpha} * x + {beta}, 0, 1)", _hard_sigmoid_onnx),
    "relu-squared": Composition(f"composition: jnp.square({J}.relu(x))", _relu_squared),
    "thresholded-relu": Composition("composition: jnp.where(x > {alpha}, x, 0)", _thresholded_relu),
    "threshold": Composition("composition: jnp.where(x > {threshold}, x, {default})", _threshold),
    "hard-shrink": Composition("composition: jnp.where(jnp.abs(x) > {lambda}, x, 0)", _hard_shrink),
    "soft-shrink": Composition("composition: x - {lambda}, x + {lambda} or 0 by jnp.where", _soft_shrink),
    "tanh-shrink": Composition(f"composition: x - {J}.tanh(x)", _tanh_shrink),
    "softmin": Composition(f"composition: {J}.softmax(-x)", _softmin),
    "hardmax": Composition(f"composition: {J}.one_hot(jnp.argmax(x, -1))", _hardmax),
    "sparsemax": Composition(
        "composition: jnp.maximum(x - tau, 0), tau from jnp.sort and cumsum in float32", _sparsemax
    ),
    "maxout": Composition("composition: x.reshape(..., n, {pieces}).max(-1)", _maxout),
    "reglu": Composition(f"composition: {J}.relu(a) * b, a and b by jnp.split", partial(_gated, "relu")),
    "swiglu": Composition(f"composition: {J}.silu(a) * b, a and b by jnp.split", partial(_gated, "silu")),
    "geglu": Composition(
        f"composition: {J}.gelu(a, approximate=False) * b, a and b by jnp.split", partial(_gated, "gelu")
    ),
}

register_implementations("jax", {**NATIVE, **COMPOSED})
