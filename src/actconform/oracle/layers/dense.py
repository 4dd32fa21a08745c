"""Dense layers and changes of shape: values and vector-Jacobian products.

Arrays have the batch first and channels last. NaN and infinities go where the sums and products take them. Every value here
is analytic, so complex numbers pass through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from actconform.oracle.layers.registry import LayerGradients, layer_formula

if TYPE_CHECKING:
    from actconform.oracle.layers.registry import F64, Reading


def _all_but_last(x: F64) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _dense_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    x, rows = reading.inputs[0], _all_but_last(g)
    d_kernel = np.tensordot(x, g, axes=(rows, rows))
    return LayerGradients([g @ reading.parameters["kernel"].T], {"kernel": d_kernel, "bias": g.sum(axis=rows)})


@layer_formula("dense", vjp=_dense_vjp)
def _dense(reading: Reading) -> F64:
    y: F64 = reading.inputs[0] @ reading.parameters["kernel"] + reading.parameters["bias"]
    return y


def _reshape_vjp(reading: Reading, _: F64, g: F64) -> LayerGradients:
    return LayerGradients([g.reshape(reading.inputs[0].shape)])


@layer_formula("flatten", vjp=_reshape_vjp)
def _flatten(reading: Reading) -> F64:
    return reading.inputs[0].reshape(len(reading.inputs[0]), -1)


@layer_formula("reshape", vjp=_reshape_vjp)
def _reshape(reading: Reading) -> F64:
    shape = cast("tuple[int, ...]", reading.layer.settings["shape"])
    return reading.inputs[0].reshape(-1, *shape)
