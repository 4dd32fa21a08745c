"""The correctly rounded evaluator: against the goldens on authored graphs, against Arb and SciPy by operator, against onnx on the rest."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import scipy.special
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from actconform import Kernel, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.comparison.comparator import compare, comparison
from actconform.onnx.author.exporter import OPSET, author
from actconform.onnx.evaluate import elementwise
from actconform.onnx.evaluate.elementwise import OPERATIONS, PASSED_ON, REDUCTIONS
from actconform.onnx.evaluate.evaluator import CorrectlyRoundedEvaluator, operators
from actconform.testdata.golden.store import golden_dir, load, read_manifest
from actconform.testdata.kernel_vectors import TestVector, generate
from actconform.tolerance.ulp import ulp_of
from actconform.types import Case, Finding
from actconform.types.dtypes import DTYPES
from actconform.verdict.blame import blame
from actconform.verdict.causes.conventions import accepted

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
STORAGE: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
ELEMENT = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.INT64: np.int64}

SINGLE = [(name, dtype) for name in KERNELS for dtype in STORAGE if author(KERNELS[name], dtype).path[0] == "o"]

# Authored graphs that break a limit though every node is exact and rounded once, and how.
ILL_CONDITIONED = {
    "tanh-shrink": {"tail", "subnormal-flush"},  # x - tanh(x) cancels near zero
    "squareplus": {"tail", "inf"},  # x + sqrt(x^2 + 4) cancels for x < 0; x^2 overflows
}
# Operators that do not have the kernels' policy: NaN is not above the threshold, so it becomes 0.
OTHER_POLICY = {"ThresholdedRelu": {"nan-lost"}, "Shrink": {"nan-lost"}}


def questions_of(kernel: Kernel, dtype: str) -> tuple[Any, list[TestVector]]:
    folder = golden_dir()
    test_vectors = generate(kernel, "value", dtype, load(folder, read_manifest(folder), kernel.name))
    return test_vectors, test_vectors.vectors


def one_node(op_type: str, *arrays: NDArray[Any], outputs: int = 1, opset: int = OPSET, **attributes: Any) -> bytes:
    """Return a model of one node that takes arrays such as these."""
    names = [f"in{i}" for i in range(len(arrays))]
    node = helper.make_node(op_type, names, [f"out{i}" for i in range(outputs)], name="the-node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))
            for name, array in zip(names, arrays, strict=True)
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return model.SerializeToString()


def answer(op_type: str, *arrays: NDArray[Any], rounding: bool = True, **options: Any) -> NDArray[Any]:
    model = one_node(op_type, *arrays, **options)
    inputs = {f"in{i}": array for i, array in enumerate(arrays)}
    result: NDArray[Any] = CorrectlyRoundedEvaluator(model, rounding=rounding).forward(inputs)["out0"]
    return result


def parsed(text: str) -> bytes:
    blob: bytes = parser.parse_model(text).SerializeToString()
    return blob


def f32(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@pytest.mark.parametrize(("name", "dtype"), [each for each in SINGLE if each[0] != "selu"])  # see the test of Selu
def test_a_kernel_that_is_one_operator_gets_the_correctly_rounded_truth(name: str, dtype: str) -> None:
    kernel = KERNELS[name]
    _, vectors = questions_of(kernel, dtype)
    runtime = CorrectlyRoundedEvaluator(author(kernel, dtype).model)
    for vector in vectors:
        truth = vector.truth["y"]
        y = runtime.forward(vector.inputs)["y"]
        assert y.dtype == vector.dtypes["y"]
        if kernel.output_dtype == "int64":
            np.testing.assert_array_equal(y, truth)
            continue
        got = y.astype(np.float64)
        finite = np.isfinite(truth) & np.isfinite(vector.input_at["y"])
        huge = np.abs(truth) >= DTYPES[dtype].overflow
        np.testing.assert_array_equal(got[finite & huge], np.copysign(np.inf, truth[finite & huge]))
        near = finite & ~huge
        ulps = np.abs(got[near] - truth[near]) / ulp_of(truth[near], DTYPES[dtype])
        assert ulps.max(initial=0.0) <= 0.5 + 1e-6


@pytest.mark.parametrize("dtype", STORAGE)
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_a_kernel_is_within_its_limits_unless_its_graph_is_known_to_be_ill_conditioned(
    kernel: Kernel, dtype: str
) -> None:
    test_vectors, vectors = questions_of(kernel, dtype)
    artifact = author(kernel, dtype)
    runtime = CorrectlyRoundedEvaluator(artifact.model)
    compared = comparison(test_vectors, [runtime.forward(vector.inputs) for vector in vectors])

    def of_convention(finding: Finding) -> bool:
        elements = compared.elements.get(finding.place)
        case = Case(kernel.name, "value", dtype, "authored+ideal")
        if elements is None or blame(finding, kernel, case).blame == "convention":
            return elements is not None
        sample = compared.samples[finding.regime, finding.tensor]
        return bool(accepted(kernel, "value", DTYPES[dtype], sample)[elements].all())

    # each node rounds: in 16 bits many results are not the nearest
    judged = [finding for finding in compared.findings if "nearest number" not in finding.evidence]
    classes = {finding.class_ for finding in judged if not of_convention(finding)}
    expected = ILL_CONDITIONED.get(kernel.name, set()) | OTHER_POLICY.get(
        artifact.path.removeprefix("operator: "), set()
    )
    assert classes == expected


def test_log_of_sigmoid_is_the_graphs_fault() -> None:
    model = parsed(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) { s = Sigmoid(x) y = Log(s) }'
    )
    x = f32(-104.0, -50.0)
    assert CorrectlyRoundedEvaluator(model).forward({"x": x})["y"][0] == -np.inf
    y = CorrectlyRoundedEvaluator(model, rounding=False).forward({"x": x})["y"]
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, [-104.0, -50.0], rtol=1e-15)


def test_a_wrong_attribute_shows() -> None:
    kernel = KERNELS["leaky-relu"]
    model = onnx.load_from_string(author(kernel, "f32").model)
    model.graph.node[0].attribute[0].f *= 1.001
    test_vectors, vectors = questions_of(kernel, "f32")
    runtime = CorrectlyRoundedEvaluator(model.SerializeToString())
    _, findings = compare(test_vectors, [runtime.forward(vector.inputs) for vector in vectors])
    assert "scaled-error" in {finding.class_ for finding in findings}


@pytest.mark.parametrize("op_type", ["Erf", "Gelu"])
def test_erf_and_gelu_are_accurate_in_float64(op_type: str) -> None:
    flint = pytest.importorskip("flint")
    x = np.concatenate([np.linspace(-6, 6, 401), [1e-300, -1e-9, -5.598, -8.0]])

    def true(v: float) -> float:
        ball = flint.arb(v)
        with flint.ctx.workprec(200):
            return float(ball.erf() if op_type == "Erf" else ball * (-ball / flint.arb(2).sqrt()).erfc() / 2)

    truth = np.array([true(v) for v in x.tolist()])
    np.testing.assert_allclose(answer(op_type, x), truth, rtol=2e-14, atol=0)


def test_selu_is_computed_with_the_constants_that_the_graph_has() -> None:
    # its defaults are float32 roundings of the kernel's constants: half an ULP from the kernel before anything is computed
    x = np.array([-3.0, -0.5, 2.0])
    negative = np.float64(np.float32(1.25)) * 2.0 * np.expm1(x)
    np.testing.assert_allclose(
        answer("Selu", x, alpha=2.0, gamma=1.25), np.where(x > 0, 1.25 * x, negative), rtol=1e-15
    )


@pytest.mark.parametrize(
    "kernel", [KERNELS[name] for name, dtype in SINGLE if dtype == "f32" and KERNELS[name] in UNARY]
)
def test_special_values_are_those_of_the_standards_formula(kernel: Kernel) -> None:
    model = author(kernel, "f32").model
    x = f32(np.inf, -np.inf, np.nan, 0.0, -0.0, 1e30, -1e30, 1e-40, -1e-40)
    with np.errstate(all="ignore"):
        (expected,) = ReferenceEvaluator(onnx.load_from_string(model)).run(None, {"x": x})
    y = CorrectlyRoundedEvaluator(model).forward({"x": x})["y"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-40)
    if kernel.name != "relu6":  # onnx gives -0 for Clip(-0, 0, 6); IEEE's maximum is +0
        np.testing.assert_array_equal(np.signbit(y[3:]), np.signbit(expected[3:]))


def test_a_gate_that_closes_at_infinity_gives_nan_fused_or_not() -> None:
    model = parsed(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) { s = Sigmoid(x) y = Mul(x, s) }'
    )
    assert np.isnan(CorrectlyRoundedEvaluator(model).forward({"x": f32(-np.inf)})["y"][0])
    assert np.isnan(answer("Swish", f32(-np.inf))[0])
    assert answer("Swish", f32(np.inf))[0] == np.inf


POINTS = f32(0.3, -0.6, 0.95, -1e-3)
LAYERS = {op_type for op_type, compute in OPERATIONS.items() if compute.__module__ != elementwise.__name__}
OWN_TESTS = {"SwiGLU", "Cast", "CastLike", "GatherElements", "GlobalMaxPool"} | LAYERS  # see test_layers
BEYOND_ONE = {"Acosh", "Log", "Sqrt"}


@pytest.mark.parametrize("op_type", sorted(OPERATIONS.keys() - REDUCTIONS.keys() - OWN_TESTS))
def test_every_operation_is_the_one_that_onnx_means(op_type: str) -> None:
    x = 1.5 + POINTS**2 if op_type in BEYOND_ONE else POINTS
    many = {
        "Add": 2,
        "Div": 2,
        "Max": 3,
        "Mean": 3,
        "Min": 3,
        "Mul": 2,
        "Pow": 2,
        "PRelu": 2,
        "Sub": 2,
        "Sum": 3,
        "SwiGLU": 2,
    }
    arrays = [np.abs(x) if op_type == "Pow" else x, f32(*[2.5] * 4), f32(*[-0.25] * 4)][: many.get(op_type, 1)]
    arrays = [array.reshape(2, 2) for array in arrays]
    model = one_node(op_type, *arrays)
    inputs = {f"in{i}": array for i, array in enumerate(arrays)}
    (expected,) = ReferenceEvaluator(onnx.load_from_string(model)).run(None, inputs)
    np.testing.assert_allclose(CorrectlyRoundedEvaluator(model).forward(inputs)["out0"], expected, rtol=1e-6)


@pytest.mark.parametrize("opset", [13, OPSET])
@pytest.mark.parametrize("op_type", REDUCTIONS)
@pytest.mark.parametrize(("axes", "keepdims"), [([1], 0), ([-1, 0], 1), (None, 0)])
def test_reductions_take_their_axes_as_attribute_or_input(
    op_type: str, opset: int, axes: list[int] | None, keepdims: int
) -> None:
    x = np.random.default_rng(1).uniform(0.5, 2.0, (2, 3, 4))
    as_input = opset >= 18 or op_type == "ReduceSum"
    arrays = [x] if axes is None or not as_input else [x, np.array(axes)]
    attributes: dict[str, Any] = {} if axes is None or as_input else {"axes": axes}
    model = one_node(op_type, *arrays, opset=opset, keepdims=keepdims, **attributes)
    inputs = {f"in{i}": array for i, array in enumerate(arrays)}
    (expected,) = ReferenceEvaluator(onnx.load_from_string(model)).run(None, inputs)
    y = CorrectlyRoundedEvaluator(model).forward(inputs)["out0"]
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_a_reduction_over_no_axes_may_do_nothing() -> None:
    x = np.ones((2, 2))
    assert answer("ReduceSum", x, np.array([], np.int64), noop_with_empty_axes=1).shape == (2, 2)


def test_a_sum_is_exact_whatever_cancels() -> None:
    rows = np.array([[1e30, 1.0, -1e30], [np.inf, 1.0, -np.inf]], np.float32)
    total = answer("ReduceSum", rows, np.array([1]), keepdims=0)
    assert total[0] == 1.0
    assert np.isnan(total[1])


def test_softmax_and_logarithms_of_sums_agree_with_scipy() -> None:
    x = np.random.default_rng(2).normal(0, 30, (5, 9))
    np.testing.assert_allclose(answer("Softmax", x, axis=0), scipy.special.softmax(x, axis=0), rtol=1e-13)
    np.testing.assert_allclose(answer("LogSoftmax", x), scipy.special.log_softmax(x, axis=-1), rtol=1e-12, atol=1e-13)
    x[0] = -np.inf
    expected = scipy.special.logsumexp(x, axis=1)
    np.testing.assert_allclose(answer("ReduceLogSumExp", x, np.array([1]), keepdims=0), expected, rtol=1e-13)


def test_a_small_log_probability_keeps_its_digits() -> None:
    y = answer("LogSoftmax", f32(50.0, 0.0))
    np.testing.assert_allclose(y[0], -np.exp(-50.0), rtol=1e-7)


def test_maximum_and_minimum_tell_zeros_apart_and_keep_nan() -> None:
    a, b = f32(0.0, -0.0, -0.0, np.nan), f32(-0.0, 0.0, -0.0, 1.0)
    high, low = answer("Max", a, b), answer("Min", a, b)
    np.testing.assert_array_equal(np.signbit(high[:3]), [False, False, True])
    np.testing.assert_array_equal(np.signbit(low[:3]), [True, True, True])
    assert np.isnan(high[3])
    assert np.isnan(low[3])


def test_integers_stay_integers_and_their_quotients_are_truncated() -> None:
    y = answer("Div", np.array([-7, 7, -8, 7]), np.array([2, 2, 2, -2]))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, [-3, 3, -4, -3])
    np.testing.assert_array_equal(answer("Pow", np.array([3]), np.array([39])), np.array([3**39]))
    large = np.array([2**62 + 1])
    np.testing.assert_array_equal(answer("Add", large, np.array([1])), large + 1)


def test_each_result_is_rounded_once_to_the_type_of_its_tensor() -> None:
    half = np.array([2048.0, 1.0, 60000.0, 6e-8], np.float16)
    y = answer("Add", half, np.array([1.0, 2.0**-11, 60000.0, 0.0], np.float16))
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.array([2048.0, 1.0, np.inf, 6e-8], np.float16))
    brain = np.array([1.0], ml_dtypes.bfloat16)
    y = answer("Add", brain, np.array([2.0**-8 + 2.0**-15], ml_dtypes.bfloat16))
    assert y.dtype == ml_dtypes.bfloat16
    assert float(y[0]) == 1.0 + 2.0**-7
    assert answer("Mul", f32(2.0**-100), f32(2.0**-45))[0] == 2.0**-145


def test_without_rounding_small_types_are_not_rounded_between_nodes() -> None:
    third = answer("Reciprocal", np.array([3.0], np.float16), rounding=False)
    assert third.dtype == np.float64
    assert third[0] == 1 / 3


def test_a_cast_rounds_truncates_and_asks_for_zero() -> None:
    x = f32(1.00048828125, -2.75, 70000.0, np.nan)
    halves = answer("Cast", x, to=TensorProto.FLOAT16)
    np.testing.assert_array_equal(halves, np.array([1.0, -2.75, np.inf, np.nan], np.float16))
    np.testing.assert_array_equal(answer("Cast", x[:3], to=TensorProto.INT32), np.array([1, -2, 70000], np.int32))
    np.testing.assert_array_equal(answer("Cast", f32(0.0, np.nan, 3.0), to=TensorProto.BOOL), [False, True, True])


def test_gathering_along_an_axis_of_any_length() -> None:
    x = np.arange(140, dtype=np.float32).reshape(2, 70)
    index = np.array([[69, 0, -1]])
    np.testing.assert_array_equal(answer("GatherElements", x, index, axis=1), [[69.0, 0.0, 69.0]])


def test_a_global_maximum_is_over_all_axes_but_two() -> None:
    x = np.random.default_rng(3).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(answer("GlobalMaxPool", x), x.max(axis=(2, 3), keepdims=True))
    np.testing.assert_array_equal(answer("GlobalMaxPool", x[..., 0]), x[..., 0].max(axis=2, keepdims=True))


def test_optional_inputs_and_outputs_may_be_left_out() -> None:
    text = (
        '<ir_version: 10, opset_import: ["": 20]> g (float[n] x, float high, int64[1] k) => (int64[j] i)'
        " { c = Clip(x, , high) v, i = TopK(c, k) }"
    )
    model = onnx.load_from_string(parsed(text))
    model.graph.node[1].output[0] = ""
    inputs = {"x": f32(1.0, 3.0, 2.0, 2.6), "high": np.array(2.5, np.float32), "k": np.array([2])}
    np.testing.assert_array_equal(CorrectlyRoundedEvaluator(model.SerializeToString()).forward(inputs)["i"], [1, 3])


def test_functions_of_the_model_are_inlined() -> None:
    model = parsed(
        '<ir_version: 10, opset_import: ["": 20, "mine": 1]> g (float[n] x) => (float[n] y) { y = mine.twice(x) }'
        '<domain: "mine", opset_import: ["": 20]> twice (a) => (b) { b = Add(a, a) }'
    )
    np.testing.assert_array_equal(CorrectlyRoundedEvaluator(model).forward({"x": f32(1.5)})["y"], f32(3.0))
    assert operators(model) == ["mine:twice", "Add"]


def test_initializers_are_the_numbers_that_they_are() -> None:
    model = onnx.load_from_string(one_node("Add", f32(1.0), f32(1.0)))
    model.graph.initializer.append(numpy_helper.from_array(f32(0.1), "in1"))
    y = CorrectlyRoundedEvaluator(model.SerializeToString(), rounding=False).forward({"in0": f32(0.0)})["out0"]
    assert y[0] == np.float64(np.float32(0.1))


def test_what_an_exporter_noted_of_inner_tensors_is_not_believed() -> None:
    model = onnx.load_from_string(
        parsed('<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) { a = Neg(x) y = Neg(a) }')
    )
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT16, ["n"]))
    np.testing.assert_array_equal(
        CorrectlyRoundedEvaluator(model.SerializeToString()).forward({"x": f32(0.1)})["y"], f32(0.1)
    )


def test_inputs_must_be_those_of_the_graph_and_stay_as_they_are() -> None:
    x = f32(1.0, 2.0)
    x.setflags(write=False)
    runtime = CorrectlyRoundedEvaluator(one_node("Identity", x))
    runtime.forward({"in0": x})["out0"][0] = 5.0
    assert x[0] == 1.0
    with pytest.raises(ValueError, match=r"inputs \['x'\] given, but the graph takes \['in0'\]"):
        runtime.forward({"x": x})
    with pytest.raises(ValueError, match="input in0 is float64, but the graph takes float32"):
        runtime.forward({"in0": x.astype(np.float64)})


def test_a_node_that_fails_is_named() -> None:
    model = parsed(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n] x, float[m] y) => (float[k] z) { z = Add(x, y) }'
    )
    with pytest.raises(
        ValueError, match=r"operator Add \(domain ai.onnx, opset 20\) at node -> z fails at these inputs"
    ):
        CorrectlyRoundedEvaluator(model).forward({"x": f32(1, 2), "y": f32(1, 2, 3)})


def loop(limit: str, condition: str) -> bytes:
    """Return a loop of x -> round(x / third) + k, k captured, that gives the last x and all."""
    return parsed(
        f"""<ir_version: 10, opset_import: ["": 20]> g (float[1] x, float[1] k, int64 n, bool c) => (float[1] y, float[m, 1] all)
            <float[1] third = {{0.33333334}}> {{
            y, all = Loop ({limit}, {condition}, x) <body = body (int64 i, bool going, float[1] before) => (bool more, float[1] after, float[1] seen)
            <float top = {{100}}> {{
                divided = Div(before, third) after = Add(divided, k) seen = Identity(after)
                largest = ReduceMax<keepdims = 0>(after) more = Less(largest, top) }}> }}"""
    )


def test_a_loop_runs_to_its_limit_or_while_its_condition_holds() -> None:
    runtime = pytest.importorskip("onnxruntime")
    inputs = {"x": np.array([1.0], np.float32), "k": np.array([2.0], np.float32), "n": np.array(2), "c": np.array(True)}
    for limit, condition, turns in (("n", "", 2), ("n", "c", 2), ("", "c", 4)):
        answers = CorrectlyRoundedEvaluator(loop(limit, condition)).forward({**inputs})
        expected = [np.float32(1.0)]
        for _ in range(turns):
            divided = np.float32(np.float64(expected[-1]) / np.float64(np.float32(0.33333334)))
            expected.append(np.float32(np.float64(divided) + 2.0))
        np.testing.assert_array_equal(answers["y"], expected[-1:])
        np.testing.assert_array_equal(answers["all"], np.array(expected[1:])[:, None])
        session = runtime.InferenceSession(loop(limit, condition), providers=["CPUExecutionProvider"])
        read = {one.name: inputs[one.name] for one in session.get_inputs()}
        np.testing.assert_allclose(answers["all"], session.run(["all"], read)[0], rtol=1e-6)


def test_the_limit_of_a_loop_may_be_a_list_of_one() -> None:
    model = onnx.load_from_string(loop("n", ""))
    model.graph.input[2].type.tensor_type.shape.dim.add(dim_value=1)
    inputs = {"x": f32(1.0), "k": f32(2.0), "n": np.array([2]), "c": np.array(True)}
    assert len(CorrectlyRoundedEvaluator(model.SerializeToString()).forward(inputs)["all"]) == 2


def test_a_loop_of_no_round_gives_what_it_began_with_and_nothing_else() -> None:
    inputs = {"x": f32(1.0), "k": f32(2.0), "n": np.array(0), "c": np.array(True)}
    answers = CorrectlyRoundedEvaluator(loop("n", "")).forward(inputs)
    np.testing.assert_array_equal(answers["y"], inputs["x"])
    assert answers["all"].shape == (0, 1)
    unstated = onnx.load_from_string(loop("n", ""))
    unstated.graph.node[0].attribute[0].g.output[2].type.tensor_type.shape.dim[0].Clear()
    with pytest.raises(Unsupported, match="a loop of no round at all, whose body does not state the sizes"):
        CorrectlyRoundedEvaluator(unstated.SerializeToString()).forward(inputs)


def test_a_graph_inside_a_node_has_names_of_its_own() -> None:
    model = onnx.load_from_string(loop("n", "c"))
    (body,) = (attribute.g for attribute in model.graph.node[0].attribute)
    body.initializer[0].name = "third"  # as a tensor around the loop is called
    body.node[4].input[1] = "third"
    body.node[0].input[1] = "x"
    inputs = {"x": f32(0.5), "k": f32(2.0), "n": np.array(3), "c": np.array(True)}
    np.testing.assert_array_equal(
        CorrectlyRoundedEvaluator(model.SerializeToString()).forward(inputs)["all"][:, 0], f32(3.0, 8.0, 18.0)
    )


def test_branches_may_name_tensors_alike_and_differ_in_what_they_are() -> None:
    model = parsed(
        """<ir_version: 10, opset_import: ["": 20]> g (float[n] x, bool c) => (float[n] y) {
            y = If (c) <then_branch = a () => (float[n] out) { t = Cast<to = 11>(x) u = Sqrt(t) out = Cast<to = 1>(u) },
                        else_branch = b () => (float[n] out) { t = Shape(x) u = Cast<to = 1>(t) out = Add(u, x) }>
            }"""
    )
    runtime = CorrectlyRoundedEvaluator(model)
    for condition, expected in ((True, f32(2.0, 3.0)), (False, f32(6.0, 11.0))):
        y = runtime.forward({"x": f32(4.0, 9.0), "c": np.array(condition)})["y"]
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, expected)


def test_tensors_are_freed_after_their_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(1, 20))
    model = parsed(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (float[n] y) {{ t1 = Neg(x) {chain} y = Add(t20, t1) }}'
    )
    alive: list[weakref.ref[Any]] = []

    def negated(x: NDArray[Any]) -> NDArray[Any]:
        assert sum(ref() is not None for ref in alive) <= 4
        return -x

    monkeypatch.setitem(elementwise.OPERATIONS, "Neg", lambda _, x: (alive.append(weakref.ref(x)), negated(x))[1])
    np.testing.assert_array_equal(CorrectlyRoundedEvaluator(model).forward({"x": f32(1.0)})["y"], f32(0.0))


def test_a_scan_of_opset_8_has_batches_and_lengths() -> None:
    model = parsed(
        """<ir_version: 4, opset_import: ["": 8]> g (int64[2] n, float[2, 1] s, float[2, 3, 1] x) => (float[2, 1] last, float[2, 3, 1] all) {
            last, all = Scan<num_scan_inputs = 1, body = b (float[1] before, float[1] now) => (float[1] after, float[1] out) {
                after = Add(before, now) out = Identity(after) }>(n, s, x) }"""
    )
    x = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3, 1)
    outputs = CorrectlyRoundedEvaluator(model).forward(
        {"n": np.array([3, 2]), "s": np.zeros((2, 1), np.float32), "x": x}
    )
    np.testing.assert_array_equal(outputs["last"], [[6.0], [9.0]])
    np.testing.assert_array_equal(outputs["all"][..., 0], [[1.0, 3.0, 6.0], [4.0, 9.0, 0.0]])


REFUSED = {
    "Erfc": "y = Erfc(x)",
    "FusedSquare": "y = com.microsoft.FusedSquare(x)",
    "RandomNormalLike": "y = RandomNormalLike(x)",
    "Gelu": "y = Gelu(x)",  # not before opset 20
}


@pytest.mark.parametrize("op_type", REFUSED)
def test_what_it_does_not_know_is_unsupported_by_name(op_type: str) -> None:
    text = f'<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> g (float[n] x) => (float[n] y) {{ {REFUSED[op_type]} }}'
    domain = "com.microsoft" if op_type == "FusedSquare" else "ai.onnx"
    with pytest.raises(Unsupported, match=rf"operator {op_type} \(domain {domain}, opset 18\) at node -> y"):
        CorrectlyRoundedEvaluator(parsed(text))


def test_a_sparse_constant_is_unsupported() -> None:
    values, indices = numpy_helper.from_array(f32(1.0), "values"), numpy_helper.from_array(np.array([2]), "indices")
    constant = helper.make_node("Constant", [], ["y"], sparse_value=helper.make_sparse_tensor(values, indices, [4]))
    graph = helper.make_graph([constant], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(Unsupported, match="takes no sparse tensor, as of operator Constant"):
        CorrectlyRoundedEvaluator(model.SerializeToString())


def test_opsets_before_7_and_other_elements_are_unsupported() -> None:
    text = '<ir_version: 3, opset_import: ["": 6]> g (float[n] x) => (float[n] y) { y = Softmax(x) }'
    with pytest.raises(Unsupported, match="opset 7 and newer, not 6"):
        CorrectlyRoundedEvaluator(parsed(text))
    text = '<ir_version: 10, opset_import: ["": 20]> g (string[n] x) => (string[n] y) { y = Identity(x) }'
    with pytest.raises(Unsupported, match="does not take x, a tensor of STRING"):
        CorrectlyRoundedEvaluator(parsed(text))
    text = '<ir_version: 10, opset_import: ["": 20]> g (float[n] x) => (string[n] y) { y = Cast<to = 8>(x) }'
    with pytest.raises(Unsupported, match="at node -> y gives y, a tensor of STRING"):
        CorrectlyRoundedEvaluator(parsed(text))


def test_every_operator_is_of_the_standard_and_has_one_implementation() -> None:
    assert not PASSED_ON & OPERATIONS.keys()
    assert all(onnx.defs.has(op_type) for op_type in PASSED_ON | OPERATIONS.keys())
