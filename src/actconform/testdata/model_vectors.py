"""A model's test vectors, with their truth and the end-to-end limit: how far the truth itself moves where every number is rounded."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

from actconform.catalog.models.zoo import PUBLISHED
from actconform.errors import Unsupported
from actconform.oracle.layers.model import gradients, statistics, values
from actconform.oracle.rounding import round_to
from actconform.testdata.golden.model_goldens import LAYER, REGIME
from actconform.testdata.kernel_vectors import STORAGE, TestVector, TestVectors
from actconform.testdata.model_questions import CLIPPED, ModelQuestion, draw_question, questions_of
from actconform.testdata.regimes import raw
from actconform.tolerance.layer_bounds import MOVING
from actconform.tolerance.limits import Tolerance
from actconform.tolerance.row_bounds import flushes
from actconform.types.dtypes import DTYPES
from actconform.types.model import LOSS, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.types import Aspect, Bundle
    from actconform.types.dtypes import FloatFormat
    from actconform.types.model import Model

    F64 = NDArray[np.float64]
    Touch: TypeAlias = Callable[[str, F64], F64]
    Computed: TypeAlias = Aspect | Literal["statistics"]

STATISTICS: Final = "statistics"  # the regime of what a call in training leaves
RUNS = 8  # of perturbed evaluations: enough to see every direction in which rounding moves a result
MANY_RUNS = 16  # where a tensor has more than MANY elements: in eight draws of 20,000 elements the spread of 20 is below a third by chance
MANY = 1 << 12
POOL_RUNS = 24  # in 16 bits, where many pools have two largest elements within a rounding
# Of the spread. Healthy routes reach 5 in small models; 34 in published ones, which sum up to 3,600 terms and have up to a
# million elements, of which the worst counts: see docs/architecture.md.
LIMIT, PUBLISHED_LIMIT = 16.0, 64.0


def generate_model(
    model: Model, aspect: Aspect, dtype: str, *, constants: bool, regimes: Collection[str] = ()
) -> TestVectors:
    """Return the test vectors of a case, one a question: inputs and parameters, their truth, and what rounding may do to that.

    With `regimes` these questions alone.

    Of values each has "y" and "loss", with `constants` "y" alone and no targets among the inputs; of gradients "d_NAME", by the
    question's cotangent of the loss. An element's allowed error is 16 times its spread (64 in published
    sizes), or the mean spread of its tensor where that is larger: the root mean square of what it moves by when every input, parameter, layer value and
    cotangent is off by one rounding, in eight draws of signs, 16 where a tensor has more than 4,096 elements. A tensor that does not move must be exact, but for a gradient
    beside others of the same layer that do: the bias of attention's keys has a gradient of 0, as a sum that cancels. Where the
    truth is NaN the answer must be, and nowhere else. In 16 bits, of which rounding decides more than one number in a thousand, there are
    more draws where it may decide which element of a pool is the largest, and one evaluation is rounded to nearest.

    Raises Unsupported where probabilities round to 1 in the format and gradients of their logarithms are asked for.
    """
    fmt = DTYPES[dtype]
    vectors = [
        _vector(model, aspect, dtype, question, constants=constants)
        for question in questions_of(model, aspect, fmt, constants=constants)
        if not regimes or question.regime in regimes
    ]
    present = [vector for vector in vectors if vector is not None]
    if not present:
        raise Unsupported(
            f"a probability rounds to 1 in {dtype}: what its {model.layers[-1].kind} clips it to is no number of the format"
        )
    return TestVectors(Tolerance(fmt=fmt, limit=1.0, exact=False, unary=False), present)


def statistics_vectors(model: Model, dtype: str) -> tuple[TestVectors, TestVectors]:
    """Return what the running statistics are after the ordinary question, regime "statistics", of biased variances and of unbiased ones.

    Each has one test vector, whose truth is named as the parameters are: "LAYER.mean", "LAYER.variance". Limits are those of `generate_model`.
    """
    storage, question = STORAGE[dtype], ModelQuestion(REGIME, model.batch)
    stored = {name: array.astype(storage) for name, array in draw_question(model, question).items()}
    truth = evaluate_model(model, STATISTICS, stored)
    bounds = _bounds(model, STATISTICS, stored, dtype, question, truth)

    def of(variance: str) -> TestVectors:
        keys = {
            name.replace(f".{variance}", ".variance"): name
            for name in truth
            if name.endswith((".mean", f".{variance}"))
        }
        expected = {name: truth[key] for name, key in keys.items()}
        vector = TestVector(
            regime=STATISTICS,
            inputs=stored,
            cotangents=None,
            truth=expected,
            input_at=expected,
            dtypes=dict.fromkeys(expected, storage),
            bounds={name: bounds[key] for name, key in keys.items()},
        )
        return TestVectors(Tolerance(fmt=DTYPES[dtype], limit=1.0, exact=False, unary=False), [vector])

    return of("variance"), of("unbiased")


def _vector(model: Model, aspect: Aspect, dtype: str, question: ModelQuestion, *, constants: bool) -> TestVector | None:
    """Return the test vector of a question; None for gradients of the logarithm of a probability that rounds to 1."""
    storage = STORAGE[dtype]
    stored = {name: array.astype(storage) for name, array in draw_question(model, question).items()}
    cotangent = np.asarray(question.cotangent, storage)
    if _rounds_to_1(model, stored, DTYPES[dtype]):
        if aspect == "gradient":
            return None
        question = question._replace(loss_judged=False)
    truth = _of_aspect(model, aspect, evaluate_model(model, aspect, stored), constants=constants)
    bounds = _bounds(model, aspect, stored, dtype, question, truth)
    if aspect == "gradient":
        truth = {name: array * float(cotangent) for name, array in truth.items()}
        bounds = {name: array * abs(float(cotangent)) for name, array in bounds.items()}
    input_names = [model_input.name for model_input in model.inputs if not constants or model_input.role != "target"]
    input_names += [parameter.name for parameter in model.parameters if not constants]
    return TestVector(
        regime=question.regime,
        inputs={name: stored[name] for name in input_names},
        cotangents={LOSS: cotangent} if aspect == "gradient" else None,
        truth=truth,
        input_at=truth,
        dtypes=dict.fromkeys(truth, storage),
        bounds=bounds,
    )


def _bounds(
    model: Model, aspect: Computed, tensors: Bundle, dtype: str, question: ModelQuestion, truth: Mapping[str, F64]
) -> dict[str, F64]:
    """Return the allowed error of every element of `truth`, 0 where that is not finite, infinity for a loss that is not judged."""
    fmt = DTYPES[dtype]
    runs = MANY_RUNS if max(array.size for array in truth.values()) > MANY else RUNS
    if fmt.bits == 16 and aspect == "gradient" and _has_pool(model):
        runs = POOL_RUNS
    moved = [
        perturbed(model, aspect, tensors, fmt.unit_roundoff, run, exact_inputs=question.integers) for run in range(runs)
    ]
    if fmt.bits == 16:
        moved.append(evaluate_model(model, aspect, tensors, lambda _: lambda _, array: round_to(array, fmt)))
    moved = [{name: run[_key(model, name)] for name in truth} for run in moved]
    bounds = spread_limit(truth, moved, model_limit(model), fmt)
    if not question.loss_judged and LOSS in bounds:
        bounds[LOSS] = np.full((), np.inf)
    return bounds


def model_limit(model: Model) -> float:
    """Return the limit of a model's tensors, in spreads."""
    return PUBLISHED_LIMIT if PUBLISHED in model.name else LIMIT


