"""The authored graphs: valid by onnx's checker, typed as the kernel says, and right by onnx's own evaluator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from actconform import Kernel, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.onnx.author.exporter import GRAPHS, OLDEST_OPSET, OPSET, Nodes, author, graph
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
ELEMENT = {"f32": onnx.TensorProto.FLOAT, "f16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}

each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
each_dtype = pytest.mark.parametrize("dtype", NUMPY)


def model_of(kernel: Kernel, dtype: str) -> onnx.ModelProto:
    return onnx.load_from_string(author(kernel, dtype).model)


def inputs_of(kernel: Kernel, width: int, dtype: str) -> dict[str, NDArray[Any]]:
    """Ordinary points, among them both sides of every kink."""
    draw = np.random.default_rng(width)
    if kernel.form == "unary":
        shape: tuple[int, ...] = (width,)
    elif kernel.axis == 1:
        shape = (2, width, 3)
    else:
        # even, because the gated units and maxout read a row as halves or pairs
        shape = (3, 2 * width)
    inputs = {"x": (4.0 * draw.standard_normal(shape)).astype(NUMPY[dtype])}
    if "slope" in kernel.inputs:
        inputs["slope"] = draw.standard_normal(shape[-1:]).astype(NUMPY[dtype])
    return inputs


def truth_of(kernel: Kernel, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    if kernel.form == "unary":
        return FORMULAS[kernel.name].value(wide["x"], kernel.parameters)
    return ROW_FORMULAS[kernel.name].value(wide, kernel)


def evaluate(kernel: Kernel, dtype: str, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        (y,) = ReferenceEvaluator(model_of(kernel, dtype)).run(None, inputs)
    result: NDArray[Any] = y
    return result


@each_dtype
@each_kernel
def test_a_graph_passes_the_checker_and_is_typed_as_the_kernel_says(kernel: Kernel, dtype: str) -> None:
    model = model_of(kernel, dtype)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert [value.name for value in inferred.graph.input] == list(kernel.inputs)
    assert [value.type.tensor_type.elem_type for value in inferred.graph.input] == [ELEMENT[dtype]] * len(kernel.inputs)
    (output,) = inferred.graph.output
    assert output.name == "y"
    expected = onnx.TensorProto.INT64 if kernel.output_dtype == "int64" else ELEMENT[dtype]
    assert output.type.tensor_type.elem_type == expected
    sizes = [dim.dim_value for value in (*inferred.graph.input, output) for dim in value.type.tensor_type.shape.dim]
    assert set(sizes) == {0}, "every dimension is dynamic"
    assert output.type.tensor_type.HasField("shape")


@each_dtype
@each_kernel
def test_a_graph_holds_standard_operators_and_constants_of_its_dtype_alone(kernel: Kernel, dtype: str) -> None:
    model = model_of(kernel, dtype)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert model.producer_name == "actconform"
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert {constant.data_type for constant in model.graph.initializer} <= {ELEMENT[dtype], onnx.TensorProto.INT64}


@each_kernel
def test_the_path_names_the_operators(kernel: Kernel) -> None:
    artifact = author(kernel, "f32")
    kind, operators = artifact.path.split(": ")
    nodes = [node.op_type for node in onnx.load_from_string(artifact.model).graph.node]
    assert (kind == "operator") == (len(nodes) == 1)
    assert set(operators.split(", ")) == set(nodes)
    assert artifact.opset == onnx.load_from_string(artifact.model).opset_import[0].version


@pytest.mark.parametrize(
    ("name", "dtype", "opset", "ir_version"),
    [
        ("relu", "f32", OLDEST_OPSET, 8),
        ("elu", "f16", OLDEST_OPSET, 8),
        ("max", "f32", 18, 8),  # axes as an input
        ("glu", "f32", 18, 8),  # Split into a number of parts
        ("mish", "f32", 18, 8),
        ("gelu-erf", "f32", 20, 9),
        ("elu", "bf16", 22, 10),
        ("silu", "f32", 24, 12),
        ("sparsemax", "f32", 18, 8),
        ("sparsemax", "bf16", 24, 12),  # TopK
    ],
)
def test_a_graph_asks_for_no_newer_standard_than_it_needs(name: str, dtype: str, opset: int, ir_version: int) -> None:
    model = model_of(KERNELS[name], dtype)
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir_version)


@each_dtype
@each_kernel
def test_the_opset_makes_no_difference_to_what_is_computed(kernel: Kernel, dtype: str) -> None:
    model = model_of(kernel, dtype)
    inputs = inputs_of(kernel, 17, dtype)
    answers = []
    for opset in (model.opset_import[0].version, OPSET):
        model.opset_import[0].version = opset
        with np.errstate(all="ignore"):
            answers.append(ReferenceEvaluator(model).run(None, inputs)[0])
    np.testing.assert_array_equal(answers[0].astype(np.float64), answers[1].astype(np.float64), strict=True)


@pytest.mark.parametrize("width", [1, 8, 17, 67, 10_000])
@each_kernel
def test_onnx_evaluates_the_graph_to_the_truth_at_any_size(kernel: Kernel, width: int) -> None:
    if kernel.form == "row":
        width = min(width, 1000)
    inputs = inputs_of(kernel, width, "f32")
    y, truth = evaluate(kernel, "f32", inputs), truth_of(kernel, inputs)
    assert y.dtype == (np.int64 if kernel.output_dtype == "int64" else np.float32)
    assert y.shape == truth.shape
    np.testing.assert_allclose(y, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["celu", "hard-shrink", "soft-shrink"])
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_what_the_standard_lacks_in_16_bits_is_composed_to_the_same_truth(name: str, dtype: str) -> None:
    kernel = KERNELS[name]
    inputs = inputs_of(kernel, 1000, dtype)
    y = evaluate(kernel, dtype, inputs)
    assert y.dtype == NUMPY[dtype]
    unit = 2.0**-8 if dtype == "bf16" else 2.0**-11
    np.testing.assert_allclose(y.astype(np.float64), truth_of(kernel, inputs), rtol=2 * unit, atol=4 * unit)


@pytest.mark.parametrize("name", [kernel.name for kernel in UNARY if "composition" in author(kernel, "f32").path])
def test_a_composition_keeps_nan(name: str) -> None:
    assert np.isnan(evaluate(KERNELS[name], "f32", {"x": np.array([np.nan], np.float32)})).all()


@pytest.mark.parametrize("name", ["hard-shrink", "soft-shrink"])
def test_a_composed_shrink_keeps_nan(name: str) -> None:
    assert np.isnan(evaluate(KERNELS[name], "bf16", {"x": np.array([np.nan], NUMPY["bf16"])})).all()


def test_log_sigmoid_never_takes_the_logarithm_of_zero() -> None:
    x = np.array([-104.0, -1e4, -1e30], np.float32)
    np.testing.assert_array_equal(evaluate(KERNELS["log-sigmoid"], "f32", {"x": x}), x)


def test_softplus_beta_does_not_overflow_before_its_result() -> None:
    x = np.array([3.4e38, -3.4e38], np.float32)
    np.testing.assert_array_equal(
        evaluate(KERNELS["softplus-beta"], "f32", {"x": x}), np.array([3.4e38, 0.0], np.float32)
    )


def test_sparsemax_gives_masked_entries_nothing_and_survives_large_logits() -> None:
    x = np.array([[1e30, 1e30, 0.0], [-np.inf, 0.5, 0.0]], np.float32)
    y = evaluate(KERNELS["sparsemax"], "f32", {"x": x})
    np.testing.assert_array_equal(y, np.array([[0.5, 0.5, 0.0], [0.0, 0.75, 0.25]], np.float32))


@pytest.mark.parametrize("name", [kernel.name for kernel in KERNELS.values() if kernel.defaults_only])
def test_a_kernel_of_defaults_sets_no_attribute(name: str) -> None:
    (node,) = model_of(KERNELS[name], "f32").graph.node
    assert list(node.attribute) == []


def test_selu_may_rest_on_the_operators_defaults() -> None:
    defaults = onnx.defs.get_schema("Selu", OPSET).attributes
    assert defaults["gamma"].default_value.f == np.float32(1.0507009873554804934193349852946)
    assert defaults["alpha"].default_value.f == np.float32(1.6732632423543772848170429916717)


def test_the_same_kernel_gives_the_same_bytes() -> None:
    assert author(KERNELS["sparsemax"], "f16") == author(KERNELS["sparsemax"], "f16")


def test_a_kernel_without_a_graph_is_unsupported() -> None:
    kernel = Kernel(name="bent-identity", definition="(sqrt(x^2 + 1) - 1) / 2 + x", source="a plugin")
    with pytest.raises(Unsupported, match=r"no authored graph for kernel bent-identity: .*graph\('bent-identity'\)"):
        author(kernel, "f32")


def test_a_plugin_registers_the_graph_of_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(name="bent-identity", definition="(sqrt(x^2 + 1) - 1) / 2 + x", source="a plugin")
    monkeypatch.setitem(GRAPHS, kernel.name, GRAPHS["linear"])  # so that it is taken out again
    del GRAPHS[kernel.name]

    @graph("bent-identity")
    def bent_identity(g: Nodes, _: Kernel) -> str:
        root = g.Sqrt(g.Add(g.Mul("x", "x"), g.scalar(1.0)))
        return g.Add(g.Mul(g.Sub(root, g.scalar(1.0)), g.scalar(0.5)), "x")

    x = np.linspace(-3, 3, 7, dtype=np.float32)
    expected = (np.sqrt(x.astype(np.float64) ** 2 + 1) - 1) / 2 + x
    np.testing.assert_allclose(evaluate(kernel, "f32", {"x": x}), expected, rtol=1e-5)
    assert author(kernel, "f32").path == "composition: Mul, Add, Sqrt, Sub"


def test_two_graphs_of_one_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match="two graphs for kernel 'relu'"):
        graph("relu")(lambda g, _: g.Relu("x"))


def test_an_operator_that_the_opset_lacks_is_named() -> None:
    with pytest.raises(AttributeError, match=f"ONNX opset {OPSET} has no operator Gellu"):
        Nodes("f32").Gellu("x")
