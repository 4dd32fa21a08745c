"""Attention and the layers of memory networks, of functions of JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform_jax.layers import BuiltLayer, plain, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from actconform.plugin.framework import LayerContext
    from actconform_jax.layers import Named


def _attention(context: LayerContext) -> BuiltLayer:
    from jax.nn import dot_product_attention, softmax

    scale = context.shapes[0][-1] ** -0.5
    if context.shapes[1] != context.shapes[2]:  # dot_product_attention wants values as wide as keys
        text = "composition: jax.nn.softmax(q @ k.T / sqrt(d)) @ v"
        return plain(text, lambda q, k, v: softmax(q @ k.swapaxes(-1, -2) * scale) @ v)

    def attention(q: Array, k: Array, v: Array) -> Array:
        # (batch, t, heads, d), of one head
        mixed: Array = dot_product_attention(q[:, :, None], k[:, :, None], v[:, :, None])
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


MEMORY_BUILDERS: dict[str, Callable[[LayerContext], BuiltLayer]] = {
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
