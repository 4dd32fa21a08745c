"""Each kind of layer as Keras computes it: its own layers and losses; compositions of keras.ops where it has none.

`actconform.catalog.models.layer_kinds` defines the kinds. Where Keras's own differ from it they are left as they are. A loss of
probabilities that come straight from `softmax` or `sigmoid` is computed from their logits; `BinaryCrossentropy` takes those
of a softmax for those of a sigmoid, so that a softmax of one unit has a gradient. `Dot(normalize=True)` bounds each norm at
1e-7 from below. `ops.dot_product_attention`, and with it `MultiHeadAttention`, takes its softmax in float32, and `Rescaling` its
numbers, whatever the dtype.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from actconform import Unsupported
from actconform.plugin.framework import LayerContext
from actconform_keras.kernels import implement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import keras
    import tensorflow as tf


LAYERS = "keras.layers"
COMPOSITION = "composition of keras.ops"
UNIT_EPSILON = 1e-12  # of UnitNormalization, which takes no other


class KerasContext(LayerContext, frozen=True, kw_only=True):
    """A layer in its model, and Keras's dtype."""

    dtype: str

    @property
    def common(self) -> dict[str, Any]:
        """What every layer is called with: Keras would number it and give it float32."""
        return {"name": self.layer.name, "dtype": self.dtype}

    @property
    def window(self) -> dict[str, Any]:
        """How a window moves."""
        return {name: self.layer.settings[name] for name in ("strides", "padding")}


class BuiltLayer(NamedTuple):
    """What computes a layer: in words, the layer, whose variables stand in the order of the kind's parameters, and its call.

    `text` follows `room`, as "Dense" does "keras.layers"; compositions are named as their kinds.
    """

    room: str
    text: str
    layer: keras.layers.Layer
    call: Callable[..., tf.Tensor]


def own(layer: keras.layers.Layer, call: Callable[..., tf.Tensor] | None = None) -> BuiltLayer:
    """Return a layer of Keras's own, called with its inputs in order, or by `call`."""
    return BuiltLayer(LAYERS, type(layer).__name__, layer, call or layer)


def composed(context: KerasContext, function: Callable[..., tf.Tensor]) -> BuiltLayer:
    """Return a layer that calls `function`, of keras.ops, with its inputs."""
    layer = _composition()(function, context)
    return BuiltLayer(COMPOSITION, context.layer.kind, layer, layer)


@cache
def _composition() -> Any:
    import keras

    class Composition(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, function: Callable[..., tf.Tensor], context: KerasContext) -> None:
            super().__init__(**context.common)
            self._function, self._shape = function, context.shape

        def call(self, *inputs: tf.Tensor) -> tf.Tensor:
            return self._function(*inputs)

        def compute_output_spec(self, *_: keras.KerasTensor) -> keras.KerasTensor:
            return keras.KerasTensor((None, *self._shape), dtype=self.compute_dtype)

    return Composition


# The first values of weights are never used: zeros leave the random numbers of the process alone.


def _dense(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.Dense(int(context.number("units")), kernel_initializer="zeros", **context.common))


def _conv2d(context: KerasContext) -> BuiltLayer:
    from keras import layers

    filters, size, groups = int(context.number("filters")), context.pair("size"), int(context.number("groups"))
    settings = {"dilation_rate": context.pair("dilations"), **context.window, **context.common}
    if groups == context.shapes[0][-1] > 1:
        return own(
            layers.DepthwiseConv2D(size, depth_multiplier=filters // groups, depthwise_initializer="zeros", **settings)
        )
    return own(layers.Conv2D(filters, size, groups=groups, kernel_initializer="zeros", **settings))


def _conv2d_transpose(context: KerasContext) -> BuiltLayer:
    from keras import layers

    filters, size = int(context.number("filters")), context.pair("size")
    return own(layers.Conv2DTranspose(filters, size, kernel_initializer="zeros", **context.window, **context.common))


def _max_pool(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.MaxPooling2D(context.layer.settings["size"], **context.window, **context.common))


def _average_pool(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.AveragePooling2D(context.layer.settings["size"], **context.window, **context.common))


def _global_average_pool(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.GlobalAveragePooling2D(**context.common))


def _up_sampling(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.UpSampling2D(context.layer.settings["size"], interpolation="nearest", **context.common))


def _bilinear_resize(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.Resizing(*context.pair("size"), interpolation="bilinear", **context.common))


def _batch_norm(context: KerasContext) -> BuiltLayer:
    from keras import layers

    settings = {name: context.number(name) for name in ("epsilon", "momentum")}
    layer = layers.BatchNormalization(**settings, **context.common)
    # Said here too, so that a model that is called or exported without a word about training does as the model is.
    return own(layer, lambda x: layer(x, training=context.training))


def _layer_norm(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.LayerNormalization(epsilon=context.number("epsilon"), **context.common))


def _group_norm(context: KerasContext) -> BuiltLayer:
    """Keras says groups of -1 for one channel each, an instance normalization."""
    from keras import layers

    groups = int(context.number("groups")) if context.layer.kind == "group-norm" else -1
    return own(layers.GroupNormalization(groups, epsilon=context.number("epsilon"), **context.common))


def _rms_norm(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.RMSNormalization(epsilon=context.number("epsilon"), **context.common))


def _l2_normalize(context: KerasContext) -> BuiltLayer:
    from keras import layers, ops

    epsilon = context.number("epsilon")
    if epsilon == UNIT_EPSILON:
        return own(layers.UnitNormalization(**context.common))
    return composed(context, lambda x: ops.normalize(x, epsilon=epsilon))


def _embedding(context: KerasContext) -> BuiltLayer:
    from keras import layers

    sizes = int(context.number("tokens")), int(context.number("units"))
    return own(layers.Embedding(*sizes, embeddings_initializer="zeros", **context.common))


def _recurrent(context: KerasContext) -> BuiltLayer:
    """Of all steps. Keras's GRU resets after its product by default."""
    from keras import layers

    kind = layers.LSTM if context.layer.kind == "lstm" else layers.GRU
    zeros = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}
    return own(kind(int(context.number("units")), return_sequences=True, **zeros, **context.common))


