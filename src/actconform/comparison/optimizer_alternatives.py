"""What a wrong optimizer may have done instead: its usual mistakes as formulas, in numbers with errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

import msgspec
import numpy as np

from actconform.oracle.training.optimizers import updated
from actconform.tolerance.running_error import Bounded, constant_number
from actconform.types.training import EpsilonForm, MomentumForm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actconform.types.dtypes import FloatFormat
    from actconform.types.training import Forms, Optimizer

EPSILONS = (1e-8, 1e-7, 1e-6, 1e-3, 0.0)  # that some framework or text has as its own
BETAS = ((0.9, 0.999), (0.9, 0.99), (0.9, 0.9), (0.999, 0.9), (0.99, 0.999))


class Situated(NamedTuple):
    """What the optimizer has of one parameter in one step: numbers of the format, with the errors that are known of them."""

    rule: Optimizer
    forms: Forms
    step: int
    """From 1 on."""
    parameter: Bounded
    gradient: Bounded
    slots: dict[str, Bounded]
    earlier: Bounded | None
    """The gradient of the step before, where the backend shows it."""

    @property
    def fmt(self) -> FloatFormat:
        return self.parameter.fmt

    def number(self, value: float) -> Bounded:
        return constant_number(value, self.fmt)


Moved: TypeAlias = tuple[Bounded, dict[str, Bounded]]
Formula: TypeAlias = "Callable[[Situated], Moved | None]"


def healthy_step(at: Situated) -> Moved:
    """Return what the optimizer makes of a parameter and its slots, as defined."""
    with np.errstate(all="ignore"):
        return updated(at.rule, at.forms, at.step, at.parameter, at.gradient, at.slots, at.number)


def alternatives(rule: Optimizer, forms: Forms, step: int) -> Iterator[tuple[str, Formula]]:
    """Yield the mistakes that an optimizer of this kind can be made with, each in words, the plainest first."""
    yield "the parameter is left as it was", lambda at: (at.parameter, healthy_step(at)[1])
    yield "parameter and slots are left as they were: no step was made", lambda at: (at.parameter, at.slots)
    yield from _of_rates(rule, step)
    if rule.kind in ("adam", "adamw"):
        yield from _of_adam(rule, step)
    if rule.kind == "rmsprop" and step == 1:  # later it takes a slot that nothing shows
        yield "RMSprop is centred: the squared mean of gradients is taken from the mean square", _centered
    if rule.kind != "sgd":
        yield from _of_constants(rule)
    yield from _of_forms(forms)
    if rule.kind == "adamw":
        yield from _of_decay()
    if rule.momentum:
        yield from _of_momentum(rule)
    yield from _of_gradients(step)
    yield "the step is made twice", _twice


def _of_rates(rule: Optimizer, step: int) -> Iterator[tuple[str, Formula]]:
    right = rule.rate(step)
    for when, rate in (
        (f"step {step + 1}", rule.rate(step + 1)),
        (f"step {step - 1}", rule.rate(max(step - 1, 1))),
        ("step 1, not decayed", rule.learning_rate),
    ):
        if rate != right:
            words = f"the learning rate is {rate:.6g}, that of {when}, and not {right:.6g}"
            yield words, lambda at, ratio=rate / right: healthy_step(_at_rate(at, ratio))  # type: ignore[misc]


def _at_rate(at: Situated, ratio: float) -> Situated:
    return at._replace(rule=msgspec.structs.replace(at.rule, learning_rate=at.rule.learning_rate * ratio))


def _of_adam(rule: Optimizer, step: int) -> Iterator[tuple[str, Formula]]:
    yield "Adam without bias correction", lambda at: _adam(at, 1.0, 1.0)
    yield "epsilon inside the root: sqrt(v + epsilon)", _epsilon_inside
    yield (
        "only the mean is corrected for its bias, not the mean square",
        lambda at: _adam(at, 1.0 - at.rule.beta1**at.step, 1.0),
    )
    yield (
        "only the mean square is corrected for its bias, not the mean",
        lambda at: _adam(at, 1.0, 1.0 - at.rule.beta2**at.step),
    )
    for alternative in (step + 1, step - 1):
        if alternative:
            yield (
                f"the bias is corrected as of step {alternative}",
                lambda at, t=alternative: _adam(at, 1.0 - at.rule.beta1**t, 1.0 - at.rule.beta2**t),  # type: ignore[misc]
            )
    yield (
        "the mean of gradients is not used: the gradient itself moves the parameter",
        lambda at: _adam(at, None, 1.0 - at.rule.beta2**at.step),
    )
    yield "the step is RMSprop's: no mean of gradients, no correction of the bias", lambda at: _adam(at, None, 1.0)
    exchanged = msgspec.structs.replace(rule, beta1=rule.beta2, beta2=rule.beta1)
    yield "beta1 and beta2 are exchanged", lambda at: healthy_step(at._replace(rule=exchanged))


def _moments(at: Situated) -> tuple[Any, Any]:
    b1, b2 = at.number(at.rule.beta1), at.number(at.rule.beta2)
    g = at.gradient
    return b1 * at.slots["m"] + (1.0 - b1) * g, b2 * at.slots["v"] + (1.0 - b2) * (g * g)


def _decayed(at: Situated) -> Any:
    if at.rule.kind != "adamw":
        return at.parameter
    return at.parameter - (at.number(at.rule.rate(at.step)) * at.number(at.rule.weight_decay)) * at.parameter


def _adam(at: Situated, of_mean: float | None, of_square: float) -> Moved:
    """Return Adam's step with other corrections of the bias; without any of the mean, the gradient is taken for it."""
    m, v = _moments(at)
    rate, epsilon = at.number(at.rule.rate(at.step)), at.number(at.rule.epsilon)
    top = at.gradient if of_mean is None else m / at.number(of_mean)
    root = v**0.5 / at.number(of_square) ** 0.5
    return _decayed(at) - rate * top / (root + epsilon), {"m": m, "v": v}


