"""Row formulas against SciPy, torch's float64 autograd, finite differences, worked values, and what must hold of them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from actconform.catalog.kernels import ROWS
from actconform.oracle import truth
from actconform.oracle.float64.rows import ROW_FORMULAS, row_formula

KERNELS = {kernel.name: kernel for kernel in ROWS}
DIFFERENTIABLE = [kernel.name for kernel in ROWS if kernel.differentiable]
SOFTMAXES = ("softmax", "softmax-axis1", "softmin")
LOG_SOFTMAXES = ("log-softmax", "log-softmax-axis1")
NAN, INF = np.nan, np.inf

rows = st.lists(st.floats(-30, 30), min_size=1, max_size=12).map(np.array)


def value(name, x, **inputs):
    return truth(KERNELS[name], {"x": np.asarray(x, float), **inputs})["y"]


def gradients(name, x, g, **inputs):
    return truth(KERNELS[name], {"x": np.asarray(x, float), **inputs}, {"y": np.asarray(g, float)})


def drawn(name, rng, n=6, scale=2.0):
    """Return (x, other inputs, cotangent), x with its rows along the kernel's axis."""
    x = rng.normal(0, scale, (4, n, 3) if KERNELS[name].axis == 1 else (4, n))
    others = {"slope": rng.uniform(-0.5, 0.5, n)} if name == "prelu" else {}
    return x, others, rng.normal(0, 1, value(name, x, **others).shape)


def torch_answer(torch, name, x, slope):
    F, axis = torch.nn.functional, KERNELS[name].axis

    def sparsemax(x):
        ordered = torch.sort(x, -1, descending=True).values
        k = torch.arange(1, x.shape[-1] + 1)
        count = (1 + k * ordered > ordered.cumsum(-1)).sum(-1, keepdim=True)
        return F.relu(x - (ordered.cumsum(-1).gather(-1, count - 1) - 1) / count)

    a, b = x.chunk(2, -1) if name.endswith("glu") else (x, x)
    return {
        "prelu": lambda: F.prelu(x, slope),
        "softmax": lambda: torch.softmax(x, axis),
        "softmax-axis1": lambda: torch.softmax(x, axis),
        "log-softmax": lambda: torch.log_softmax(x, axis),
        "log-softmax-axis1": lambda: torch.log_softmax(x, axis),
        "softmin": lambda: F.softmin(x, axis),
        "sparsemax": lambda: sparsemax(x),
        "max": lambda: x.amax(axis),
        "maxout": lambda: x.unflatten(-1, (-1, 2)).amax(-1),
        "glu": lambda: F.glu(x, axis),
        "reglu": lambda: F.relu(a) * b,
        "swiglu": lambda: F.silu(a) * b,
        "geglu": lambda: F.gelu(a) * b,
    }[name]()


def test_every_row_kernel_has_a_formula_and_a_gradient_unless_declared_without():
    assert set(ROW_FORMULAS) >= set(KERNELS)
    for name, kernel in KERNELS.items():
        assert (ROW_FORMULAS[name].vjp is not None) == kernel.differentiable, name


