"""The evaluator on onnx's own cases of single nodes, dtypes and shapes included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from actconform import Unsupported
from actconform.onnx.evaluate.elementwise import OPERATIONS, PASSED_ON
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator
from actconform.onnx.opset_conversion import OLDEST
from tests.onnx_graphs.evaluate.node_cases import node_cases, opset_of
from tests.onnx_graphs.old_opsets import sweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

# strings, images, random numbers, optional values
UNSUPPORTED = {
    "Bernoulli", "ImageDecoder", "OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "StringConcat", "StringNormalizer",
    "StringSplit",
}  # fmt: skip
OTHERWISE = {
    "test_equal_string": "strings",
    "test_equal_string_broadcast": "strings",
    "test_training_dropout": "random numbers",
    "test_training_dropout_default": "random numbers",
    "test_training_dropout_default_mask": "random numbers",
    "test_training_dropout_mask": "random numbers",
    # the expected values take the length of the result to be 2.4, the standard's text that of the tensor
    "test_resize_downsample_scales_linear_align_corners": "length of the result",
    "test_resize_downsample_scales_cubic_align_corners": "length of the result",
}
FOUR_DIGITS = 1e-4  # of expected values that are written out in some cases
LEVELS = {"DynamicQuantizeLinear": 1}  # its case has a tie: 0.5 / (5 / 255)


def array_of(value: Any) -> NDArray[Any]:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def wide(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.dtype.kind == "b" else array.astype(np.float64)


def cases() -> dict[str, Any]:
    expected = [case for case in node_cases() if case.name not in OTHERWISE]
    for case in expected:
        if opset_of(case.model) < OLDEST:
            case.model.opset_import[0].version = OLDEST
    return {case.name: case for case in expected if case.model.graph.node[0].op_type not in UNSUPPORTED}


def test_a_node_gives_what_its_case_expects() -> None:
    wrong = {}
    for name, case in cases().items():
        names = [value.name for value in case.model.graph.input]
        for inputs, expected in case.data_sets:
            arrays = dict(zip(names, map(array_of, inputs), strict=True))
            outputs = CorrectlyRoundedEvaluator(case.model.SerializeToString()).forward(arrays)
            try:
                for ours, theirs in zip(outputs.values(), map(array_of, expected), strict=True):
                    expect_near(ours, theirs, LEVELS.get(case.model.graph.node[0].op_type, 0))
            except AssertionError as error:
                wrong[name] = str(error)
    assert not wrong
    assert len(cases()) > 1000


def expect_near(ours: NDArray[Any], theirs: NDArray[Any], levels: int) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if theirs.dtype.kind in "iu":
        np.testing.assert_allclose(wide(ours), wide(theirs), rtol=0, atol=levels)
        return
    relative = 1e-2 if theirs.dtype.itemsize == 2 and theirs.dtype.kind != "b" else 1e-5
    np.testing.assert_allclose(wide(ours), wide(theirs), rtol=relative, atol=FOUR_DIGITS)


def test_what_is_unsupported_is_said_to_be() -> None:
    for case in node_cases():
        if case.model.graph.node[0].op_type in UNSUPPORTED:
            with pytest.raises(Unsupported):
                CorrectlyRoundedEvaluator(case.model.SerializeToString())


def test_every_operator_of_the_standard_is_known_and_evaluated_here_or_in_an_older_opset() -> None:
    evaluated = {case.model.graph.node[0].op_type for case in cases().values()}
    evaluated |= {graph.use.op_type for graph in sweep()}
    assert (OPERATIONS.keys() | PASSED_ON) - evaluated <= {
        "MaxRoiPool",
        "GlobalLpPool",
    }  # see test_layers, test_regions
