"""What a step of each optimizer makes of a parameter and its slots, written once for numbers and for numbers with errors.

Sgd: Robbins and Monro 1951; momentum: Polyak 1964, Nesterov's in the form of Sutskever et al. 2013. Adam: Kingma and Ba 2015;
AdamW: Loshchilov and Hutter 2019; RMSprop: Tieleman and Hinton 2012, without momentum, not centred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform.types.training import Forms, Optimizer

Number = TypeVar("Number")


def updated(
    optimizer: Optimizer,
    forms: Forms,
    step: int,
    parameter: Number,
    gradient: Number,
    slots: Mapping[str, Number],
    constant: Callable[[float], Any] = float,
) -> tuple[Number, dict[str, Number]]:
    """Return the parameter and its slots after a step, counted from 1, given those before it and the gradient.

    Numbers are arrays, or anything with their operators and `** 0.5`; `constant` makes one of a hyperparameter. NaN and infinities go
    where the arithmetic takes them.
    """
    at = _At(optimizer, forms, step, constant)
    w: Any = parameter
    g: Any = gradient
    match optimizer.kind:
        case "sgd":
            return _sgd(at, w, g, slots)
        case "rmsprop":
            return _rmsprop(at, w, g, slots)
        case "adamw":
            w = w - (at.rate * constant(optimizer.weight_decay)) * w
    return _adam(at, w, g, slots)


class _At(NamedTuple):
    """A step of an optimizer, counted from 1."""

    optimizer: Optimizer
    forms: Forms
    step: int
    constant: Callable[[float], Any]

    @property
    def rate(self) -> Any:
        return self.constant(self.optimizer.rate(self.step))


def _sgd(at: _At, w: Any, g: Any, slots: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    rate, nesterov = at.rate, at.optimizer.nesterov
    if not at.optimizer.momentum:
        return w - rate * g, {}
    kept = at.constant(at.optimizer.momentum)
    if at.forms.momentum == "of updates":
        moved = kept * slots["momentum"] - rate * g
        return w + (kept * moved - rate * g if nesterov else moved), {"momentum": moved}
    mean = kept * slots["momentum"] + g
    return w - rate * (g + kept * mean if nesterov else mean), {"momentum": mean}


def _rmsprop(at: _At, w: Any, g: Any, slots: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    share, epsilon = at.constant(at.optimizer.beta2), at.constant(at.optimizer.epsilon)
    v = share * slots["v"] + (1.0 - share) * (g * g)
    root = (v + epsilon) ** 0.5 if at.forms.epsilon == "inside the root" else v**0.5 + epsilon
    return w - at.rate * g / root, {"v": v}


def _adam(at: _At, w: Any, g: Any, slots: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    beta1, beta2, epsilon = (
        at.constant(number) for number in (at.optimizer.beta1, at.optimizer.beta2, at.optimizer.epsilon)
    )
    m = beta1 * slots["m"] + (1.0 - beta1) * g
    v = beta2 * slots["v"] + (1.0 - beta2) * (g * g)
    of_mean, of_square = 1.0 - beta1**at.step, 1.0 - beta2**at.step
    if at.forms.epsilon == "added to the root":
        return w - (at.rate * of_square**0.5 / of_mean) * m / (v**0.5 + epsilon), {"m": m, "v": v}
    return w - (at.rate / of_mean) * m / (v**0.5 / of_square**0.5 + epsilon), {"m": m, "v": v}
