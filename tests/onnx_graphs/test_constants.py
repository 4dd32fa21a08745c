"""The one place where numbers become tensors: what an element type cannot hold is an error, and nothing else makes tensors."""

from __future__ import annotations

import ast
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

import actconform.onnx
from actconform.errors import NotRepresentableError
from actconform.onnx.constants import constant_tensor, is_representable, operator_node
from actconform.onnx.nodes import Nodes

HALF, BRAIN, SINGLE, DOUBLE = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE

SOURCES = sorted(Path(actconform.onnx.__file__).parent.rglob("*.py"))
MAKERS = {"from_array", "make_tensor", "make_node"}


@pytest.mark.parametrize(
    ("value", "element_type"),
    [
        (65_520, HALF),
        (-1e5, HALF),
        (1e-12, HALF),
        (1e-7, HALF),  # a subnormal number, 19 % off
        (1e39, BRAIN),
        (1e-45, BRAIN),
        (1e39, SINGLE),
        (1e-50, SINGLE),
        (2**31, TensorProto.INT32),
        (np.array([1.0, 70_000.0]), HALF),
    ],
)
def test_what_does_not_fit_is_an_error(value: float, element_type: int) -> None:
    assert not is_representable(value, element_type)
    with pytest.raises(NotRepresentableError, match=r"does not fit .*: compute in a wider type"):
        constant_tensor(value, element_type, "c")


@pytest.mark.parametrize(
    ("value", "element_type", "held"),
    [
        (0.1, HALF, np.float16(0.1)),
        (65_519, HALF, np.float16(65_504)),
        (2.0**-24, HALF, np.float16(2.0**-24)),  # subnormal, but itself
        (-0.0, HALF, np.float16(-0.0)),
        (np.inf, HALF, np.float16(np.inf)),
        (np.nan, BRAIN, ml_dtypes.bfloat16(np.nan)),
        (1 + 2.0**-8 + 2.0**-40, BRAIN, ml_dtypes.bfloat16(1 + 2.0**-7)),  # rounded once, not by way of float32
        (1e39, DOUBLE, np.float64(1e39)),
        (-3, TensorProto.INT64, np.int64(-3)),
    ],
)
def test_what_fits_is_rounded_once(value: float, element_type: int, held: np.generic) -> None:
    array = numpy_helper.to_array(constant_tensor(value, element_type, "c"))
    assert array.shape == ()
    assert array.dtype == held.dtype
    assert array.tobytes() == held.tobytes()


def test_attributes_are_float32() -> None:
    assert operator_node("Elu", ["x"], ["y"], "n", alpha=0.1).attribute[0].f == np.float32(0.1)
    with pytest.raises(NotRepresentableError, match=r"alpha = 1e\+39 of operator Elu does not fit FLOAT"):
        operator_node("Elu", ["x"], ["y"], "n", alpha=1e39)
    with pytest.raises(NotRepresentableError, match="scales"):
        operator_node("Upsample", ["x"], ["y"], "n", scales=[1.0, 1e-60])


def test_an_authored_graph_cannot_have_a_number_that_its_dtype_lacks() -> None:
    with pytest.raises(NotRepresentableError):
        Nodes("f16").scalar(1e-12)
    assert Nodes("bf16").scalar(1e-12) == "constant_0"


OWN_WAY = ("constants.py", "widen.py")  # the latter is copied into programs that stand alone


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name not in OWN_WAY], ids=lambda path: path.name)
def test_nothing_else_makes_tensors_or_nodes_with_numbers(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    makers = [call for call in calls if call.func.attr in MAKERS]  # type: ignore[attr-defined]
    known = {"prefix", "name", "domain", "to", "value"}  # no number, but a type or a tensor
    assert [ast.unparse(call) for call in makers if call.func.attr != "make_node"] == []  # type: ignore[attr-defined]
    for call in makers:
        assert not {keyword.arg for keyword in call.keywords} - known, ast.unparse(call)