def test_a_second_formula_under_a_name_is_refused():
    with pytest.raises(ValueError, match="softmax has a formula already"):
        row_formula("softmax")(ROW_FORMULAS["softmax"].value)


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_values_and_gradients_agree_with_torch_in_float64(name, scale):
    torch = pytest.importorskip("torch")
    x, others, g = drawn(name, np.random.default_rng(1), scale=scale)
    tensors = {key: torch.tensor(array, requires_grad=True) for key, array in {"x": x, **others}.items()}
    y = torch_answer(torch, name, tensors["x"], tensors.get("slope"))
    y.backward(torch.tensor(g))
    assert_allclose(value(name, x, **others), y.detach().numpy(), rtol=1e-12, atol=1e-12)
    ours = gradients(name, x, g, **others)
    assert set(ours) == {f"d_{key}" for key in tensors}
    for key, tensor in tensors.items():
        assert_allclose(ours[f"d_{key}"], tensor.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_agree_with_finite_differences(name):
    rng = np.random.default_rng(2)
    x, others, g = drawn(name, rng)
    inputs = {"x": x, **others}
    for key, d in gradients(name, x, g, **others).items():
        direction = rng.normal(0, 1, inputs[key[2:]].shape)
        ends = [value(name, **{**inputs, key[2:]: inputs[key[2:]] + step * direction}) for step in (1e-6, -1e-6)]
        assert np.sum(d * direction) == pytest.approx(np.sum(g * (ends[0] - ends[1])) / 2e-6, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("size", [1.0, 80.0, 1e4, 1e-30])
def test_softmaxes_agree_with_scipy(size):
    x = np.random.default_rng(3).normal(0, size, (3, 17, 2))
    for name in SOFTMAXES:
        sign = -1 if name == "softmin" else 1
        assert_allclose(value(name, x), scipy.special.softmax(sign * x, KERNELS[name].axis), rtol=1e-13, atol=1e-300)
    for name in LOG_SOFTMAXES:
        assert_allclose(value(name, x), scipy.special.log_softmax(x, KERNELS[name].axis), rtol=1e-13, atol=1e-13)


def test_worked_values():
    assert_allclose(value("softmax", [3.0, 2.0, 1.0, 0.1]), [0.64175051, 0.23608682, 0.08685149, 0.03531118], atol=5e-9)
    logits = np.array([2.0, 4.3, 1.2, -3.1])
    p = value("softmax", logits)
    assert_allclose(p, [8.74920632e-02, 8.72661802e-01, 3.93127181e-02, 5.33416936e-04], rtol=5e-9)
    assert_array_equal(value("hardmax", p), [0, 1, 0, 0])
    assert value("argmax", p) == 1
    assert value("argmax", logits).dtype == np.int64
    assert_allclose(value("sparsemax", [0.0, 0.2, 0.1]), [7 / 30, 13 / 30, 1 / 3], rtol=1e-15)
    assert_allclose(value("sparsemax", [-1.0, 0.0, 1.0]), [0, 0, 1], rtol=1e-15)
    assert_array_equal(value("maxout", [1.0, 2.0, -3.0, -4.0]), [2, -3])
    assert value("max", [1.0, 3.0, 2.0]) == 3


def test_softmax_over_one_unit_is_one_and_learns_nothing():
    x, g = np.array([[-700.0], [0.0], [3e38]]), np.array([[1.0], [-2.5], [1e30]])
    for name in ("softmax", "softmin", "softmax-axis1", "sparsemax"):
        assert_array_equal(value(name, x), np.ones((3, 1)))
        assert_array_equal(gradients(name, x, g)["d_x"], np.zeros((3, 1)))


@given(rows)
def test_the_jacobian_of_softmax_is_diag_p_less_p_p_and_has_rank_n_less_1(x):
    x = x / 10  # so that no singular value is lost in rounding
    p = value("softmax", x)
    jacobian = np.stack([gradients("softmax", x, hot)["d_x"] for hot in np.eye(x.size)])
    assert_allclose(jacobian, np.diag(p) - np.outer(p, p), atol=1e-15)
    assert np.linalg.matrix_rank(jacobian, tol=1e-9) == x.size - 1


@given(st.floats(-700, 700))
def test_sigmoid_is_the_softmax_of_its_argument_and_zero(z):
    assert_allclose(value("softmax", [z, 0.0])[0], scipy.special.expit(z), rtol=1e-13)


@given(rows, st.integers(-1000, 1000))
def test_softmaxes_ignore_a_shift_of_all_logits(x, shift):
    x = np.round(x * 2**20) / 2**20  # so that the shift is exact
    for name in ("softmax", "log-softmax", "softmin", "sparsemax"):
        assert_array_equal(value(name, x + shift), value(name, x))


@given(rows, st.data())
def test_raising_one_logit_lowers_the_other_probabilities(x, data):
    x = x / 3  # so that no change is lost in rounding
    i = data.draw(st.integers(0, x.size - 1))
    raised = x.copy()
    raised[i] += 0.5
    p, q = value("softmax", x), value("softmax", raised)
    assert p.min() >= 0
    assert p.sum() == pytest.approx(1, abs=1e-15 * x.size)
    assert np.delete(q < p, i).all()


@given(rows, st.randoms())
def test_softmaxes_move_with_a_permutation_and_their_gradients_sum_to_zero(x, random):
    order = list(range(x.size))
    random.shuffle(order)
    g = np.cos(np.arange(x.size))
    for name in ("softmax", "log-softmax", "softmin", "sparsemax"):
        assert_allclose(value(name, x[order]), value(name, x)[order], rtol=1e-13, atol=1e-13)
        assert gradients(name, x, g)["d_x"].sum() == pytest.approx(0, abs=1e-12)


@settings(max_examples=200)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=12).map(np.array))
def test_sparsemax_is_the_projection_on_the_simplex(x):
    """Karush-Kuhn-Tucker: y >= 0 sums to 1, x - y is one number tau where y > 0, and x <= tau where y = 0."""
    y = value("sparsemax", x)
    assert y.min() >= 0
    assert y.sum() == pytest.approx(1, abs=1e-14)
    tau = (x - y)[np.argmax(y)]
    assert_allclose((x - y)[y > 0], tau, atol=1e-14)
    assert (x[y == 0] <= tau + 1e-14).all()


def test_naive_softmax_overflows_and_the_formula_does_not():
    x = np.array([1000.0, 999.0])
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.isnan(np.exp(x) / np.exp(x).sum()).all()
    assert_allclose(value("softmax", x), value("softmax", [1.0, 0.0]), rtol=1e-15)


