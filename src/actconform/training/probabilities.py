"""What is no probability where a loss takes one, and what is one where it takes logits: silent mistakes of a training, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

Array: TypeAlias = NDArray[Any]

FROM_LOGITS = "-from-logits"
SLACK = 1e-3
"""By how much a sum of probabilities may differ from 1: they may come from a type of 16 bits."""


def probability_notes(loss: str, *, output: tuple[str, Array], target: tuple[str, Array]) -> tuple[str, ...]:
    """Return, in words, where the output or the target of a cross-entropy is not what the loss takes; nothing for other losses.

    `output` is its name and its values for the first batch before training, float, `target` its name and all its values. A loss from
    probabilities clips an output outside [0, 1], whose gradient is 0 there; categories are the last axis, along which probabilities
    sum to 1. An output that is NaN gives no note.
    """
    if "cross-entropy" not in loss:
        return ()
    categorical = loss.startswith("categorical")
    return (*_of_output(loss, categorical, *output), *_of_target(loss, categorical, *target))


def _of_output(loss: str, categorical: bool, name: str, values: Array) -> Iterator[str]:
    problem = _problem(values, categorical)
    if not loss.endswith(FROM_LOGITS):
        if problem:
            yield (
                f"output {one_line(name)!r} {problem} in the first batch, and {loss} takes probabilities: "
                f"for logits it is --loss {loss}{FROM_LOGITS}"
            )
    elif not problem and np.isfinite(values).all():
        yield (
            f"output {one_line(name)!r} gives probabilities in the first batch, and {loss} takes logits: "
            f"for probabilities it is --loss {loss.removesuffix(FROM_LOGITS)}"
        )


def _of_target(loss: str, categorical: bool, name: str, values: Array) -> Iterator[str]:
    if problem := _problem(values, categorical):
        yield f"target {one_line(name)!r} {problem}, and {loss} takes the probabilities of classes, each from 0 to 1"


def _problem(values: Array, categorical: bool) -> str:
    """Return why the values are no probabilities, or "" where they may be some."""
    numbers = np.asarray(values, np.float64)
    if not numbers.size:
        return ""
    least, most = float(numbers.min()), float(numbers.max())
    if least < -SLACK or most > 1.0 + SLACK:
        return f"is {least:.3g} to {most:.3g}"
    if categorical and numbers.ndim > 1 and numbers.shape[-1] > 1:
        sums = numbers.sum(-1).ravel()
        farthest = float(sums[np.argmax(np.abs(sums - 1.0))])
        if abs(farthest - 1.0) > SLACK:
            return f"has rows that sum to {farthest:.3g}, not to 1"
    return ""
