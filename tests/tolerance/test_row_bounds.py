"""The bounds are wide enough for healthy implementations, narrow enough for broken ones, and reach the conventions exactly."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_array_equal

from actconform.catalog.kernels import ROWS
from actconform.oracle import truth
from actconform.testdata.regimes import row_cotangent, row_draws
from actconform.tolerance.row_bounds import dot_factor, row_bound
from actconform.types import Kernel
from actconform.types.dtypes import DTYPES

KERNELS = {kernel.name: kernel for kernel in ROWS}
STORAGE = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
REGIMES = {
    "ordinary": lambda rng, shape: rng.normal(0, 3, shape),
    "80": lambda rng, shape: rng.uniform(-80, 80, shape),
    "1e4": lambda rng, shape: rng.uniform(-1e4, 1e4, shape),
    "tiny": lambda rng, shape: rng.normal(0, 1e-30, shape),
}
LENGTHS = (1, 2, 3, 17, 1000, 4096)
SCALED = [kernel.name for kernel in ROWS if kernel.tier == "scaled"]


def rounder(dtype):
    """Return a function that rounds to the dtype and holds the result in float32, as an operator's output in a graph."""
    return lambda v: np.asarray(v).astype(STORAGE[dtype]).astype(np.float32)


def softmax_steps(x, g, axis, r):
    e = r(np.exp(r(x - x.max(axis, keepdims=True))))
    p = r(e / r(e.sum(axis, keepdims=True)))
    return p, r(p * r(g - r(r(p * g).sum(axis, keepdims=True))))


def log_softmax_steps(x, g, axis, r):
    a = r(x - x.max(axis, keepdims=True))
    y = r(a - r(np.log(r(r(np.exp(a)).sum(axis, keepdims=True)))))
    return y, r(g - r(r(np.exp(y)) * r(g.sum(axis, keepdims=True))))


def sparsemax_steps(x, g, r):
    """Without a shift by the maximum, as it is written in Martins and Astudillo 2016."""
    z = np.flip(np.sort(x, -1), -1)
    sums = r(np.cumsum(z, -1))
    inside = r(1 + r(np.arange(1, x.shape[-1] + 1, dtype=np.float32) * z)) > sums
    count = inside.sum(-1, keepdims=True)
    y = np.maximum(r(x - r(r(np.take_along_axis(sums, count - 1, -1) - 1) / count)), 0)
    mean = r(r(np.where(y > 0, g, 0).sum(-1, keepdims=True)) / np.maximum((y > 0).sum(-1, keepdims=True), 1))
    return y, np.where(y > 0, r(g - mean), 0)


def gated_steps(name, x, g, r):
    a, b = np.split(x, 2, -1)

    def sigmoid(v):
        return r(1 / r(1 + r(np.exp(-v))))

    if name == "glu":
        s = sigmoid(b)
        return r(a * s), np.concatenate([r(g * s), r(r(g * a) * r(s * r(1 - s)))], -1)
    if name == "swiglu":
        s = sigmoid(a)
        f, d = r(a * s), r(s * r(1 + r(a * r(1 - s))))
    else:
        cdf = r(0.5 * r(1 + r(scipy.special.erf(r(a * np.float32(0.5**0.5))))))
        f, d = r(a * cdf), r(cdf + r(a * r(np.float32(0.3989423) * r(np.exp(r(-0.5 * r(a * a)))))))
    return r(f * b), np.concatenate([r(r(g * b) * d), r(g * f)], -1)


def by_steps(name, x, g, dtype):
    """Return {"y", "d_x"} of an implementation in simple steps, each rounded to the dtype, sums in float32."""
    r, axis = rounder(dtype), KERNELS[name].axis
    with np.errstate(all="ignore"):
        if name == "softmin":
            y, d = softmax_steps(-x, g, axis, r)
            return {"y": y, "d_x": -d}
        if name.startswith("softmax"):
            return dict(zip(("y", "d_x"), softmax_steps(x, g, axis, r), strict=True))
        if name.startswith("log-softmax"):
            return dict(zip(("y", "d_x"), log_softmax_steps(x, g, axis, r), strict=True))
        if name == "sparsemax":
            return dict(zip(("y", "d_x"), sparsemax_steps(x, g, r), strict=True))
        return dict(zip(("y", "d_x"), gated_steps(name, x, g, r), strict=True))