def spread_limit(
    truth: Mapping[str, F64], moved: Sequence[Mapping[str, F64]], limit: float, fmt: FloatFormat
) -> dict[str, F64]:
    """Return `limit` times the spread of every element of `truth` over evaluations that rounding moved, as `generate_model` tells it."""
    with np.errstate(invalid="ignore"):
        spreads = {
            name: np.where(
                np.isfinite(array), np.sqrt(np.mean([(run[name] - array) ** 2 for run in moved], axis=0)), 0.0
            )
            for name, array in truth.items()
        }
    least = _lost(fmt)
    errors = {name: np.maximum(spread, _typical(name, spreads)) for name, spread in spreads.items()}
    return {name: limit * np.where(error > 0.0, np.maximum(error, least), 0.0) for name, error in errors.items()}


def _has_pool(model: Model) -> bool:
    return any(layer.kind == "max-pool" for layer in model.layers)


def _rounds_to_1(model: Model, tensors: Bundle, fmt: FloatFormat) -> bool:
    """Tell whether the loss takes the logarithm of a probability nearer to 1 than the format can tell."""
    if model.layers[-1].kind not in CLIPPED or fmt.bits > 16:
        return False
    probability = values(model, tensors)[model.layers[-1].inputs[0]]
    return bool((1.0 - probability < fmt.unit_roundoff).any())


