"""Functions with known faults, and healthy ones of independent libraries, are measured as what they are."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erfc, softmax

import actconform
from actconform.accuracy.function.measure import measure
from actconform.catalog.kernels import KERNELS
from actconform.errors import UsageError
from actconform.oracle import truth
from actconform.oracle.arb.correctly_rounded import exact_table
from actconform.types import Convention, FindingClass, Kernel

NUMPY = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
DTYPES = tuple(NUMPY)
BF16 = np.dtype(ml_dtypes.bfloat16)
in_each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def wide(function):
    """A function of float64 numbers as one of the dtype that it is given."""

    def computed(*arrays):
        return function(*(array.astype(np.float64) for array in arrays)).astype(arrays[0].dtype)

    return computed


@wide
def gelu(x):
    return np.where(np.isneginf(x), -0.0, 0.5 * x * erfc(-x / math.sqrt(2)))


@wide
def gelu_gradient(x, ct):
    density = np.where(np.isinf(x), 0.0, x * np.exp(-0.5 * x * x)) / math.sqrt(2 * math.pi)
    return (0.5 * erfc(-x / math.sqrt(2)) + density) * ct


@wide
def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


tanh = wide(np.tanh)


def classes(measurement, *, new=True):
    return {finding.class_ for finding in measurement.findings if not new or finding.deviation is None}


@in_each_dtype
def test_the_tanh_of_numpy_conforms(dtype):
    measured = measure(np.tanh, "tanh", dtype)
    assert measured.conforms
    assert measured.worst.share <= 1
    assert measured.max_ulp < 8


@in_each_dtype
def test_a_gelu_of_scipy_conforms_with_its_gradient(dtype):
    measured = measure(gelu, "gelu-erf", dtype, gelu_gradient)
    assert measured.conforms, str(measured)
    assert measured.correctly_rounded > 0.999
    assert measured.gradient.correctly_rounded > 0.999
    assert measured.max_ulp <= 0.501
    assert abs(measured.bias) < 0.1


@in_each_dtype
def test_gelu_tanh_is_no_gelu_erf(dtype):
    measured = measure(gelu_tanh, "gelu-erf", dtype)
    assert not measured.conforms
    assert measured.worst.share > 10
    assert {FindingClass.TAIL if dtype != "f32" else FindingClass.SCALED_ERROR} <= classes(measured)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_a_proven_table_is_correctly_rounded_everywhere(dtype):
    """The table is Arb's; every one of the 65,536 patterns is asked."""
    for name in ("gelu-erf", "tanh-shrink", "elu-half"):
        table = exact_table(KERNELS[name], "value", dtype)
        measured = measure(lambda x, table=table: table[x.view(np.uint16)].view(x.dtype), name, dtype)
        assert measured.correctly_rounded == 1.0
        assert measured.value.n == 1 << 16
        assert classes(measured) <= set()


def test_what_is_healthy_as_rows_and_with_further_inputs_conforms():
    def gradient_of_softmax(x, ct):
        y, ct = softmax(x.astype(np.float64), axis=-1), ct.astype(np.float64)
        return (y * (ct - (y * ct).sum(-1, keepdims=True))).astype(x.dtype)

    def softmax_of_rows(x):
        return softmax(x.astype(np.float64), axis=-1).astype(x.dtype)

    def prelu(x, slope):
        return np.where(x > 0, x, slope * x)

    def gradient_of_prelu(x, slope, ct):
        d_slope = np.where(x > 0, 0.0, x.astype(np.float64)) * ct
        return np.where(x > 0, ct, slope * ct), d_slope.sum(0).astype(x.dtype)

    assert measure(softmax_of_rows, "softmax", "f32", gradient_of_softmax).conforms
    measured = measure(prelu, "prelu", "f32", gradient_of_prelu)
    assert {place[1] for place in measured.gradient.samples} == {"d_x", "d_slope"}
    assert not [finding for finding in measured.findings if finding.regime != "special"]
    assert measure(lambda x: np.argmax(x, -1), "argmax", "f16").conforms


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_can_be_measured_and_its_float64_formula_conforms(name):
    """The formulas of float64, rounded once, against the goldens of f32, which come from Arb."""
    kernel = KERNELS[name]

    def rounded(array):
        return array.astype(np.float32) if array.dtype == np.float64 else array

    def function(*inputs):
        return rounded(truth(kernel, dict(zip(kernel.inputs, inputs, strict=True)))["y"])

    def gradient(*tensors):
        *inputs, ct = tensors
        outputs = truth(kernel, dict(zip(kernel.inputs, inputs, strict=True)), {"y": ct})
        return {name: rounded(array) for name, array in outputs.items()}

    measured = measure(function, name, "f32", gradient if kernel.differentiable else None)
    assert measured.conforms, str(measured)
    assert not measured.not_judged


