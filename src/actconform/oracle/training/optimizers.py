"""What a step of each optimizer makes of a parameter and its slots, written once for numbers and for numbers with errors.

Sgd: Robbins and Monro 1951; momentum: Polyak 1964, Nesterov's in the form of Sutskever et al. 2013. Adam: Kingma and Ba 2015;
AdamW: Loshchilov and Hutter 2019; RMSprop: Tieleman and Hinton 2012, without momentum, not centred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

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
    w: Any = parameter
    g: Any = gradient
    rate = constant(optimizer.rate(step))
    match optimizer.kind:
        case "sgd":
            return _sgd(optimizer, forms, rate, w, g, slots, constant)
        case "rmsprop":
            share = constant(optimizer.beta2)
            v = share * slots["v"] + (1.0 - share) * (g * g)
            epsilon = constant(optimizer.epsilon)
            root = (v + epsilon) ** 0.5 if forms.epsilon == "inside the root" else v**0.5 + epsilon
            return w - rate * g / root, {"v": v}
        case "adamw":
            w = w - (rate * constant(optimizer.weight_decay)) * w
    return _adam(optimizer, forms, step, rate, w, g, slots, constant)


def _sgd(
    optimizer: Optimizer,
    forms: Forms,
    rate: Any,
    w: Any,
    g: Any,
    slots: Mapping[str, Any],
    constant: Callable[[float], Any],
) -> tuple[Any, dict[str, Any]]:
    if not optimizer.momentum:
        return w - rate * g, {}
    kept = constant(optimizer.momentum)
    if forms.momentum == "of updates":
        moved = kept * slots["momentum"] - rate * g
        return w + (kept * moved - rate * g if optimizer.nesterov else moved), {"momentum": moved}
    mean = kept * slots["momentum"] + g
    return w - rate * (g + kept * mean if optimizer.nesterov else mean), {"momentum": mean}


def _adam(
    optimizer: Optimizer,
    forms: Forms,
    step: int,
    rate: Any,
    w: Any,
    g: Any,
    slots: Mapping[str, Any],
    constant: Callable[[float], Any],
) -> tuple[Any, dict[str, Any]]:
    beta1, beta2, epsilon = constant(optimizer.beta1), constant(optimizer.beta2), constant(optimizer.epsilon)
    m = beta1 * slots["m"] + (1.0 - beta1) * g
    v = beta2 * slots["v"] + (1.0 - beta2) * (g * g)
    of_mean, of_square = 1.0 - beta1**step, 1.0 - beta2**step
    if forms.epsilon == "added to the root":
        return w - (rate * of_square**0.5 / of_mean) * m / (v**0.5 + epsilon), {"m": m, "v": v}
    return w - (rate / of_mean) * m / (v**0.5 / of_square**0.5 + epsilon), {"m": m, "v": v}