def _epsilon_inside(at: Situated) -> Moved:
    m, v = _moments(at)
    rate, epsilon = at.number(at.rule.rate(at.step)), at.number(at.rule.epsilon)
    of_mean, of_square = (1.0 - at.number(beta) ** at.step for beta in (at.rule.beta1, at.rule.beta2))
    return _decayed(at) - (rate / of_mean) * m / (v / of_square + epsilon) ** 0.5, {"m": m, "v": v}


def _centered(at: Situated) -> Moved:
    """Return the first step of centred RMSprop, whose mean of gradients begins with 0."""
    share, rate = at.number(at.rule.beta2), at.number(at.rule.rate(at.step))
    v: Any = share * at.slots["v"] + (1.0 - share) * (at.gradient * at.gradient)
    mean: Any = (1.0 - share) * at.gradient
    return at.parameter - rate * at.gradient / ((v - mean * mean) ** 0.5 + at.number(at.rule.epsilon)), {"v": v}


def _of_constants(rule: Optimizer) -> Iterator[tuple[str, Formula]]:
    for epsilon in EPSILONS:
        if epsilon != rule.epsilon:
            words = f"epsilon is {epsilon:g}, and not {rule.epsilon:g}"
            yield words, _with_rule(epsilon=epsilon)
    for beta1, beta2 in BETAS:
        if rule.kind == "rmsprop" and beta2 != rule.beta2:
            yield f"the share of the mean square is {beta2:g}, and not {rule.beta2:g}", _with_rule(beta2=beta2)
        elif rule.kind != "rmsprop" and (beta1, beta2) != (rule.beta1, rule.beta2):
            words = f"beta1 and beta2 are {beta1:g} and {beta2:g}, and not {rule.beta1:g} and {rule.beta2:g}"
            yield words, _with_rule(beta1=beta1, beta2=beta2)


def _with_rule(**changed: Any) -> Formula:
    return lambda at: healthy_step(at._replace(rule=msgspec.structs.replace(at.rule, **changed)))


