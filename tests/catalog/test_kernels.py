"""The catalog: whole, with limits and kinks that agree with the formulas, and parameters that every format can hold."""

from __future__ import annotations

import math
import re
from urllib.parse import quote

import ml_dtypes
import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.errors import Unsupported
from actconform.onnx.author.exporter import GRAPHS
from actconform.oracle import truth
from actconform.oracle.arb.correctly_rounded import EXACT
from actconform.oracle.arb.rows import exact_rows
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS
from actconform.oracle.rounding import round_to
from actconform.plugin.builtin import Builtin
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.types import Kernel, f32
from actconform.types.dtypes import DTYPES

KERNELS = UNARY + ROWS
NAMES = [kernel.name for kernel in KERNELS]
WANTED = """linear sigmoid tanh relu leaky-relu leaky-relu-0.2 leaky-relu-0.3 prelu elu softsign softmax maxout max argmax
selu celu gelu-erf gelu-tanh quick-gelu silu swish mish softplus hard-sigmoid-onnx hard-sigmoid-relu6 hard-swish hard-tanh
relu6 relu-squared thresholded-relu hard-shrink soft-shrink tanh-shrink log-sigmoid log-softmax softmin hardmax squareplus
exponential glu swiglu geglu sparsemax sparse-plus"""
# Set by a definition or a framework's default: as near as float32 comes to a decimal, and rounded again for 16 bits.
GIVEN = {0.01, 0.2, 0.3, 1.702}
UNITS_OF_BINARY64 = 1e-12

each = pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
each_unary = pytest.mark.parametrize("kernel", UNARY, ids=[kernel.name for kernel in UNARY])


@pytest.fixture(scope="module")
def manifest():
    return read_manifest(golden_dir())


def test_the_kernels_that_people_use_are_there_and_no_name_twice():
    assert len(KERNELS) >= 45
    assert set(WANTED.split()) <= set(NAMES)
    assert len(set(NAMES)) == len(NAMES)
    assert Builtin().actconform_kernels() == KERNELS


@each
def test_a_kernel_is_described_and_registered_everywhere(kernel: Kernel):
    assert kernel.definition
    assert kernel.source
    assert kernel.domain
    assert kernel.zero_sign
    assert kernel.name in GRAPHS
    if kernel.form == "row":
        formula = ROW_FORMULAS[kernel.name]
        assert (formula.vjp is not None) is kernel.differentiable
        assert kernel.name not in FORMULAS
    else:
        assert kernel.name in FORMULAS
        assert kernel.name in EXACT
        assert kernel.inputs == ("x",)


@pytest.mark.parametrize("kernel", ROWS, ids=[kernel.name for kernel in ROWS])
def test_the_exact_answer_of_a_row_kernel_is_that_of_its_formula(kernel: Kernel):
    x = np.array([[0.5, -1.25, 3.0, 0.75], [1.0, 2.0, -2.0, 0.25]])
    inputs = {"x": x[..., None] if kernel.axis == 1 else x}
    if "slope" in kernel.inputs:
        inputs["slope"] = np.array([0.25, 0.5, -0.25, 0.125])
    np.testing.assert_allclose(exact_rows(kernel, inputs, None)["y"], truth(kernel, inputs)["y"], rtol=1e-13)


@each
def test_names_are_safe_in_a_shell_a_file_name_and_a_url(kernel: Kernel):
    assert re.fullmatch(r"[a-z][a-z0-9.-]*", kernel.name)
    assert quote(kernel.name, safe="") == kernel.name


@each
def test_parameters_are_float32_numbers_and_free_ones_are_exact_in_bfloat16(kernel: Kernel):
    for name, value in kernel.parameters.items():
        assert value == f32(value), name
        given = value in {f32(decimal) for decimal in GIVEN}
        assert given or float(ml_dtypes.bfloat16(value)) == value, name


@each_unary
def test_limits_at_infinity_are_those_of_the_formulas_sign_included(kernel: Kernel):
    ends = {"x": np.array([-math.inf, math.inf])}
    values = truth(kernel, ends)["y"].tolist()
    slopes = truth(kernel, ends, {"y": np.ones(2)})["d_x"].tolist()
    for told, got in ((kernel.at_infinity, values), (kernel.gradient_at_infinity, slopes)):
        assert list(map(math.isnan, told)) == [False, False]
        assert got == pytest.approx(list(told), rel=UNITS_OF_BINARY64, abs=0)
        assert [math.copysign(1, number) for number in told] == [math.copysign(1, number) for number in got]


