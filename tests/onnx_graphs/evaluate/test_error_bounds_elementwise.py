"""Error bounds of elementwise operators: runtimes and formulas in 32 and 16 bits stay within them, and faults do not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from bounded_nodes import BF16, DTYPES, F16, F64, bounds, moved, rounded_to, run, values, wide, worst
from onnx import TensorProto

N = 2000


@cache
def hard(seed=1, n=N):
    """Return numbers of all sizes: about 0 and 1, ties, tails, subnormal ones."""
    rng = np.random.default_rng(seed)
    scaled = rng.standard_normal(n) * 10.0 ** rng.uniform(-6, 6, n)
    usual = rng.standard_normal(n) * 4
    special = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -3.0, 3.0, 1e-40, -1e-44, 1e-38, 87.0, -87.0, -103.0, 88.7, 1e30, -1e30]
    return np.concatenate([scaled, usual, np.linspace(-20, 20, n), special]).astype(np.float32)


def usual(seed=1, scale=4.0, n=N):
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def positive(seed=1):
    return np.abs(hard(seed))


within_1 = np.tanh(usual()).clip(-0.999999, 0.999999)

# operator, inputs, attributes
EXACT = [
    ("Neg", [hard()], {}),
    ("Abs", [hard()], {}),
    ("Floor", [hard()], {}),
    ("Ceil", [hard()], {}),
    ("Round", [hard()], {}),
    ("Sign", [hard()], {}),
    ("Relu", [hard()], {}),
    ("Clip", [hard(), np.float32(-0.3), np.float32(6.0)], {}),
    ("Clip", [hard(), None, np.float32(6.0)], {}),
    ("Max", [hard(1), hard(2), hard(3)], {}),
    ("Min", [hard(1), hard(2)], {}),
    ("ThresholdedRelu", [hard()], {"alpha": 0.7}),
]
ROUNDED = [
    ("Add", [hard(1), hard(2)], {}),
    ("Sub", [hard(1), hard(2)], {}),
    ("Mul", [hard(1), usual(2, n=3 * N + 17)], {}),
    ("Div", [hard(1), hard(2)], {}),
    ("Sum", [hard(i) for i in range(7)], {}),
    ("Sum", [hard(1), hard(2)], {}),
    ("Mean", [hard(1), hard(2)], {}),
    ("Mean", [hard(i) for i in range(5)], {}),
    ("Mean", [hard()], {}),
    ("Pow", [np.abs(usual(1)) + 0.1, usual(2)], {}),
    ("Pow", [usual(1), np.float32(3.0)], {}),
    ("Pow", [usual(1), np.float32(2.0)], {}),
    ("Mod", [usual(1), usual(2)], {"fmod": 1}),
    ("Sqrt", [positive()], {}),
    ("Reciprocal", [hard()], {}),
    ("Exp", [hard()], {}),
    ("Log", [positive()], {}),
    ("LeakyRelu", [hard()], {"alpha": 0.01}),
    ("PRelu", [hard(), np.float32([0.3])], {}),
    ("Shrink", [hard()], {"lambd": 0.7, "bias": 0.2}),
    ("HardSigmoid", [hard()], {"alpha": 0.2, "beta": 0.5}),
    ("HardSwish", [hard()], {}),
    ("Sigmoid", [hard()], {}),
    ("Tanh", [hard()], {}),
    ("Erf", [hard()], {}),
    ("Gelu", [hard()], {}),
    ("Gelu", [hard()], {"approximate": "tanh"}),
    ("Mish", [usual()], {}),
    ("Softplus", [usual()], {}),
    ("Softsign", [hard()], {}),
    ("Elu", [hard()], {"alpha": 2.5}),
    ("Selu", [hard()], {}),
    ("Celu", [hard()], {"alpha": 1.7}),
    ("Sin", [usual()], {}),
    ("Cos", [usual()], {}),
    ("Tan", [usual()], {}),
    ("Asin", [within_1], {}),
    ("Acos", [within_1], {}),
    ("Atan", [hard()], {}),
    ("Sinh", [usual(scale=20.0)], {}),
    ("Cosh", [usual(scale=20.0)], {}),
    ("Asinh", [hard()], {}),
    ("Acosh", [1 + positive()], {}),
    ("Atanh", [within_1], {}),
]


def named(cases):
    return [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(cases)]


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(EXACT + ROUNDED))
def test_onnx_runtime_stays_within(op_type, inputs, attributes):
    (bound,) = bounds(op_type, *inputs, **attributes)
    (got,) = run(op_type, *inputs, **attributes)
    over = np.abs(bound.value) + (0.0 if bound.error is None else bound.error) >= 3.4e38  # is matched by the judge
    bound = bound._replace(error=np.where(over, np.inf, 0.0 if bound.error is None else bound.error))
    assert worst(got, bound) <= 1.0


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(EXACT))
def test_what_computes_nothing_is_exact(op_type, inputs, attributes):
    (bound,) = bounds(op_type, *inputs, **attributes)
    assert bound.error is None or not np.any(bound.error)


@pytest.mark.parametrize("kind", [F16, BF16], ids=["f16", "bf16"])
@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(EXACT + ROUNDED))
def test_a_wider_computation_rounded_once_stays_within(op_type, inputs, attributes, kind):
    inputs = [None if x is None else rounded_to(kind, np.clip(x, -6e4, 6e4)) for x in inputs]
    (bound,) = bounds(op_type, *inputs, kinds=(kind,), **attributes)
    with np.errstate(all="ignore"):
        got = rounded_to(kind, bound.value)
    finite = np.isfinite(got.astype(float))
    assert worst(np.where(finite, wide(got), 0), bound._replace(value=np.where(finite, bound.value, 0))) <= 1.0


def steps(kind):
    """Return formulas as frameworks write them, every step rounded to 16 bits."""
    one, half = DTYPES[kind](1), DTYPES[kind](0.5)
    exp, log, tanh = (lambda x, f=f: rounded_to(kind, f(x.astype(np.float32))) for f in (np.exp, np.log, np.tanh))
    return {
        "Sigmoid": lambda x: one / (one + exp(-x)),
        "Softplus": lambda x: np.maximum(x, 0) + log(one + exp(-np.abs(x))),
        "Softsign": lambda x: x / (one + np.abs(x)),
        "Mish": lambda x: x * tanh(np.maximum(x, 0) + log(one + exp(-np.abs(x)))),
        "HardSwish": lambda x: x * np.clip(x * DTYPES[kind](1 / 6) + half, 0, 1),
        "Elu": lambda x: np.where(x > 0, x, exp(np.minimum(x, 0)) - one),
        "HardSigmoid": lambda x: np.clip(DTYPES[kind](0.2) * x + half, 0, 1),
        "LeakyRelu": lambda x: np.where(x > 0, x, x * DTYPES[kind](0.01)),
        "Reciprocal": lambda x: one / x,
        "Exp": exp,
        "Sinh": lambda x: half * (exp(x) - exp(-x)),
    }


@pytest.mark.parametrize("kind", [F16, BF16], ids=["f16", "bf16"])
@pytest.mark.parametrize("op_type", sorted(steps(F16)))
def test_every_step_rounded_to_16_bits_stays_within(op_type, kind):
    x = rounded_to(kind, usual(scale=2.0))
    (bound,) = bounds(op_type, x, kinds=(kind,))
    assert worst(steps(kind)[op_type](x).astype(DTYPES[kind]), bound) <= 1.0


def size_of(*arrays):
    """Return the largest magnitude at each place."""
    return np.max(np.broadcast_arrays(*(np.abs(wide(array)) for array in arrays if array is not None)), axis=0)


@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(EXACT + ROUNDED))
def test_inputs_moved_within_their_errors_stay_within(op_type, inputs, attributes, size):
    rng = np.random.default_rng(7)
    errors = [
        None if x is None else size * rng.random(np.shape(x)) * np.where(rng.random(np.shape(x)) < 0.5, 1, np.abs(x))
        for x in inputs
    ]
    (bound,) = bounds(op_type, *inputs, errors=errors, **attributes)
    assert (bound.error >= 0).all()
    for _ in range(4):
        there = [None if x is None else moved(rng, wide(x), error) for x, error in zip(inputs, errors, strict=True)]
        (got,) = values(op_type, *there, **attributes)
        got = np.nan_to_num(got, nan=np.inf)
        finite = np.isfinite(bound.value)
        apart = np.abs(np.where(finite, got - bound.value, 0.0))
        over = apart > bound.error * (1.0 + 2.0**-50) + 2.0**-50 * size_of(bound.value, *inputs)  # float64 rounds too
        assert not over.any()


FAULTS = [
    ("Add", [usual(1), usual(2)], {}, lambda a, b: (a.astype(np.float16) + b).astype(np.float32)),
    ("Mul", [usual(1), usual(2)], {}, lambda a, b: a.astype(np.float16) * b),
    ("Div", [usual(1), usual(2)], {}, lambda a, b: a / b.astype(np.float16)),
    ("Pow", [np.abs(usual(1)), np.float32(2.0)], {}, lambda a, b: a**2 * (1 + 1e-6)),
    ("Sqrt", [positive()], {}, lambda a: np.sqrt(a + np.float32(1e-5) * a)),
    ("Exp", [usual()], {}, lambda a: np.exp(a * 1.00001)),
    ("Log", [positive()], {}, lambda a: np.log(a + 1e-7)),
    ("Relu", [usual()], {}, lambda a: np.where(a > 0, a, 1e-3 * a)),
    ("Clip", [usual(), np.float32(-0.3), np.float32(6.0)], {}, lambda a, *_: np.clip(a, -0.3, 6.01)),
    ("LeakyRelu", [usual()], {"alpha": 0.01}, lambda a: np.where(a > 0, a, 0.0100001 * a)),
    ("PRelu", [usual(), np.float32([0.3])], {}, lambda a, s: np.where(a > 0, a, 0.30001 * a)),
    ("Shrink", [usual()], {"lambd": 0.7, "bias": 0.2}, lambda a: np.where(a > 0.7, a - 0.2, np.where(a < -0.7, a + 0.2, 1e-6 * a))),
    ("HardSigmoid", [usual()], {}, lambda a: np.clip(a / 6 + 0.5, 0, 1)),
    ("HardSwish", [usual()], {}, lambda a: a * np.clip(a * 0.16667 + 0.5, 0, 1)),
    ("Sigmoid", [usual()], {}, lambda a: np.clip(0.2 * a + 0.5, 0, 1)),
    ("Sigmoid", [usual()], {}, lambda a: (1 / (1 + np.exp(-wide(a)))).astype(np.float16)),
    ("Tanh", [usual()], {}, lambda a: np.tanh(a) * (1 - 2e-6)),
    ("Erf", [usual()], {}, lambda a: np.tanh(1.128379 * a + 0.1009 * a**3)),
    ("Gelu", [usual()], {"approximate": "tanh"}, lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide(a) + 0.0447 * wide(a) ** 3)))),
    ("Gelu", [usual()], {}, lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide(a) + 0.044715 * wide(a) ** 3)))),
    ("Elu", [usual()], {}, lambda a: np.where(a > 0, a, 1.00001 * np.expm1(wide(a)))),
    ("Selu", [usual()], {}, lambda a: np.where(a > 0, 1.0507 * a, 1.7581 * np.expm1(a))),
    ("Softplus", [usual()], {}, lambda a: np.where(a > 10, a, np.log1p(np.exp(wide(a))))),
    ("Sin", [usual()], {}, lambda a: np.sin(a.astype(np.float16).astype(np.float32))),
    ("ThresholdedRelu", [usual()], {"alpha": 0.7}, lambda a: np.where(a > 0.71, a, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("op_type", "inputs", "attributes", "fault"), named(FAULTS))
def test_a_fault_exceeds_it(op_type, inputs, attributes, fault):
    (bound,) = bounds(op_type, *inputs, **attributes)
    assert worst(fault(*inputs), bound) > 1.0


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), named(ROUNDED))
def test_no_bound_reaches_thirty_roundings_of_what_the_function_works_with(op_type, inputs, attributes):
    if op_type in {"Exp", "Sinh", "Cosh"}:
        inputs = [usual(scale=2.0)]  # whose argument is rounded too
    (bound,) = bounds(op_type, *inputs, **attributes)
    given = [np.broadcast_to(np.abs(wide(x)), bound.value.shape) for x in inputs]
    normal = np.all([(x == 0) | (x > 1e-30) for x in given], axis=0)
    normal &= np.isfinite(bound.value)
    size = 1 + np.abs(bound.value) + sum(given)
    assert (bound.error <= 30 * 2.0**-24 * size)[normal].all()


def test_saturated_parts_are_exact():
    x = np.float32([-4.0, -3.0001, 4.0])
    np.testing.assert_array_equal(bounds("HardSigmoid", x)[0].error, 0)
    assert (bounds("HardSwish", x)[0].error[:2] <= 2.0**-125).all()
    for op_type in ("Elu", "Celu"):
        np.testing.assert_array_equal(bounds(op_type, np.float32([0.01, 4.0]))[0].error, 0)
    assert (bounds("LeakyRelu", x)[0].error[2:] == 0).all()


def test_division_by_what_may_be_zero_and_roots_of_what_may_be_negative_may_be_anything():
    one = np.ones(3, np.float32)
    doubtful = np.float32([0.5, 2.0, -0.5])
    np.testing.assert_array_equal(
        np.isinf(bounds("Div", one, doubtful, errors=(None, one))[0].error), [True, False, True]
    )
    np.testing.assert_array_equal(np.isinf(bounds("Reciprocal", doubtful, errors=(one,))[0].error), [True, False, True])
    np.testing.assert_array_equal(np.isinf(bounds("Sqrt", doubtful, errors=(one,))[0].error)[:2], [True, False])
    np.testing.assert_array_equal(np.isinf(bounds("Log", doubtful, errors=(one,))[0].error)[:2], [True, False])
    np.testing.assert_array_equal(
        np.isinf(bounds("Pow", doubtful, np.float32(-1.0), errors=(one,))[0].error), [True, False, True]
    )
    assert np.isinf(bounds("Tan", np.float32([1.5]), errors=(np.float32([0.2]),))[0].error)


def test_a_remainder_may_be_computed_from_the_truncated_quotient():
    x, y = usual(1), usual(2)
    (bound,) = bounds("Mod", x, y, fmod=1)
    assert worst(x - y * np.trunc(x / y), bound) <= 1
    assert worst(x - y * np.floor(x / y), bound) > 1
    np.testing.assert_array_equal(bounds("Mod", np.float32([0.7]), np.float32([2.0]), fmod=1)[0].error, 0)
    exact, doubtful = bounds("Mod", np.array([7, -7]), np.array([3, 3]), kinds=(TensorProto.INT64,), errors=([1, 0],))[
        0
    ]
    np.testing.assert_array_equal(exact, [1, 2])
    np.testing.assert_array_equal(doubtful, [np.inf, 0])


def test_integers_are_exact_and_wrap():
    a, b = np.array([127, -128, 7], np.int8), np.array([1, -1, -2], np.int8)
    for op_type, expected in {"Add": [-128, 127, 5], "Mul": [127, -128, -14], "Div": [127, -128, -3]}.items():
        (bound,) = bounds(op_type, a, b, kinds=(TensorProto.INT8,))
        assert bound.value.dtype == np.int8
        assert bound.error is None or not bound.error.any()
        np.testing.assert_array_equal(bound.value, expected)
    assert np.isinf(bounds("Div", a, np.zeros(3, np.int8), kinds=(TensorProto.INT8,))[0].error).all()
    (power,) = bounds("Pow", np.array([3, 10]), np.array([2, 30]), kinds=(TensorProto.INT64,))
    np.testing.assert_array_equal(power.error, [0, np.inf])


def test_numbers_that_hardware_flushes_may_be_zero():
    x, y = np.float32([1e-40, 1.0]), np.float32([1e30, 1.0])
    (bound,) = bounds("Mul", x, y)
    assert bound.error[0] >= bound.value[0]
    assert bound.error[1] < 1e-7
    (half,) = bounds("Mul", x.astype(np.float16), x.astype(np.float16), kinds=(F16,))
    assert half.error[0] < 1e-7


def test_float64_has_its_own_unit():
    x = np.array([0.1, 0.7])
    for op_type in ("Add", "Exp", "Sigmoid", "Log"):
        inputs = (x, x) if op_type == "Add" else (x,)
        assert np.max(bounds(op_type, *inputs, kinds=(F64,))[0].error) < 1e-14


def test_attributes_that_16_bits_round_are_in_doubt_by_that():
    x = np.float16([0.1, 2.0, 9.0])
    (bound,) = bounds("Clip", x, kinds=(F16,), opset=6, min=0.0, max=float(np.float32(1.1)))
    assert abs(np.float16(1.1) - np.float32(1.1)) <= bound.error[2] < 1e-3
    assert bound.error[0] == 0
