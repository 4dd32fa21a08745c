"""The exact references against mpmath, which knows only definitions of the values, and exact fractions at ties."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from missing_package import take_away

from actconform.catalog.kernels import UNARY
from actconform.oracle.arb.correctly_rounded import EXACT, definition, exact, exact_table
from actconform.oracle.rounding import all_patterns
from actconform.types import ASPECTS, Aspect, Kernel
from actconform.types.dtypes import DTYPES

KERNELS = {kernel.name: kernel for kernel in UNARY}
both_aspects = pytest.mark.parametrize("aspect", ASPECTS)
SELU = mpmath.mpf(1.0507009873554805), mpmath.mpf(1.6732632423543772)


def gelu_tanh(x, p):
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf(44715) / 10**6 * x**3)
    return x / 2 * (1 + mpmath.tanh(inner))


def clamp(low, y, high):
    return min(max(y, mpmath.mpf(low)), mpmath.mpf(high))


# The values as mpmath writes them; derivatives are taken numerically from these, far from the kinks.
VALUES = {
    "linear": lambda x, p: x,
    "sigmoid": lambda x, p: 1 / (1 + mpmath.exp(-x)),
    "tanh": lambda x, p: mpmath.tanh(x),
    "relu": lambda x, p: max(x, mpmath.mpf(0)),
    "leaky-relu": lambda x, p: x if x > 0 else p["alpha"] * x,
    "elu": lambda x, p: x if x > 0 else mpmath.exp(x) - 1,
    "elu-half": lambda x, p: x if x > 0 else p["alpha"] * (mpmath.exp(x) - 1),
    "selu": lambda x, p: SELU[0] * (x if x > 0 else SELU[1] * (mpmath.exp(x) - 1)),
    "celu": lambda x, p: x if x > 0 else p["alpha"] * (mpmath.exp(x / p["alpha"]) - 1),
    "softsign": lambda x, p: x / (1 + abs(x)),
    "gelu-erf": lambda x, p: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2,
    "gelu-tanh": gelu_tanh,
    "silu": lambda x, p: x / (1 + mpmath.exp(-x)),
    "swish": lambda x, p: x / (1 + mpmath.exp(-p["beta"] * x)),
    "quick-gelu": lambda x, p: x / (1 + mpmath.exp(-p["alpha"] * x)),
    "mish": lambda x, p: x * mpmath.tanh(mpmath.log(1 + mpmath.exp(x))),
    "softplus": lambda x, p: mpmath.log(1 + mpmath.exp(x)),
    "softplus-beta": lambda x, p: mpmath.log(1 + mpmath.exp(p["beta"] * x)) / p["beta"],
    "log-sigmoid": lambda x, p: mpmath.log(1 / (1 + mpmath.exp(-x))),
    "hard-sigmoid-onnx": lambda x, p: clamp(0, mpmath.mpf(p["alpha"]) * x + p["beta"], 1),
    "hard-sigmoid-relu6": lambda x, p: clamp(0, x + 3, 6) / 6,
    "hard-swish": lambda x, p: x * clamp(0, x + 3, 6) / 6,
    "hard-tanh": lambda x, p: clamp(-1, x, 1),
    "relu6": lambda x, p: clamp(0, x, 6),
    "relu-squared": lambda x, p: max(x, mpmath.mpf(0)) ** 2,
    "thresholded-relu": lambda x, p: x if x > p["alpha"] else mpmath.mpf(0),
    "threshold": lambda x, p: x if x > p["threshold"] else mpmath.mpf(p["default"]),
    "hard-shrink": lambda x, p: x if abs(x) > p["lambda"] else mpmath.mpf(0),
    "soft-shrink": lambda x, p: mpmath.sign(x) * max(abs(x) - p["lambda"], mpmath.mpf(0)),
    "tanh-shrink": lambda x, p: x - mpmath.tanh(x),
    "squareplus": lambda x, p: (x + mpmath.sqrt(x * x + p["b"])) / 2,
    "exponential": lambda x, p: mpmath.exp(x),
    "sparse-plus": lambda x, p: x if x > 1 else max(x + 1, mpmath.mpf(0)) ** 2 / 4,
    "sparse-sigmoid": lambda x, p: clamp(0, (x + 1) / 2, 1),
}


def sample(kernel: Kernel) -> list[float]:
    """Some 50 float32 numbers of all sizes, both signs, the roots of the derivative among them, no kink."""
    generator = np.random.default_rng(23)
    spread = [
        1e-42,
        1e-30,
        1e-9,
        1e-4,
        *generator.uniform(0, 3, 8),
        *generator.uniform(3, 30, 6),
        60.0,
        95.0,
        1e4,
        3e38,
    ]
    one_side = np.array(spread, dtype=np.float32).astype(np.float64)
    roots = np.array(kernel.gradient_roots, dtype=np.float32).astype(np.float64)
    return [*one_side.tolist(), *(-one_side).tolist(), *roots.tolist()]


def is_nearest(got: float, truth: mpmath.mpf) -> bool:
    """Whether no other binary64 number is nearer to the truth, with 20 digits to spare for mpmath's own error."""
    if got == 0:
        return abs(truth) <= mpmath.mpf(2) ** -1075
    if np.isinf(got):
        return mpmath.sign(truth) * got > 0 and abs(truth) >= mpmath.mpf(2) ** 1024 - mpmath.mpf(2) ** 970
    return abs(mpmath.mpf(got) - truth) <= mpmath.mpf(float(np.spacing(abs(got)))) / 2 * (1 + mpmath.mpf(10) ** -20)