def test_the_parameters_of_a_kernel_are_what_the_function_computes_with():
    right, wrong = (
        measure(wide(lambda x, slope=slope: np.where(x > 0, x, slope * x)), "leaky-relu")
        for slope in (np.float32(0.01), 0.02)
    )
    assert right.parameters == {"alpha": float(np.float32(0.01))}
    assert right.conforms
    assert FindingClass.SCALED_ERROR in classes(wrong)
    assert wrong.worst.input < 0


def changed(where, into):
    return lambda x: np.where(where(x), into(x), tanh(x)).astype(x.dtype)


@pytest.mark.parametrize(
    ("function", "class_"),
    [
        (changed(lambda x: x < 0, lambda x: -tanh(x)), FindingClass.SCALED_ERROR),
        (changed(np.isnan, np.zeros_like), FindingClass.NAN_LOST),
        (changed(np.isinf, lambda x: x - x), FindingClass.NAN_MADE),
        (changed(np.isinf, lambda x: x), FindingClass.INF),
        (changed(lambda x: x == 0, np.abs), FindingClass.ZERO_SIGN),
        (changed(lambda x: x > 9, lambda x: np.full_like(x, 1.0001)), FindingClass.RANGE),
        (lambda x: tanh(x).astype(np.float64), FindingClass.DTYPE),
        (lambda x: tanh(x)[:, None], FindingClass.SHAPE),
        (lambda x: np.tanh(x, out=x), FindingClass.MUTATES_INPUT),
        (lambda x: tanh(x) if x.size > 8 else np.where(np.isnan(x), 0, tanh(x)), FindingClass.POSITION_DEPENDENT),
    ],
)
def test_a_fault_is_found_as_what_it_is(function, class_):
    measured = measure(function, "tanh")
    assert class_ in classes(measured)
    assert not measured.conforms
    assert measured.findings[0].severity


@in_each_dtype
def test_a_flush_of_subnormal_numbers_is_found_and_nothing_else(dtype):
    smallest = float(ml_dtypes.finfo(NUMPY[dtype]).smallest_normal)
    flushing = wide(lambda x: np.where(np.abs(x) < smallest, np.copysign(0.0, x), x))
    measured = measure(flushing, "linear", dtype)
    assert classes(measured) == {FindingClass.SUBNORMAL_FLUSH}
    assert {finding.severity for finding in measured.findings} == {"minor"}
    assert 0 < abs(measured.worst.input) < smallest
    assert measured.worst.got == 0
    if dtype != "f32":
        fraction_bits = {"f16": 10, "bf16": 7}[dtype]
        assert sum(f.count for f in measured.findings if f.regime == "exhaustive") == 2 * (2**fraction_bits - 1)


def test_what_differs_from_call_to_call_is_found():
    calls = iter(range(1000))
    assert classes(measure(lambda x: tanh(x) * np.float32(1 + next(calls) * 2.0**-23), "tanh")) >= {
        FindingClass.NONDETERMINISTIC
    }


@pytest.mark.parametrize(
    "gradient",
    [
        lambda x, ct: gelu_gradient(x, np.ones_like(ct)),  # the cotangent forgotten
        lambda x, ct: -gelu_gradient(x, ct),
        lambda x, ct: (gelu_gradient(x, ct) + np.float32(1e-4) * ct).astype(x.dtype),
    ],
)
def test_a_wrong_gradient_is_found(gradient):
    measured = measure(gelu, "gelu-erf", "f32", gradient)
    assert measured.value.conforms
    assert not measured.gradient.conforms
    assert measured.worst.aspect == "gradient"
    assert {finding.tensor for finding in measured.findings if finding.deviation is None} == {"d_x"}


def test_either_slope_of_a_kink_conforms_and_no_third_does():
    relu = wide(lambda x: np.maximum(x, 0))
    for slope, conforms in ((0.0, True), (0.5, True), (1.0, True), (2.0, False)):
        gradient = wide(lambda x, ct, s=slope: np.where(np.isnan(x), x, np.where(x == 0, s, x > 0) * ct))
        assert measure(relu, "relu", "bf16", gradient).conforms == conforms


def test_a_convention_is_shown_and_conforms():
    as_written = measure(wide(lambda x: 0.5 * x * erfc(-x / math.sqrt(2))), "gelu-erf")  # -inf times 0
    assert as_written.conforms
    assert {(finding.deviation, finding.severity) for finding in as_written.findings} == {("convention", "convention")}


