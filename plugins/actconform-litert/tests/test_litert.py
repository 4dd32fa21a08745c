"""LiteRT, through the seam that the driver uses: facts, build, forward, and refusals in the converter's words."""

from __future__ import annotations

import ast
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

actconform_litert = pytest.importorskip(
    "actconform_litert", reason="it is installed apart: pip install -e plugins/actconform-litert"
)
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from actconform import Program, Unsupported  # noqa: E402
from actconform.catalog.kernels import ROWS, UNARY  # noqa: E402
from actconform.catalog.models.zoo import PUBLISHED, networks  # noqa: E402
from actconform.oracle.layers.model import values  # noqa: E402
from actconform.testdata.model_tensors import draw_inputs, draw_parameters  # noqa: E402

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}


@pytest.fixture(scope="module")
def litert() -> object:
    return actconform_litert.LiteRt()


def program(litert: object, name: str, dtype: str = "f32") -> Program:
    return litert.build(KERNELS[name], dtype)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_kernel_is_computed_at_the_shape_of_each_call(litert: object, shape: tuple[int, ...]) -> None:
    relu = program(litert, "relu")
    for _ in range(2):
        y = relu.forward({"x": np.full(shape, -1.0, np.float32)})["y"]
        assert y.shape == shape
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, np.zeros(shape))
    np.testing.assert_array_equal(relu.forward({"x": np.arange(5, dtype=np.float32)})["y"], np.arange(5))


def test_inputs_go_in_by_name_whatever_order_the_converter_gives_them(litert: object) -> None:
    tensors = {"x": np.array([[-1, 2], [3, -4]], np.float32), "slope": np.array([0.25, 0.5], np.float32)}
    y = program(litert, "prelu").forward(tensors)["y"]
    np.testing.assert_array_equal(y, [[-0.25, 2.0], [3.0, -2.0]])


def test_an_answer_stays_and_strided_frozen_arrays_are_taken(litert: object) -> None:
    x = np.array([3.0, -1.0, 2.0, 5.0], np.float32)[::-2]
    x.setflags(write=False)
    relu = program(litert, "relu")
    first = relu.forward({"x": x})["y"]
    relu.forward({"x": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(first, [5.0, 0.0])


def test_a_model_takes_its_parameters_and_gives_output_and_loss_by_name(litert: object) -> None:
    model = MODELS["mlp-relu"]
    tensors = {n: array.astype(np.float32) for n, array in {**draw_inputs(model), **draw_parameters(model)}.items()}
    layers = values(model, tensors)
    outputs = litert.build_model(model, "f32").forward(tensors)
    assert set(outputs) == {"loss", "y"}
    np.testing.assert_allclose(outputs["y"], layers[model.output], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["loss"], layers["loss"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_what_tflite_has_no_operator_for_is_refused_in_the_converters_words(litert: object, dtype: type) -> None:
    name = {np.float16: "f16", ml_dtypes.bfloat16: "bf16"}[dtype]
    with pytest.raises(Unsupported, match=r"^TF Select ops: Relu$"):
        program(litert, "relu", name).forward({"x": np.zeros(2, dtype)})


def test_arrays_without_elements_and_gradients_are_refused(litert: object) -> None:
    relu = program(litert, "relu")
    with pytest.raises(Unsupported, match="Invalid tensor size"):
        relu.forward({"x": np.zeros(0, np.float32)})
    with pytest.raises(Unsupported, match="of values alone"):
        relu.vjp({"x": np.ones(2, np.float32)}, {"y": np.ones(2, np.float32)})


def test_facts_are_words(litert: object) -> None:
    facts = litert.facts()
    assert facts["ai-edge-litert"].count(".") == 2
    assert facts["subnormals"] in ("kept", "flushed")
    assert all(type(word) is str and word for word in facts.values())


def test_a_reason_is_one_line() -> None:
    assert actconform_litert.words(RuntimeError("a\nTF Select ops: Erf\nb")) == "TF Select ops: Erf"
    assert actconform_litert.words(RuntimeError("\n first \n second")) == "first"
    assert actconform_litert.words(RuntimeError("")) == "no reason given"


def test_the_runtime_is_at_most_eighty_lines_of_code() -> None:
    text = Path(actconform_litert.__file__).read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    code = [line for at, line in lines if line.strip() and not line.strip().startswith("#") and at not in docstrings]
    assert len(code) <= 80