def test_every_unary_kernel_has_a_definition() -> None:
    assert set(KERNELS) <= set(EXACT)


@both_aspects
@pytest.mark.parametrize("name", VALUES)
def test_against_mpmath(name: str, aspect: Aspect) -> None:
    kernel = KERNELS[name]
    points = sample(kernel)
    for x, got in zip(points, exact(kernel, aspect, np.array(points)).tolist(), strict=True):
        # What still cancels with 2000 bits lies far below 2**-1075, where binary64 is zero.
        with mpmath.workprec(2000):
            at, value = mpmath.mpf(x), VALUES[name]
            if aspect == "value":
                truth = value(at, kernel.parameters)
            else:
                step = max(abs(at), mpmath.mpf(2) ** -150) * mpmath.mpf(2) ** -300
                truth = (value(at + step, kernel.parameters) - value(at - step, kernel.parameters)) / (2 * step)
            assert is_nearest(got, truth), f"{name} {aspect} at {x.hex()}: {got}, mpmath {mpmath.nstr(truth, 25)}"


def test_far_out_signs_ties_and_limits() -> None:
    huge = np.array([-3.4e38, -1e5, 1e5, 3.4e38])
    for name in ("gelu-erf", "gelu-tanh", "silu", "mish"):
        assert [number.hex() for number in exact(KERNELS[name], "value", huge)[:2]] == ["-0x0.0p+0"] * 2, name
        np.testing.assert_array_equal(exact(KERNELS[name], "value", huge)[2:], huge[2:])
        np.testing.assert_array_equal(exact(KERNELS[name], "gradient", huge), [0, 0, 1, 1])
    # x - 1 is a tie here and x - tanh x lies a little above it: no precision that fits in memory would show so.
    x = 2.0**53 + 2
    assert exact(KERNELS["tanh-shrink"], "value", np.array([x, -x])).tolist() == [x, -x]
    assert exact(KERNELS["tanh-shrink"], "value", np.array([x + 2]))[0] == x + 2
    infinite = exact(KERNELS["softplus"], "value", np.array([-np.inf, np.inf, np.nan, 3.4e38]))
    np.testing.assert_array_equal(infinite, [0, np.inf, np.nan, 3.4e38])


def test_underflow_is_gradual_and_overflow_infinite() -> None:
    x = np.array([-745.0, -745.5, -744.0, -710.0, 709.5, 710.0])
    with mpmath.workprec(200):
        truth = [int(mpmath.nint(mpmath.exp(at) * mpmath.mpf(2) ** 1074)) for at in x[:4]]
    got = exact(KERNELS["exponential"], "value", x)
    assert [Fraction(number) * 2**1074 for number in got[:4].tolist()] == truth
    assert truth[1] == 0
    assert np.isfinite(got[4])
    assert got[5] == np.inf


def test_shape_is_kept_and_narrow_floats_are_taken_as_they_are() -> None:
    x = np.array([[0.1, 0.2, 0.3]], dtype=np.float32)
    assert exact(KERNELS["linear"], "value", x).tolist() == x.astype(np.float64).tolist()
    assert exact(KERNELS["linear"], "value", np.empty((0, 2))).shape == (0, 2)
    assert exact(KERNELS["linear"], "value", np.float64(3.5)).shape == ()


def nearest_fraction(value: Fraction, dtype: str) -> float:
    """Round a small fraction to a number of the target; round() breaks ties to even."""
    form = DTYPES[dtype]
    exponent = form.emin
    while abs(value) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    last_place = Fraction(2) ** (exponent - form.precision + 1)
    return float(round(value / last_place) * last_place)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("name", ["silu", "hard-swish"])
