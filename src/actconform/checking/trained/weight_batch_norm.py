"""BatchNorm folded into the weights before it, or into a factor and a shift of its own.

With s = gamma / sqrt(variance + eps) the weights w become w s, channel by channel, and the bias b becomes beta + (b - mean) s.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_layouts import WeightLayout, candidates
from actconform.checking.trained.weight_ledger import owner_path
from actconform.checking.trained.weight_names import likeness, words
from actconform.checking.trained.weight_rounding import deviation_of
from actconform.checking.trained.weight_values import canonical
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actconform.checking.trained.weight_ledger import Deviation, Ledger
    from actconform.checking.trained.weight_values import Array

MEANS = ("running_mean", "moving_mean")
VARIANCES = ("running_var", "moving_variance", "moving_var")
EPSILONS = (1e-5, 1e-3, 1e-6, 1e-4, 1e-2, 1e-8, 1e-12, 0.0, 1.001e-5)
MOST_LAYOUTS = 24
SAMPLED = 512

# Roundings in s: of variance + eps, of eps itself, of the root, of the quotient or of a reciprocal and a product: the first two count half
# under the root, so at most 4 units. Two more follow for w s, in either order; for the bias a difference, a product and a sum, each at most
# one unit of the sum of magnitudes. 8 covers both, with the one last unit in which a library's root may be off.
ROUNDINGS = 8


class BatchNorm(NamedTuple):
    """One layer: names of its weights, "" where it has none, and their values in float64."""

    path: str
    names: tuple[str, str, str, str]
    """gamma, beta, mean, variance."""
    gamma: Array
    beta: Array
    mean: Array
    variance: Array

    def factor(self, epsilon: float) -> Array:
        with np.errstate(all="ignore"):
            return self.gamma / np.sqrt(self.variance + epsilon)


class Fold(NamedTuple):
    """A constant that is, channel by channel, a weight times the factor of a BatchNorm."""

    initializer: str
    layout: WeightLayout
    epsilon: float
    certain: bool
    """Whether no other usual epsilon would do."""
    expected: Array
    """As the weight lays it out, in the dtype of the constant."""
    differing: int
    """How many elements roundings do not explain."""


class Shift(NamedTuple):
    """A constant that is, channel by channel, the shift of a BatchNorm with the bias before it folded in."""

    initializer: str
    before: Array
    """That bias, or zeros."""
    differing: int
    """How many elements roundings do not explain."""
    deviation: Deviation
    largest_error: float
    """How far roundings allow a value to be off."""


class FoldedWeight(NamedTuple):
    """A weight as it is once the BatchNorm behind it is folded in, if there is one."""

    parameter: str
    norm: BatchNorm | None
    with_epsilon: Callable[[float], Array]
    """Its canonical values for an epsilon of that."""

    def values(self) -> Array:
        return self.with_epsilon(EPSILONS[0])

    def words(self) -> str:
        return f"{self.norm.path or 'a BatchNorm'} folded in, " if self.norm else ""

    def settle_norm(self, ledger: Ledger) -> None:
        """Settle the weights of the BatchNorm by the constant that has this weight, if one has."""
        check = ledger.checks.get(self.parameter)
        if self.norm and check and check.initializers and check.words.startswith(self.words()):
            for name in _open_of(ledger, self.norm, (0, 1, 2, 3)):
                ledger.settle(name, check.initializers, "folded", f"folded into {', '.join(check.initializers)}")


def folded_weights(ledger: Ledger) -> list[FoldedWeight]:
    """Return what each open BatchNorm makes of the open weight and bias before it, with the usual epsilon, and its own factor."""
    folded = []
    for norm in _batch_norms(ledger):
        if norm.names[3] in ledger.checks:
            continue
        bias = ""
        for weight in _weights_before(ledger, norm)[:1]:
            view = next(_channel_views(ledger.parameters[weight].shape, norm.mean.size))
            folded.append(FoldedWeight(weight, norm, partial(_folded, ledger, norm, weight, view)))
            bias = _bias_beside(ledger, norm, weight)
        folded.append(FoldedWeight(norm.names[0] or norm.names[3], norm, partial(_factor, norm)))
        owner = bias or norm.names[1] or norm.names[2]
        if owner not in ledger.checks:
            folded.append(FoldedWeight(owner, norm, partial(_folded_bias, ledger, norm, bias)))
    return folded


def _bias_beside(ledger: Ledger, norm: BatchNorm, weight: str) -> str:
    """Return the open bias of the layer that has a weight, "" for none."""
    names = [name for name in ledger.siblings(weight) if ledger.parameters[name].shape == norm.mean.shape]
    return next((name for name in names if name not in ledger.checks), "")


def _factor(norm: BatchNorm, epsilon: float) -> Array:
    factor: Array = norm.factor(epsilon).astype(np.float32)
    return factor


def _folded(ledger: Ledger, norm: BatchNorm, weight: str, view: tuple[int, int, int], epsilon: float) -> Array:
    trained = ledger.trained(weight)
    folded = trained.reshape(view).astype(np.float64) * norm.factor(epsilon)[:, None]
    return folded.reshape(trained.shape).astype(np.float32)


def _folded_bias(ledger: Ledger, norm: BatchNorm, bias: str, epsilon: float) -> Array:
    before = ledger.parameters[bias].astype(np.float64) if bias else 0.0
    shifted: Array = norm.beta + (before - norm.mean) * norm.factor(epsilon)
    return shifted.astype(np.float32)


def match_batch_norms(ledger: Ledger) -> None:
    """Settle the weights of each BatchNorm that is open, and those into which it was folded."""
    for norm in _batch_norms(ledger):
        _match(ledger, norm)


def _batch_norms(ledger: Ledger) -> Iterator[BatchNorm]:
    for name in ledger.parameters:
        last = name.rsplit(".", 1)[-1].rsplit("/", 1)[-1]
        if last not in MEANS:
            continue
        parameters = {text.rsplit(".", 1)[-1].rsplit("/", 1)[-1]: text for text in (name, *ledger.siblings(name))}
        variance = next((parameters[text] for text in VARIANCES if text in parameters), "")
        gamma = parameters.get("weight", parameters.get("gamma", ""))
        beta = parameters.get("bias", parameters.get("beta", ""))
        shape = ledger.parameters[name].shape
        if (
            len(shape) == 1
            and variance
            and all(ledger.parameters[text].shape == shape for text in (gamma, beta, variance) if text)
        ):
            names = gamma, beta, name, variance
            blanks = np.ones(shape), np.zeros(shape), np.zeros(shape), np.ones(shape)
            values = [
                ledger.parameters[text].astype(np.float64) if text else blank
                for text, blank in zip(names, blanks, strict=True)
            ]
            yield BatchNorm(owner_path(name), names, *values)


def _match(ledger: Ledger, norm: BatchNorm) -> None:
    for weight in _weights_before(ledger, norm):
        fold = _best_fold(ledger, norm, weight)
        if fold:
            _settle_weight(ledger, norm, weight, fold)
            _settle_norm(ledger, norm, fold, _bias_beside(ledger, norm, weight))
            return
    fold = None if norm.names[3] in ledger.checks else _best_fold(ledger, norm, "")
    if fold and not fold.differing:
        _settle_norm(ledger, norm, fold, "")


def _weights_before(ledger: Ledger, norm: BatchNorm) -> list[str]:
    """Return the open weights of the layer whose output a BatchNorm reads; where no layer tells, the nearest before it that would fit."""
    read = {place for layer in ledger.layers if set(norm.names) & set(layer.parameters) for place in layer.inputs}
    before = [name for layer in ledger.layers if read & set(layer.outputs) for name in layer.parameters]
    if not before:
        names = list(ledger.parameters)
        before = names[: names.index(norm.names[2])][::-1]
    fits = [
        name
        for name in before
        if name in ledger.parameters
        and name not in ledger.checks
        and ledger.parameters[name].ndim > 1
        and next(_channel_views(ledger.parameters[name].shape, norm.mean.size), None)
    ]
    return fits[:2]


def _channel_views(shape: tuple[int, ...], channels: int) -> Iterator[tuple[int, int, int]]:
    """Yield the shapes [before, channels, after] to which a weight reshapes: its channels are one axis, or several in a row."""
    views: dict[tuple[int, int, int], None] = {}
    for start in range(len(shape)):
        for end in range(start + 1, len(shape) + 1):
            if np.prod(shape[start:end]) == channels:
                before, after = int(np.prod(shape[:start])), int(np.prod(shape[end:]))
                views[before, channels, after] = None
    yield from views


def _best_fold(ledger: Ledger, norm: BatchNorm, weight: str) -> Fold | None:
    """Return the open constant that is a weight (for "": the number 1) times the factor of the BatchNorm, if there is one."""
    trained = ledger.trained(weight) if weight else np.ones(norm.mean.shape, np.float32)
    best: Fold | None = None
    for initializer in _by_likeness(ledger, norm, trained.size):
        constant = ledger.constants[initializer]
        for layout in islice(candidates(trained.shape, constant.shape), MOST_LAYOUTS):
            for view in _channel_views(trained.shape, norm.mean.size):
                fold = _fold(norm, trained, initializer, constant, layout, view)
                if fold and not fold.differing:
                    return fold
                if fold and (best is None or fold.differing < best.differing):
                    best = fold
    return best


def _by_likeness(ledger: Ledger, norm: BatchNorm, size: int) -> list[str]:
    """Return the open constants of a size, those first whose names are like the layer's: untrained layers have equal factors."""
    path = words(norm.path)
    fits = [name for name in ledger.open_constants() if ledger.constants[name].size == size]
    floats = [name for name in fits if ledger.constant(name).dtype.kind == "f"]
    return sorted(floats, key=lambda name: -likeness(path, ledger.hints[name]))


