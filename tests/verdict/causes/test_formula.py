"""The language of formulas: what is one, what is refused and in which words, and what the functions give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

from actconform.errors import FormulaError
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.arithmetic import Arithmetic, Number, admits, as_read
from actconform.verdict.causes.formula import FUNCTIONS, Formula, Scope

F32 = Arithmetic(DTYPES["f32"], accuracy=dict.fromkeys(("exp", "tanh", "erf", "sigmoid", "log", "expm1"), (1.0, 0.0)))
X = np.array([-5.0, -1.0, -0.0, 0.0, 0.5, 2.0, np.inf, -np.inf, np.nan])


def value(text: str, x: Any = X, arithmetic: Arithmetic = F32, **names: float) -> Number:
    tensors = {"x": as_read(np.asarray(x, np.float64), arithmetic)}
    fixed = {name: Number(np.asarray(number), np.zeros(()), arithmetic) for name, number in names.items()}
    with np.errstate(all="ignore"):
        return Formula(text).evaluate(Scope(tensors | fixed, arithmetic, arithmetic))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x +", r"'x \+' does not parse"),
        ("", "does not parse"),
        ("sinh(x)", "'sinh' is no function of formulas: expected one of"),
        ("x ** 2", r"'x \*\* 2' is no part of a formula"),
        ("x.real", "'x.real' is no part"),
        ("[x]", "is no part"),
        ("'x'", "is no part"),
        ("True", "is no part"),
        ("lambda x: x", "does not parse|is no part"),
        ("x if x else 1", "is no part"),
        ("1 < x < 2", "is no part"),
        ("x; y", "'y' is no definition: expected NAME = EXPRESSION"),
        ("x; exp = 2", "'exp' is a function: it cannot be defined"),
        ("exp", "exp is a function"),
        ("exp(x, x)", "exp takes 1 argument, not 2"),
        ("exp(x=1)", "is no part"),
        ("__import__('os')", "'__import__' is no function"),
        ("x" + " + x" * 1000, "2000 at most"),
        ("(" * 300 + "x" + ")" * 300, "does not parse"),
    ],
)
def test_what_is_no_formula_is_refused_with_the_part(text: str, words: str) -> None:
    with pytest.raises(FormulaError, match=words):
        Formula(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x + beta", "no value for 'beta'"),
        ("where(x, 1, x)", "needs a comparison first"),
        ("mask(x)", "needs a comparison first"),
        ("exp(x > 0)", "a condition where a number is expected"),
        ("x > 0", "gives no number"),
    ],
)
def test_what_cannot_be_evaluated_says_why(text: str, words: str) -> None:
    with pytest.raises(FormulaError, match=words):
        value(text)


def test_definitions_stand_behind_and_may_use_those_after_them() -> None:
    number = value("a * b ; a = b + 1 ; b = x * 2")
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(number.value, (2 * X + 1) * (2 * X))
    assert Formula("a * b ; a = b + c ; b = x * 2").names == {"c", "x"}


def test_lambda_is_a_parameter_like_any_other() -> None:
    assert Formula("where(abs(x) > lambda, x, 0)").names == {"x", "lambda"}
    assert value("where(abs(x) > lambda, x, 0)", **{"lambda": 0.5}).value[:6].tolist() == [-5.0, -1.0, 0, 0, 0, 2.0]


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("exp(x)", np.exp),
        ("expm1(x)", np.expm1),
        ("log1p(exp(x))", lambda x: np.log1p(np.exp(x))),
        ("tanh(x)", np.tanh),
        ("erf(x)", scipy.special.erf),
        ("erfc(x)", scipy.special.erfc),
        ("sigmoid(x)", scipy.special.expit),
        ("logistic(x)", scipy.special.expit),
        ("softplus(x)", lambda x: np.logaddexp(0, x)),
        ("sqrt(abs(x))", lambda x: np.sqrt(np.abs(x))),
        ("log(abs(x))", lambda x: np.log(np.abs(x))),
        ("hypot(x, 2)", lambda x: np.hypot(x, 2)),
        ("square(x)", np.square),
        ("reciprocal(x)", np.reciprocal),
        ("sign(x)", np.sign),
        ("clip(x, -1, 1)", lambda x: np.clip(x, -1, 1)),
        ("maximum(x, 0)", lambda x: np.maximum(x, 0)),
        ("minimum(x, 0)", lambda x: np.minimum(x, 0)),
        ("fmax(x, 0)", lambda x: np.fmax(x, 0)),
        ("fmin(x, 0)", lambda x: np.fmin(x, 0)),
        ("x * mask(x > 0)", lambda x: x * (x > 0)),
        ("where((x > 0) & ~(x > 1) | (x == 2), x, 0)", lambda x: np.where((x > 0) & ~(x > 1) | (x == 2), x, 0)),
    ],
)
def test_a_function_is_that_of_numpy_or_scipy_at_every_input(text: str, function: Any) -> None:
    with np.errstate(all="ignore"):
        wanted = function(X)
    number = value(text)
    np.testing.assert_allclose(number.value, wanted, rtol=1e-15)
    assert admits(number, wanted, zero_sign=False).all()


def test_every_function_is_tried_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert not [name for name in FUNCTIONS if f"{name}(" not in text and name != "erf_gelu"]


def test_row_functions_work_along_the_axis() -> None:
    rows = np.array([[1.0, 2.0, 4.0], [0.0, -1.0, 5.0]])
    number = value("exp(x - rowmax(x)) / sum(exp(x - rowmax(x)))", rows)
    wanted = scipy.special.softmax(rows, axis=-1)
    np.testing.assert_allclose(number.value, wanted, rtol=1e-14)
    np.testing.assert_allclose(value("softmax(x)", rows).value, wanted, rtol=1e-14)
    np.testing.assert_allclose(value("logsoftmax(x)", rows).value, np.log(wanted), rtol=1e-13)
    assert value("halves(x, -x)", rows).value.tolist() == np.concatenate([rows, -rows], axis=-1).tolist()


def test_a_primitive_errs_by_its_stated_ulp_and_by_what_its_argument_may_be_off() -> None:
    exact = value("exp(x)", [1.0])
    gap = float(np.spacing(np.float32(math.e)))
    assert gap * 0.9 < exact.error[0] < 2.2 * gap
    wider = value("exp(x)", [1.0], Arithmetic(DTYPES["f32"], accuracy={"exp": (5.0, 0.0)}))
    assert wider.error[0] > 4 * exact.error[0] * 0.9
    absolute = value("tanh(x)", [1e-3], Arithmetic(DTYPES["f32"], accuracy={"tanh": (0.0, 6.0)}))
    assert math.isclose(absolute.error[0], 6 * 2.0**-24, rel_tol=0.01)
    through = value("exp(3 * x)", [10.1])
    assert through.error[0] > exact.error[0] / math.e * math.exp(30.3) * 5  # half an ULP of 30 times exp(30)


def test_wide_steps_round_at_r_and_at_the_end_alone() -> None:
    half, single = Arithmetic(DTYPES["f16"]), Arithmetic(DTYPES["f32"])
    x = Number(np.array([1.001]), np.zeros(1), single)

    def error(text: str) -> float:
        with np.errstate(all="ignore"):
            return float(Formula(text).evaluate(Scope({"x": x}, single, half)).error[0])

    assert error("x * 3") < error("r(x * 3) * 3") / 3 * 1.01 + 2.0**-9
    assert error("r(x) * 3") > error("x * 3")


def test_a_text_prints_as_it_was_written() -> None:
    assert Formula("  x *   2 ; y = 3 ").text == "x * 2 ; y = 3"
    assert "x * 2" in repr(Formula("x * 2"))