def test_table_at_subnormal_near_ties(name: str, dtype: str) -> None:
    """silu is x/2 + x^2/4 - ... and hard-swish x/2 + x^2/6: x/2 is a tie for every odd subnormal, and x^2 decides it upwards."""
    target = DTYPES[dtype]
    x = all_patterns(target)
    table = exact_table(KERNELS[name], "value", dtype)
    patterns = [*range(1, 2 ** (target.precision - 1)), *(0x8000 + at for at in range(1, 2 ** (target.precision - 1)))]
    changed = 0
    for pattern in patterns:
        half = Fraction(x[pattern]) / 2
        truth = nearest_fraction(half + half * half / 10**6, dtype)
        assert x[table[pattern]] == truth, hex(pattern)
        assert bool(table[pattern] >> 15) == (pattern >= 0x8000)
        changed += truth != nearest_fraction(half, dtype)
    assert changed == len(patterns) // 4 + 1


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_table_breaks_exact_ties_to_even(dtype: str) -> None:
    """With slope 1/2 every odd negative subnormal is halved to a tie, exactly."""
    half = Kernel(name="leaky-relu", definition="", source="", parameters={"alpha": 0.5})
    x, table = all_patterns(DTYPES[dtype]), exact_table(half, "value", dtype)
    for pattern in range(0x8001, 0x8000 + 2 ** (DTYPES[dtype].precision - 1)):
        assert x[table[pattern]] == nearest_fraction(Fraction(x[pattern]) / 2, dtype), hex(pattern)


@both_aspects
@pytest.mark.parametrize(
    "name", ["gelu-erf", "tanh-shrink", "leaky-relu", "exponential", "hard-sigmoid-onnx", "threshold"]
)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_table_is_the_rounded_truth(name: str, aspect: Aspect, dtype: str) -> None:
    """Every 29th pattern with the subnormals, against the bracket of the correctly rounded binary64 number."""
    target, kernel = DTYPES[dtype], KERNELS[name]
    numbers = all_patterns(target)
    some = np.unique(np.concatenate([np.arange(0, 1 << 16, 29), np.arange(40), 0x8000 + np.arange(40)]))
    table = exact_table(kernel, aspect, dtype)
    assert table.shape == (1 << 16,)
    assert table.dtype == np.uint16
    truth, got = exact(kernel, aspect, numbers[some]), numbers[table[some]]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(truth))
    assert set(table[np.isnan(numbers)].tolist()) == {0x7E00 if dtype == "f16" else 0x7FC0}
    number = ~np.isnan(truth)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(truth)[number])
    finite = np.isfinite(got)
    gap = np.maximum(2.0 ** (np.floor(np.log2(np.abs(got), where=finite & (got != 0), out=np.full_like(got, -1e4)))), 0)
    gap = np.maximum(gap, target.smallest_normal) * 2.0 ** (1 - target.precision)
    assert np.all(np.abs(got[finite] - truth[finite]) <= gap[finite] / 2)
    assert np.all(np.abs(truth[np.isinf(got)]) >= target.overflow)


def test_a_plugin_registers_its_own_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actconform.oracle.arb.correctly_rounded.EXACT", {})
    cube = Kernel(name="cube", definition="x^3", source="")
    with pytest.raises(KeyError, match=r"cube has no exact definition: register one with actconform\.oracle\.arb"):
        exact(cube, "value", np.array([2.0]))

    @definition("cube", derivative=lambda x, _: 3 * x**2, signed_zero=True)
    def value(x, _):
        return x**3

    assert exact(cube, "value", np.array([3.0, -0.0])).tolist() == [27, 0]
    assert np.signbit(exact(cube, "value", np.array([-0.0]))[0])
    assert exact(cube, "gradient", np.array([3.0]))[0] == 27
    with pytest.raises(ValueError, match="cube has an exact definition already"):
        definition("cube", derivative=value)(value)
    with pytest.raises(KeyError, match="cube has no float64 formula"):
        exact_table(cube, "value", "f16")


def test_what_no_precision_decides_is_an_error_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actconform.oracle.arb.correctly_rounded.EXACT", {})
    definition("fog", derivative=lambda x, _: x)(lambda x, _: x.pi() - x.pi())
    with pytest.raises(ArithmeticError, match=r"fog: 65536 bits do not decide how the value at 0x1\.0"):
        exact(Kernel(name="fog", definition="", source=""), "value", np.array([1.0]))


def test_without_python_flint_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, "flint")
    with pytest.raises(ImportError, match=r'pip install "actconform\[golden\]"'):
        exact(KERNELS["tanh"], "value", np.array([1.0]))
