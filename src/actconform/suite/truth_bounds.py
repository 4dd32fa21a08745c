"""Outputs of a small graph against the graph in float64, element by element, within what rounding may do at these inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx

from actconform.checking.flatten import FlatGraph, flatten, wide
from actconform.checking.judge import Judge, against_bound, with_exact_specials
from actconform.onnx.evaluate.element_types import FORMATS, STORAGE
from actconform.onnx.evaluate.error_bounds import Approximation
from actconform.suite.suite_result import BoundVerdict, FarthestElement
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actconform.checking.flatten import Array
    from actconform.suite.case import SuiteCase
    from actconform.workers.graph_session import OnnxValue

# Their bounds go by what a run shows of their other outputs or elements.
BY_ANSWER = frozenset(("RNN", "GRU", "LSTM", "DynamicQuantizeLinear", "NonMaxSuppression", "DynamicQuantizeLSTM"))
# They give the numbers that they read, with their signs.
KEEPS_SIGN = frozenset(
    """
    Abs Compress Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Neg Reshape ReverseSequence Slice
    SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Where
    """.split()  # noqa: SIM905  a list to read
)
MOST_WORDS = 300


class CaseTruth:
    """The truth of a case for all its data sets, worked out once for all that is held against it.

    What cannot be judged (an operator without a rule, strings, sequences, random numbers) has a reason instead.
    """

    def __init__(self, case: SuiteCase) -> None:
        model = onnx.load_model_from_string(case.model)
        self._case = case
        self._sets = [_set_truth(model, data_set.inputs) for data_set in case.data_sets]

    def verdict(self, answers: Sequence[Mapping[str, OnnxValue]]) -> BoundVerdict:
        """Return how outputs by name, for each data set, stand to the truth."""
        worst: FarthestElement | None = None
        reasons: list[str] = []
        for number, (truth, outputs) in enumerate(zip(self._sets, answers, strict=True)):
            for element in self._elements(truth, outputs, number, reasons):
                if worst is None or element.ratio > worst.ratio:
                    worst = element
        if worst is not None and worst.ratio > 1.0:
            return BoundVerdict(state="outside", worst=worst)
        if reasons or worst is None:
            words = reasons[0] if reasons else "it has no data"
            return BoundVerdict(state="not judged", reason=one_line(words, MOST_WORDS), worst=worst)
        return BoundVerdict(state="within", worst=worst)

    def _elements(
        self, truth: _SetTruth, outputs: Mapping[str, OnnxValue], number: int, reasons: list[str]
    ) -> list[FarthestElement]:
        """Return the worst element of each output that can be judged; add to `reasons` why another cannot."""
        names = self._case.outputs
        if missing := [name for name in names if name not in outputs]:
            words = f"{', '.join(missing)}: no such output was given"
            return [
                FarthestElement(
                    output=missing[0], data_set=number, difference="number of outputs", ratio=np.inf, words=words
                )
            ]
        if truth.graph is None:
            reasons.append(truth.reason)
            return []
        expected = truth.expected if truth.expected is not None else _expected(truth.graph, truth.inputs, outputs)
        elements = []
        for name in names:
            element = _worst_element(truth.graph, name, outputs[name], expected.get(name), number)
            if isinstance(element, str):
                reasons.append(element)
            else:
                elements.append(element)
        return elements


class _SetTruth(NamedTuple):
    """The graph as one data set runs it, and what its outputs must be; None where that goes by the answer."""

    inputs: Mapping[str, Array]
    graph: FlatGraph | None
    reason: str = ""
    expected: Mapping[str, Approximation | str] | None = None


def _set_truth(model: onnx.ModelProto, inputs: Mapping[str, OnnxValue]) -> _SetTruth:
    arrays: dict[str, Array] = {}
    for name, value in inputs.items():
        if not isinstance(value, np.ndarray | np.generic) or np.asarray(value).dtype.kind in "OUS":
            return _SetTruth({}, None, f"its input {name} is {_kind(value)}, which is not evaluated here")
        arrays[name] = np.asarray(value)
    if not all(value.type.HasField("tensor_type") for value in model.graph.output):
        return _SetTruth({}, None, "it gives a sequence, an optional or a map, which is not evaluated here")
    try:
        graph = flatten(model, arrays)
    except Exception as error:  # noqa: BLE001  a graph of the standard that cannot be evaluated is not judged
        return _SetTruth({}, None, f"it cannot be evaluated here: {error}")
    if BY_ANSWER.isdisjoint(node.proto.op_type for node in graph.nodes):
        return _SetTruth(arrays, graph, expected=_expected(graph, arrays, {}))
    return _SetTruth(arrays, graph)


def _expected(
    graph: FlatGraph, inputs: Mapping[str, Array], answer: Mapping[str, OnnxValue]
) -> dict[str, Approximation | str]:
    """Return what each output must be, with its bound, or why that is not known; `answer` has outputs that a run showed."""
    shown = {name: value for name, value in answer.items() if isinstance(value, np.ndarray)}
    judge = Judge(graph, inputs, shown, doubt=False)
    with np.errstate(all="ignore"):
        list(judge.take(shown))
    reasons = {each.node: each.reason for each in judge.unjudged}
    sources = {*graph.inputs, *graph.constants}
    expected: dict[str, Approximation | str] = {
        name: Approximation(wide(graph.constants[name])) for name in graph.outputs if name in graph.constants
    }
    for node in graph.nodes:
        for name in node.outputs:
            if name not in graph.outputs:
                continue
            if name not in judge.expected:
                expected[name] = reasons.get(node.name, graph.unknown.get(name, f"no rule for {node.proto.op_type}"))
            elif sources.issuperset(node.inputs):
                expected[name] = with_exact_specials(judge.expected[name], ())
            else:
                expected[name] = judge.expected[name]
    return expected


def _worst_element(
    graph: FlatGraph, name: str, value: OnnxValue, expected: Approximation | str | None, number: int
) -> FarthestElement | str:
    """Return the element of an output that is farthest off, or why it is not judged."""
    element_type = graph.types.get(name, 0)
    declared = STORAGE.get(element_type)
    if expected is None or isinstance(expected, str) or declared is None:
        return expected if isinstance(expected, str) else f"what {name} must be is not known"
    wanted = np.asarray(expected.value)
    for difference, got, due in _structure(value, declared, wanted):
        if got != due:
            return FarthestElement(
                output=name, data_set=number, difference=difference, ratio=np.inf, words=f"{got} where {due} must be"
            )
    numbers = np.asarray(wide(np.asarray(value)))
    if numbers.size == 0:
        return FarthestElement(output=name, data_set=number, difference="", ratio=0.0)
    compared = against_bound(numbers, wanted, expected.error, FORMATS.get(element_type))
    if np.isposinf(compared.allowed).all():
        return f"rounding may make anything of {name} at these inputs"
    ratio = compared.ratio
    if element_type in FORMATS and _keeps_signs(graph):
        ratio = np.where(_other_zero(numbers, wanted), np.inf, ratio)
    worst = int(np.argmax(ratio))
    off, true = float(numbers.flat[worst]), float(wanted.flat[worst])
    return FarthestElement(
        output=name,
        data_set=number,
        difference=_difference(off, true) if ratio.flat[worst] > 1.0 else "",
        ratio=float(ratio.flat[worst]),
        error=abs(off - true),
        bound=float(compared.allowed.flat[worst]),
        place=tuple(int(i) for i in np.unravel_index(worst, numbers.shape)),
        got=off,
        wanted=true,
    )


def _structure(value: OnnxValue, declared: np.dtype[Any], wanted: Array) -> Iterator[tuple[str, object, object]]:
    """Yield what an output is beside its numbers, each time with what it must be."""
    yield "type", _kind(value), "a tensor"
    yield "dtype", np.asarray(value).dtype, declared
    yield "shape", np.shape(value), wanted.shape


def _keeps_signs(graph: FlatGraph) -> bool:
    return all(node.proto.op_type in KEEPS_SIGN for node in graph.nodes)


def _other_zero(got: Array, wanted: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray((got == 0) & (wanted == 0) & (np.signbit(got) != np.signbit(wanted)))


def _difference(got: float, wanted: float) -> str:
    if np.isnan(got) or np.isnan(wanted):
        return "NaN made" if np.isnan(got) else "NaN lost"
    if np.isinf(got) or np.isinf(wanted):
        return "infinity"
    return "zero sign" if got == wanted else "value"


def _kind(value: Any) -> str:
    if value is None:
        return "an optional without a value"
    if isinstance(value, list | tuple):
        return "a sequence"
    return "a tensor of strings" if np.asarray(value).dtype.kind in "OUS" else "a tensor"
