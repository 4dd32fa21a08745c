"""Which Keras function computes each kernel, and the compositions for those that Keras has no function for.

`NATIVE` and `COMPOSED` are data: what a program says of itself is made from the same entry that it calls.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from actconform.plugin import framework
from actconform.plugin.framework import Composition, Native, register_implementations

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tensorflow as tf

    from actconform import Kernel
    from actconform.plugin.framework import Implementation


def implement(kernel: Kernel, dtype: str) -> Implementation:
    """Return what computes `kernel`; raise `Unsupported` where there is nothing.

    `dtype` is "float32", "float16" or "bfloat16": functions follow their input, layers need to be told.
    """
    return framework.implement("keras", kernel, dtype=dtype)


def _scaled_silu(x: tf.Tensor, beta: float) -> tf.Tensor:
    from keras.activations import sigmoid

    return x * sigmoid(beta * x)


def _quick_gelu(x: tf.Tensor, alpha: float) -> tf.Tensor:
    return _scaled_silu(x, alpha)


def _softplus_beta(x: tf.Tensor, beta: float) -> tf.Tensor:
    from keras.activations import softplus

    return softplus(beta * x) / beta


def _hard_sigmoid_onnx(x: tf.Tensor, alpha: float, beta: float) -> tf.Tensor:
    from keras.ops import clip

    return clip(alpha * x + beta, 0.0, 1.0)


def _relu_squared(x: tf.Tensor) -> tf.Tensor:
    from keras.activations import relu
    from keras.ops import square

    return square(relu(x))


def _prelu_layer(x: tf.Tensor) -> Any:
    from keras.backend import standardize_dtype

    return _prelu_layer_of(x.shape[-1], standardize_dtype(x.dtype))


@cache
def _prelu_layer_of(width: int, dtype: str) -> Any:
    from keras.layers import PReLU

    layer = PReLU(dtype=dtype, name="prelu")  # Keras would number it
    layer.build((None, width))
    return layer


def _prelu(x: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    from keras.ops import reshape

    # The layer has a slope for every element after the first axis, the catalog one along the last: in a matrix these
    # are the same. Called statelessly, it takes the slope as a tensor, so that the slope has a gradient.
    y, _ = _prelu_layer(x).stateless_call([slope], [], reshape(x, (-1, x.shape[-1])))
    return reshape(y, x.shape)


def _softmin(x: tf.Tensor) -> tf.Tensor:
    from keras.activations import softmax

    return softmax(-x, axis=-1)


def _hardmax(x: tf.Tensor) -> tf.Tensor:
    from keras.backend import standardize_dtype
    from keras.ops import argmax, one_hot, shape

    # ops.shape, here and below: numbers eagerly, tensors where a graph of any length is traced.
    return one_hot(argmax(x, axis=-1), shape(x)[-1], dtype=standardize_dtype(x.dtype))


def _maxout(x: tf.Tensor, pieces: float) -> tf.Tensor:
    from keras.ops import max as maximum
    from keras.ops import reshape, shape

    return maximum(reshape(x, (*shape(x)[:-1], -1, int(pieces))), axis=-1)


def _reglu(x: tf.Tensor) -> tf.Tensor:
    from keras.activations import relu
    from keras.ops import split

    a, b = split(x, 2, axis=-1)
    return relu(a) * b


def _swiglu(x: tf.Tensor) -> tf.Tensor:
    from keras.activations import silu
    from keras.ops import split

    a, b = split(x, 2, axis=-1)
    return silu(a) * b


def _geglu(x: tf.Tensor) -> tf.Tensor:
    from keras.activations import gelu
    from keras.ops import split

    a, b = split(x, 2, axis=-1)
    return gelu(a) * b


K = "keras.activations"

NATIVE: Mapping[str, Native] = {
    "linear": Native(f"{K}.linear"),
    "sigmoid": Native(f"{K}.sigmoid"),
    "tanh": Native(f"{K}.tanh"),
    "relu": Native(f"{K}.relu"),
    "leaky-relu": Native(f"{K}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-0.2": Native(f"{K}.leaky_relu", {"negative_slope": "alpha"}),
    "leaky-relu-0.3": Native("keras.layers.LeakyReLU", {"negative_slope": "alpha"}),
    "leaky-relu-default": Native(f"{K}.leaky_relu"),
    "elu": Native(f"{K}.elu"),
    "elu-half": Native(f"{K}.elu", {"alpha": "alpha"}),
    "selu": Native(f"{K}.selu"),
    "celu": Native(f"{K}.celu", {"alpha": "alpha"}),
    "softsign": Native(f"{K}.softsign"),
    "gelu-erf": Native(f"{K}.gelu", {}, {"approximate": False}),
    "gelu-tanh": Native(f"{K}.gelu", {}, {"approximate": True}),
    "gelu-default": Native(f"{K}.gelu"),
    "silu": Native(f"{K}.silu"),
    "mish": Native(f"{K}.mish"),
    "softplus": Native(f"{K}.softplus"),
    "log-sigmoid": Native(f"{K}.log_sigmoid"),
    "hard-sigmoid-relu6": Native(f"{K}.hard_sigmoid"),
    "hard-sigmoid-default": Native(f"{K}.hard_sigmoid"),
    "hard-swish": Native(f"{K}.hard_silu"),
    "hard-tanh": Native(f"{K}.hard_tanh"),
    "relu6": Native(f"{K}.relu6"),
    "thresholded-relu": Native(f"{K}.relu", {"threshold": "alpha"}),
    "threshold": Native(f"{K}.threshold", {"threshold": "threshold", "default_value": "default"}),
    "hard-shrink": Native(f"{K}.hard_shrink", {"threshold": "lambda"}),
    "soft-shrink": Native(f"{K}.soft_shrink", {"threshold": "lambda"}),
    "tanh-shrink": Native(f"{K}.tanh_shrink"),
    "squareplus": Native(f"{K}.squareplus", {"b": "b"}),
    "exponential": Native(f"{K}.exponential"),
    "sparse-plus": Native(f"{K}.sparse_plus"),
    "sparse-sigmoid": Native(f"{K}.sparse_sigmoid"),
    "softmax": Native(f"{K}.softmax", {"axis": "axis"}),
    "softmax-axis1": Native(f"{K}.softmax", {"axis": "axis"}),
    "log-softmax": Native(f"{K}.log_softmax", {"axis": "axis"}),
    "log-softmax-axis1": Native(f"{K}.log_softmax", {"axis": "axis"}),
    "sparsemax": Native(f"{K}.sparsemax", {"axis": "axis"}),
    # A reduction: it shares the gradient of a tie out.
    "max": Native("keras.ops.max", {"axis": "axis"}),
    "argmax": Native("keras.ops.argmax", {"axis": "axis"}),
    "glu": Native(f"{K}.glu", {"axis": "axis"}),
}

COMPOSED: Mapping[str, Composition] = {
    "prelu": Composition("keras.layers.PReLU", _prelu, _prelu_layer),
    "swish": Composition(f"composition: x * {K}.sigmoid({{beta}} * x)", _scaled_silu),
    "quick-gelu": Composition(f"composition: x * {K}.sigmoid({{alpha}} * x)", _quick_gelu),
    "softplus-beta": Composition(f"composition: {K}.softplus({{beta}} * x) / {{beta}}", _softplus_beta),
    "hard-sigmoid-onnx": Composition("composition: keras.ops.clip({alpha} * x + {beta}, 0, 1)", _hard_sigmoid_onnx),
    "relu-squared": Composition(f"composition: keras.ops.square({K}.relu(x))", _relu_squared),
    "softmin": Composition(f"composition: {K}.softmax(-x)", _softmin),
    "hardmax": Composition("composition: keras.ops.one_hot(keras.ops.argmax(x, -1))", _hardmax),
    "maxout": Composition("composition: keras.ops.max(keras.ops.reshape(x, (..., n, {pieces})), -1)", _maxout),
    "reglu": Composition(f"composition: {K}.relu(a) * b, a and b by keras.ops.split", _reglu),
    "swiglu": Composition(f"composition: {K}.silu(a) * b, a and b by keras.ops.split", _swiglu),
    "geglu": Composition(f"composition: {K}.gelu(a) * b, a and b by keras.ops.split", _geglu),
}

register_implementations("keras", {**NATIVE, **COMPOSED})
