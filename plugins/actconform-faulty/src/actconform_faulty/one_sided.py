"""Faults that err on one side: saturated ends that are not reached, sums that truncate, each result within its limit."""
# ruff: noqa: D103  small changes of results; what each does stands in its registration

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from actconform_faulty.changed import with_gradient, with_y
from actconform_faulty.injected import fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform_faulty.changed import Array

FAMILY = "one-sided errors"
UNIT = 2.0**-24  # half a ULP of 1


def smaller(units: float) -> Callable[[Array, Array], Array]:
    """Return what makes results smaller in size by units of 2**-24 of themselves, where they are not tiny."""
    return lambda _, y: np.where(np.abs(y) > 0.25, y.astype(np.float64) * (1 - units * UNIT), y)


def between(low: float, high: float, units: float) -> Callable[[Array, Array], Array]:
    """Return what adds units of 2**-24 max(1, |y|) to the results of some inputs."""

    def shifted(x: Array, y: Array) -> Array:
        wide = y.astype(np.float64)
        return np.where((x >= low) & (x < high), wide + units * UNIT * np.maximum(1, np.abs(wide)), wide)

    return shifted


def clamped(limit: float, function: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """Return what takes inputs beyond a limit for the limit."""
    return lambda x, y: np.where(np.abs(x) > limit, function(np.clip(x.astype(np.float64), -limit, limit)), y)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


for into, name, description, case, change in (
    ("torch", "tanh-clamped", "inputs beyond 8 are taken for 8", "tanh/value/f32", clamped(8.0, np.tanh)),
    ("torch", "tanh-clamped-later", "inputs beyond 8.3 are taken for 8.3", "tanh/value/f32", clamped(8.3, np.tanh)),
    ("torch", "sigmoid-clamped", "inputs above 15 are taken for 15", "sigmoid/value/f32", lambda x, y: np.where(x > 15, sigmoid(15.0), y)),
    ("torch", "tanh-smaller", "2 units too small in size", "tanh/value/f32", smaller(2)),
    ("torch", "softsign-smaller", "3 units too small in size", "softsign/value/f32", smaller(3)),
    ("torch", "sigmoid-one-binade", "2 units too much from 4 to 8", "sigmoid/value/f32", between(4, 8, 2)),
    ("torch", "tanh-one-side", "2 units too small in size below 0", "tanh/value/f32", lambda x, y: np.where(x < 0, smaller(2)(x, y), y)),
    ("torch", "elu-floor", "-1 is not reached: 3 units", "elu/value/f32", lambda _, y: np.where(y == -1, -1 + 3 * UNIT, y)),
    ("torch", "sigmoid-never-one", "1 is never reached: 1 - 2**-24 at most", "sigmoid/value/f32", lambda _, y: np.minimum(y, 1 - UNIT)),
    ("torch", "tanh-never-one", "1 and -1 are never reached: one step before at most", "tanh/value/f32", lambda _, y: np.clip(y, UNIT - 1, 1 - UNIT)),
    ("ort", "softplus-smaller", "5 units too small in size", "softplus/value/f32", smaller(5)),
):  # fmt: skip
    fault(into, name, FAMILY, description, case, findings="bias", blames="framework" if into == "torch" else "runtime")(
        lambda program, _, change=change: with_y(program, change)  # type: ignore[misc]
    )


@fault(
    "torch", "sigmoid-slope-smaller", FAMILY, "slopes below 0 are 3 units too small",
    "sigmoid/gradient/f32", findings="bias", blames="framework",
)  # fmt: skip
def sigmoid_slope_smaller(program: object, _: object) -> object:
    """Take 3 units of 1 from every slope that has them, on one side of 0."""

    def shifted(tensors: dict[str, Array], d: Array) -> Array:
        size = 3 * UNIT * np.abs(tensors["ct_y"])
        wide = d.astype(np.float64)
        return np.where((tensors["x"] < 0) & (np.abs(wide) > 8 * size), wide - np.sign(wide) * size, wide)

    return with_gradient(program, shifted)  # type: ignore[arg-type]