@each_unary
def test_one_sided_derivatives_at_a_kink_are_the_formulas_one_step_aside(kernel: Kernel):
    for kink in kernel.kinks:
        nearest = np.float32(kink.x)
        sides = np.nextafter(nearest, np.array([-np.inf, np.inf], np.float32))
        slopes = truth(kernel, {"x": sides}, {"y": np.ones(2)})["d_x"]
        # a straight piece has one slope; a curved one moves by about a step of float32
        np.testing.assert_allclose(slopes, [kink.left, kink.right], rtol=1e-6, atol=1e-6)


@each_unary
def test_the_derivative_jumps_at_no_point_that_is_not_a_declared_kink(kernel: Kernel):
    # the middle of each step is a point that no definition singles out: where the slope changes over a step, a kink is inside
    grid = np.arange(-8, 8, 2.0**-10) + 2.0**-11
    slopes = truth(kernel, {"x": grid}, {"y": np.ones(grid.size)})["d_x"]
    jumps = np.flatnonzero(np.abs(np.diff(slopes)) > 2.0**-7)
    declared = [kink.x for kink in kernel.kinks]
    steep = kernel.name == "exponential"
    for jump in [] if steep else jumps:
        inside = f"declare a kink between {grid[jump]} and {grid[jump + 1]}: the slope jumps there"
        assert any(grid[jump] <= x <= grid[jump + 1] for x in declared), inside
    for kink in kernel.kinks:
        if abs(kink.left - kink.right) > 2.0**-7:
            assert any(grid[jump] <= kink.x <= grid[jump + 1] for jump in jumps), kink


@each_unary
def test_roots_of_the_gradient_are_where_it_changes_sign(kernel: Kernel):
    for root in kernel.gradient_roots:
        aside = root * np.array([1 - 1e-9, 1 + 1e-9])
        slopes = truth(kernel, {"x": aside}, {"y": np.ones(2)})["d_x"]
        assert slopes[0] * slopes[1] < 0, f"{root} is no root: the slope is {slopes[0]} before and {slopes[1]} after it"
    grid = np.arange(-8, 8, 2.0**-10) + 2.0**-11
    slopes = truth(kernel, {"x": grid}, {"y": np.ones(grid.size)})["d_x"]
    crossings = np.flatnonzero(slopes[:-1] * slopes[1:] < 0)
    declared = [*kernel.gradient_roots, *(kink.x for kink in kernel.kinks)]
    for start, end in zip(grid[crossings], grid[crossings + 1], strict=True):
        assert any(start <= x <= end for x in declared), f"declare a gradient_root between {start} and {end}"


@each_unary
def test_nan_gives_nan_and_the_sign_of_zero_is_as_declared(kernel: Kernel):
    special = {"x": np.array([np.nan, 0.0, -0.0])}
    y = truth(kernel, special)["y"]
    d = truth(kernel, special, {"y": np.ones(3)})["d_x"]
    assert np.isnan(y[0])
    assert np.isnan(d[0])
    if y[1] == 0:
        assert not np.signbit(y[1])
        assert np.signbit(y[2]) == ("keeps the sign" in kernel.zero_sign)


@each
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_golden_value_is_in_the_declared_range_also_when_rounded(kernel: Kernel, dtype: str, manifest):
    y = load(golden_dir(), manifest, kernel.name).tensors["y"].astype(np.float64)
    low, high = kernel.range
    for numbers in (y, round_to(y, DTYPES[dtype])):
        assert low <= np.nanmin(numbers)
        assert np.nanmax(numbers) <= high


@each_unary
def test_a_finite_end_of_the_range_is_reached(kernel: Kernel, manifest):
    y = load(golden_dir(), manifest, kernel.name).tensors["y"]
    for end, reached in zip(kernel.range, (np.nanmin(y), np.nanmax(y)), strict=True):
        assert math.isinf(end) or abs(end - reached) <= max(2e-3, 0.02 * abs(end))


@each
def test_conventions_say_why_and_concern_inputs_that_are_special(kernel: Kernel):
    for convention in kernel.conventions:
        assert convention.why
        assert convention.inputs
        assert all(not math.isfinite(x) or any(x == kink.x for kink in kernel.kinks) for x in convention.inputs)


@pytest.mark.parametrize("name", ["argmax", "hardmax"])
def test_a_kernel_without_a_gradient_says_so(name: str):
    kernel = KERNELS[NAMES.index(name)]
    assert "no gradient, by declaration" in kernel.definition
    with pytest.raises(Unsupported, match="no gradient, by declaration"):
        truth(kernel, {"x": np.zeros((1, 4))}, {"y": np.zeros((1, 4))})
