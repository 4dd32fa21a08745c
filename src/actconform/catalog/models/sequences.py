"""Sequences with padding, and images normalized by groups: recurrent layers, masks, and the normalizations that models now have."""

from __future__ import annotations

from actconform.catalog.models.builder import describe, layer
from actconform.types.model import Input, Model


def token_tagger() -> Model:
    """Tokens, padded, through LSTM and GRU; the steps that are no padding are weighed by a masked softmax and read."""
    steps, tokens, tags = 4, 9, 4
    layers = [
        layer("embedded", "embedding", "ids", tokens=tokens, units=5),
        layer("lstm", "lstm", "embedded", units=4, init="he_uniform", bias="near:1"),
        layer("gru", "gru", "lstm", units=3, init="he_uniform"),
        layer("score", "dense", "gru", units=1),
        layer("scores", "reshape", "score", shape=(steps,)),
        layer("weights", "masked-softmax", "scores", "mask"),
        layer("pooled", "read", "weights", "gru"),
        layer("head", "dense", "pooled", units=tags),
        layer("loss", "mean-squared-error", "head", "target"),
    ]
    inputs = [
        Input(name="ids", shape=(steps,), draw=f"ids:{tokens}", role="noise"),
        Input(name="mask", shape=(steps,), draw="padding", role="noise"),
        Input(name="target", shape=(tags,), draw="binary", role="target"),
    ]
    source = "Hochreiter and Schmidhuber 1997; Cho et al. 2014; Bahdanau, Cho and Bengio 2015"
    return describe("token-tagger", source, inputs, layers, output="head", batch=4)


def masked_attention() -> Model:
    """Attention to what is no padding, of rows scaled to a root mean square of 1; its result scaled to length 1."""
    steps, width = 5, 8
    layers = [
        layer("norm", "rms-norm", "x", epsilon=1e-5),
        *(layer(name, "dense", "norm", units=width) for name in ("query", "key", "value")),
        layer("attention", "attention", "query", "key", "value", "mask"),
        layer("sum", "add", "x", "attention"),
        layer("unit", "l2-normalize", "sum"),
        layer("loss", "mean-squared-error", "unit", "target"),
    ]
    inputs = [
        Input(name="x", shape=(steps, width), draw="normal"),
        Input(name="mask", shape=(steps,), draw="padding", role="noise"),
        Input(name="target", shape=(steps, width), draw="normal", role="target"),
    ]
    source = "Vaswani et al. 2017, section 3.2.3; Zhang and Sennrich 2019"
    return describe("masked-attention", source, inputs, layers, output="unit", batch=3)


def group_norm_cnn() -> Model:
    """A convolution normalized by groups of channels, and one by channels of each image."""
    layers = [
        layer("conv1", "conv2d", "x", filters=6, size=(3, 3), padding="same"),
        layer("norm1", "group-norm", "conv1", groups=3, epsilon=1e-3),
        layer("tanh", "activation", "norm1", kernel="tanh"),
        layer("conv2", "conv2d", "tanh", filters=4, size=(2, 2)),
        layer("norm2", "instance-norm", "conv2", epsilon=1e-5),
        layer("flat", "flatten", "norm2"),
        layer("head", "dense", "flat", units=2),
        layer("loss", "mean-squared-error", "head", "target"),
    ]
    inputs = [
        Input(name="x", shape=(5, 4, 3), draw="normal"),
        Input(name="target", shape=(2,), draw="normal", role="target"),
    ]
    source = "Wu and He 2018; Ulyanov, Vedaldi and Lempitsky 2016"
    return describe("group-norm-cnn", source, inputs, layers, output="head", batch=3)