def _fold(
    norm: BatchNorm, trained: Array, initializer: str, constant: Array, layout: WeightLayout, view: tuple[int, int, int]
) -> Fold | None:
    turned = layout.restore(constant, trained.shape)
    if not _plausible(norm, trained, turned, view):
        return None
    weights, values = (array.reshape(view).astype(np.float64) for array in (trained, turned))
    unit = _unit(constant)
    with np.errstate(all="ignore"):
        ratios = np.nanmedian(np.where(weights != 0, values / weights, np.nan), axis=(0, 2))
    epsilon, certain = _fitted_epsilon(norm, ratios, unit)
    expected = weights * norm.factor(epsilon)[:, None]
    gap = np.abs(values - expected)
    differing = int(np.count_nonzero(~(gap <= unit * np.abs(expected) + np.finfo(np.float32).tiny)))
    if differing > trained.size // 2:
        return None
    return Fold(
        initializer, layout, epsilon, certain, expected.reshape(trained.shape).astype(constant.dtype), differing
    )


def _unit(constant: Array) -> float:
    """Return the largest relative error of a folded value: roundings in float32, and one to a narrower format of the constant."""
    narrow = {2: 2.0**-8 if constant.dtype.name == "bfloat16" else 2.0**-11, 1: 2.0**-3}.get(
        constant.dtype.itemsize, 0.0
    )
    return ROUNDINGS * 2.0**-24 + narrow