def _lost(fmt: FloatFormat) -> float:
    """Return what is lost of a number that is too small for the format."""
    return fmt.smallest_normal if flushes(fmt) else fmt.smallest_subnormal


def evaluate_model(
    model: Model, aspect: Computed, tensors: Bundle, touch: Callable[[str], Touch] = lambda _: lambda _, array: array
) -> dict[str, F64]:
    """Return the float64 values of all layers as "layer.NAME", the gradients of the loss as "d_NAME", or the running statistics.

    `touch("value")`, `touch("cotangent")`, `touch("gradient")` and `touch("statistics")` change what is computed.
    """
    layers = values(model, tensors, touch("value"))
    if aspect == "value":
        return {LAYER + name: np.asarray(value, np.float64) for name, value in layers.items()}
    if aspect == STATISTICS:
        return {name: touch(STATISTICS)(name, array) for name, array in statistics(model, tensors, layers).items()}
    d_tensors = gradients(model, tensors, layers, touch("cotangent"))
    return {f"d_{name}": touch("gradient")(name, value) for name, value in d_tensors.items()}


def perturbed(
    model: Model, aspect: Computed, tensors: Bundle, unit: float, run: int, *, exact_inputs: bool = False
) -> dict[str, F64]:
    """Return the truths of an aspect with every number off by `unit` of itself, up or down, as the run's signs say; targets and noise stay.

    With `exact_inputs` inputs stay too, and what layers make of them that only move numbers.
    """
    return evaluate_model(model, aspect, *touched_by_rounding(model, tensors, unit, run, exact_inputs=exact_inputs))


def touched_by_rounding(
    model: Model, tensors: Bundle, unit: float, run: int, *, exact_inputs: bool = False
) -> tuple[dict[str, F64], Callable[[str], Touch]]:
    """Return the tensors that `perturbed` evaluates, and what it does to all that is computed of them."""
    exact = _moved_alone(model) if exact_inputs else set()

    def touch(of: str) -> Touch:
        def off(name: str, array: F64) -> F64:
            if of == "value" and name in exact:
                return array
            return array * (1.0 + unit * signs(f"{model.name}/{of}/{name}/{run}", array.shape))

        return off

    moving = {parameter.name for parameter in model.parameters}
    moving |= {one.name for one in model.inputs if one.role == "data" and one.name not in exact}
    moved = {
        name: touch("tensor")(name, np.asarray(array, np.float64)) if name in moving else array
        for name, array in tensors.items()
    }
    return moved, touch


def _moved_alone(model: Model) -> set[str]:
    """Return the names of inputs, and of the layers that give numbers of theirs as they are."""
    names = {model_input.name for model_input in model.inputs}
    for layer in model.layers:
        if layer.kind in MOVING and names.issuperset(layer.inputs):
            names.add(layer.name)
    return names


def _typical(name: str, spreads: Mapping[str, F64]) -> float:
    mean_spread = float(spreads[name].mean())
    layer, _, parameter = name.rpartition(".")
    if mean_spread or not layer or not parameter:
        return mean_spread
    return float(np.mean([spread.mean() for neighbour, spread in spreads.items() if neighbour.startswith(f"{layer}.")]))


@lru_cache(maxsize=1 << 13)  # the aspects and dtypes of a model, drawn one after another, have them in common
def signs(stream: str, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Return 1 or -1 for each element, drawn from a named stream."""
    words = raw(stream, max(int(np.prod(shape)), 1)) >> np.uint64(63)
    return (words.astype(np.int8) * np.int8(2) - np.int8(1)).reshape(shape)


def _of_aspect(model: Model, aspect: Aspect, tensors: Mapping[str, F64], *, constants: bool) -> dict[str, F64]:
    if aspect == "gradient":
        return dict(tensors)
    outputs = [OUTPUT] if constants else [OUTPUT, LOSS]
    return {name: tensors[_key(model, name)] for name in outputs}


def _key(model: Model, name: str) -> str:
    """Return what `evaluate_model` calls an output."""
    return {OUTPUT: LAYER + model.output, LOSS: LAYER + LOSS}.get(name, name)
