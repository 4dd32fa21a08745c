"""What a cause covers: all elements that its arithmetic explains, and nothing else; conventions; formulas as tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.special

from actconform.catalog.kernels import ROWS, UNARY
from actconform.comparison.comparator import comparison
from actconform.onnx.author.exporter import author
from actconform.oracle import truth
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import TestVectors, generate, unstored_vector
from actconform.tolerance.limits import row_tolerance
from actconform.types import Case, FindingClass
from actconform.types.dtypes import DTYPES
from actconform.verdict.causes.explain import CONVENTION, FLUSHED, Explainer, Explanation, Situation, plainly
from actconform.verdict.causes.register import read_register

if TYPE_CHECKING:
    from actconform.types.cause import Register

F32 = DTYPES["f32"]
KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
HEAD = """
[[library]]
name = "lib"
ulp = { exp = 2, tanh = 2, erf = 2, sigmoid = 2, expm1 = 2 }
[[cause]]
id = "c"
reason = "r"
link = "unreported"
since = "0.2"
routes = ["fw", "authored+rt"]
library = "lib"
"""


def exam_of(name: str, aspect: Any = "value", dtype: str = "f32") -> TestVectors:
    folder = golden_dir()
    return generate(KERNELS[name], aspect, dtype, load(folder, read_manifest(folder), name))


def judged(
    name: str,
    compute: Any,
    body: str,
    aspect: Any = "value",
    dtype: str = "f32",
    *,
    graph: bytes | None = None,
    facts: Any = None,
) -> tuple[Any, Explanation, Explainer]:
    """Return the comparison and the explanation of what `compute` answers, a function of the float32 input and cotangent."""
    test_vectors = exam_of(name, aspect, dtype)
    tensor = next(iter(test_vectors.vectors[0].truth))
    with np.errstate(all="ignore"):
        answers = [
            {tensor: np.asarray(compute(q.inputs["x"], (q.cotangents or {}).get("y")), q.inputs["x"].dtype)}
            for q in test_vectors.vectors
        ]
    register = read_register(HEAD + body, "test")
    case = Case(name, aspect, dtype, "authored+rt" if graph else "fw")
    facts = facts or {}
    situation = Situation(case, register, register.active(case, facts), facts, KERNELS, graph)
    compared = comparison(test_vectors, answers)
    explainer = Explainer(KERNELS[name], test_vectors, situation)
    return compared, explainer.explain(compared, compared.findings), explainer


def open_classes(compared: Any, explained: Explanation) -> set[str]:
    """Return the classes of findings that nothing covers, and of those outside a formula."""
    return {f.class_ for f in compared.findings if f.place not in explained.covers} | {
        f.class_ for f in explained.outside
    }


def elu(x: Any, _: Any = None) -> Any:
    return np.where(x > 0, x, np.exp(x) - x.dtype.type(1))


ELU = '[cause.value]\nelu = "where(x > 0, x, exp(x) - 1)"'


def test_cancellation_is_covered_by_the_formula_that_cancels_and_by_no_other() -> None:
    compared, explained, _ = judged("elu", elu, ELU)
    assert {finding.class_ for finding in compared.findings} >= {"tail"}
    assert not open_classes(compared, explained)
    by_formula = [cover for cover in explained.covers.values() if cover.cause != CONVENTION]
    assert {cover.cause for cover in by_formula} == {"c"}
    assert all(0 <= cover.used <= 1 for cover in by_formula)
    compared, explained, _ = judged("elu", elu, ELU.replace("exp(x) - 1", "expm1(x)"))
    assert "tail" in open_classes(compared, explained)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_one_percent_off_inside_the_interval_where_it_cancels_is_not_covered(dtype: str) -> None:
    if dtype == "bf16":
        pytest.skip("one percent is less than the formula's own three roundings there")
    wrong = lambda x, _: np.where((x > -0.12) & (x < -0.05), elu(x) * x.dtype.type(1.01), elu(x))  # noqa: E731
    compared, explained, _ = judged("elu", wrong, ELU, dtype=dtype)
    assert open_classes(compared, explained)


def silu(x: Any, _: Any = None) -> Any:
    return x / (1 + np.exp(-x))


SILU = '[cause.value]\nsilu = "x / (1 + exp(-x))"'


def test_a_convention_of_the_kernel_holds_for_every_backend_and_only_at_its_input() -> None:
    compared, explained, _ = judged("silu", silu, SILU)
    at_infinity = [finding for finding in compared.findings if finding.class_ == "nan-made"]
    assert {explained.covers[finding.place].cause for finding in at_infinity} == {CONVENTION}
    compared, explained, _ = judged("silu", silu, 'value = { relu = "x" }')
    assert {explained.covers[f.place].cause for f in compared.findings if f.class_ == "nan-made"} == {CONVENTION}
    compared, explained, _ = judged("silu", lambda x, _: np.where(x == np.inf, np.nan, silu(x)), SILU)
    assert open_classes(compared, explained) == {"nan-made"}


def test_the_sign_of_a_zero_is_a_convention_of_values() -> None:
    compared, explained, _ = judged(
        "relu", lambda x, _: np.where(x > 0, x, -np.float32(0)) + np.isnan(x) * x, "graph = true"
    )
    assert {finding.class_ for finding in compared.findings} >= {"zero-sign"}
    assert all(explained.covers[f.place].cause == CONVENTION for f in compared.findings if f.class_ == "zero-sign")


@pytest.mark.parametrize(("slope", "accepted"), [(0.0, True), (1.0, True), (0.5, False)])
def test_at_nan_a_derivative_may_be_the_slope_of_a_piece_and_nothing_else(slope: float, accepted: bool) -> None:
    gradient = lambda x, g: np.where(np.isnan(x), np.float32(slope), (x > 0).astype(x.dtype)) * g  # noqa: E731
    compared, explained, _ = judged("relu", gradient, "graph = true", "gradient")
    assert {f.class_ for f in compared.findings} == {"nan-lost"}
    assert (not open_classes(compared, explained)) is accepted


def test_a_smooth_kernel_has_no_slope_at_nan() -> None:
    def sigmoid(x: Any, g: Any) -> Any:
        y = scipy.special.expit(x.astype(np.float64))
        return np.where(np.isnan(x), 0, g * y * (1 - y)).astype(np.float32)

    compared, explained, _ = judged("sigmoid", sigmoid, "graph = true", "gradient")
    assert "nan-lost" in open_classes(compared, explained)


def test_an_element_outside_its_formula_is_a_finding_below_every_limit() -> None:
    def steps(x: Any, _: Any) -> Any:  # 6 units to either side, where 8 are allowed
        units = np.where(np.arange(x.size) % 2, 6, -6) * (np.abs(x) < 4)
        return (np.tanh(x.astype(np.float64)) * (1 + units * 2.0**-24)).astype(np.float32)

    compared, explained, _ = judged("tanh", steps, '[cause.value]\ntanh = "tanh(x)"')
    assert not compared.findings
    assert {finding.class_ for finding in explained.outside} == {FindingClass.FORMULA}
    assert all(
        finding.count and finding.worst and "outside tanh(x)" in finding.evidence for finding in explained.outside
    )
    _, explained, _ = judged("tanh", steps, 'test = false\n[cause.value]\ntanh = "tanh(x)"')
    assert not explained.outside
    _, explained, _ = judged("tanh", lambda x, _: np.tanh(x), '[cause.value]\ntanh = "tanh(x)"')
    assert not explained.outside


def test_of_several_texts_each_element_must_fit_one() -> None:
    either = lambda x, _: np.where(np.arange(x.size) % 2, elu(x), np.where(x > 0, x, np.expm1(x)))  # noqa: E731
    compared, explained, _ = judged(
        "elu", either, '[cause.value]\nelu = ["where(x > 0, x, exp(x) - 1)", "where(x > 0, x, expm1(x))"]'
    )
    assert not open_classes(compared, explained)


def test_an_answer_that_depends_on_its_place_needs_a_formula_for_what_deviates() -> None:
    def at_the_end(x: Any, _: Any) -> Any:
        return np.where((np.arange(x.size) == x.size - 1) & (x == np.inf), np.nan, x)

    compared, explained, _ = judged("linear", at_the_end, '[cause.value]\nlinear = "x"')
    assert {"position-dependent", "nan-made"} <= open_classes(compared, explained)
    body = 'test = false\n[cause.value]\nlinear = ["x", "x + 0 * x"]'
    compared, explained, _ = judged("linear", at_the_end, body)
    assert not open_classes(compared, explained)


def test_a_looser_formula_is_capped_at_a_few_units_or_all_of_the_truth() -> None:
    loose = '[cause.value]\nelu = "where(x > 0, x, (exp(x) + 1000) - 1001)"'
    off = lambda x, _: np.where((x > -0.001) & (x < 0), elu(x) + np.float32(2e-3), elu(x))  # noqa: E731
    compared, explained, _ = judged("elu", off, loose)
    assert "scaled-error" in open_classes(compared, explained)


def test_the_graph_excuses_rounding_where_it_is_the_definition() -> None:
    kernel = KERNELS["elu"]
    compared, explained, _ = judged("elu", elu, "graph = true", graph=author(kernel, "f32").model)
    assert {finding.class_ for finding in compared.findings} >= {"tail"}
    assert not open_classes(compared, explained)


def test_a_graph_that_is_another_function_excuses_nothing() -> None:
    gelu_tanh = lambda x, _: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))  # noqa: E731
    model = author(KERNELS["gelu-tanh"], "f32").model
    compared, explained, _ = judged("gelu-erf", gelu_tanh, "graph = true", graph=model)
    assert "scaled-error" in open_classes(compared, explained)
    compared, explained, _ = judged("gelu-tanh", gelu_tanh, "graph = true", graph=model)
    assert "scaled-error" not in open_classes(compared, explained)


GATES = {
    "swiglu": lambda a: a / (1 + np.exp(-a)),
    "geglu": lambda a: np.float32(0.5) * a * (1 + scipy.special.erf(a * np.float32(0.70710678))),
}


@pytest.mark.parametrize(("name", "gate"), [("swiglu", -120.0), ("swiglu", -720.0), ("geglu", -9.0), ("geglu", -20.0)])
@pytest.mark.parametrize(
    ("wrong", "left"), [({}, set()), ({1: np.nan}, {"nan-made"}), ({0: 5.0}, {"inf"}), ({0: np.inf}, {"inf"})]
)
def test_the_graph_excuses_nan_where_a_factor_of_infinity_is_0_in_float32_and_nothing_else(
    name: str, gate: float, wrong: dict[int, float], left: set[str]
) -> None:
    x = np.array([[gate, 1.0, np.inf, np.inf]], np.float32)
    vectors = [unstored_vector(KERNELS[name], F32, "special", {"x": x}, None)]
    test_vectors = TestVectors(row_tolerance(KERNELS[name], "value", F32), vectors)
    with np.errstate(all="ignore"):
        y = (GATES[name](x[:, :2]) * x[:, 2:]).astype(np.float32)
    assert np.isnan(y).tolist() == [[True, False]]
    for place, value in wrong.items():
        y[0, place] = value
    compared = comparison(test_vectors, [{"y": y}])
    assert compared.findings
    register = read_register(HEAD + "graph = true", "test")
    case = Case(name, "value", "f32", "authored+rt")
    graph = author(KERNELS[name], "f32").model
    situation = Situation(case, register, register.active(case, {}), {}, KERNELS, graph)
    explained = Explainer(KERNELS[name], test_vectors, situation).explain(compared, compared.findings)
    assert open_classes(compared, explained) == left


def test_same_as_judges_by_the_other_kernel_strictly() -> None:
    def gelu(x: Any, _: Any) -> Any:
        wide = x.astype(np.float64)
        return wide * scipy.special.expit(2 * 0.7978845608028654 * (wide + 0.044715 * wide**3))

    body = 'same_as = { gelu-default = "gelu-tanh" }'
    compared, explained, _ = judged("gelu-default", gelu, body)
    assert {finding.class_ for finding in compared.findings} >= {"scaled-error"}
    assert not open_classes(compared, explained)
    compared, explained, _ = judged("gelu-default", lambda x, _: gelu(x, _) * 1.001, body)
    assert "scaled-error" in open_classes(compared, explained)


def test_plain_covers_cover_a_class_of_the_case() -> None:
    covers = (
        'covers = [{ class = "scaled-error", kernels = ["elu"], bound = 1e9 }, { class = "tail", kernels = ["elu"] }]'
    )
    register: Register = read_register(HEAD + covers, "test")
    compared, _, _ = judged("elu", lambda x, _: elu(x) * np.float32(1.5), covers)
    covered = plainly(compared.findings, Case("elu", "value", "f32", "fw"), register.causes)
    assert {place[0] for place in covered} == {"scaled-error", "tail"}
    assert all(cover.used < 1 for cover in covered.values())


def test_a_row_kernel_is_explained_element_by_element() -> None:
    def silu_product(x: Any, _: Any) -> Any:
        a, b = np.split(x, 2, axis=-1)
        return a / (1 + np.exp(-a)) * b

    compared, explained, _ = judged("swiglu", silu_product, '[cause.value]\nswiglu = "a / (1 + exp(-a)) * b"')
    assert not open_classes(compared, explained)
    compared, explained, _ = judged(
        "swiglu", lambda x, _: silu_product(x, _) * np.float32(1.001), '[cause.value]\nswiglu = "a / (1 + exp(-a)) * b"'
    )
    assert "scaled-error" in open_classes(compared, explained)


def test_candidates_are_causes_of_other_routes_that_explain_every_element() -> None:
    elsewhere = ELU.replace("[cause.value]", "")
    other = HEAD.replace('id = "c"', 'id = "d"').replace('routes = ["fw", "authored+rt"]', 'routes = ["other"]')
    register = 'value = { relu = "x" }' + other.partition("[[cause]]")[2].join(
        ["\n[[cause]]", f"\n[cause.value]\n{elsewhere}"]
    )
    compared, explained, explainer = judged("elu", elu, register)
    left = [finding for finding in compared.findings if finding.place not in explained.covers]
    assert left
    assert all(explainer.candidates(compared, finding) == ("d",) for finding in left)


OF_ANOTHER = "graph = true"  # a cause that has nothing to say of a native route


def flush(array: Any) -> Any:
    return np.where(np.abs(array) < np.finfo(np.float32).tiny, np.copysign(0, array), array)


def flushing(name: str) -> Any:
    """Return an implementation, right but for subnormal numbers, which it takes and gives as zero."""

    def compute(x: Any, g: Any) -> Any:
        inputs = {"x": flush(x.astype(np.float64))}
        cotangents = None if g is None else {"y": flush(g.astype(np.float64))}
        (result,) = truth(KERNELS[name], inputs, cotangents).values()
        return flush(result) if KERNELS[name].output_dtype != "int64" else result

    return compute


@pytest.mark.parametrize("aspect", ["value", "gradient"])
@pytest.mark.parametrize(
    "name", ["relu", "gelu-erf", "exponential", "leaky-relu", "hard-swish", "softmax", "max", "glu"]
)
def test_a_stated_flush_of_subnormal_numbers_explains_what_it_does_and_no_more(name: str, aspect: str) -> None:
    stated = {"subnormals": "flushed"}
    compared, explained, _ = judged(name, flushing(name), OF_ANOTHER, aspect, facts=stated)
    assert not open_classes(compared, explained)
    assert {cover.cause for cover in explained.covers.values()} <= {FLUSHED, CONVENTION}
    twice = lambda x, g: np.where(np.abs(x) < 1e-38, flushing(name)(x, g) + 1e-3, flushing(name)(x, g))  # noqa: E731
    if name in ("relu", "gelu-erf", "leaky-relu", "hard-swish"):
        assert open_classes(*judged(name, twice, OF_ANOTHER, aspect, facts=stated)[:2])


@pytest.mark.parametrize("name", ["relu", "gelu-erf"])
def test_a_flush_that_is_not_stated_is_no_excuse(name: str) -> None:
    compared, explained, _ = judged(name, flushing(name), OF_ANOTHER, facts={"subnormals": "kept"})
    assert "subnormal-flush" in open_classes(compared, explained)


@pytest.mark.parametrize("name", ["gelu-erf", "exponential", "relu", "hard-swish"])
@pytest.mark.parametrize(("at", "wrong"), [(np.inf, 0.37), (np.nan, 0.0)])
def test_a_stated_flush_explains_no_number_where_an_infinity_or_nan_is_right(
    name: str, at: float, wrong: float
) -> None:
    def special_lost(x: Any, g: Any) -> Any:
        same = np.isnan(x) if np.isnan(at) else x == at
        return np.where(same, np.float32(wrong), flushing(name)(x, g))

    compared, explained, _ = judged(name, special_lost, OF_ANOTHER, facts={"subnormals": "flushed"})
    assert open_classes(compared, explained) & {"nan-lost", "inf"}


def test_where_an_output_has_another_shape_no_flush_explains_the_others_and_nothing_is_raised() -> None:
    """Outputs of another shape than the truth's hold no element that could be told from another."""

    def short(x: Any, _: Any) -> Any:
        y = 1.01 * scipy.special.softmax(x.astype(np.float64), axis=-1)
        return y[:-1] if len(x) > 1 else y

    compared, explained, _ = judged("softmax", short, OF_ANOTHER, facts={"subnormals": "flushed"})
    assert {"shape", "scaled-error"} <= open_classes(compared, explained)