def _plausible(norm: BatchNorm, trained: Array, turned: Array, view: tuple[int, int, int]) -> bool:
    """Whether most of some elements are the weight times a factor with an epsilon between 0 and 0.1."""
    places = np.random.default_rng(0).integers(0, trained.size, SAMPLED)
    weights, values = (array[np.unravel_index(places, array.shape)].astype(np.float64) for array in (trained, turned))
    channels = np.unravel_index(places, view)[1]
    ends = [weights * norm.factor(epsilon)[channels] for epsilon in (0.0, 0.1)]
    slack = 1e-2 * np.abs(ends[0])
    fits = (np.minimum(*ends) - slack <= values) & (values <= np.maximum(*ends) + slack) & (weights != 0)
    return bool(np.count_nonzero(fits) > 0.5 * np.count_nonzero(weights))


def _fitted_epsilon(norm: BatchNorm, ratios: Array, unit: float) -> tuple[float, bool]:
    """Return the epsilon with which most channels have the ratio that they have, and whether no other usual one does as well."""
    with np.errstate(all="ignore"):
        squares = (norm.gamma / ratios) ** 2
    lowest, highest = squares * (1 - 2 * unit) - norm.variance, squares * (1 + 2 * unit) - norm.variance
    telling = np.isfinite(squares) & (squares > 0)
    if not telling.any():
        return EPSILONS[0], False
    order = np.argsort(np.where(telling, highest - lowest, np.inf))[:9]
    fitted = [max(0.0, float(middle)) for middle in (lowest[order] + highest[order]) / 2 if np.isfinite(middle)]
    trials = (*EPSILONS, *fitted)
    counts = [int(np.count_nonzero(telling & (lowest <= trial) & (trial <= highest))) for trial in trials]
    best = int(np.argmax(counts))
    return trials[best], counts[: len(EPSILONS)].count(counts[best]) <= 1


def _settle_weight(ledger: Ledger, norm: BatchNorm, weight: str, fold: Fold) -> None:
    constant = canonical(fold.layout.restore(ledger.constants[fold.initializer], ledger.parameters[weight].shape))
    text = f"{_of(norm, fold)} folded in"
    if fold.differing:
        unit = _unit(ledger.constants[fold.initializer])
        deviation = _beyond_roundings(fold.expected, constant, unit * np.abs(fold.expected))
        text += _differing_words(deviation, constant.size)
        ledger.settle(weight, [fold.initializer], "different", text, deviation=deviation)
    else:
        deviation = deviation_of(canonical(fold.expected), constant)
        ledger.settle(weight, [fold.initializer], "folded", text, deviation=deviation)
    ledger.enter_owner(weight, [fold.initializer])