def _of_forms(forms: Forms) -> Iterator[tuple[str, Formula]]:
    for epsilon in get_args(EpsilonForm):
        if epsilon != forms.epsilon:
            alternative = msgspec.structs.replace(forms, epsilon=epsilon)
            words = f"epsilon is {epsilon}, where the backend says that it is {forms.epsilon}"
            yield words, lambda at, alternative=alternative: healthy_step(at._replace(forms=alternative))  # type: ignore[misc]
    for momentum in get_args(MomentumForm):
        if momentum != forms.momentum:
            alternative = msgspec.structs.replace(forms, momentum=momentum)
            words = f"momentum is a mean {momentum}, where the backend says {forms.momentum}"
            yield words, lambda at, alternative=alternative: healthy_step(at._replace(forms=alternative))  # type: ignore[misc]


def _of_decay() -> Iterator[tuple[str, Formula]]:
    def coupled(at: Situated) -> Moved:
        gradient = at.gradient + at.number(at.rule.weight_decay) * at.parameter
        return healthy_step(at._replace(rule=msgspec.structs.replace(at.rule, kind="adam"), gradient=gradient))

    def undiminished(at: Situated) -> Moved:
        rule = msgspec.structs.replace(at.rule, kind="adam")
        w, slots = healthy_step(at._replace(rule=rule))
        return w - at.number(at.rule.weight_decay) * at.parameter, slots

    yield "weight decay is coupled: added to the gradient (L2), as Adam has it and AdamW does not", coupled
    yield "weight decay is left out", _with_rule(kind="adam")
    yield "weight decay is not multiplied by the learning rate", undiminished


def _of_momentum(rule: Optimizer) -> Iterator[tuple[str, Formula]]:
    def dampened(at: Situated) -> Moved:
        share = at.number(at.rule.momentum)
        return (
            healthy_step(at._replace(gradient=(1.0 - share) * at.gradient)) if not at.rule.nesterov else _dampened(at)
        )

    yield "momentum with dampening: the gradient enters times 1 - momentum", dampened
    yield (
        "plain momentum, and not Nesterov's" if rule.nesterov else "Nesterov's momentum, and not the plain one",
        _with_rule(nesterov=not rule.nesterov),
    )
    yield "the gradient alone moves the parameter: momentum is not used", _unused_momentum
    yield (
        "the gradient alone moves the parameter: momentum is neither used nor kept",
        lambda at: (_unused_momentum(at)[0], at.slots),
    )
    for momentum in (0.9, 0.99, 0.5):
        if momentum != rule.momentum:
            yield f"momentum is {momentum:g}, and not {rule.momentum:g}", _with_rule(momentum=momentum)


def _dampened(at: Situated) -> Moved:
    """Return Nesterov's step where the gradient enters the mean dampened, and itself whole."""
    share, rate = at.number(at.rule.momentum), at.number(at.rule.rate(at.step))
    mean: Any = share * at.slots["momentum"] + (1.0 - share) * at.gradient
    return at.parameter - rate * (at.gradient + share * mean), {"momentum": mean}


def _unused_momentum(at: Situated) -> Moved:
    return at.parameter - at.number(at.rule.rate(at.step)) * at.gradient, healthy_step(at)[1]


def _of_gradients(step: int) -> Iterator[tuple[str, Formula]]:
    def earlier(at: Situated) -> Moved | None:
        return None if at.earlier is None else healthy_step(at._replace(gradient=at.earlier))

    def accumulated(at: Situated) -> Moved | None:
        return None if at.earlier is None else healthy_step(at._replace(gradient=at.gradient + at.earlier))

    yield f"it steps by the gradient of step {step - 1}", earlier
    yield f"it steps by the gradient and that of step {step - 1} together: not cleared", accumulated
    yield "it goes up the gradient, not down", lambda at: healthy_step(at._replace(gradient=-at.gradient))
    yield "the gradient is taken for 0", lambda at: healthy_step(at._replace(gradient=0.0 * at.gradient))


def _twice(at: Situated) -> Moved:
    w, slots = healthy_step(at)
    return healthy_step(at._replace(parameter=w, slots=slots))
