"""The verdict on one answer of a runtime: held against the operator's true values and its error bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
from onnx import numpy_helper

from actconform.checking.flatten import wide
from actconform.checking.judge import with_exact_specials
from actconform.checking.part import Accepted, accepted_within
from actconform.errors import Unsupported
from actconform.onnx.evaluate.computation import computation
from actconform.onnx.evaluate.element_types import STORAGE, output_types
from actconform.onnx.evaluate.error_bounds import Approximation, bounded_outputs
from actconform.onnx.gates import standard_opset
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actconform.checking.part import PartialModel
    from actconform.checking.runs import RunFailure, RuntimeOutputs
    from actconform.suite.drawn.node import Array

Outcome: TypeAlias = Literal["within", "refused", "wrong", "failed", "crash", "timeout", "unjudged"]
FINDINGS = ("wrong", "failed", "crash", "timeout")
"""Outcomes that are findings: an error that is raised at inputs which the standard takes is one, a graph that is not taken is none."""


NOT_SUPPORTED = ("not supported", "unsupported", "not implemented", "not_implemented")


class DrawnVerdict(NamedTuple):
    """What came of one graph in one runtime."""

    outcome: Outcome
    kind: str = ""
    """Of a finding: shape, dtype, missing, value, nan-made, nan-lost, infinite, unsteady, mutated, or its outcome."""
    ratio: float = 0.0
    """The worst error over its bound, of elements within their bounds; infinite where there is none."""
    words: str = ""
    accepted: Mapping[str, Accepted] = {}


class Expected(NamedTuple):
    """What one output must be."""

    accepted: Accepted
    dtype: np.dtype[np.generic]
    bound: Array
    """The error bound of each element."""


def judged_answer(part: PartialModel, answer: RuntimeOutputs) -> DrawnVerdict:
    """Return the verdict on a runtime's answer to a graph of one node.

    NaN and infinities are compared by class, integers and booleans as they are, floats with the error bound. Elements whose bound
    is infinite are not judged: the standard leaves them open.
    """
    failure = answer.failure
    if failure is not None and (failure.kind in ("refused", "unavailable") or _refuses_late(failure)):
        return DrawnVerdict("refused", words=failure.message)
    try:
        expected = expected_outputs(part, answer.outputs)
    except (Unsupported, ValueError, ArithmeticError) as error:
        return DrawnVerdict("unjudged", words=str(error))
    accepted = {name: each.accepted for name, each in expected.items()}
    if failure is not None:
        outcome: Outcome = failure.kind if failure.kind in ("crash", "timeout") else "failed"
        return DrawnVerdict(outcome, outcome, np.inf, failure.message, accepted)
    return _of_outputs(answer, expected)._replace(accepted=accepted)


def _refuses_late(failure: RunFailure) -> bool:
    """Tell whether an error of a run says that something is not supported: a refusal, however late."""
    words = failure.message.lower()
    return failure.kind == "error" and any(each in words for each in NOT_SUPPORTED)


def _of_outputs(answer: RuntimeOutputs, expected: Mapping[str, Expected]) -> DrawnVerdict:
    """Return the verdict on outputs: of what is wrong, the first."""
    worst = 0.0
    for name, each in expected.items():
        kind, words, ratio = _compared(name, each, answer.outputs.get(name))
        if kind:
            return DrawnVerdict("wrong", kind, ratio, words)
        worst = max(worst, ratio)
    if answer.mutated:
        return DrawnVerdict("wrong", "mutated", np.inf, f"changes its input {', '.join(answer.mutated)} in place")
    if answer.unsteady:
        return DrawnVerdict("wrong", "unsteady", np.inf, f"{', '.join(answer.unsteady)} differs in a second call")
    if not any(np.isfinite(each.bound).any() or not each.bound.size for each in expected.values()):
        return DrawnVerdict("unjudged", words="the standard leaves every element open")
    return DrawnVerdict("within", ratio=worst)


def expected_outputs(part: PartialModel, observed: Mapping[str, Array]) -> dict[str, Expected]:
    """Return what each output must be; bounds of recurrent layers go by what a run `observed`.

    Raises Unsupported or ValueError where the operator is not evaluated at these inputs.
    """
    graph = part.model.graph
    (node,) = graph.node
    opset = standard_opset(part.model)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer} | dict(part.inputs)
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    types = output_types(node, opset, [kinds.get(name, 0) for name in node.input])
    inputs = [Approximation(wide(arrays[name])) if name else None for name in node.input]
    shown = [wide(observed[name]) if name in observed else None for name in node.output]
    with np.errstate(all="ignore"):
        bounded = bounded_outputs(computation(node, opset), types, inputs, shown)
    expected = {}
    for name, kind, output in zip(node.output, types, bounded, strict=False):
        exact = with_exact_specials(output, inputs)
        bound = np.broadcast_to(
            np.asarray(0.0 if exact.error is None else exact.error, np.float64), np.shape(exact.value)
        )
        expected[name] = Expected(accepted_within(np.asarray(exact.value), bound, kind), STORAGE[kind], bound)
    return expected


def _compared(name: str, expected: Expected, got: Array | None) -> tuple[str, str, float]:
    """Return the kind of what is wrong with an output, "" for nothing, with words; and the worst error over its bound."""
    truth = expected.accepted.truth
    if got is None:
        return "missing", f"gives no {name}", np.inf
    if got.shape != truth.shape:
        return "shape", f"{name} has the shape {list(got.shape)}, wanted {list(truth.shape)}", np.inf
    if got.dtype != expected.dtype:
        return "dtype", f"{name} is {got.dtype}, wanted {expected.dtype}", np.inf
    rejected = expected.accepted.rejects(got)
    value, number = wide(got).astype(np.float64), truth.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(value - number)
        ratio = np.where((error == 0) | ~np.isfinite(error) | np.isinf(expected.bound), 0.0, error / expected.bound)
    if not rejected.any():
        within = np.where(np.isfinite(ratio), np.minimum(ratio, 1.0), 0.0)
        return "", "", float(np.max(within, initial=0.0))
    kinds = {
        "value": rejected & np.isfinite(value) & np.isfinite(number),
        "nan-made": rejected & np.isnan(value),
        "infinite": rejected & (np.isinf(value) | np.isinf(number)) & ~np.isnan(number),
        "nan-lost": rejected & np.isnan(number),
    }
    kind = next(kind for kind, places in kinds.items() if places.any())
    places = kinds[kind]
    flat = int(np.argmax(np.where(places, np.nan_to_num(ratio, posinf=np.inf), -1.0)))
    place = [int(i) for i in np.unravel_index(flat, got.shape)]
    worst = float(ratio.flat[flat]) if kind == "value" else np.inf
    text = f"{name}{place} is {got.flat[flat]!s}, wanted {truth.flat[flat]!s}"
    share = f", {worst:.3g} times its bound" if np.isfinite(worst) else ""
    return kind, f"{text}{share}; {int(rejected.sum()):,} of {number_of(got.size, 'element')}", worst
