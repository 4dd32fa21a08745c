"""A case of an operator suite, and those that the installed onnx package has."""

from __future__ import annotations

import math
import re
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from actconform.errors import UsageError, near
from actconform.files import read_bytes
from actconform.onnx.evaluate.node_label import STANDARD
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from onnx.backend.test.case.test_case import TestCase

    from actconform.workers.graph_session import OnnxValue

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
LEFT_OUT = "real"  # a kind whose models must be downloaded
EXPANDED = re.compile(r"_expanded(_ver\d+)?$")
SEVERAL = "several operators"


class CaseData(NamedTuple):
    """Inputs of a case by name, and the outputs that it ships, in the order of the graph's; None where it ships none."""

    inputs: Mapping[str, OnnxValue]
    expected: Sequence[OnnxValue] | None


class SuiteCase(NamedTuple):
    """A graph with inputs. `rtol` and `atol` are its own limits, as numpy.isclose takes them."""

    name: str
    kind: str
    """Where it comes from: one of KINDS, or another suite."""
    operator: str
    """What it tests, "DOMAIN.NAME" outside the standard's domain; "NAME (expanded)" where it is written out in others."""
    operators: tuple[str, ...]
    """All that stand in the graph."""
    opset: int
    """Of the standard's domain, 0 where the graph has none."""
    model: bytes
    outputs: tuple[str, ...]
    data_sets: Sequence[CaseData]
    rtol: float = 1e-3
    atol: float = 1e-7


def standard_cases(patterns: Sequence[str] = (), kinds: Sequence[str] = KINDS) -> list[SuiteCase]:
    """Return the cases of the installed onnx package whose operator matches one of the globs; all where there are none.

    A glob is matched with the operator that a case tests, and with each that stands in a graph of several. Those of one kind have
    unlike names. The inputs are made anew: this takes seconds. Raises UsageError where a glob matches nothing.
    """
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow while test data are made
        tests = [test for kind in kinds for test in load_model_tests(kind=kind)]
    tested = {test.name: test.model for test in tests if test.kind == "node"}
    cases = [_suite_case(test, tested) for test in tests]
    chosen = [case for case in cases if not patterns or any(_matches(case, pattern) for pattern in patterns)]
    for pattern in patterns:
        if not any(_matches(case, pattern) for case in chosen):
            names = sorted({name for case in cases for name in (*case.operators, case.operator)} - {SEVERAL})
            raise UsageError(f"--op {one_line(pattern)}: no case has such an operator{near(pattern, names)}")
    return chosen


def model_case(
    name: str, kind: str, model: onnx.ModelProto, read: Callable[[onnx.ModelProto], Sequence[CaseData]]
) -> SuiteCase:
    """Return a case of a graph with the data sets that `read` gives for it; of one node it tests the operator of that."""
    operators = tuple(sorted({operator_name(node) for node in model.graph.node}))
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)
    return SuiteCase(
        name=name,
        kind=kind,
        operator=operators[0] if len(model.graph.node) == 1 else SEVERAL,
        operators=operators,
        opset=opset,
        model=model.SerializeToString(),
        outputs=tuple(value.name for value in model.graph.output),
        data_sets=read(model),
    )


def operator_name(node: onnx.NodeProto) -> str:
    """Return the name of a node's operator, "DOMAIN.NAME" outside the standard's domain."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def input_names(model: onnx.ModelProto) -> list[str]:
    """Return the inputs of a graph that no initializer gives, in order."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in initialized]


def _suite_case(test: TestCase, tested: Mapping[str, onnx.ModelProto | None]) -> SuiteCase:
    if test.model_dir is None:
        if test.model is None or test.data_sets is None:
            raise UsageError(
                f"the installed onnx package has a case without a graph, {one_line(test.name)}: reinstall it"
            )
        case = model_case(test.name, test.kind, test.model, lambda model: _made_sets(test, model))
    else:
        folder = Path(test.model_dir)
        model = onnx.load_model_from_string(read_bytes(folder / "model.onnx"))
        case = model_case(test.name, test.kind, model, lambda model: list(_stored_sets(folder, model)))
    case = case._replace(rtol=float(test.rtol), atol=float(test.atol))
    whole = tested.get(EXPANDED.sub("", test.name)) if EXPANDED.search(test.name) else None
    if whole is not None and len(whole.graph.node) == 1:
        return case._replace(operator=f"{operator_name(whole.graph.node[0])} (expanded)")
    return case


def _made_sets(test: TestCase, model: onnx.ModelProto) -> list[CaseData]:
    names = input_names(model)
    return [
        CaseData(dict(zip(names, map(_value, inputs), strict=False)), list(map(_value, outputs)))
        for inputs, outputs in test.data_sets or ()
    ]


def _value(item: Any) -> OnnxValue:
    """Return what a case of the package holds as a value; NumPy's numbers stay what they are, as the standard's runner passes them on."""
    return numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def _stored_sets(folder: Path, model: onnx.ModelProto) -> Iterator[CaseData]:
    """Yield the data sets of a folder; input_N.pb and output_N.pb are the graph's Nth."""
    names = input_names(model)
    for place in sorted(folder.glob("test_data_set*")):
        inputs = _stored_values(place, "input", [value.type for value in model.graph.input])
        outputs = _stored_values(place, "output", [value.type for value in model.graph.output])
        yield CaseData(dict(zip(names, inputs, strict=False)), outputs)


def _stored_values(folder: Path, role: str, types: Sequence[onnx.TypeProto]) -> list[OnnxValue]:
    count = len(list(folder.glob(f"{role}_*.pb")))
    return [_parsed(read_bytes(folder / f"{role}_{i}.pb"), types[i]) for i in range(count)]


def _parsed(content: bytes, declared: onnx.TypeProto) -> OnnxValue:
    if declared.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(content))
    if declared.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(content))
    return numpy_helper.to_array(onnx.TensorProto.FromString(content))


def _matches(case: SuiteCase, pattern: str) -> bool:
    tested = case.operator.removesuffix(" (expanded)")
    names = case.operators if tested == SEVERAL else (tested, case.operator)
    return any(fnmatchcase(name, pattern) for name in names)


def elements(value: OnnxValue) -> int:
    """Return how many numbers a value has, 0 for None."""
    if isinstance(value, list | tuple):
        return sum(map(elements, value))
    return 0 if value is None else math.prod(np.shape(value))