def test_saturated_rows_keep_their_relative_accuracy():
    """Where a probability is nearly 1 the answers at it are tiny: first-order expansions in e = exp(-40) say how tiny."""
    x, g, e = np.array([0.0, -40.0]), np.array([2.0, 0.5]), np.exp(-40)
    assert_allclose(value("log-softmax", x), [-e, -40 - e], rtol=1e-14)
    assert_allclose(gradients("softmax", x, g)["d_x"], [1.5 * e, -1.5 * e], rtol=1e-14)
    assert_allclose(gradients("log-softmax", x, g)["d_x"][0], 2 * e - 0.5, rtol=1e-14)
    assert_allclose(gradients("log-softmax", x, [2.0, 0.0])["d_x"], [2 * e, -2 * e], rtol=1e-14)


@pytest.mark.parametrize("row", [[0.0, NAN, 1.0], [-INF, -INF], [INF, 0.0], [INF, INF], [NAN]])
def test_rows_with_nan_or_without_a_finite_maximum_are_all_nan(row):
    for name in ("softmax", "log-softmax", "sparsemax"):
        assert np.isnan(value(name, row)).all(), name
        assert np.isnan(gradients(name, row, np.ones(len(row)))["d_x"]).all(), name
    mirrored = -np.array(row)
    assert np.isnan(value("softmin", mirrored)).all()
    assert np.isnan(gradients("softmin", mirrored, np.ones(len(row)))["d_x"]).all()


def test_masked_entries_are_exactly_nothing():
    row, rest = [0.5, -INF, 1.0], np.array([0, 2])
    for name, masked in (("softmax", 0.0), ("log-softmax", -INF), ("sparsemax", 0.0)):
        y = value(name, row)
        assert y[1] == masked
        assert_allclose(y[rest], value(name, [0.5, 1.0]), rtol=1e-15)
    assert value("softmin", [-0.5, INF, -1.0])[1] == 0
    assert gradients("softmax", row, [1.0, 5.0, 2.0])["d_x"][1] == 0


def test_nan_is_the_maximum_and_ties_go_to_the_first():
    assert_array_equal(value("argmax", [[1, NAN, 3, NAN], [2, 5, 5, 1], [-INF, -INF, -INF, -INF]]), [1, 1, 0])
    assert_array_equal(value("hardmax", [[1, NAN, 3], [5, 5, 1]]), [[0, 1, 0], [1, 0, 0]])
    assert_array_equal(value("max", [[1, NAN], [INF, 1]]), [NAN, INF])
    assert_array_equal(value("maxout", [1, NAN, INF, 2]), [NAN, INF])
    assert_array_equal(gradients("maxout", [1, NAN, INF, 2], [1, 1])["d_x"], [NAN, NAN, 1, 0])


def test_the_gradient_of_a_maximum_is_split_over_its_ties():
    assert_array_equal(gradients("max", [[2.0, 1.0, 2.0]], [3.0])["d_x"], [[1.5, 0, 1.5]])
    assert_array_equal(gradients("maxout", [2.0, 2.0, 1.0, 0.0], [3.0, 5.0])["d_x"], [1.5, 1.5, 5, 0])


def test_prelu_takes_the_slope_of_the_last_axis_and_sums_its_gradient_over_the_others():
    x, slope = np.array([[[1.0, -2.0], [-3.0, 0.0]]]), np.array([0.5, -0.25])
    assert_array_equal(value("prelu", x, slope=slope), [[[1.0, 0.5], [-1.5, -0.0]]])
    d = gradients("prelu", x, np.array([[[1.0, 10.0], [100.0, 1000.0]]]), slope=slope)
    assert_array_equal(d["d_x"], [[[1.0, -2.5], [50.0, -250.0]]])
    assert_array_equal(d["d_slope"], [-300.0, -20.0])


def test_nan_reaches_what_it_enters_and_no_more():
    y = value("swiglu", [NAN, 1.0, 2.0, NAN, 3.0, 4.0])
    assert_array_equal(np.isnan(y), [True, False, False])
    d = gradients("prelu", [[NAN, -1.0]], [[1.0, 1.0]], slope=np.array([0.5, 0.5]))
    assert_array_equal(np.isnan(d["d_x"]), [[True, False]])
    assert_array_equal(np.isnan(d["d_slope"]), [True, False])
    for name in ("glu", "reglu", "swiglu", "geglu"):
        assert np.isnan(gradients(name, [NAN, 1.0], [1.0])["d_x"]).any(), name
        with pytest.raises(ValueError, match="equal division"):
            value(name, [1.0, 2.0, 3.0])


def test_inputs_are_left_as_they_are():
    for name in DIFFERENTIABLE:
        x, others, g = drawn(name, np.random.default_rng(4))
        before = [array.copy() for array in (x, g, *others.values())]
        gradients(name, x, g, **others)
        value(name, x, **others)
        for array, copy in zip((x, g, *others.values()), before, strict=True):
            assert_array_equal(array, copy)