def _beyond_roundings(expected: Array, constant: Array, error: Array) -> Deviation:
    """Return how far a constant is from what it should be where that is more than an error; elsewhere it counts as equal."""
    gap = np.abs(constant.astype(np.float64) - expected.astype(np.float64))
    beyond = ~(gap <= error + np.finfo(np.float32).tiny)
    return deviation_of(np.where(beyond, canonical(expected.astype(constant.dtype)), constant), constant)


def _differing_words(deviation: Deviation, count: int) -> str:
    return (
        f", but {deviation.differing:,} of {number_of(count, 'value')} differ by more than roundings, by up to {deviation.largest:.3g} "
        f"at {list(deviation.place)}"
    )


def _of(norm: BatchNorm, fold: Fold) -> str:
    return f"{norm.path or 'a BatchNorm'}{f' (eps {fold.epsilon:.4g})' if fold.certain else ''}"


def _settle_norm(ledger: Ledger, norm: BatchNorm, fold: Fold, bias: str) -> None:
    """Settle the weights of a BatchNorm, and the bias before it, by the constant that has the shift."""
    largest = float(np.max(np.abs(fold.expected.astype(np.float64)), initial=0.0))
    ledger.rounding_errors[fold.initializer] = _unit(ledger.constants[fold.initializer]) * largest
    factor = norm.factor(fold.epsilon)
    shift_names = _shift_constants(ledger, norm, fold)
    biases = (
        [ledger.parameters[bias].astype(np.float64), np.zeros(norm.mean.shape)] if bias else [np.zeros(norm.mean.shape)]
    )
    shift = _best_shift(ledger, norm, factor, biases, shift_names)
    text = f"folded into {fold.initializer}"
    for name in _open_of(ledger, norm, (0, 3)):
        ledger.settle(name, [fold.initializer, *([shift.initializer] if shift else [])], "folded", text)
    if shift:
        owner = bias if bias and shift.before is biases[0] else norm.names[1] or norm.names[2]
        ledger.rounding_errors[shift.initializer] = shift.largest_error
        for name in _open_of(ledger, norm, (1, 2)):
            if name != owner or not shift.differing:
                ledger.settle(name, [shift.initializer], "folded", f"folded into {shift.initializer}")
        text = f"{_of(norm, fold)} folded in"
        if shift.differing:
            text += _differing_words(shift.deviation, norm.mean.size)
            ledger.settle(owner, [shift.initializer], "different", text, deviation=shift.deviation)
        elif owner == bias:
            ledger.settle(bias, [shift.initializer], "folded", text, deviation=shift.deviation)
        ledger.enter_owner(bias or norm.names[1] or norm.names[2], [shift.initializer])


def _best_shift(
    ledger: Ledger, norm: BatchNorm, factor: Array, biases: Sequence[Array], initializers: Sequence[str]
) -> Shift | None:
    """Return the first constant that is the shift, of any of the biases before, up to roundings; else the one that is in most of its values."""
    best: Shift | None = None
    for before in biases:
        expected = norm.beta + (before - norm.mean) * factor
        size = np.abs(norm.beta) + (np.abs(before) + np.abs(norm.mean)) * np.abs(factor)
        for name in initializers:
            constant, unit = ledger.constant(name).reshape(-1), _unit(ledger.constants[name])
            deviation = _beyond_roundings(expected, constant, unit * size)
            if deviation.differing <= (best.differing - 1 if best else norm.mean.size // 2):
                differing = deviation.differing
                if not differing:
                    deviation = deviation_of(canonical(expected.astype(ledger.constants[name].dtype)), constant)
                best = Shift(name, before, differing, deviation, unit * float(np.max(size, initial=0.0)))
            if best and not best.differing:
                return best
    return best


def _open_of(ledger: Ledger, norm: BatchNorm, places: tuple[int, ...]) -> list[str]:
    return [norm.names[place] for place in places if norm.names[place] and norm.names[place] not in ledger.checks]


def _shift_constants(ledger: Ledger, norm: BatchNorm, fold: Fold) -> Sequence[str]:
    """Return the open constants that may hold the shift, those first that the same nodes read."""
    nodes = {node.name for node in ledger.readers[fold.initializer]}
    names = _by_likeness(ledger, norm, norm.mean.size)
    return sorted(names, key=lambda name: not nodes & {node.name for node in ledger.readers[name]})
