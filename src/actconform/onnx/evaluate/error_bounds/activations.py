"""Activations of recurrent layers as the standard lists them, in running-error arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from scipy.special import expit

from actconform.errors import Unsupported
from actconform.text import one_line
from actconform.tolerance.limits import SCALED_LIMITS
from actconform.tolerance.running_error import Bounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.onnx.evaluate.elementwise import OperatorNode
    from actconform.oracle.rounding import F64

    # (x, alpha, beta) to y, and (x, y, alpha, beta) to the size that the error of y is counted in, in units of u
    Function: TypeAlias = Callable[[F64, float, float], F64]
    Size: TypeAlias = Callable[[F64, F64, float, float], F64]


class _Kind(NamedTuple):
    """A monotone function; `smooth` ones err by a kernel's limit times `size`, others by `roundings` of it."""

    function: Function
    size: Size
    smooth: bool = False
    roundings: float = 0.0
    alpha: float | None = None
    """The default where the function has the parameter."""
    beta: float | None = None


def _nothing(_: F64, y: F64, __: float, ___: float) -> F64:
    return np.zeros_like(y)


def _one_or_more(_: F64, y: F64, __: float, ___: float) -> F64:
    return np.maximum(np.abs(y), 1.0)


def _inside(x: F64, y: F64, alpha: float, beta: float) -> F64:
    """Saturated numbers are exact."""
    unclipped = alpha * x + beta
    size = np.abs(alpha * x) + abs(beta)
    return np.where((unclipped > -1e-2 * size) & (unclipped < 1.0 + 1e-2 * size), np.maximum(size, y), 0.0)


_KINDS = {
    "relu": _Kind(lambda x, _, __: np.maximum(x, 0.0), _nothing),
    "sigmoid": _Kind(lambda x, _, __: expit(x), _one_or_more, smooth=True),
    "tanh": _Kind(lambda x, _, __: np.tanh(x), _one_or_more, smooth=True),
    "softsign": _Kind(lambda x, _, __: x / (1.0 + np.abs(x)), _one_or_more, smooth=True),
    "softplus": _Kind(lambda x, _, __: np.logaddexp(x, 0.0), _one_or_more, smooth=True),
    "leakyrelu": _Kind(
        lambda x, alpha, _: np.where(x < 0.0, alpha * x, x), lambda _, y, __, ___: np.abs(y), roundings=1.0, alpha=0.01
    ),
    "thresholdedrelu": _Kind(lambda x, alpha, _: np.where(x >= alpha, x, 0.0), _nothing, alpha=1.0),
    "elu": _Kind(
        lambda x, alpha, _: np.where(x < 0.0, alpha * np.expm1(np.minimum(x, 0.0)), x),
        lambda x, y, alpha, _: np.where(x < 0.0, np.maximum(np.abs(y), abs(alpha)), 0.0),
        smooth=True,
        alpha=1.0,
    ),
    "affine": _Kind(
        lambda x, alpha, beta: alpha * x + beta,
        lambda x, _, alpha, beta: np.abs(alpha * x) + abs(beta),
        roundings=2.0,
        alpha=1.0,
        beta=0.0,
    ),
    "scaledtanh": _Kind(
        lambda x, alpha, beta: alpha * np.tanh(beta * x),
        lambda x, _, alpha, beta: abs(alpha) * (1.25 + np.minimum(np.abs(beta * x), 1.0)),
        smooth=True,
        alpha=1.0,
        beta=1.0,
    ),
    "hardsigmoid": _Kind(
        lambda x, alpha, beta: np.clip(alpha * x + beta, 0.0, 1.0), _inside, roundings=2.0, alpha=0.2, beta=0.5
    ),
}


class Activation(NamedTuple):
    """A monotone function with its parameters."""

    kind: _Kind
    alpha: float
    beta: float

    def __call__(self, x: Bounded) -> Bounded:
        """Return the function of x: its own error, and how far it moves over that of x, told by its ends."""
        fmt = x.fmt
        value, above, below = self.kind.function(
            np.stack([x.value, x.value + x.error, x.value - x.error]), self.alpha, self.beta
        )
        size = self.kind.size(x.value, value, self.alpha, self.beta)
        limit = SCALED_LIMITS["value", min(fmt.bits, 32)] if self.kind.smooth else self.kind.roundings
        step = np.where(size > 0.0, fmt.smallest_normal if fmt.emin < -100 else fmt.smallest_subnormal, 0.0)
        moved = np.maximum(np.abs(above - value), np.abs(below - value))
        return Bounded(value, limit * fmt.unit_roundoff * size + step + moved, fmt)


def activations(node: OperatorNode, usual: tuple[str, ...], directions: int) -> list[list[Activation]]:
    """Return the activations of each direction; those that have parameters take the next of the listed ones, or their defaults.

    Raises Unsupported for a name that the standard does not list.
    """
    stated = node.attributes.get("activations") or []
    names = [(each.decode() if isinstance(each, bytes) else each).lower() for each in stated] or [*usual] * directions
    alphas, betas = (iter(node.attributes.get(f"activation_{name}") or []) for name in ("alpha", "beta"))
    listed = []
    for name in names:
        if name not in _KINDS:
            raise Unsupported(
                f"no error bound for {node.op_type} with the activation {one_line(name)}; the standard lists {', '.join(_KINDS)}"
            )
        kind = _KINDS[name]
        alpha = 0.0 if kind.alpha is None else next(alphas, kind.alpha)
        listed.append(Activation(kind, alpha, 0.0 if kind.beta is None else next(betas, kind.beta)))
    return [listed[i : i + len(usual)] for i in range(0, len(listed), len(usual))]
