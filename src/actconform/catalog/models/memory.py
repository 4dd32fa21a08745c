"""Attention and the networks with an external memory: the Neural Turing Machine and the Differentiable Neural Computer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform.catalog.models.builder import describe, layer
from actconform.types.model import Input, Model

if TYPE_CHECKING:
    from actconform.types.model import Layer


def attention(*, published: bool) -> Model:
    """Scaled dot-product attention of projected queries, keys and values."""
    time, width = (64, 128) if published else (5, 8)
    layers = [
        *(layer(name, "dense", "x", units=width) for name in ("query", "key", "value")),
        layer("attention", "attention", "query", "key", "value"),
        layer("loss", "mean-squared-error", "attention", "target"),
    ]
    return describe(
        "attention-softmax" + "@published" * published,
        "Vaswani et al. 2017, equation 1",
        [_signal("x", time, width), _signal("target", time, width, target=True)],
        layers,
        output="attention",
        batch=8 if published else 3,
    )


def attention_block(*, published: bool) -> Model:
    """A transformer encoder's block: attention of several heads, residuals, layer normalization before, feed-forward of gelu."""
    time, width, heads = (64, 128, 8) if published else (5, 8, 2)
    layers = [
        layer("norm1", "layer-norm", "x", epsilon=1e-5),
        layer("attention", "multi-head-attention", "norm1", heads=heads),
        layer("sum1", "add", "x", "attention"),
        layer("norm2", "layer-norm", "sum1", epsilon=1e-5),
        layer("wide", "dense", "norm2", units=4 * width),
        layer("gelu", "activation", "wide", kernel="gelu-erf"),
        layer("narrow", "dense", "gelu", units=width),
        layer("sum2", "add", "sum1", "narrow"),
        layer("loss", "mean-squared-error", "sum2", "target"),
    ]
    return describe(
        "attention-block" + "@published" * published,
        "Vaswani et al. 2017; Xiong et al. 2020 (normalization first)",
        [_signal("x", time, width), _signal("target", time, width, target=True)],
        layers,
        output="sum2",
        batch=8 if published else 3,
    )


def _signal(name: str, time: int, width: int, *, target: bool = False) -> Input:
    return Input(name=name, shape=(time, width), draw="normal", role="target" if target else "data")


def _head(name: str, source: str, units: int, kernel: str) -> list[Layer]:
    """Return a dense layer called NAME-in and its activation, called NAME."""
    return [
        layer(f"{name}-in", "dense", source, units=units),
        layer(name, "activation", f"{name}-in", kernel=kernel),
    ]


def _content(name: str, source: str, memory: str, width: int) -> list[Layer]:
    """Return the content weighting of one head, called NAME: softmax(strength x cosine similarity), strength positive."""
    return [
        *_head(f"{name}-key", source, width, "tanh"),
        *_head(f"{name}-strength", source, 1, "softplus"),
        layer(f"{name}-similarity", "cosine-similarity", memory, f"{name}-key"),
        layer(f"{name}-scores", "multiply", f"{name}-similarity", f"{name}-strength"),
        layer(name, "activation", f"{name}-scores", kernel="softmax"),
    ]


def ntm(*, published: bool) -> Model:
    """One step of a Neural Turing Machine's head: address by content and by place, write, read."""
    slots, width, control = (128, 20, 100) if published else (7, 4, 6)
    layers = [
        *_content("content", "x", "memory", width),
        *_head("gate", "x", 1, "sigmoid"),
        layer("gated", "interpolate", "gate", "content", "previous"),
        *_head("shift", "x", 3, "softmax"),
        layer("shifted", "circular-shift", "gated", "shift"),
        *_head("sharpness-less-1", "x", 1, "softplus"),
        layer("sharpness", "affine", "sharpness-less-1", shift=1.0),
        layer("weights", "sharpen", "shifted", "sharpness"),
        *_head("erase", "x", width, "sigmoid"),
        *_head("addition", "x", width, "tanh"),
        layer("written", "write", "memory", "weights", "erase", "addition"),
        layer("read", "read", "weights", "written"),
        layer("loss", "mean-squared-error", "read", "target"),
    ]
    return describe(
        "ntm-addressing" + "@published" * published,
        "Graves, Wayne and Danihelka 2014, sections 3.1 to 3.3",
        [
            Input(name="x", shape=(control,), draw="normal"),
            Input(name="memory", shape=(slots, width), draw="uniform"),
            Input(name="previous", shape=(slots,), draw="softmax"),
            Input(name="target", shape=(width,), draw="normal", role="target"),
        ],
        layers,
        output="read",
        batch=8 if published else 3,
    )


def dnc(*, published: bool) -> Model:
    """One step of a Differentiable Neural Computer's memory: usage, allocation, write, temporal links, read of several heads."""
    slots, width, heads, control = (64, 16, 4, 64) if published else (6, 4, 2, 6)
    layers = [
        *_head("free", "x", heads, "sigmoid"),
        layer("retention", "retention", "free", "reads"),
        layer("usage", "usage", "used", "written-to", "retention"),
        layer("allocation", "allocation", "usage"),
        *_content("content", "x", "memory", width),
        *_head("allocation-gate", "x", 1, "sigmoid"),
        layer("place", "interpolate", "allocation-gate", "allocation", "content"),
        *_head("write-gate", "x", 1, "sigmoid"),
        layer("weights", "multiply", "place", "write-gate"),
        *_head("erase", "x", width, "sigmoid"),
        layer("addition", "dense", "x", units=width),
        layer("memory-now", "write", "memory", "weights", "erase", "addition"),
        layer("link-now", "link", "links", "weights", "precedence"),
        layer("precedence-now", "precedence", "precedence", "weights"),
        layer("ahead", "directional", "link-now", "reads"),
        layer("behind", "directional", "link-now", "reads", transposed=1),
        layer("keys-in", "dense", "x", units=heads * width),
        layer("read-keys", "reshape", "keys-in", shape=(heads, width)),
        layer("similarity", "cosine-similarity", "memory-now", "read-keys"),
        layer("found", "activation", "similarity", kernel="softmax"),
        layer("modes-in", "dense", "x", units=heads * 3),
        layer("modes-rows", "reshape", "modes-in", shape=(heads, 3)),
        layer("modes", "activation", "modes-rows", kernel="softmax"),
        layer("reads-now", "mix", "modes", "behind", "found", "ahead"),
        layer("vectors", "read", "reads-now", "memory-now"),
        layer("flat", "flatten", "vectors"),
        layer("both", "multiply", "precedence-now", "usage"),
        layer("output", "dense", "flat", units=slots),
        layer("sum", "add", "output", "both"),
        layer("loss", "mean-squared-error", "sum", "target"),
    ]
    return describe(
        "dnc-memory" + "@published" * published,
        "Graves et al. 2016, methods",
        [
            Input(name="x", shape=(control,), draw="normal"),
            Input(name="memory", shape=(slots, width), draw="uniform"),
            Input(name="used", shape=(slots,), draw="unit"),
            Input(name="written-to", shape=(slots,), draw="softmax"),
            Input(name="reads", shape=(heads, slots), draw="softmax"),
            Input(name="links", shape=(slots, slots), draw="unit"),
            Input(name="precedence", shape=(slots,), draw="softmax"),
            Input(name="target", shape=(slots,), draw="normal", role="target"),
        ],
        layers,
        output="sum",
        batch=8 if published else 3,
    )
