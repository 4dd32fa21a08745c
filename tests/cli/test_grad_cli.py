"""`actconform grad`: what it writes, and that it writes nothing where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actconform.onnx.reference import reference


@pytest.fixture
def dense() -> onnx.ModelProto:
    """y = tanh(x w), z = x w."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", 2), ("z", 3), ("y", 3))
    ]
    w = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def saved(model: onnx.ModelProto, path: str = "model.onnx", **how) -> str:
    onnx.save(model, path, **how)
    return path


def test_a_model_with_gradients_is_written(cli, dense):
    saved(dense)
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x,w", "--output", "y")
    assert said.code == 0, said.err
    assert "new inputs and outputs: ct_y, d_x, d_w" in said.out
    model = onnx.load("grad.onnx")
    onnx.checker.check_model(model, full_check=True)
    x, ct = np.array([[0.1, -0.2]], np.float32), np.ones((1, 3), np.float32)
    got = reference(model.SerializeToString())({"x": x, "ct_y": ct})
    w = np.arange(6.0).reshape(2, 3)
    inner = ct * (1 - np.tanh(x @ w) ** 2)
    np.testing.assert_allclose(got["d_x"], inner @ w.T, rtol=1e-5)
    np.testing.assert_allclose(got["d_w"], x.T @ inner, rtol=1e-5)


def test_all_outputs_by_default_and_wrt_repeated(cli, dense):
    saved(dense)
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x", "--wrt", "w")
    assert (said.code, said.out.partition("outputs: ")[2].strip()) == (0, "ct_z, ct_y, d_x, d_w")


def test_external_data_of_the_folder_is_read(cli, dense):
    saved(dense, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "w").code == 0
    Path("weights.bin").unlink()
    written = onnx.load("grad.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(written.graph.initializer[0]).ravel(), np.arange(6))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_external_data_from_outside_the_folder_is_refused(cli, dense, location):
    folder = Path("models")
    folder.mkdir()
    Path("secret.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    (folder / "link.bin").symlink_to("../secret.bin")
    onnx.external_data_helper.set_external_data(dense.graph.initializer[0], location)
    dense.graph.initializer[0].ClearField("raw_data")
    (folder / "model.onnx").write_bytes(dense.SerializeToString())
    said = cli("grad", "models/model.onnx", "-o", "grad.onnx", "--wrt", "w")
    _refused(said, "the data of w", location, "outside the model's folder")


def test_external_data_that_is_not_there_is_named(cli, dense):
    saved(dense, save_as_external_data=True, location="weights.bin", size_threshold=0)
    Path("weights.bin").unlink()
    _refused(cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "w"), "the data of w", "weights.bin", "no file")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--wrt", "weight"], ["model.onnx", "'weight'", "known: w, x"]),
        (["--wrt", "x", "--output", "yy"], ["no output 'yy'", "did you mean y?"]),
        (["--wrt", ","], ["wrt is empty"]),
        ([], ["--wrt"]),
    ],
)
def test_wrong_names_are_refused(cli, dense, arguments, expected):
    saved(dense)
    _refused(cli("grad", "model.onnx", "-o", "grad.onnx", *arguments), *expected)


def test_files_that_are_no_models_are_refused(cli, dense):
    Path("model.onnx").write_bytes(b"\x00not a model")
    _refused(cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x"), "model.onnx", "no")
    _refused(cli("grad", "absent.onnx", "-o", "grad.onnx", "--wrt", "x"), "absent.onnx: cannot be read")
    dense.graph.node[1].op_type = "Tonh"
    saved(dense)
    _refused(cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x"), "not a valid ONNX model", "Tonh")


def test_an_operator_without_a_rule_is_named(cli, dense):
    dense.graph.node[1].domain = "com.example"
    dense.opset_import.append(helper.make_opsetid("com.example", 1))
    dense.graph.node[1].name = "squash"
    saved(dense)
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x", "--output", "y")
    _refused(said, "operator Tanh (domain com.example", "at node squash")


def test_a_folder_that_is_not_there_is_refused(cli, dense):
    saved(dense)
    _refused(
        cli("grad", "model.onnx", "-o", "absent/grad.onnx", "--wrt", "x"), "--out absent/grad.onnx: cannot be written"
    )


def _refused(said, *expected):
    assert said.code == 2, said.out
    assert all(text in said.err for text in expected), said.err
    assert "Traceback" not in said.err
    assert not Path("grad.onnx").exists()
    assert not list(Path().glob(".*.part"))
