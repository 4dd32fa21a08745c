"""Image models whose windows move, and whose channels fall into groups, as those of other models do not."""

from __future__ import annotations

from actconform.catalog.models.builder import describe, layer
from actconform.types.model import Input, Model

TARGET = Input(name="target", shape=(2,), draw="normal", role="target")


def image_windows() -> Model:
    """Strided, dilated, depthwise and transposed convolutions, averages and bilinear resizing, on odd sizes.

    Padding is uneven wherever it can be, and no pool follows a relu, so that windows average numbers of both signs.
    """
    layers = [
        layer("strided", "conv2d", "x", filters=6, size=(3, 4), strides=(2, 2), padding="same"),
        layer("dilated", "conv2d", "strided", filters=6, size=(3, 2), dilations=(2, 3), padding="same"),
        layer("average", "average-pool", "dilated", size=(3, 2), strides=(2, 2), padding="same"),
        layer("elu", "activation", "average", kernel="elu"),
        layer("transposed", "conv2d-transpose", "elu", filters=4, size=(3, 4), strides=(2, 3), padding="same"),
        layer("resized", "bilinear-resize", "transposed", size=(9, 7)),
        layer("depthwise", "conv2d", "resized", filters=8, size=(3, 3), strides=(2, 2), groups=4),
        layer("smoothed", "average-pool", "depthwise", size=(3, 3), padding="same"),
        layer("separable", "conv2d", "smoothed", filters=8, size=(3, 3), groups=8, padding="same"),
        layer("doubled", "bilinear-resize", "separable", size=(8, 6)),
        layer("pooled", "average-pool", "doubled", size=(3, 3), strides=(2, 2)),
        layer("global", "global-average-pool", "pooled"),
        layer("head", "dense", "global", units=2),
        layer("loss", "mean-squared-error", "head", "target"),
    ]
    return describe(
        "image-windows",
        "Yu and Koltun 2016; Odena, Dumoulin and Olah 2016; Howard et al. 2017",
        [Input(name="x", shape=(10, 9, 4), draw="normal"), TARGET],
        layers,
        output="head",
        batch=2,
    )


def image_groups() -> Model:
    """A grouped convolution among others, and a transposed one whose windows leave gaps, as some exporters do not have them."""
    layers = [
        layer("narrow", "conv2d", "x", filters=6, size=(1, 1)),
        layer("grouped", "conv2d", "narrow", filters=9, size=(2, 3), groups=3, padding="same"),
        layer("relu", "activation", "grouped", kernel="relu"),
        layer("spread", "conv2d-transpose", "relu", filters=3, size=(1, 2), strides=(2, 3)),
        layer("flatten", "flatten", "spread"),
        layer("head", "dense", "flatten", units=2),
        layer("loss", "mean-squared-error", "head", "target"),
    ]
    return describe(
        "image-groups",
        "Xie et al. 2017",
        [Input(name="x", shape=(3, 3, 4), draw="normal"), TARGET],
        layers,
        output="head",
        batch=2,
    )
