"""Inputs of kernels at ordinary points, away from kinks, and the float64 truth there."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from actconform.catalog.kernels import ROWS, UNARY
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
UNIT = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}

# The kernel that a framework's own default is, where it is not the definition: declared differences.
DEFAULTS = {
    "keras": {"hard-sigmoid-default": "hard-sigmoid-relu6", "leaky-relu-default": "leaky-relu-0.2"},
    "torch": {"hard-sigmoid-default": "hard-sigmoid-relu6"},
    "jax": {"hard-sigmoid-default": "hard-sigmoid-relu6", "gelu-default": "gelu-tanh"},
}


def computed_by(framework, kernel):
    """Return the kernel that the framework computes for this one."""
    return KERNELS[DEFAULTS[framework].get(kernel.name, kernel.name)]


def inputs_of(kernel, dtype, *, sparse=True):
    """Return inputs; those of sparsemax are more than 1 apart where its support is not to be `sparse` but one entry."""
    rng = np.random.default_rng(20)
    if kernel.form == "unary":
        kinks = np.array([kink.x for kink in kernel.kinks])
        x = rng.uniform(-7, 7, 230).astype(DTYPES[dtype])
        return {"x": x[(np.abs(x[:, None].astype(np.float64) - kinks) > 0.01).all(axis=1)]}
    if kernel.name == "sparsemax" and not sparse:
        return {"x": rng.permuted(np.tile(np.linspace(-4, 4, 7), (5, 1)), axis=1).astype(DTYPES[dtype])}
    x = rng.uniform(-4, 4, (7, 6, 5) if kernel.axis == 1 else (5, 40)).astype(DTYPES[dtype])
    return {"x": x} | ({"slope": rng.uniform(-1, 1, 40).astype(DTYPES[dtype])} if "slope" in kernel.inputs else {})


def inputs_of_width(kernel, dtype, width, seed):
    """Return normal inputs, `width` of them for a kernel that works on each element alone."""
    rng = np.random.default_rng(seed)
    shape = (width,) if kernel.form == "unary" else (2, width, 3) if kernel.axis == 1 else (3, 2 * width)
    x = (2.0 * rng.standard_normal(shape)).astype(DTYPES[dtype])
    return {"x": x} | (
        {"slope": rng.standard_normal(shape[-1:]).astype(DTYPES[dtype])} if "slope" in kernel.inputs else {}
    )


def cotangent_of(y):
    return np.random.default_rng(30).choice([-2.0, -0.5, 1.0], y.shape).astype(y.dtype)


def value_of(kernel, inputs):
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    if kernel.form == "unary":
        return FORMULAS[kernel.name].value(wide["x"], kernel.parameters)
    return ROW_FORMULAS[kernel.name].value(wide, kernel)


def gradients_of(kernel, inputs, cotangent):
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    if kernel.form == "unary":
        return {"d_x": FORMULAS[kernel.name].derivative(wide["x"], kernel.parameters) * cotangent.astype(np.float64)}
    return ROW_FORMULAS[kernel.name].vjp(wide, cotangent.astype(np.float64), kernel)


def bits(tensors):
    return {name: array.tobytes() for name, array in tensors.items()}