@given(st.integers(0, (1 << 16) - 1), st.integers(1, 2000), st.booleans())
@settings(max_examples=30, deadline=None)
def test_one_wrong_pattern_of_all_is_the_worst_input(pattern, steps, is_nan):
    table = exact_tanh()
    truth = table[pattern : pattern + 1].view(BF16).astype(np.float64)[0]
    broken = table.copy()
    broken[pattern] = 0x7FC0 if is_nan else np.uint16((int(table[pattern]) + steps) & 0x7FFF)
    got = broken[pattern : pattern + 1].view(BF16).astype(np.float64)[0]
    measured = measure(lambda x: broken[x.view(np.uint16)].view(x.dtype), "tanh", "bf16")
    if measured.conforms:  # within 5 units of max(|f|, 1), and 8 ULP where it is small
        assert abs(got - truth) <= 5 * 2.0**-8 or np.isnan(truth)
        return
    assert measured.worst.got == got or (np.isnan(got) and np.isnan(measured.worst.got))
    assert measured.worst.input_hex in (f"0x{pattern:04x}", "0x7fc0", "0xffc0")  # a NaN in has one name
    wrong = [finding for finding in measured.findings if finding.regime == "exhaustive"]
    assert {finding.count for finding in wrong} == {1}


TABLES = {}


def exact_tanh():
    if not TABLES:
        TABLES["tanh"] = exact_table(KERNELS["tanh"], "value", "bf16")
    return TABLES["tanh"]


@given(st.integers(0, (1 << 16) - 1))
@settings(max_examples=20, deadline=None)
def test_an_error_of_the_function_says_at_which_input(pattern):
    def raising(x):
        if (x.view(np.uint16) == pattern).any():
            raise ZeroDivisionError("the function's own words")
        return tanh(x)

    with pytest.raises(ZeroDivisionError, match="own words") as caught:
        measure(raising, "tanh", "bf16")
    (note,) = caught.value.__notes__
    assert f"x[{pattern}] = " in note
    assert "raising" in note


def test_an_error_in_a_row_says_in_which():
    def raising(x):
        if x.shape == (4, 2) and (x[2] == x[2]).all() and x.size:
            raise ValueError("a row")
        return softmax(x, axis=-1)

    with pytest.raises(ValueError, match="a row") as caught:
        measure(raising, "softmax")
    assert "called with x float32 [4, 2]" in caught.value.__notes__[0]


def test_an_error_at_every_input_tells_of_arrays():
    with pytest.raises(AttributeError) as caught:
        measure(lambda x: x.clamp(0), "relu")
    assert "every part of them raises" in caught.value.__notes__[0]
    assert 'arrays="torch"' in caught.value.__notes__[1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: measure(np.tanh, "tahn"), "there is no kernel 'tahn'; did you mean tanh"),
        (lambda: measure(np.tanh, "tanh", "float32"), "dtype 'float32' cannot be measured; wanted one of f32, "),
        (lambda: measure(np.tanh), "needs a kernel"),
        (lambda: measure("tanh", "tanh"), "functions of arrays"),
        (lambda: measure(np.argmax, "argmax", gradient=np.argmax), "argmax has no gradient"),
        (lambda: measure(lambda x: x.tolist(), "tanh"), r"lambda, called with x float32 \[\d+\]: it returned a list"),
        (lambda: measure(lambda _: None, "tanh"), "it returned None"),
        (lambda: measure(lambda x, _: x, "prelu", gradient=lambda x, *_: x), "wanted a tuple of 2, d_x, d_slope"),
        (lambda: measure(np.tanh, "tanh", gradient=lambda x, ct: (x, ct)), "it returned 2 gradients: wanted 1"),
        (lambda: measure(np.tanh, "tanh", truth=lambda x: x.tanh()), "leave truth= out"),
        (lambda: measure(np.tanh, "mine", truth=3), "functions of a flint.arb"),
        (lambda: measure(np.tanh, "tanh", truth_gradient=np.tanh), "derivative of truth="),
        (lambda: measure(np.tanh, "tanh", arrays="cupy"), "no kind of arrays"),
        (lambda: measure(np.tanh, "tanh", arrays=(1, 2)), "two functions"),
        (
            lambda: measure(np.tanh, msgspec.structs.replace(KERNELS["tanh"], tier="exact")),
            "another than the catalog's",
        ),
    ],
)
def test_bad_use_is_told_in_words(call, words):
    with pytest.raises(UsageError, match=words):
        call()