def by_torch(name, x, g, dtype):
    torch = pytest.importorskip("torch")
    F, axis = torch.nn.functional, KERNELS[name].axis
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    x = torch.tensor(x).to(kind).requires_grad_()
    a, b = x.chunk(2, -1) if name in ("swiglu", "geglu") else (x, x)
    y = {
        "softmin": lambda: F.softmin(x, axis),
        "glu": lambda: F.glu(x, axis),
        "swiglu": lambda: F.silu(a) * b,
        "geglu": lambda: F.gelu(a) * b,
    }.get(name, lambda: torch.log_softmax(x, axis) if name.startswith("log") else torch.softmax(x, axis))()
    y.backward(torch.tensor(g).to(kind))
    return {"y": y.detach().float().numpy(), "d_x": x.grad.float().numpy()}


def truths_and_bounds(name, x, g, dtype):
    kernel, inputs, g = KERNELS[name], {"x": x.astype(float)}, g.astype(float)
    true = truth(kernel, inputs)
    bound = row_bound(kernel, DTYPES[dtype], inputs, None, true)
    pulled = truth(kernel, inputs, {"y": g})
    return true | pulled, bound | row_bound(kernel, DTYPES[dtype], inputs, g, pulled)


def ratios(answer, true, bound, dtype):
    """Return the worst |got - truth| / bound of each tensor, over what the dtype can hold."""
    worst = {}
    for tensor, got in answer.items():
        held = np.abs(true[tensor]) < DTYPES[dtype].overflow
        error = np.abs(got.astype(float) - true[tensor])[held]
        with np.errstate(all="ignore"):
            worst[tensor] = np.where(error == 0, 0.0, error / bound[tensor][held]).max(initial=0)
    return worst


def drawn(name, regime, dtype):
    """Yield (x, cotangent) in the dtype, as float32, for each length."""
    rng, r = np.random.default_rng(11), rounder(dtype)
    for n in LENGTHS:
        even = n + n % 2 if name.endswith("glu") else n
        shape = (8 if n < 100 else 2, even, *((2,) if KERNELS[name].axis == 1 else ()))
        x = r(REGIMES[regime](rng, shape))
        y = truth(KERNELS[name], {"x": x.astype(float)})["y"]
        for g in (rng.normal(0, 1, y.shape), np.ones(y.shape)):
            yield x, r(g)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("implementation", [by_steps, by_torch])
def test_healthy_implementations_stay_well_within_and_fill_a_good_part(implementation, name, regime, dtype):
    if name == "sparsemax" and implementation is by_torch:
        pytest.skip("torch has no sparsemax")
    if name == "sparsemax" and dtype != "f32" and regime in ("80", "1e4"):
        pytest.skip("unshifted sparsemax does not work where an ULP of the logits nears 1")
    worst = {"y": 0.0, "d_x": 0.0}
    for x, g in drawn(name, regime, dtype):
        seen = ratios(implementation(name, x, g, dtype), *truths_and_bounds(name, x, g, dtype), dtype)
        worst = {tensor: max(worst[tensor], seen[tensor]) for tensor in worst}
    assert max(worst.values()) <= 0.7
    if regime == "ordinary":
        assert min(worst.values()) >= 1 / 30


def broken(name, x, g, dtype, defect):
    """Return y of an implementation with one named fault."""
    r = rounder(dtype)
    a, b = np.split(x, 2, -1)
    e = np.exp(x - x.max(-1, keepdims=True))
    with np.errstate(all="ignore"):
        match defect:
            case "one term of the sum missing":
                y = e / (e.sum(-1, keepdims=True) - e.min(-1, keepdims=True))
            case "over the wrong axis":
                y = scipy.special.softmax(x, 0)
            case "log of a rounded softmax":
                y = np.log(r(scipy.special.softmax(x, -1)))
            case "running sum in 16 bits":
                total = np.zeros((*x.shape[:-1], 1), np.float32)
                for i in range(x.shape[-1]):
                    total = r(total + r(e[..., i : i + 1]))
                y = r(e) / total
            case "halves exchanged":
                y = by_steps(name, np.concatenate([b, a], -1), g, dtype)["y"]
            case "tanh approximation":
                y = 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))) * b
            case "tau from the sum of the running sums":
                z = np.flip(np.sort(x, -1), -1)
                sums = np.cumsum(z, -1)
                inside = z - (sums - 1) / np.arange(1, x.shape[-1] + 1) > 0
                tau = (np.where(inside, sums, 0).sum(-1, keepdims=True) - 1) / inside.sum(-1, keepdims=True)
                y = np.maximum(x - tau, 0)
    return r(y)


