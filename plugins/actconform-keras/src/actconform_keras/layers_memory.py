"""Attention and the layers of memory networks: Keras's own where it has them, else compositions of keras.ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform_keras.layers import BuiltLayer, composed, own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import tensorflow as tf

    from actconform_keras.layers import KerasContext


def _attention(context: KerasContext) -> BuiltLayer:
    from keras import ops

    def attend(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        # Of one head. keras.layers.Attention does not divide by sqrt(d).
        return ops.squeeze(ops.dot_product_attention(*(ops.expand_dims(x, 2) for x in (q, k, v))), 2)

    return composed(context, attend)._replace(room="keras.ops", text="dot_product_attention")


def _multi_head_attention(context: KerasContext) -> BuiltLayer:
    from keras import layers

    heads = int(context.number("heads"))
    width = context.shape[-1]
    layer = layers.MultiHeadAttention(heads, width // heads, kernel_initializer="zeros", **context.common)
    return own(layer, lambda x: layer(x, x))


def _dot(context: KerasContext, axes: tuple[int, int], *, normalize: bool = False) -> BuiltLayer:
    """Return a product of both inputs, the second one first where they are (memory, key) or (links, weights)."""
    from keras import layers

    layer = layers.Dot(axes, normalize=normalize, **context.common)
    turned = context.layer.kind != "read"
    return own(layer, lambda a, b: layer([b, a] if turned else [a, b]))


def _cosine_similarity(context: KerasContext) -> BuiltLayer:
    return _dot(context, (len(context.shapes[1]), 2), normalize=True)


def _read(context: KerasContext) -> BuiltLayer:
    return _dot(context, (len(context.shapes[0]), 1))


def _directional(context: KerasContext) -> BuiltLayer:
    return _dot(context, (2, 1 if context.number("transposed") else 2))


def _interpolate(context: KerasContext) -> BuiltLayer:
    return composed(context, lambda gate, a, b: gate * a + (1 - gate) * b)


def _circular_shift(context: KerasContext) -> BuiltLayer:
    from keras import ops

    width = context.shapes[1][0]

    def shift(w: tf.Tensor, s: tf.Tensor) -> tf.Tensor:
        return sum(s[:, j : j + 1] * ops.roll(w, j - (width - 1) // 2, axis=1) for j in range(width))

    return composed(context, shift)


def _sharpen(context: KerasContext) -> BuiltLayer:
    from keras import ops

    def sharpen(w: tf.Tensor, gamma: tf.Tensor) -> tf.Tensor:
        powers = ops.power(w, gamma)
        return powers / ops.sum(powers, axis=-1, keepdims=True)

    return composed(context, sharpen)


def _write(context: KerasContext) -> BuiltLayer:
    from keras import ops

    def write(memory: tf.Tensor, w: tf.Tensor, erase: tf.Tensor, add: tf.Tensor) -> tf.Tensor:
        w, erase, add = ops.expand_dims(w, 2), ops.expand_dims(erase, 1), ops.expand_dims(add, 1)
        return memory * (1 - w * erase) + w * add

    return composed(context, write)


def _retention(context: KerasContext) -> BuiltLayer:
    from keras import ops

    def retain(free: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        return ops.prod(1 - ops.expand_dims(free, 2) * w, axis=1)

    return composed(context, retain)


def _usage(context: KerasContext) -> BuiltLayer:
    return composed(context, lambda u, w, retention: (u + w - u * w) * retention)


def _allocation(context: KerasContext) -> BuiltLayer:
    from keras import ops

    def allocate(u: tf.Tensor) -> tf.Tensor:
        order = ops.argsort(u, axis=-1)
        ascending = ops.take_along_axis(u, order, axis=-1)
        products = ops.cumprod(ascending, axis=1)
        before = ops.concatenate([ops.ones_like(u[:, :1]), products[:, :-1]], axis=-1)
        return ops.take_along_axis((1 - ascending) * before, ops.argsort(order, axis=-1), axis=-1)

    return composed(context, allocate)


def _link(context: KerasContext) -> BuiltLayer:
    from keras import ops

    def link(links: tf.Tensor, w: tf.Tensor, p: tf.Tensor) -> tf.Tensor:
        w_i, w_j = ops.expand_dims(w, 2), ops.expand_dims(w, 1)
        updated = (1 - w_i - w_j) * links + w_i * ops.expand_dims(p, 1)
        return updated * (1 - ops.eye(context.shape[0], dtype=context.dtype))

    return composed(context, link)


def _precedence(context: KerasContext) -> BuiltLayer:
    from keras import ops

    return composed(context, lambda p, w: (1 - ops.sum(w, axis=-1, keepdims=True)) * p + w)


def _mix(context: KerasContext) -> BuiltLayer:
    def mix(modes: tf.Tensor, *parts: tf.Tensor) -> tf.Tensor:
        return sum(modes[:, :, n : n + 1] * part for n, part in enumerate(parts))

    return composed(context, mix)


MEMORY_BUILDERS: Mapping[str, Callable[[KerasContext], BuiltLayer]] = {
    "attention": _attention,
    "multi-head-attention": _multi_head_attention,
    "cosine-similarity": _cosine_similarity,
    "interpolate": _interpolate,
    "circular-shift": _circular_shift,
    "sharpen": _sharpen,
    "read": _read,
    "write": _write,
    "retention": _retention,
    "usage": _usage,
    "allocation": _allocation,
    "link": _link,
    "precedence": _precedence,
    "directional": _directional,
    "mix": _mix,
}
