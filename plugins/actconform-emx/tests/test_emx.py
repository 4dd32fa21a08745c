"""emx-onnx-cgen, through the seam that the driver uses: facts, load, forward, and refusals in the tools' words."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

actconform_emx = pytest.importorskip(
    "actconform_emx", reason="it is installed apart: pip install -e plugins/actconform-emx"
)
pytest.importorskip("emx_onnx_cgen", reason="emx-onnx-cgen is not installed")

from onnx import parser  # noqa: E402

from actconform import Artifact, Program, Unavailable, Unsupported  # noqa: E402
from actconform.catalog.kernels import ROWS, UNARY  # noqa: E402
from actconform.catalog.models.zoo import PUBLISHED, networks  # noqa: E402
from actconform.onnx.author.exporter import author  # noqa: E402
from actconform.onnx.author.model import author_model  # noqa: E402
from actconform.oracle.layers.model import values  # noqa: E402
from actconform.run.layer_values import subgraph_to  # noqa: E402
from actconform.testdata.model_tensors import draw_inputs, draw_parameters  # noqa: E402

KERNELS = {kernel.name: kernel for kernel in UNARY + ROWS}
MODELS = {model.name: model for model in networks() if PUBLISHED not in model.name}
pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler cc")


def loaded(text: str) -> Program:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    return actconform_emx.Emx().load(Artifact(model.SerializeToString(), 17, "tests"), "f32")


def test_a_model_is_computed_and_its_outputs_have_the_names_of_the_graph() -> None:
    model = MODELS["autoencoder-relu"]
    tensors = {n: array.astype(np.float32) for n, array in {**draw_inputs(model), **draw_parameters(model)}.items()}
    layers = values(model, tensors)
    artifact = subgraph_to(author_model(model, "f32"), ["loss", "y"])
    outputs = actconform_emx.Emx().load(artifact, "f32").forward(tensors)
    assert set(outputs) == {"loss", "y"}
    np.testing.assert_allclose(outputs["y"], layers[model.output], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs["loss"], layers["loss"], rtol=1e-4, atol=1e-4)


def test_a_graph_is_compiled_for_the_shape_of_each_call() -> None:
    glu = actconform_emx.Emx().load(author(KERNELS["glu"], "f32"), "f32")
    for rows, columns in ((1, 2), (2, 6), (1, 2)):
        y = glu.forward({"x": np.zeros((rows, columns), np.float32)})["y"]
        np.testing.assert_array_equal(y, np.zeros((rows, columns // 2), np.float32))


def test_large_temporaries_do_not_lie_on_the_stack() -> None:
    program = loaded("g (float[n] x) => (float[n] y) { z = Neg(x) y = Neg(z) }")
    x = np.arange(3_000_000, dtype=np.float32)
    np.testing.assert_array_equal(program.forward({"x": x})["y"], x)


def test_an_answer_stays_and_strided_frozen_arrays_are_taken() -> None:
    program = loaded("g (float[n] x) => (float[n] y) { y = Neg(x) }")
    x = np.array([3.0, -1.0, 2.0, 5.0], np.float32)[::-2]
    x.setflags(write=False)
    first = program.forward({"x": x})["y"]
    program.forward({"x": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(first, [-5.0, 1.0])


def test_inputs_go_in_by_name_and_constants_that_are_inputs_stay() -> None:
    program = loaded(
        "g (float[n] a, float[n] b, float[1] c) => (float[n] y) <float[1] c = {10}> { d = Sub(a, b) y = Add(d, c) }"
    )
    tensors = {"b": np.full(2, 5, np.float32), "a": np.full(2, 7, np.float32)}
    np.testing.assert_array_equal(program.forward(tensors)["y"], [12.0, 12.0])


def test_a_scalar_and_float16_go_in_and_come_out() -> None:
    y = loaded("g (float x) => (float y) { y = Neg(x) }").forward({"x": np.array(2, np.float32)})["y"]
    assert y.shape == ()
    assert y == -2
    x = np.array([-2, 0.5, 65504], np.float16)
    y = actconform_emx.Emx().load(author(KERNELS["relu"], "f16"), "f16").forward({"x": x})["y"]
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, np.maximum(x, 0))


@pytest.mark.parametrize("shape", [(), (2, 3), (4,)])
def test_a_shape_that_the_graph_does_not_take_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(Unsupported, match=r"\[ShapeInferenceError\]"):
        loaded("g (float[3] x) => (float[3] y) { y = Neg(x) }").forward({"x": np.zeros(shape, np.float32)})


def test_an_output_whose_shape_depends_on_numbers_is_refused() -> None:
    program = loaded("g (float[n] x) => (int64[1, m] y) { y = NonZero(x) }")
    with pytest.raises(Unsupported, match="NonZeroOp output shape"):
        program.forward({"x": np.ones(3, np.float32)})


def test_what_the_generator_and_the_compiler_refuse_is_in_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.zeros(2, np.float32)
    with pytest.raises(Unsupported, match="SequenceAt"):
        loaded("g (float[n] x) => (float[n] y) { y = SequenceAt(x, x) }").forward({"x": x})
    monkeypatch.setenv("CC", "false")
    with pytest.raises(Unsupported, match="C compiler: "):
        loaded("g (float[n] x) => (float[n] y) { y = Neg(x) }").forward({"x": x})


def test_without_a_c_compiler_it_is_unavailable_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(Unavailable, match="no C compiler cc: install one, such as gcc, or name yours in CC"):
        actconform_emx.Emx().facts()


def test_facts_are_words() -> None:
    facts = actconform_emx.Emx().facts()
    assert facts["emx-onnx-cgen"].count(".") == 2
    assert facts["c_compiler"]
    assert all(type(word) is str and word for word in facts.values())


def test_the_runtime_is_at_most_eighty_lines_of_code() -> None:
    text = Path(actconform_emx.__file__).read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(text.splitlines(), start=1)
    code = [line for at, line in lines if line.strip() and not line.strip().startswith("#") and at not in docstrings]
    assert len(code) <= 80
