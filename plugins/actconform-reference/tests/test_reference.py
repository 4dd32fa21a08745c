"""onnx-reference and onnx-reference-float64: near the truth, typed as the graph, widened throughout, refusals in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

from actconform import Artifact, Kernel, Unsupported
from actconform.catalog.kernels import ROWS, UNARY
from actconform.onnx.author.exporter import author
from actconform.oracle.float64.registry import FORMULAS
from actconform.oracle.float64.rows import ROW_FORMULAS
from actconform.plugin.loader import load_plugins
from actconform.verdict.causes.check import check_formulas
from actconform_reference import OnnxReference, OnnxReferenceFloat64, plugin
from actconform_reference.widen import NARROW, widened

if TYPE_CHECKING:
    from numpy.typing import NDArray

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
UNIT = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}

each_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
each_dtype = pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])


def inputs_of(kernel: Kernel, dtype: str) -> dict[str, NDArray[Any]]:
    draw = np.random.default_rng(8)
    shape = (67,) if kernel.form == "unary" else (2, 17, 3) if kernel.axis == 1 else (3, 34)
    inputs = {"x": (2.0 * draw.standard_normal(shape)).astype(NUMPY[dtype])}
    if "slope" in kernel.inputs:
        inputs["slope"] = draw.standard_normal(shape[-1:]).astype(NUMPY[dtype])
    return inputs


def truth_of(kernel: Kernel, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    wide = {name: array.astype(np.float64) for name, array in inputs.items()}
    if kernel.form == "unary":
        return FORMULAS[kernel.name].value(wide["x"], kernel.parameters)
    return ROW_FORMULAS[kernel.name].value(wide, kernel)


@each_dtype
@each_kernel
@pytest.mark.parametrize(("backend", "units"), [(OnnxReference, 50.0), (OnnxReferenceFloat64, 4.0)])
def test_every_kernel_is_near_the_truth_in_the_graphs_own_type(
    backend: type[OnnxReference], units: float, kernel: Kernel, dtype: str
) -> None:
    inputs = inputs_of(kernel, dtype)
    before = {name: array.tobytes() for name, array in inputs.items()}
    outputs = backend().load(author(kernel, dtype), dtype).forward(inputs)
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == (np.int64 if kernel.output_dtype == "int64" else NUMPY[dtype])
    assert {name: array.tobytes() for name, array in inputs.items()} == before
    limit = units * UNIT[dtype]
    np.testing.assert_allclose(outputs["y"].astype(np.float64), truth_of(kernel, inputs), rtol=limit, atol=limit)


HEAD = '<ir_version: 10, opset_import: ["" : 20]>'


def test_in_float64_a_sum_keeps_what_float32_would_lose() -> None:
    text = f"{HEAD} g (float[n] x) => (float[n] y) <float big = {{1e9}}> {{ a = Add(x, big) y = Sub(a, big) }}"
    artifact = Artifact(parser.parse_model(text).SerializeToString(), 20, "test")
    x = np.array([1.5, 3.0], np.float32)
    np.testing.assert_array_equal(OnnxReference().load(artifact, "f32").forward({"x": x})["y"], [0.0, 0.0])
    y = OnnxReferenceFloat64().load(artifact, "f32").forward({"x": x})["y"]
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, x)


def types_in(graph: onnx.GraphProto) -> set[int]:
    found = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    found |= {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            found |= {attribute.t.data_type} | ({attribute.i} if attribute.name == "to" else set())
            for inner in (attribute.g, *attribute.graphs):
                found |= types_in(inner)
    return found


def test_inputs_constants_casts_and_the_bodies_of_branches_are_widened() -> None:
    text = f"""{HEAD} g (float16[n] x, bool c) => (float16[n] y) <float half = {{0.5}}> {{
        a = Cast<to = 1>(x)
        k = Constant<value_float = 2.0>()
        b = Constant<value = float[2] {{1.0, 2.0}}>()
        z = If(c) <then_branch = t () => (float[n] s) {{ s = Mul(a, k) }},
                   else_branch = e () => (float[n] s) {{ w = Mul(a, half) s = Add(w, b) }}>
        y = Cast<to = 10>(z)
    }}"""
    model = parser.parse_model(text).SerializeToString()
    assert types_in(onnx.load_model_from_string(model).graph) & set(NARROW)
    wide = onnx.load_model_from_string(widened(model)).graph
    assert not types_in(wide) & set(NARROW)
    assert TensorProto.BOOL in types_in(wide), "what is no floating-point number stays"
    program = OnnxReferenceFloat64().load(Artifact(model, 20, "test"), "f16")
    x = np.array([1.0, 3.0], np.float16)
    for condition, wanted in ((True, [2.0, 6.0]), (False, [1.5, 3.5])):
        y = program.forward({"x": x, "c": np.array(condition)})["y"]
        assert y.dtype == np.float16
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("backend", [OnnxReference, OnnxReferenceFloat64])
def test_an_operator_that_it_lacks_is_refused_in_its_words(backend: type[OnnxReference]) -> None:
    text = '<ir_version: 10, opset_import: ["com.test" : 1]> g (float[n] x) => (float[n] y) { y = com.test.Odd(x) }'
    artifact = Artifact(parser.parse_model(text).SerializeToString(), 1, "test")
    with pytest.raises(Unsupported, match="Odd"):
        backend().load(artifact, "f32")


@pytest.mark.parametrize("backend", [OnnxReference, OnnxReferenceFloat64])
def test_an_operator_that_raises_when_it_runs_is_refused_too(backend: type[OnnxReference]) -> None:
    text = f"{HEAD} g (float[n] x, float[m] z) => (float[k] y) {{ y = Add(x, z) }}"
    program = backend().load(Artifact(parser.parse_model(text).SerializeToString(), 20, "test"), "f32")
    with pytest.raises(Unsupported, match=r"^the evaluator stops at TypeError: "):
        program.forward({"x": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)})


def test_facts_are_words() -> None:
    facts = OnnxReference().facts()
    assert facts["onnx"] == onnx.__version__
    assert facts["subnormals"] == "kept"
    assert all(type(word) is str for word in facts.values())


def test_the_plugin_is_two_extra_runtimes_and_its_register_is_read() -> None:
    catalog = load_plugins([plugin], [])
    assert not catalog.broken
    assert set(catalog.backends) == {"onnx-reference", "onnx-reference-float64"}
    assert all(backend.extra for backend in catalog.backends.values())
    assert catalog.register.causes
    check_formulas(catalog.register, {kernel.name: kernel for kernel in UNARY + ROWS})
