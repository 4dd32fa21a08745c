"""Faults of 16-bit results that are each within their limit: truncation, too few nearest numbers, single wrong entries, lost subnormals."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform_faulty.changed import with_gradient, with_y
from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform import Program
    from actconform_faulty.changed import Array

ROUNDING = "16-bit rounding"
SUBNORMALS = "16-bit subnormals"
SMALLEST_NORMAL = 2.0**-14  # of float16


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


EXACT: dict[str, Callable[[Array], Array]] = {
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "exponential": np.exp,
    "swish": lambda x: x * sigmoid(x),
    "leaky-relu": lambda x: np.where(x < 0, np.float32(0.01) * x, x),
    "elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "reglu": lambda x: np.multiply(
        *np.split(np.where(np.arange(x.shape[-1]) < x.shape[-1] // 2, np.maximum(x, 0), x), 2, -1)
    ),
}


def stepped(y: Array, steps: Array) -> Array:
    """Return finite numbers other than 0 moved by whole steps of their format, away from 0 where positive."""
    moved = (y.view(np.int16) + steps.astype(np.int16)).view(y.dtype)
    return np.where(np.isfinite(y) & (y != 0), moved, y)


def truncated(name: str) -> Callable[[Array, Array], Array]:
    """Return what rounds a kernel's results towards 0."""

    def towards_zero(x: Array, y: Array) -> Array:
        beyond = np.abs(y.astype(np.float64)) > np.abs(EXACT[name](x.astype(np.float64)))
        return np.where(beyond, stepped(y, -np.ones(y.shape)), y)

    return towards_zero


def raised(name: str) -> Callable[[Array, Array], Array]:
    """Return what rounds a kernel's results away from 0."""

    def away(x: Array, y: Array) -> Array:
        below = np.abs(y.astype(np.float64)) < np.abs(EXACT[name](x.astype(np.float64)))
        return np.where(below, stepped(y, np.ones(y.shape)), y)

    return away


def scattered(x: Array) -> Array:
    """Return numbers without order, the same for the same input: 0 to 15."""
    bits = np.ascontiguousarray(x).view(np.uint16).astype(np.uint64)
    mixed: Array = (bits * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(60)
    return mixed.astype(np.int64)


def within(low: float, high: float, inside: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda x, y: np.where((x >= low) & (x < high), inside(x, y), y)


def entry(at: float, steps: int) -> Callable[[Array, Array], Array]:
    """Return what moves the result at one input."""
    return lambda x, y: np.where(x == x.dtype.type(at), stepped(y, np.full(y.shape, steps)), y)


def register(into: str, family: str, name: str, description: str, case: str, findings: str, inject: Any) -> None:
    fault(
        into, name, family, description, case, findings=findings, blames="framework" if into == "torch" else "runtime"
    )(lambda program, _: inject(program))  # fmt: skip


def values(change: Callable[[Array, Array], Array]) -> Callable[[Program], Program]:
    return lambda program: with_y(program, change)


def slopes(change: Callable[[Array, Array], Array]) -> Callable[[Program], Program]:
    return lambda program: with_gradient(program, lambda tensors, d: change(tensors["x"], d))


TRUNCATED = "bias scaled-error"
FLUSHED = "subnormal-flush tail"
for into, name, description, case, findings, change in (
    ("torch", "sigmoid-truncates", "results are truncated, not rounded", "sigmoid/value/f16", TRUNCATED, truncated("sigmoid")),
    ("torch", "tanh-truncates", "results are truncated, not rounded", "tanh/value/bf16", TRUNCATED, truncated("tanh")),
    ("torch", "softsign-truncates", "results are truncated, not rounded", "softsign/value/bf16", TRUNCATED, truncated("softsign")),
    ("torch", "leaky-relu-truncates-half", "the product is truncated, not rounded", "leaky-relu/value/f16", TRUNCATED, truncated("leaky-relu")),
    ("ort", "softplus-truncates", "results are truncated, not rounded", "softplus/value/f16", TRUNCATED, truncated("softplus")),
    ("torch", "reglu-truncates-half", "the product is truncated, not rounded", "reglu/value/f16", TRUNCATED, truncated("reglu")),
    ("ort", "reglu-truncates-half", "the product is truncated, not rounded", "reglu/value/f16", TRUNCATED, truncated("reglu")),
    ("torch", "elu-away", "results are rounded away from 0", "elu/value/bf16", TRUNCATED, raised("elu")),
    ("torch", "exponential-one-binade", "results are truncated for inputs from 1/2 to 1", "exponential/value/f16", TRUNCATED, within(0.5, 1, truncated("exponential"))),
    ("torch", "swish-dithers", "a third of the results is one unit off, without order", "swish/value/f16", TRUNCATED, lambda x, y: stepped(y, np.select([scattered(x) < 3, scattered(x) > 12], [1, -1], 0))),
    ("torch", "exponential-dithers", "a quarter of the results for inputs from -3 to 3 is one unit off", "exponential/value/bf16", TRUNCATED, within(-3, 3, lambda x, y: stepped(y, np.select([scattered(x) < 2, scattered(x) > 13], [1, -1], 0)))),
    ("torch", "sigmoid-table-entry", "one entry of a table is 1.2 % off", "sigmoid/value/bf16", "scaled-error", entry(1.25, 3)),
    ("torch", "gelu-table-entry", "one entry of a table is 3 units off", "gelu-erf/value/f16", "scaled-error", entry(0.75, 3)),
    ("ort", "softplus-table-entry", "one entry of a table is 3 units off", "softplus/value/f16", "scaled-error", entry(1.5, -3)),
):  # fmt: skip
    register(into, ROUNDING, name, description, case, findings, values(change))  # type: ignore[arg-type]


def flushed(_: Array, y: Array) -> Array:
    return np.where(np.abs(y) < SMALLEST_NORMAL, np.copysign(y.dtype.type(0), y), y)


for into, name, description, case, wrap in (
    ("torch", "sigmoid-half-flushes", "0 below 2**-14, from x = -9.7 down", "sigmoid/value/f16", values(flushed)),
    ("torch", "exponential-half-flushes", "0 below 2**-14, from x = -9.7 down", "exponential/value/f16", values(flushed)),
    ("torch", "softplus-half-flushes", "0 below 2**-14, from x = -9.7 down", "softplus/value/f16", values(flushed)),
    ("torch", "log-sigmoid-half-flushes", "0 above x = 9.7", "log-sigmoid/value/f16", values(flushed)),
    ("torch", "silu-half-vanishes", "0 from x = -11.1 down", "silu/value/f16", values(within(-65504, -11.1, lambda _, y: y * 0))),
    ("torch", "sigmoid-half-vanishes", "0 from x = -11.1 down", "sigmoid/value/f16", values(within(-65504, -11.1, lambda _, y: y * 0))),
    ("torch", "sigmoid-slope-half-flushes", "slopes below 2**-14 are 0", "sigmoid/gradient/f16", slopes(flushed)),
    ("torch", "softplus-slope-half-flushes", "slopes below 2**-14 are 0", "softplus/gradient/f16", slopes(flushed)),
    ("ort", "softplus-half-flushes", "0 below 2**-14, from x = -9.7 down", "softplus/value/f16", values(flushed)),
):  # fmt: skip
    register(into, SUBNORMALS, name, description, case, FLUSHED, wrap)
