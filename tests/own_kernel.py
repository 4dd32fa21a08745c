"""A plugin that brings two kernels, each with its formulas, graph and native implementations, and a model that uses both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from actconform import Kernel, hookimpl
from actconform.catalog.models.builder import describe, layer
from actconform.onnx.author.exporter import graph
from actconform.oracle.float64.registry import formula
from actconform.oracle.float64.rows import row_formula
from actconform.plugin.framework import Composition, register_implementations
from actconform.types.model import Input, Model

GAIN = 0.5

ARCTAN = Kernel(
    name="scaled-arctan",
    definition="a arctan(x)",
    source="a test",
    parameters={"a": GAIN},
    at_infinity=(-GAIN * np.pi / 2, GAIN * np.pi / 2),
    gradient_at_infinity=(0.0, 0.0),
)
MINOUT = Kernel(
    name="minout",
    definition="the minimum of the halves of the last axis, element by element",
    source="a test",
    form="row",
    tier="exact",
    output_width="half",
)


def _slope(x: Any, parameters: Any) -> Any:
    return parameters["a"] / (1.0 + x * x)


@formula(ARCTAN.name, derivative=_slope)
def _arctan(x: Any, parameters: Any) -> Any:
    return parameters["a"] * np.arctan(x)


def _minout_vjp(inputs: Any, g: Any, _: Kernel) -> Any:
    a, b = np.split(inputs["x"], 2, axis=-1)
    return {"d_x": np.concatenate([g * (a < b), g * (a >= b)], axis=-1)}


@row_formula(MINOUT.name, vjp=_minout_vjp)
def _minout(inputs: Any, _: Kernel) -> Any:
    return np.minimum(*np.split(inputs["x"], 2, axis=-1))


@graph(ARCTAN.name)
def _arctan_graph(g: Any, kernel: Kernel) -> str:
    return g.Mul(g.Atan("x"), g.scalar(kernel.parameters["a"]))


@graph(MINOUT.name)
def _minout_graph(g: Any, _: Kernel) -> str:
    return g.Min(*g.outputs(2, "Split", "x", axis=-1, num_outputs=2))


def _arctan_of(module: str, name: str) -> Any:
    def compute(x: Any, a: float) -> Any:
        from importlib import import_module

        return a * getattr(import_module(module), name)(x)

    return compute


def _torch_minout(x: Any) -> Any:
    from torch import minimum

    return minimum(*x.chunk(2, dim=-1))


def _keras_minout(x: Any) -> Any:
    from keras import ops

    return ops.minimum(*ops.split(x, 2, axis=-1))


def _jax_minout(x: Any) -> Any:
    from jax import numpy as jnp

    return jnp.minimum(*jnp.split(x, 2, axis=-1))


for framework, module, name, minout in (
    ("torch", "torch", "atan", _torch_minout),
    ("keras", "keras.ops", "arctan", _keras_minout),
    ("jax", "jax.numpy", "arctan", _jax_minout),
):
    table = {
        ARCTAN.name: Composition(f"composition: {{a}} * {module}.{name}(x)", _arctan_of(module, name)),
        MINOUT.name: Composition(f"composition: the minimum of the halves in {framework}", minout),
    }
    register_implementations(framework, table)

MODEL = describe(
    "arctan-minout",
    "a test",
    [Input(name="x", shape=(4, 6), draw="normal"), Input(name="target", shape=(4, 2), draw="normal", role="target")],
    [
        layer("hidden", "dense", "x", units=8),
        layer("act", "activation", "hidden", kernel=ARCTAN),
        layer("wide", "dense", "act", units=6),
        layer("least", "activation", "wide", kernel=MINOUT),
        layer("y", "dense", "least", units=2),
        layer("loss", "mean-squared-error", "y", "target"),
    ],
    output="y",
    batch=4,
)


class Plugin:
    @hookimpl
    def actconform_kernels(self) -> list[Kernel]:
        return [ARCTAN, MINOUT]

    @hookimpl
    def actconform_models(self) -> list[Model]:
        return [MODEL]

    @hookimpl
    def actconform_goldens(self) -> Path:
        return Path(__file__).parent / "golden"
