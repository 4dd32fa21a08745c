"""Metamorphic relations of softmax, max, relu and linear networks: what must hold whatever the input, checked on every route."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.testdata.regimes import normal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from actconform.types import Aspect
    from actconform.types.dtypes import FloatFormat

    F64 = NDArray[np.float64]

REGIME = "property"
ROWS = 4
EXP_ULP = 4.0  # the error of exp that the bounds of rows allow, see tolerance/row_bounds.py


class MetamorphicRelation(NamedTuple):
    """A metamorphic relation of one subject: the further calls that it needs, and a check of their outputs.

    `inputs` gives the x of each call, whose other inputs are those of the case; `cotangents` the cotangents of y where the
    relation is one of gradients. `violation` gets the outputs in float64 and returns how they break the relation, "" where they
    do not.
    """

    subject: str
    relation: str
    aspect: Aspect
    inputs: Sequence[F64]
    violation: Callable[[Sequence[F64], FloatFormat], str]
    cotangents: Sequence[F64] | None = None


def relations(subject: str, aspect: Aspect) -> list[MetamorphicRelation]:
    """Return the metamorphic relations of a subject in one aspect."""
    return [relation for relation in _ALL if (relation.subject, relation.aspect) == (subject, aspect)]


def _logits(width: int) -> F64:
    """Return rows of logits, multiples of 1/8 within 7, exact in every format, and so are their shifts by 4."""
    drawn = np.round(normal(f"property/{width}", ROWS * width, 2.0).astype(np.float64) * 8.0) / 8.0
    return np.clip(drawn, -7.0, 7.0).reshape(ROWS, width)


def _sums_to_one(outputs: Sequence[F64], fmt: FloatFormat) -> str:
    (y,) = outputs
    if not (y >= 0.0).all():
        return f"a softmax has a negative element: {y.min():.9g}" if not np.isnan(y).any() else "a softmax has NaN"
    off = np.abs(y.sum(axis=-1) - 1.0).max()
    limit = (2.0 * EXP_ULP + y.shape[-1] + 2.0) * fmt.unit_roundoff
    return "" if off <= limit else f"the sum of a softmax is off 1 by {off:.3g}, allowed are {limit:.3g}"


def _shift_invariant(outputs: Sequence[F64], fmt: FloatFormat) -> str:
    y, shifted = outputs
    off = np.abs(y - shifted)
    limit = 2.0 * (2.0 * EXP_ULP + 16.0) * fmt.unit_roundoff
    return (
        ""
        if (off <= limit).all()
        else f"all logits plus 4 move the softmax by {off.max():.3g}, allowed are {limit:.3g}"
    )


def _one_unit(outputs: Sequence[F64], _: FloatFormat) -> str:
    return "" if (outputs[0] == 1.0).all() else f"softmax of one unit is {outputs[0].ravel()[0]:.9g}, not 1"


def _no_gradient(outputs: Sequence[F64], _: FloatFormat) -> str:
    d = outputs[0].ravel()
    return "" if (d == 0.0).all() else f"softmax of one unit has the gradient {d[np.argmax(d != 0)]:.9g}, not 0"


def _like_sigmoid(outputs: Sequence[F64], fmt: FloatFormat) -> str:
    z = _pairs()[:, 0]
    off = np.abs(outputs[0][:, 0] - 1.0 / (1.0 + np.exp(-z)))
    limit = (2.0 * EXP_ULP + 8.0) * fmt.unit_roundoff
    return "" if (off <= limit).all() else f"softmax([z, 0])[0] is off sigmoid(z) by {off.max():.3g}"


def _pairs() -> F64:
    z = np.arange(-6.0, 6.5, 0.5)
    return np.stack([z, np.zeros_like(z)], axis=1)


def _rank(outputs: Sequence[F64], fmt: FloatFormat) -> str:
    """Return what is wrong with the Jacobian, row i of which is the gradient for the i-th one-hot cotangent."""
    jacobian = np.stack([d[0] for d in outputs])
    if not np.isfinite(jacobian).all():
        return "the Jacobian of softmax is not finite"
    sizes = np.linalg.svd(jacobian, compute_uv=False)
    negligible = 64.0 * fmt.unit_roundoff * sizes[0]
    rank = int((sizes > negligible).sum())
    wanted = len(sizes) - 1
    return "" if rank == wanted else f"the Jacobian of softmax has rank {rank}, not {wanted}: singular values {sizes}"


def _not_negative(outputs: Sequence[F64], _: FloatFormat) -> str:
    return "" if (outputs[0] >= 0.0).all() else f"relu gave {outputs[0].min():.9g}"


def _linear(outputs: Sequence[F64], fmt: FloatFormat) -> str:
    """Return what is wrong with f(a + b) + f(0) = f(a) + f(b): each sum rounds, as the input a + b does."""
    a, b, both, zero = outputs
    off = np.abs(both + zero - a - b)
    limit = 64.0 * fmt.unit_roundoff * max(1.0, *(float(np.abs(y).max()) for y in outputs))
    holds = np.isfinite(off).all() and (off <= limit).all()
    return "" if holds else f"f(a + b) + f(0) is off f(a) + f(b) by {off.max():.3g}"


def _constant_between_ties(outputs: Sequence[F64], _: FloatFormat) -> str:
    first, moved = outputs
    return "" if np.array_equal(first, moved) else "argmax moved where no logit overtook another: it has a gradient"


def _passed_on(outputs: Sequence[F64], fmt: FloatFormat) -> str:
    """Return what is wrong with the gradient of a maximum: whichever of equals has it, together they have all of it."""
    sums = outputs[0].sum(axis=-1)
    off = np.abs(sums - 1.0)
    limit = outputs[0].shape[-1] * fmt.unit_roundoff
    return "" if (off <= limit).all() else f"the gradients of a row sum to {sums[np.argmax(off)]:.9g}, not 1"


_WIDE = _logits(12)
_ONE = _logits(1)
_RELU = np.arange(-64.0, 64.0) / 8.0
_FIVE = _logits(5)[:1] / 8.0  # near each other: every singular value but one far above rounding
_TIED = np.array([[1.0, 2.0, 2.0, -1.0], [3.0, 3.0, 3.0, 1.0], [0.5, 0.5, 0.5, 0.5], [4.0, 1.0, 2.0, 0.0]])
_SEPARATE = np.array([[3.0, 2.0, 1.0, 0.125], [2.0, 4.25, 1.25, -3.0]])

_SIGNALS = [normal(f"property/signal/{n}", 4 * 20, 1.0).reshape(4, 20).astype(np.float64) for n in range(2)]

_ALL = (
    MetamorphicRelation("softmax", "is not negative and sums to 1", "value", [_WIDE], _sums_to_one),
    MetamorphicRelation(
        "softmax", "does not change when all logits are shifted", "value", [_WIDE, _WIDE + 4.0], _shift_invariant
    ),
    MetamorphicRelation("softmax", "of one unit is the constant 1", "value", [_ONE], _one_unit),
    MetamorphicRelation("softmax", "of [z, 0] is sigmoid(z)", "value", [_pairs()], _like_sigmoid),
    MetamorphicRelation(
        "softmax", "of one unit has no gradient", "gradient", [_ONE], _no_gradient, [np.ones_like(_ONE)]
    ),
    MetamorphicRelation(
        "softmax",
        "has a Jacobian of rank n - 1",
        "gradient",
        [_FIVE] * 5,
        _rank,
        [np.eye(5)[[number]] for number in range(5)],
    ),
    MetamorphicRelation(
        "max", "passes on all of its gradient at ties", "gradient", [_TIED], _passed_on, [np.ones(len(_TIED))]
    ),
    MetamorphicRelation("relu", "is not negative", "value", [_RELU], _not_negative),
    MetamorphicRelation(
        "linear-stack",
        "is linear",
        "value",
        [*_SIGNALS, _SIGNALS[0] + _SIGNALS[1], np.zeros_like(_SIGNALS[0])],
        _linear,
    ),
    MetamorphicRelation(
        "argmax", "has no gradient", "value", [_SEPARATE, _SEPARATE + _SEPARATE / 16.0], _constant_between_ties
    ),
)
