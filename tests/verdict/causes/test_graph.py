"""A graph as its own formula: every authored graph, evaluated by onnx's reference in float32, is admitted; other functions are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from actconform.catalog.kernels import ROWS, UNARY
from actconform.errors import Unsupported
from actconform.onnx.author.exporter import author
from actconform.onnx.evaluate.reference import reference
from actconform.onnx.gradient_artifact import vjp_artifact
from actconform.oracle import truth
from actconform.testdata.regimes import SPECIALS, normal, uniform
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.arithmetic import Arithmetic, admits
from actconform.verdict.causes.evaluation import exactly
from actconform.verdict.causes.graph import GraphFormula

NUMPY = dict.fromkeys(("exp", "log", "tanh", "erf", "sigmoid", "softplus", "sqrt", "expm1"), (4.0, 0.0))
F32, F16 = (Arithmetic(DTYPES[dtype], accuracy=NUMPY) for dtype in ("f32", "f16"))
X = np.concatenate([normal("graph", 200, 3.0), uniform("graph", 100, -55, 55), SPECIALS[~np.isnan(SPECIALS)]])
REFERENCE = {
    "Celu": "maximum(x, 0) + minimum(alpha * expm1(x / alpha), 0)",
    "HardSwish": "x * clip(x * 0.16666667163372 + 0.5, 0, 1)",
    "Selu": "gamma * where(x > 0, x, alpha * expm1(x))",
}
# onnx's reference sums and skips NaN in its own ways there, and TopK orders otherwise
NOT_COMPARED = ("sparsemax", "hardmax", "argmax", "max", "maxout")


def tensors(kernel: Any, *, gradient: bool) -> dict[str, Any]:
    ordinary = X[np.isfinite(X)]
    x = X if kernel.form == "unary" else ordinary[:288].reshape((2, 3, 48) if kernel.axis == 1 else (6, 48))
    given = {"x": x, "slope": np.linspace(-0.5, 0.5, 48, dtype=np.float32)}
    inputs = {name: given[name] for name in kernel.inputs}
    if gradient:
        half = kernel.name in ("glu", "reglu", "swiglu", "geglu")
        y = x[..., : x.shape[-1] // 2] if half else x
        inputs["ct_y"] = np.where(np.arange(y.size).reshape(y.shape) % 3, np.float32(1), np.float32(-2))
    return inputs


def quiet(compute: Any) -> Any:
    with np.errstate(all="ignore"):
        return compute()


@pytest.mark.parametrize("aspect", ["value", "gradient"])
@pytest.mark.parametrize("kernel", [k for k in UNARY + ROWS if k.name not in NOT_COMPARED], ids=lambda k: k.name)
def test_what_the_reference_gives_in_float32_is_admitted_by_the_graph(kernel: Any, aspect: str) -> None:
    artifact = author(kernel, "f32")
    if aspect == "gradient":
        artifact = vjp_artifact(artifact, kernel)
    inputs = tensors(kernel, gradient=aspect == "gradient")
    got = quiet(lambda: reference(artifact.model)(inputs))
    numbers = quiet(lambda: GraphFormula(artifact.model, REFERENCE).evaluate(inputs, F32))
    assert numbers.keys() == got.keys()
    for name, number in numbers.items():
        answer = np.asarray(got[name], np.float64)
        value = number.moved(lambda a, shape=answer.shape: np.broadcast_to(a, shape))
        at = np.argwhere(~admits(value, answer, zero_sign=False))
        assert not at.size, (name, at[0], answer[tuple(at[0])], value.value[tuple(at[0])], value.error[tuple(at[0])])


@pytest.mark.parametrize("name", ["sigmoid", "gelu-erf", "mish", "elu", "softplus", "hard-swish", "squareplus"])
def test_in_exact_arithmetic_the_graph_is_the_definition(name: str) -> None:
    kernel = next(kernel for kernel in UNARY if kernel.name == name)
    x = X[np.abs(X) < 20]
    numbers = quiet(lambda: GraphFormula(author(kernel, "f32").model, {}).evaluate({"x": x}, exactly(F32)))
    wanted = truth(kernel, {"x": x.astype(np.float64)}, None)["y"]
    slack = numbers["y"].error + 3e-8 * np.abs(wanted) + 1e-300  # attributes such as 1/6 are float32 numbers
    assert (np.abs(numbers["y"].value - wanted) <= slack + 3e-8 * (name == "hard-swish") * np.abs(x)).all()


def graph(
    nodes: list[Any], ends: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT), constants: Any = ()
) -> bytes:
    values = [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in zip("xy", ends, strict=True)]
    made = helper.make_graph(nodes, "g", values[:1], values[1:], list(constants))
    model: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return model


def node(op: str, inputs: str = "x", output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def test_another_function_is_not_admitted() -> None:
    x = np.float32([-2.0, -0.5, 1.0, 3.0])
    tanh = GraphFormula(graph([node("Gelu", approximate="tanh")]), {}).evaluate({"x": x}, F32)["y"]
    erf = GraphFormula(graph([node("Gelu")]), {}).evaluate({"x": x}, F32)["y"]
    assert not admits(tanh, erf.value, zero_sign=True).any()


def test_a_library_states_its_own_formula_of_an_operator() -> None:
    x = np.float32([1e-3])
    usual = GraphFormula(graph([node("Elu")]), {}).evaluate({"x": -x}, F32)["y"]
    better = GraphFormula(graph([node("Elu")]), {"Elu": "where(x > 0, x, alpha * expm1(x))"}).evaluate({"x": -x}, F32)[
        "y"
    ]
    assert better.error[0] < usual.error[0] / 10


def test_a_16_bit_graph_rounds_each_node_or_in_float32_to_its_end() -> None:
    model = graph([node("Mul", "x x", "a"), node("Mul", "a x", "b"), node("Mul", "b x")], (TensorProto.FLOAT16,) * 2)
    x = np.float16([1.001])
    each = GraphFormula(model, {}).evaluate({"x": x}, F16)["y"]
    wide = GraphFormula(model, {}).evaluate({"x": x}, F16, wide=True)["y"]
    assert each.error[0] > 2 * wide.error[0] > 0
    assert admits(wide, np.float64(np.float16(np.float32(x) ** 4)), zero_sign=True).all()


def test_moves_comparisons_choices_casts_and_counts_pass_values_and_errors_on() -> None:
    nodes = [
        node("Exp", "x", "e"),
        node("Greater", "e one", "c"),
        node("Not", "c", "d"),
        node("Cast", "d", "f", to=TensorProto.FLOAT),
        node("Shape", "x", "s"),
        node("Expand", "half s", "h"),
        node("Where", "c e h", "w"),
        node("Add", "w f"),
    ]
    constants = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
    ]
    number = GraphFormula(graph(nodes, constants=constants), {}).evaluate({"x": np.float32([1.0, -1.0])}, F32)["y"]
    np.testing.assert_allclose(number.value, [np.e, 1.5])
    assert number.error[0] > 0
    assert number.error[1] == 0


def test_an_operator_without_a_formula_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="the operator Sin has no formula"):
        GraphFormula(graph([node("Exp", "x", "e"), node("Sin", "e")]), {}).evaluate({"x": np.float32([1.0])}, F32)


def test_functions_of_a_graph_are_inlined() -> None:
    body = helper.make_function("mine", "Twice", ["x"], ["y"], [node("Add", "x x")], [helper.make_opsetid("", 20)])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    call = helper.make_node("Twice", ["x"], ["y"], domain="mine")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    model = helper.make_model(
        helper.make_graph([call], "g", values[:1], values[1:]), functions=[body], opset_imports=opsets
    )
    assert onnx.checker.check_model(model) is None
    number = GraphFormula(model.SerializeToString(), {}).evaluate({"x": np.float32([1.5])}, F32)["y"]
    assert (number.value[0], number.error[0]) == (3.0, 0.0)