@pytest.mark.parametrize(
    ("name", "dtype", "scale", "defect"),
    [
        ("softmax", "f32", 3.0, "one term of the sum missing"),
        ("softmax", "f16", 1.0, "one term of the sum missing"),
        ("softmax", "bf16", 1.0, "over the wrong axis"),
        ("softmax", "bf16", 0.0, "running sum in 16 bits"),
        ("log-softmax", "f32", 60.0, "log of a rounded softmax"),
        ("log-softmax", "f16", 10.0, "log of a rounded softmax"),
        ("glu", "bf16", 1.0, "halves exchanged"),
        ("geglu", "f32", 1.0, "tanh approximation"),
        ("sparsemax", "f32", 0.5, "tau from the sum of the running sums"),
        ("sparsemax", "bf16", 0.5, "tau from the sum of the running sums"),
    ],
)
def test_defects_break_the_bounds(name, dtype, scale, defect):
    rng, r = np.random.default_rng(12), rounder(dtype)
    x = r(rng.normal(0, scale, (4, 600 if "running sum in" in defect else 12)))
    g = np.ones(truth(KERNELS[name], {"x": x.astype(float)})["y"].shape, np.float32)
    true, bound = truths_and_bounds(name, x, g, dtype)
    assert ratios({"y": broken(name, x, g, dtype, defect)}, true, bound, dtype)["y"] > 1.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KERNELS)
def test_bounds_of_the_catalog_s_rows_are_finite_and_0_where_the_truth_is_not(name, dtype):
    kernel = KERNELS[name]
    for number, draw in enumerate(row_draws(kernel)):
        inputs = {key: array.astype(STORAGE["f32"]).astype(float) for key, array in draw.inputs.items()}
        true = truth(kernel, inputs)
        bound = row_bound(kernel, DTYPES[dtype], inputs, None, true)
        if kernel.differentiable:
            g = row_cotangent(kernel, number, draw, true["y"].shape).astype(float)
            pulled = truth(kernel, inputs, {"y": g})
            bound |= row_bound(kernel, DTYPES[dtype], inputs, g, pulled)
            true |= pulled
        assert bound.keys() == true.keys()
        for tensor, limit in bound.items():
            assert limit.shape == true[tensor].shape
            assert np.isfinite(limit).all(), (draw.regime, tensor)
            assert (limit >= 0).all()
            assert (limit[~np.isfinite(true[tensor])] == 0).all()


def exact_bound(name, x, g=None, dtype="f32", **inputs):
    kernel = KERNELS[name]
    wide = {"x": np.array(x), **inputs}
    g = None if g is None else np.array(g)
    true = truth(kernel, wide, None if g is None else {"y": g})
    return row_bound(kernel, DTYPES[dtype], wide, g, true)


@pytest.mark.parametrize("shift", [0.0, 1000.0, -300.0])
def test_log_softmax_may_be_the_difference_of_x_and_logsumexp(shift):
    x = (np.random.default_rng(5).normal(0, 3, (64, 40)) + shift).astype(np.float32)
    top = x.max(axis=-1, keepdims=True)
    y = x - (top + np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))
    wide = x.astype(np.float64)
    true = scipy.special.log_softmax(wide, -1)
    bound = exact_bound("log-softmax", wide)["y"]
    assert (np.abs(y - true) <= bound).all()
    assert (bound <= 2.0**-24 * (abs(shift) + 200)).all()