def test_a_function_of_ones_own_is_judged_where_its_definition_decides():
    pytest.importorskip("flint")
    measured = measure(wide(np.log), "log", "f16", truth=lambda x: x.log())
    assert measured.conforms
    assert measured.correctly_rounded == 1.0
    assert measured.value.n == 0x7BFF + 1 + 2 * 0x3FF  # the positive numbers, +inf, NaN
    assert measured.not_judged == "-inf; 31,745 numbers, -65504 (0xfbff) to 0 (0x0000): truth= decides nothing there"
    wrong = measure(
        lambda x: np.where(np.isnan(x), 0, np.log(x)).astype(x.dtype), "log", "f16", truth=lambda x: x.log()
    )
    assert classes(wrong) == {FindingClass.NAN_LOST}


def test_the_gradient_of_ones_own_is_that_of_its_series_or_its_own_definition():
    pytest.importorskip("flint")
    gradient = wide(lambda x, ct: np.exp(x) * ct)
    for slope in (None, lambda x: x.exp()):
        measured = measure(wide(np.exp), "e", "f32", gradient, truth=lambda x: x.exp(), truth_gradient=slope)
        assert measured.conforms, str(measured)
        assert measured.gradient.n >= 2 * measured.value.n  # with cotangents of two kinds, and a few more
    wrong = measure(wide(np.exp), "e", "f32", lambda x, _: np.exp(x), truth=lambda x: x.exp())
    assert not wrong.gradient.conforms


def test_a_kernel_of_ones_own_brings_limits_at_infinity_and_conventions():
    pytest.importorskip("flint")
    kernel = Kernel(
        name="sinc",
        definition="sin(x) / x",
        source="",
        at_infinity=(0.0, 0.0),
        conventions=(Convention("value", (0.0,), "0 / 0 as written", (math.nan,)),),
    )

    def sinc(x):
        return x.sin() / x if x != 0 else x * 0 + 1

    function = wide(lambda x: np.where(np.isinf(x), 0.0, np.sin(np.where(np.isinf(x), 0, x)) / x))
    measured = measure(function, kernel, "f16", truth=sinc)
    assert measured.conforms, str(measured)
    assert not measured.not_judged
    assert {finding.deviation for finding in measured.findings} == {"convention"}


def test_limits_at_infinity_that_arb_does_not_decide_are_taken_from_the_kernel():
    flint = pytest.importorskip("flint")
    kernel = Kernel(name="own", definition="", source="", scale="input", at_infinity=(0.0, math.inf))

    def definition(x):
        return x / 2 * (-x / flint.arb(2).sqrt()).erfc()

    assert measure(gelu, "own", truth=definition).not_judged == "-inf; inf: truth= decides nothing there"
    assert not measure(gelu, kernel, truth=definition).not_judged
    assert measure(gelu, kernel, truth=definition).conforms
    wrong = measure(lambda x: np.where(np.isposinf(x), 1, gelu(x)).astype(x.dtype), kernel, truth=definition)
    assert classes(wrong) == {FindingClass.INF}


def test_the_sign_of_a_zero_of_ones_own_is_not_judged():
    pytest.importorskip("flint")
    assert not measure(np.negative, "negative", truth=lambda x: -x).findings


def test_one_answer_that_no_convention_allows_is_a_finding_among_others_that_one_does():
    relu = wide(lambda x: np.maximum(x, 0))
    for slope in (1.0, 5.0):

        @wide
        def gradient(x, ct, slope=slope):
            at_nan = np.where(np.signbit(x), slope, 1.0)  # at NaN the slope of a piece is a convention
            return np.where(np.isnan(x), at_nan, x > 0) * ct

        assert measure(relu, "relu", "bf16", gradient).conforms == (slope == 1.0)


def test_a_constant_is_taken_for_the_one_that_it_is():
    pytest.importorskip("flint")
    third = wide(lambda x: x / 3)
    assert measure(third, "third", "f32", truth=lambda x: x / 3).correctly_rounded == 1.0
    almost = measure(wide(lambda x: x * 0.33333), "third", "f32", truth=lambda x: x / 3)
    assert FindingClass.SCALED_ERROR in classes(almost)


def test_threads_and_order_change_nothing_nor_does_it_change_the_process():
    flint = pytest.importorskip("flint")
    before = (np.geterr(), flint.ctx.prec, np.get_printoptions())

    def texts(kernel):
        return [
            str(measure(gelu, kernel, "bf16", gelu_gradient)),
            str(measure(np.tanh, "own", "f32", truth=lambda x: x.tanh())),
        ]

    names = ["gelu-erf", "gelu-tanh"] * 2
    alone = [texts(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(texts, names)) == alone
    assert before == (np.geterr(), flint.ctx.prec, np.get_printoptions())


def test_it_is_offered_and_imports_no_framework():
    assert actconform.measure is measure
    code = (
        "import actconform, sys, numpy; actconform.measure(numpy.tanh, 'tanh', 'bf16');"
        "print(sorted({'torch', 'jax', 'tensorflow', 'keras', 'onnx', 'flint', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
