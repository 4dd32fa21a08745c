"""Normalization, dropout, activation and the arithmetic between layers: values and vector-Jacobian products.

NaN and infinities go where the sums and products take them. Complex numbers pass through all but `activation`, which is held
to exact goldens of its own (the truth of kernels).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform.catalog.models.layer_kinds import kernel_of
from actconform.oracle import truth
from actconform.oracle.layers.registry import LayerGradients, layer_formula

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.oracle.layers.registry import F64, Reading
    from actconform.types.model import Layer


def _number(layer: Layer, setting: str) -> float:
    return float(layer.settings[setting])  # type: ignore[arg-type]  # the kinds of these settings are numbers


def _all_but_last(x: F64) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _standardized(x: F64, axes: tuple[int, ...], epsilon: float) -> tuple[F64, F64]:
    """Return (x - mean) / deviation and 1 / deviation, mean and deviation = sqrt(biased variance + epsilon) over `axes`."""
    centred = x - x.mean(axis=axes, keepdims=True)
    # not var(), which takes absolute values of complex numbers
    scale: F64 = 1.0 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon)
    return centred * scale, scale


def _standardized_vjp(h: F64, scale: F64, g: F64, axes: tuple[int, ...]) -> F64:
    """Return the gradient by x: what g has along the constant and along h itself is lost, for mean and variance move with x."""
    along_h = h * (g * h).mean(axis=axes, keepdims=True)
    d: F64 = scale * (g - g.mean(axis=axes, keepdims=True) - along_h)
    return d


def _normalized(reading: Reading) -> tuple[F64, F64]:
    """Return what gamma multiplies in a layer- or batch-norm, and its derivative by x while the statistics rest."""
    x, layer = reading.inputs[0], reading.layer
    epsilon = _number(layer, "epsilon")
    if layer.kind == "batch-norm" and not reading.training:
        scale: F64 = 1.0 / np.sqrt(reading.parameters["variance"] + epsilon)
        return (x - reading.parameters["mean"]) * scale, scale
    return _standardized(x, _norm_axes(reading), epsilon)


def _norm_axes(reading: Reading) -> tuple[int, ...]:
    return (-1,) if reading.layer.kind == "layer-norm" else _all_but_last(reading.inputs[0])


def _norm_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    h, scale = _normalized(reading)
    g_h = g * reading.parameters["gamma"]
    if reading.layer.kind == "batch-norm" and not reading.training:
        d_x = g_h * scale
    else:
        d_x = _standardized_vjp(h, scale, g_h, _norm_axes(reading))
    rows = _all_but_last(g)
    return LayerGradients([d_x], {"gamma": (g * h).sum(axis=rows), "beta": g.sum(axis=rows)})


@layer_formula("batch-norm", "layer-norm", vjp=_norm_vjp)
def _norm(reading: Reading) -> F64:
    """The mean and variance of a batch-norm are no trainable parameters: they get no gradient (Ioffe and Szegedy 2015)."""
    y: F64 = reading.parameters["gamma"] * _normalized(reading)[0] + reading.parameters["beta"]
    return y


def running_statistics(reading: Reading) -> dict[str, F64]:
    """Return the running mean and variance after one step of a batch-norm in training, by short name.

    Each is momentum times what it was plus 1 - momentum times the batch's own, the variance the biased one (Ioffe and Szegedy 2015
    normalize by it); "unbiased" is what it would be with the unbiased one, which they estimate the population's by.
    """
    x, kept = reading.inputs[0], _number(reading.layer, "momentum")
    axes = _all_but_last(x)
    n, mean, variance = x[..., 0].size, x.mean(axis=axes), x.var(axis=axes)
    old, unbiased = reading.parameters, variance * (n / (n - 1) if n > 1 else np.nan)
    return {
        "mean": kept * old["mean"] + (1.0 - kept) * mean,
        "variance": kept * old["variance"] + (1.0 - kept) * variance,
        "unbiased": kept * old["variance"] + (1.0 - kept) * unbiased,
    }


def _grouped(reading: Reading, x: F64) -> F64:
    """Return an image as (b, pixels, groups, channels of a group), where an instance normalization has one channel a group."""
    groups = int(reading.layer.settings.get("groups", x.shape[-1]))  # type: ignore[arg-type]
    return x.reshape(len(x), -1, groups, x.shape[-1] // groups)


PIXELS = (1, 3)  # the axes of what `_grouped` gives that are normalized together


def _image_norm_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    x = reading.inputs[0]
    h, scale = _standardized(_grouped(reading, x), PIXELS, _number(reading.layer, "epsilon"))
    d_x = _standardized_vjp(h, scale, _grouped(reading, g * reading.parameters["gamma"]), PIXELS)
    rows = _all_but_last(g)
    return LayerGradients(
        [d_x.reshape(x.shape)], {"gamma": (g * h.reshape(x.shape)).sum(axis=rows), "beta": g.sum(axis=rows)}
    )


@layer_formula("group-norm", "instance-norm", vjp=_image_norm_vjp)
def _image_norm(reading: Reading) -> F64:
    x = reading.inputs[0]
    h, _ = _standardized(_grouped(reading, x), PIXELS, _number(reading.layer, "epsilon"))
    y: F64 = reading.parameters["gamma"] * h.reshape(x.shape) + reading.parameters["beta"]
    return y


def _scaled(reading: Reading) -> tuple[F64, F64]:
    """Return h = x r and r = 1 / sqrt(mean(x^2) + epsilon)."""
    x = reading.inputs[0]
    r: F64 = 1.0 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + _number(reading.layer, "epsilon"))
    return x * r, r


def _rms_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    """Pull g back: what it has along h itself is lost, for r moves with x."""
    h, r = _scaled(reading)
    g_h = g * reading.parameters["gamma"]
    d_x = r * (g_h - h * (g_h * h).mean(axis=-1, keepdims=True))
    return LayerGradients([d_x], {"gamma": (g * h).sum(axis=_all_but_last(g))})


@layer_formula("rms-norm", vjp=_rms_vjp)
def _rms_norm(reading: Reading) -> F64:
    y: F64 = reading.parameters["gamma"] * _scaled(reading)[0]
    return y


def _length(reading: Reading) -> tuple[F64, NDArray[np.bool_]]:
    """Return what each row is divided by, and where that is its own length."""
    x, epsilon = reading.inputs[0], _number(reading.layer, "epsilon")
    length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    moves = ~(length.real < epsilon)  # NaN stays NaN
    return np.where(moves, length, epsilon), moves


def _l2_vjp(reading: Reading, y: F64, g: F64) -> LayerGradients:
    """Pull g back: what it has along y is lost, for the length moves with x, but where epsilon stands for the length."""
    length, moves = _length(reading)
    along = np.where(moves, y * (g * y).sum(axis=-1, keepdims=True), 0.0)
    return LayerGradients([(g - along) / length])


@layer_formula("l2-normalize", vjp=_l2_vjp)
def _l2_normalize(reading: Reading) -> F64:
    return reading.inputs[0] / _length(reading)[0]


def _dropout_factor(reading: Reading) -> F64 | float:
    """Return what dropout multiplies x by; raise ValueError in training without a mask, as the truth must not be random."""
    if not reading.training:
        return 1.0
    if len(reading.inputs) != 2:
        raise ValueError(
            f"layer {reading.layer.name} (dropout) is trained and reads no mask: give it one as second input"
        )
    factor: F64 = reading.inputs[1] / (1.0 - _number(reading.layer, "rate"))
    return factor


def _dropout_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    return LayerGradients([g * _dropout_factor(reading), None][: len(reading.inputs)])


@layer_formula("dropout", vjp=_dropout_vjp)
def _dropout(reading: Reading) -> F64:
    return reading.inputs[0] * _dropout_factor(reading)


def _activation_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    return LayerGradients([truth(kernel_of(reading.layer), {"x": reading.inputs[0]}, {"y": g})["d_x"]])


@layer_formula("activation", vjp=_activation_vjp)
def _activation(reading: Reading) -> F64:
    y: F64 = truth(kernel_of(reading.layer), {"x": reading.inputs[0]})["y"]
    return y


def _to_shape(g: F64, x: F64) -> F64:
    """Return `g` summed over the axes along which x was broadcast to it."""
    repeated = tuple(axis for axis, length in enumerate(x.shape) if length != g.shape[axis])
    d: F64 = g.sum(axis=repeated, keepdims=True)
    return d


def _add_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    return LayerGradients([_to_shape(g, x) for x in reading.inputs])


@layer_formula("add", vjp=_add_vjp)
def _add(reading: Reading) -> F64:
    return reading.inputs[0] + reading.inputs[1]


def _multiply_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    a, b = reading.inputs
    return LayerGradients([_to_shape(g * b, a), _to_shape(g * a, b)])


@layer_formula("multiply", vjp=_multiply_vjp)
def _multiply(reading: Reading) -> F64:
    return reading.inputs[0] * reading.inputs[1]


def _affine_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    return LayerGradients([_number(reading.layer, "scale") * g])


@layer_formula("affine", vjp=_affine_vjp)
def _affine(reading: Reading) -> F64:
    return _number(reading.layer, "scale") * reading.inputs[0] + _number(reading.layer, "shift")