def test_selections_are_allowed_no_error():
    for name in ("max", "maxout", "argmax", "hardmax"):
        assert not exact_bound(name, [[1.0, 3.0, 2.0, 2.5]])["y"].any()
    assert not exact_bound("max", [[1.0, 3.0, 2.0]], [0.7])["d_x"].any()


def test_the_gradient_at_ties_may_go_to_any_of_them_but_not_beyond():
    for g in (1.0, -0.75):
        truth_and_bound = [0.5 * g, exact_bound("max", [[2.0, 1.0, 2.0]], [g])["d_x"]]
        for convention in (0.0, g, 0.5 * g):
            assert (np.abs(convention - truth_and_bound[0]) <= truth_and_bound[1][:, [0, 2]]).all()
        assert (np.abs(1.01 * g - truth_and_bound[0]) > truth_and_bound[1]).all()
        assert truth_and_bound[1][0, 1] == 0
    assert_array_equal(exact_bound("maxout", [2.0, 2.0, 1.0, 0.0], [1.0, 1.0])["d_x"] > 0, [True, True, False, False])


def test_products_are_allowed_half_an_ulp_and_one_in_16_bits():
    inputs = {"x": [[1.5, -1.5]], "slope": np.array([0.25, 0.25])}
    assert_array_equal(exact_bound("prelu", **inputs)["y"], [[0.0, 2.0**-26]])
    assert_array_equal(exact_bound("prelu", **inputs, dtype="f16")["y"], [[0.0, 2.0**-12]])
    assert_array_equal(exact_bound("reglu", [[3.0, 1.0]])["y"], [[2.0**-23]])


def test_either_side_s_gradient_is_accepted_at_zero_and_only_there():
    slope = np.array([0.25, 0.25, 0.25])
    d = exact_bound("prelu", [[0.0, 1e-3, -1e-3]], [[2.0, 2.0, 2.0]], slope=slope)["d_x"][0]
    assert d[0] == pytest.approx(1.5)
    assert max(d[1:]) < 1e-6
    d = exact_bound("reglu", [[0.0, 1e-3, 5.0, 5.0]], [[2.0, 2.0]])["d_x"][0]
    assert d[0] == pytest.approx(10)
    assert max(d[1:]) < 1e-5


def test_the_slope_gradient_is_a_dot_product_over_the_batch():
    rng = np.random.default_rng(13)
    for dtype in DTYPES:
        r = rounder(dtype)
        for batch in (1, 30, 3000):
            x, g = r(rng.normal(0, 1, (batch, 4))), r(rng.normal(0, 1, (batch, 4)))
            terms = r(np.where(x > 0, 0, g * x))
            inputs = {"x": x.astype(float), "slope": np.full(4, 0.25)}
            true = truth(KERNELS["prelu"], inputs, {"y": g.astype(float)})
            bound = row_bound(KERNELS["prelu"], DTYPES[dtype], inputs, g.astype(float), true)
            assert ratios({"d_slope": r(terms.sum(0))}, true, bound, dtype)["d_slope"] <= 0.7
            if batch > 1:
                assert (np.abs(terms.astype(float)[1:].sum(0) - true["d_slope"]) > 0).any()


def test_dot_factor_is_the_certain_bound_when_short_and_the_likely_one_when_long():
    u = 2.0**-24
    assert dot_factor(4, u) == pytest.approx(4 * u, rel=1e-5)
    assert dot_factor(10**6, u) == pytest.approx(6e3 * u, rel=1e-2)
    assert np.isfinite(dot_factor(4096, 2.0**-8))


def test_a_scaled_kernel_without_a_bound_is_refused_and_an_exact_one_is_held_to_its_ulp():
    inputs, true = {"x": np.ones(2)}, {"y": np.ones(2)}
    with pytest.raises(LookupError, match="row kernel new has no error bound"):
        row_bound(Kernel(name="new", definition="", source="", form="row"), DTYPES["f32"], inputs, None, true)
    exact = Kernel(name="new", definition="", source="", form="row", tier="exact", exact_ulp=1.0)
    assert_array_equal(row_bound(exact, DTYPES["f32"], inputs, None, true)["y"], [2.0**-23] * 2)
