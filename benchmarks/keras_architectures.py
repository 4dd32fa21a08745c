"""Architectures in Keras, most of keras.applications, each a factory of (model, example inputs); weights are random by a fixed seed.

Moving statistics of BatchNormalization are those of a batch of random images, gains and biases lie around one and zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Built = tuple[keras.Model, dict[str, NDArray[Any]]]

SEED = 18


def settled(model: keras.Model, batch: NDArray[Any], seed: int = SEED) -> keras.Model:
    """Return the model with gains and biases moved, and moving statistics those of `batch` in training mode."""
    generator = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        name, shape = weight.name, weight.shape
        if name in ("bias", "beta"):
            weight.assign_add(0.2 * (generator.random(shape, np.float32) - 0.5))
        elif name == "gamma":
            weight.assign(weight * (0.7 + 0.6 * generator.random(shape, np.float32)))
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]  # noqa: SLF001
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # what is seen now replaces what stands there
    if norms:
        model(batch, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def drawn(*shape: int, seed: int = SEED) -> NDArray[np.float32]:
    """Return standard normal numbers by a fixed seed."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _application(factory: Callable[..., keras.Model], size: int, **settings: Any) -> Built:
    keras.utils.set_random_seed(SEED)
    model = factory(weights=None, input_shape=(size, size, 3), classes=20, classifier_activation=None, **settings)
    images = 255 * np.random.default_rng(SEED).random((8, size, size, 3), np.float32)
    return settled(model, images), {model.inputs[0].name: images[:2]}


def mobilenet_v3_small() -> Built:
    """MobileNetV3Small: hard swish, squeeze and excitation."""
    return _application(keras.applications.MobileNetV3Small, 96)


def efficientnet_b0() -> Built:
    """EfficientNetB0: swish, squeeze and excitation."""
    return _application(keras.applications.EfficientNetB0, 64)


def densenet121() -> Built:
    """DenseNet121: 121 layers, each reading all before it."""
    return _application(keras.applications.DenseNet121, 64)


def resnet50_v2() -> Built:
    """ResNet50V2: normalization before each convolution."""
    return _application(keras.applications.ResNet50V2, 64)


def convnext_tiny() -> Built:
    """ConvNeXtTiny: LayerNormalization, gelu."""
    return _application(keras.applications.ConvNeXtTiny, 64)


def small_net() -> Built:
    """Convolutions with BatchNormalization, as in a first tutorial."""
    keras.utils.set_random_seed(SEED)
    image = keras.Input((32, 32, 3), name="image")
    values = image
    for i, width in enumerate((12, 24, 32)):
        values = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, name=f"conv{i}")(values)
        values = keras.layers.BatchNormalization(name=f"norm{i}")(values)
        values = keras.layers.Activation("relu", name=f"act{i}")(values)
    values = keras.layers.GlobalAveragePooling2D(name="pool")(values)
    model = keras.Model(image, keras.layers.Dense(6, name="scores")(values), name="small_net")
    images = drawn(8, 32, 32, 3)
    return settled(model, images), {"image": images[:2]}


def recurrent() -> Built:
    """Words, an LSTM in both directions, a GRU, a class."""
    keras.utils.set_random_seed(SEED)
    words = keras.Input((None,), dtype="int32", name="words")
    values = keras.layers.Embedding(150, 24, name="embedding")(words)
    values = keras.layers.Bidirectional(keras.layers.LSTM(20, return_sequences=True), name="both")(values)
    values = keras.layers.GRU(16, name="gru")(values)
    model = keras.Model(words, keras.layers.Dense(4, activation="softmax", name="classes")(values), name="recurrent")
    return settled(model, np.zeros((1, 3), np.int32)), {
        "words": np.random.default_rng(SEED).integers(0, 150, (2, 12), np.int32)
    }
