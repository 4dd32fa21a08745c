"""docs/python.md is executed as it stands, beside a model and a data set."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import onnx
import pytest
from documents import TOP, assert_shown, blocks
from onnx import numpy_helper, parser

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 16] x) => (float[n, 10] logits)
{
    h = MatMul (x, w1)
    l = LayerNormalization <axis = -1> (h, scale)
    t = Tanh (l)
    logits = MatMul (t, w2)
}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write model.onnx, and val.npz with inputs and labels, into the folder that the examples run in."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    model = parser.parse_model(MODEL)
    for name, shape in {"w1": (16, 32), "scale": 32, "w2": (32, 10)}.items():
        values = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(model, "model.onnx")
    x = generator.standard_normal((64, 16)).astype(np.float32)
    np.savez("val.npz", x=x, label=generator.integers(0, 10, 64))


def printed_by(code: str, names: dict) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            exec(code, names)  # noqa: S102  the document's own
        except AssertionError as error:
            print(f"AssertionError: {error}")
    return output.getvalue()


def test_the_examples_print_what_the_document_says(files):
    names: dict = {}
    printed, shown = "", 0
    for language, text in blocks(TOP / "docs" / "python.md"):
        if language == "python":
            printed = printed_by(text, names)
        else:
            assert_shown(text, printed)
            shown += 1
    assert shown >= 5