def _masked_softmax(context: KerasContext) -> BuiltLayer:
    from keras import layers, ops

    # Not called as a layer: it would hand its mask on, up to the loss, which would leave out what is masked.
    softmax = layers.Softmax(dtype=context.dtype).call
    masked = composed(context, lambda x, mask: softmax(x, mask=ops.cast(mask, "bool")))
    return masked._replace(room=LAYERS, text="Softmax(mask)")


def _dropout(context: KerasContext) -> BuiltLayer:
    from keras import layers

    rate = context.number("rate")
    if not context.training:
        return own(layers.Dropout(rate, seed=0, **context.common))
    # The layer draws its own mask.
    return composed(context, lambda x, mask: x * mask / (1.0 - rate))


def _flatten(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.Flatten(**context.common))


def _reshape(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.Reshape(context.layer.settings["shape"], **context.common))


def _activation(context: KerasContext) -> BuiltLayer:
    from keras import layers

    text, function, _ = implement(context.kernel, context.dtype)
    if context.kernel.output_width != "same":  # Activation says that it gives the shape of its input
        return composed(context, function)._replace(text=text.removeprefix("composition: "))
    layer = layers.Activation(function, **context.common)
    return BuiltLayer(LAYERS, f"Activation({text.removeprefix('keras.activations.')})", layer, layer)


def _add(context: KerasContext) -> BuiltLayer:
    from keras import layers

    layer = layers.Add(**context.common)
    return own(layer, lambda a, b: layer([a, b]))


def _multiply(context: KerasContext) -> BuiltLayer:
    from keras import layers

    layer = layers.Multiply(**context.common)
    return own(layer, lambda a, b: layer([a, b]))


def _affine(context: KerasContext) -> BuiltLayer:
    from keras import layers

    return own(layers.Rescaling(context.number("scale"), context.number("shift"), **context.common))


def _attention(context: KerasContext) -> BuiltLayer:
    from keras import ops

    def attend(q: tf.Tensor, k: tf.Tensor, v: tf.Tensor, *masks: tf.Tensor) -> tf.Tensor:
        # Of one head. keras.layers.Attention does not divide by sqrt(d).
        queries, keys, values = (ops.expand_dims(x, 2) for x in (q, k, v))
        attended = [ops.cast(mask, "bool")[:, None, None] for mask in masks]
        return ops.squeeze(ops.dot_product_attention(queries, keys, values, None, *attended), 2)

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


BUILDERS: Mapping[str, Callable[[KerasContext], BuiltLayer]] = {
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
    "group-norm": _group_norm,
    "instance-norm": _group_norm,
    "rms-norm": _rms_norm,
    "l2-normalize": _l2_normalize,
    "embedding": _embedding,
    "lstm": _recurrent,
    "gru": _recurrent,
    "masked-softmax": _masked_softmax,
    "dropout": _dropout,
    "flatten": _flatten,
    "reshape": _reshape,
    "activation": _activation,
    "add": _add,
    "multiply": _multiply,
    "affine": _affine,
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

# The class of keras.losses, and whether it takes logits.
LOSSES: Mapping[str, tuple[str, dict[str, bool]]] = {
    "mean-squared-error": ("MeanSquaredError", {}),
    "mean-absolute-error": ("MeanAbsoluteError", {}),
    "binary-cross-entropy": ("BinaryCrossentropy", {"from_logits": False}),
    "binary-cross-entropy-from-logits": ("BinaryCrossentropy", {"from_logits": True}),
    "categorical-cross-entropy": ("CategoricalCrossentropy", {"from_logits": False}),
    "categorical-cross-entropy-from-logits": ("CategoricalCrossentropy", {"from_logits": True}),
}


def loss_of(kind: str, dtype: str) -> tuple[str, keras.losses.Loss]:
    """Return the loss of that kind in words, and as Keras has it: called with target and prediction, it gives their mean."""
    from keras import losses

    if kind not in LOSSES:
        raise Unsupported(f"keras has no loss of kind {kind}")
    name, arguments = LOSSES[kind]
    # Named, since Keras would number it; with a dtype, since it would compute in float32.
    loss = getattr(losses, name)(**arguments, name="loss", dtype=dtype)
    return (f"{name}(from_logits=True)" if arguments.get("from_logits") else name), loss
