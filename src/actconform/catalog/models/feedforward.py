"""Multilayer perceptrons, convolutional networks and autoencoders: small sizes, and the published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.catalog.models.builder import describe, layer
from actconform.types.model import Input, Model

if TYPE_CHECKING:
    from actconform.types.model import Layer

X20 = Input(name="x", shape=(20,), draw="normal")
SCALAR = Input(name="target", shape=(1,), draw="normal", role="target")
CLAIMS = "texts on activation functions"


def _mse(prediction: str) -> Layer:
    return layer("loss", "mean-squared-error", prediction, "target")


def _named(name: str, *, published: bool, training: bool = False) -> str:
    return name + "@training" * training + "@published" * published


def regression(*, published: bool, training: bool) -> Model:
    """Softmax in a hidden layer of a regression, among dropout and layer normalization."""
    sizes = (648, 152, 924, 248) if published else (24, 12, 20, 8)
    rates = (0.3, 0.15, 0.37, 0.12)
    layers, below = [], "x"
    inputs = [X20, SCALAR]
    for number, (units, rate, kernel) in enumerate(
        zip(sizes, rates, ("relu", "relu", "softsign", "softmax"), strict=True), 1
    ):
        mask = (f"mask{number}",) if training else ()
        layers += [
            layer(f"dense{number}", "dense", below, units=units),
            layer(f"act{number}", "activation", f"dense{number}", kernel=kernel),
            layer(f"dropout{number}", "dropout", f"act{number}", *mask, rate=rate),
            layer(f"norm{number}", "layer-norm", f"dropout{number}", epsilon=1e-5),
        ]
        inputs += [Input(name=name, shape=(units,), draw=f"mask:{rate}", role="noise") for name in mask]
        below = f"norm{number}"
    layers += [layer("head", "dense", below, units=1), _mse("head")]
    return describe(
        _named("regression-softmax-hidden", published=published, training=training),
        f"{CLAIMS}: softmax in a hidden layer",
        inputs,
        layers,
        output="head",
        batch=32 if published else 4,
        training=training,
    )


def mlp(kernel: str, *, published: bool) -> Model:
    """Five hidden layers, the first relu, the others all softmax or all relu."""
    sizes = (512, 256, 512, 256, 128) if published else (16, 12, 16, 12, 8)
    layers, below = [], "x"
    for number, units in enumerate(sizes, 1):
        layers += [
            layer(f"dense{number}", "dense", below, units=units, bias="zeros"),
            layer(f"act{number}", "activation", f"dense{number}", kernel="relu" if number == 1 else kernel),
        ]
        below = f"act{number}"
    layers += [layer("head", "dense", below, units=1, bias="zeros"), _mse("head")]
    return describe(
        _named(f"mlp-{kernel}", published=published),
        f"{CLAIMS}: hidden layers of softmax against relu",
        [X20, SCALAR],
        layers,
        output="head",
        batch=32 if published else 4,
    )


def image_cnn(head: str, *, published: bool, training: bool = False) -> Model:
    """Two blocks of convolution, pooling and batch normalization, and a head that can learn, or cannot: softmax of one unit."""
    side, filters = (32, 256) if published else (14, 6)
    units = 2 if head == "softmax2" else 1
    layers, below = [], "x"
    for number in (1, 2):
        layers += [
            layer(f"conv{number}", "conv2d", below, filters=filters, size=(3, 3)),
            layer(f"relu{number}", "activation", f"conv{number}", kernel="relu"),
            layer(f"pool{number}", "max-pool", f"relu{number}", size=(2, 2), strides=(2, 2)),
            layer(f"norm{number}", "batch-norm", f"pool{number}", epsilon=1e-3, momentum=0.99),
        ]
        below = f"norm{number}"
    layers += [
        layer("flatten", "flatten", below),
        layer("dense1", "dense", "flatten", units=64 if published else 8),
        layer("dense2", "dense", "dense1", units=units),
        layer("head", "activation", "dense2", kernel="sigmoid" if head == "sigmoid" else "softmax"),
        layer("loss", "categorical-cross-entropy" if units == 2 else "binary-cross-entropy", "head", "target"),
    ]
    target = Input(name="target", shape=(units,), draw="one-hot" if units == 2 else "binary", role="target")
    return describe(
        _named(f"image-cnn-{head}", published=published, training=training),
        f"{CLAIMS}: the head of an image classifier",
        [Input(name="x", shape=(side, side, 3), draw="normal"), target],
        layers,
        output="head",
        batch=4,
        training=training,
    )


def bare_pools() -> Model:
    """Two pools that read their input bare, without a relu: overlapping windows, padding beside numbers below 0."""
    layers = [
        layer("pool1", "max-pool", "x", size=(3, 3), strides=(2, 2), padding="same"),
        layer("pool2", "max-pool", "pool1", size=(2, 2), strides=(1, 2), padding="same"),
        layer("conv", "conv2d", "pool2", filters=4, size=(2, 2), padding="same"),
        layer("flatten", "flatten", "conv"),
        layer("dense", "dense", "flatten", units=3),
        _mse("dense"),
    ]
    return describe(
        "bare-pools",
        "max pooling of whatever it is given: Ranzato et al. 2007",
        [
            Input(name="x", shape=(9, 8, 2), draw="normal"),
            Input(name="target", shape=(3,), draw="normal", role="target"),
        ],
        layers,
        output="dense",
        batch=4,
    )


def blobs(*, published: bool, logits: bool = False) -> Model:
    """Four Gaussian clusters in the plane; already small, the published one has its batch of five.

    With `logits` the loss is of the last layer's logits, which is what Keras makes of a loss of softmax's probabilities.
    """
    sizes = (12, 8, 4)
    layers, below = [], "x"
    for number, units in enumerate(sizes, 1):
        last = units == sizes[-1]
        init = "glorot_uniform" if last else "he_uniform"
        layers += [
            layer(f"dense{number}", "dense", below, units=units, init=init, bias="zeros"),
            layer(f"act{number}", "activation", f"dense{number}", kernel="softmax" if last else "relu"),
        ]
        below = f"act{number}"
    loss = "categorical-cross-entropy" + "-from-logits" * logits
    if logits:
        layers.pop()
        below = layers[-1].name
    layers += [layer("loss", loss, below, "target")]
    return describe(
        _named("blobs-mlp" + "-logits" * logits, published=published),
        f"{CLAIMS}: softmax over four clusters",
        [Input(name="x", shape=(2,), draw="normal"), Input(name="target", shape=(4,), draw="one-hot", role="target")],
        layers,
        output=below,
        batch=5 if published else 4,
    )


def autoencoder(head: str, *, published: bool, as_written: bool = False) -> Model:
    """Three halvings and three doublings of a signal; as written the last but one convolution is valid, and the loss does not fit."""
    width, filters = (200, (64, 32, 32)) if published else (16, (6, 4, 4))
    layers, below = [], "x"
    for number, count in enumerate(filters, 1):
        layers += [
            layer(f"conv{number}", "conv2d", below, filters=count, size=(1, 3), padding="same"),
            layer(f"relu{number}", "activation", f"conv{number}", kernel="relu"),
            layer(f"pool{number}", "max-pool", f"relu{number}", size=(1, 2), strides=(1, 2), padding="same"),
        ]
        below = f"pool{number}"
    for number, count in enumerate(reversed(filters), 4):
        padding = "valid" if as_written and number == 6 else "same"
        layers += [
            layer(f"conv{number}", "conv2d", below, filters=count, size=(1, 3), padding=padding),
            layer(f"relu{number}", "activation", f"conv{number}", kernel="relu"),
            layer(f"up{number}", "up-sampling", f"relu{number}", size=(1, 2)),
        ]
        below = f"up{number}"
    layers += [
        layer("conv7", "conv2d", below, filters=4, size=(1, 3), padding="same"),
        layer("head", "activation", "conv7", kernel=head),
        layer("loss", "mean-absolute-error", "head", "target"),
    ]
    target = (1, width - 4 if as_written else width, 4)
    return describe(
        _named(f"autoencoder-{head}" + "-as-written" * as_written, published=published),
        f"{CLAIMS}: the range of an autoencoder's last layer",
        [
            Input(name="x", shape=(1, width, 4), draw="normal"),
            Input(name="target", shape=target, draw="normal", role="target"),
        ],
        layers,
        output="head",
        batch=2,
    )


def maxout(*, published: bool) -> Model:
    """Maxout hidden units: twice the parameters, no activation function."""
    sizes = (128, 64) if published else (12, 8)
    layers, below = [], "x"
    for number, units in enumerate(sizes, 1):
        layers += [
            layer(f"dense{number}", "dense", below, units=2 * units),
            layer(f"maxout{number}", "activation", f"dense{number}", kernel="maxout"),
        ]
        below = f"maxout{number}"
    layers += [
        layer("head", "dense", below, units=3),
        layer("loss", "categorical-cross-entropy-from-logits", "head", "target"),
    ]
    return describe(
        _named("maxout-mlp", published=published),
        "Goodfellow et al. 2013",
        [X20, Input(name="target", shape=(3,), draw="one-hot", role="target")],
        layers,
        output="head",
        batch=32 if published else 4,
    )


def linear_stack() -> Model:
    """Three linear layers: a linear function, whatever their number."""
    sizes = (12, 7, 3)
    layers, below = [], "x"
    for number, units in enumerate(sizes, 1):
        layers.append(layer(f"dense{number}", "dense", below, units=units))
        below = f"dense{number}"
    layers += [layer("loss", "mean-absolute-error", below, "target")]
    target = Input(name="target", shape=(3,), draw="normal", role="target")
    return describe(
        "linear-stack", f"{CLAIMS}: linear layers compose to one", [X20, target], layers, output=below, batch=4
    )


def multinomial_latent(*, published: bool) -> Model:
    """A discrete latent variable, relaxed: softmax((logits + Gumbel noise) / 0.5), decoded to probabilities of bits."""
    width, hidden, latent = (784, 256, 32) if published else (16, 12, 6)
    layers = [
        layer("encode", "dense", "x", units=hidden),
        layer("tanh", "activation", "encode", kernel="tanh"),
        layer("logits", "dense", "tanh", units=latent),
        layer("noisy", "add", "logits", "noise"),
        layer("warm", "affine", "noisy", scale=2.0),
        layer("latent", "activation", "warm", kernel="softmax"),
        layer("decode", "dense", "latent", units=hidden),
        layer("elu", "activation", "decode", kernel="elu"),
        layer("bits", "dense", "elu", units=width),
        layer("loss", "binary-cross-entropy-from-logits", "bits", "target"),
    ]
    inputs = [
        Input(name="x", shape=(width,), draw="normal"),
        Input(name="noise", shape=(latent,), draw="gumbel", role="noise"),
        Input(name="target", shape=(width,), draw="binary", role="target"),
    ]
    return describe(
        _named("multinomial-latent", published=published),
        "Jang, Gu and Poole 2017; Maddison, Mnih and Teh 2017",
        inputs,
        layers,
        output="bits",
        batch=32 if published else 4,
    )
