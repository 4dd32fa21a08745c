"""The causes of float16 on arm64 explain what the steps of MLAS's source give, there alone, and no other fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from actconform.catalog.kernels import ROWS, UNARY
from actconform.comparison.comparator import comparison
from actconform.onnx.author.exporter import author
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import generate
from actconform.types import Case
from actconform.verdict.causes.explain import Explainer, Situation
from actconform.verdict.causes.register import register_of

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
REGISTER = register_of("actconform_onnxruntime")
ROUTE = "authored+ort-cpu"
ARM64 = {"onnxruntime": "1.31.1", "cpu_features": "ASIMD ASIMDDP ASIMDHP FPHP NEON", "subnormals": "kept"}
HALF = np.float16

Function: TypeAlias = Callable[[Any], Any]  # of float16 arrays


def fused(a: Any, b: Any, c: Any) -> Any:
    """Return a b + c of float16, rounded once: float64 holds a product of them exactly."""
    return (np.asarray(a, HALF).astype(np.float64) * np.asarray(b, HALF) + np.asarray(c, HALF)).astype(HALF)


def polynomial(x: Any, *coefficients: float) -> Any:
    """Return a polynomial by Horner's scheme, the highest power first."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = fused(total, x, coefficient)
    return total


def erf_of_mlas(x: Any) -> Any:
    size, sign = np.minimum(np.abs(x), HALF(4)), np.where(x < 0, HALF(-1), HALF(1))
    t = HALF(1) / fused(0.328, size, 1)
    share = polynomial(t, 1.0547, -1.423, 1.4102, -0.2881, 0.2505, 0)
    square = np.minimum(size * size, HALF(6))
    share = share * (polynomial(square, 0.0288, -0.39, 1.33) / polynomial(square, 0.467, 0.848, 1.338))
    return np.where(np.isnan(x), x, np.where(np.abs(x) < HALF(4), sign * (HALF(1) - share), sign))


def gelu_erf(x: Any) -> Any:
    return x * (HALF(0.5) * (HALF(1) + erf_of_mlas(x * HALF(0.7071067811865476))))


def gelu_tanh(x: Any) -> Any:
    v = np.clip(x, HALF(-16), HALF(16))
    v = np.clip(v * fused(0.035677408136300125, v * v, 0.7978845608028654), HALF(-3.515625), HALF(3.515625))
    above = v * polynomial(v * v, 5.96e-08, 1.484e-05, 0.000637, 0.004894)
    tanh = above / polynomial(v * v, 1.19e-06, 0.00011855, 0.002268, 0.004894)
    return x * (HALF(0.5) * (HALF(1) + tanh))


def silu(x: Any) -> Any:
    return x * (1 / (1 + np.exp(-x.astype(np.float64)))).astype(HALF)


def hard_swish(x: Any) -> Any:
    return x * np.clip(x / HALF(6) + HALF(0.5), HALF(0), HALF(1))


def mish(x: Any) -> Any:
    sum_of_exp = HALF(1) + np.exp(x.astype(np.float64)).astype(HALF)
    return x * np.tanh(np.log(sum_of_exp.astype(np.float64)).astype(HALF).astype(np.float64)).astype(HALF)


COMPUTED: dict[str, Function] = {
    "gelu-erf": gelu_erf,
    "gelu-tanh": gelu_tanh,
    "silu": silu,
    "hard-swish": hard_swish,
    "mish": mish,
}


def open_findings(name: str, compute: Function, facts: dict[str, str]) -> list[str]:
    """Return the classes of the findings that no registered cause covers, for what `compute` answers in float16."""
    folder = golden_dir()
    kernel = KERNELS[name]
    vectors = generate(kernel, "value", "f16", load(folder, read_manifest(folder), name))
    with np.errstate(all="ignore"):
        answers = [{"y": compute(vector.inputs["x"])} for vector in vectors.vectors]
    case = Case(name, "value", "f16", ROUTE)
    graph = author(kernel, "f16").model
    situation = Situation(case, REGISTER, REGISTER.active(case, facts), facts, KERNELS, graph)
    compared = comparison(vectors, answers)
    covers = Explainer(kernel, vectors, situation).explain(compared, compared.findings).covers
    return [finding.class_ for finding in compared.findings if finding.place not in covers]


def with_fault(compute: Function, low: float, high: float, factor: float) -> Function:
    return lambda x: np.where((x > low) & (x < high), compute(x) * HALF(factor), compute(x))


@pytest.mark.parametrize("name", COMPUTED)
def test_what_the_source_computes_is_known_on_arm64_with_float16_arithmetic_alone(name: str) -> None:
    assert not open_findings(name, COMPUTED[name], ARM64)
    assert open_findings(name, COMPUTED[name], ARM64 | {"cpu_features": "ASIMD NEON"})
    assert open_findings(name, COMPUTED[name], ARM64 | {"cpu_features": "AVX AVX2 AVX512FP16"})
    assert open_findings(name, COMPUTED[name], ARM64 | {"onnxruntime": "1.23.2"})


@pytest.mark.parametrize(
    ("name", "low", "high", "factor"),
    [
        ("gelu-erf", 0.03, 0.3, 1.02),  # near where erf is off by 5e-3
        ("gelu-erf", 1.0, 3.0, 1.01),
        ("gelu-erf", -2.0, -1.0, 1.1),
        ("gelu-erf", -5.0, -3.0, -60.0),  # in the tail that is lost
        ("gelu-tanh", 0.5, 1.5, 1.01),
        ("gelu-tanh", -2.0, -1.0, 1.1),
        ("silu", -2.0, -1.0, 1.01),
        ("hard-swish", 0.5, 1.5, 1.01),
        ("mish", -2.0, -1.0, 1.03),
    ],
)
def test_another_fault_in_the_same_kernels_is_not_known(name: str, low: float, high: float, factor: float) -> None:
    assert open_findings(name, with_fault(COMPUTED[name], low, high, factor), ARM64)


def test_nan_that_is_lost_and_an_infinity_are_not_known() -> None:
    lost = lambda x: np.where(np.isnan(x), HALF(0), gelu_erf(x))  # noqa: E731  a function of one line
    assert "nan-lost" in open_findings("gelu-erf", lost, ARM64)
    infinite = lambda x: np.where(x >= HALF(32768), HALF(np.inf), gelu_erf(x))  # noqa: E731  as above
    assert "inf" in open_findings("gelu-erf", infinite, ARM64)
    assert not open_findings("gelu-erf", infinite, ARM64 | {"onnxruntime": "1.30.0"})
