"""`actconform grad`: what it writes, and that it writes nothing where it cannot."""

from __future__ import annotations

import os
import re
import stat
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from actconform.onnx.evaluate.reference import reference
from actconform.onnx.grad.rules.registry import RULES

DOCUMENT = Path(__file__).parents[2] / "docs/gradients.md"


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


def test_all_float_inputs_by_default_and_fixed_shapes(cli, dense):
    saved(dense)
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--shape", "x=5,2")
    assert (said.code, said.out.partition("outputs: ")[2].strip(), said.err) == (0, "ct_z, ct_y, d_x", "")
    written = onnx.load("grad.onnx")
    dims = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in written.graph.output}
    assert dims == {"z": [5, 3], "y": [5, 3], "d_x": [5, 2]}


def test_what_the_graph_no_longer_has_is_noted(cli, dense):
    """One line a note on standard error, and the same in the summary."""
    dense.graph.node.append(helper.make_node("MatMul", ["y", "turned"], ["back"]))
    dense.graph.output.append(helper.make_tensor_value_info("back", TensorProto.FLOAT, ["batch", 2]))
    turned = np.ascontiguousarray(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    dense.graph.initializer.append(numpy_helper.from_array(turned, "turned"))
    saved(dense)
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "w")
    assert said.code == 0
    (line,) = said.err.splitlines()
    assert line.startswith("note: turned, read by MatMul -> back, holds the transpose of w")
    assert line in said.out


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
        (["--wrt", "X"], ["no input or initializer 'X'", "did you mean x?"]),
        (["--wrt", ","], ["--wrt is empty", "nothing was written"]),
        (["--wrt", "x", "--output", ""], ["--output is empty: name outputs"]),
        (["--wrt", "x", "--output", " , "], ["--output is empty: name outputs"]),
        (
            ["--wrt", "x", "--cotangent", ""],
            ["the name 'z' is taken", "--cotangent and --gradient", "nothing was written"],
        ),
        (["--shape", "x"], ["--shape x: a name and its dimensions", "x=1,3,160,160", "nothing was written"]),
        (["--shape", "x=99999999999999999999,2"], ["--shape x=99999999999999999999,2: a name and its dimensions"]),
        (["--shape", "x=1_0,2"], ["--shape x=1_0,2: a name and its dimensions"]),
        (["--shape", "x=-1,2"], ["dimension 0 of 'x' cannot be -1: 0 or more is expected", "nothing was written"]),
        (["--shape", "x=1,b"], ["--shape x=1,b: a name and its dimensions"]),
        (["--shape", "x=1,2", "--shape", "x=1,2"], ["x has a shape already"]),
        (["--shape", "x=1,3"], ["dimension 1 of 'x' cannot be 3: it is 2 already", "nothing was written"]),
        (["--shape", "xx=1,3"], ["no input 'xx'", "did you mean x?"]),
    ],
)
def test_wrong_names_are_refused(cli, dense, arguments, expected):
    saved(dense)
    _refused(cli("grad", "model.onnx", "-o", "grad.onnx", *arguments), *expected)


def test_files_that_are_no_models_are_refused(cli, dense):
    Path("model.onnx").write_bytes(b"\x00not a model")
    _refused(cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x"), "model.onnx", "no")
    _refused(
        cli("grad", "absent.onnx", "-o", "grad.onnx", "--wrt", "x"),
        "absent.onnx: cannot be read",
        "nothing was written",
    )
    Path("model.onnx").write_bytes(b"")
    _refused(cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x"), "model.onnx: is empty; nothing was written")
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
        cli("grad", "model.onnx", "-o", "absent/grad.onnx", "--wrt", "x"),
        "--out absent/grad.onnx: cannot be written",
        "nothing was written",
    )


@pytest.mark.parametrize("out", ["", ".", "/", "..", "folder", "folder/", "new/", "link-to-folder"])
def test_a_folder_is_not_written_to(cli, dense, out):
    saved(dense)
    Path("folder").mkdir()
    Path("link-to-folder").symlink_to("folder")
    before = sorted(Path().rglob("*"))
    said = cli("grad", "model.onnx", "-o", out, "--wrt", "x")
    _refused(said, "--out", "file", "nothing was written")
    assert said.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("name", ["pipe", "link-to-pipe"])
def test_what_is_no_regular_file_is_left_as_it_is(cli, dense, name):
    saved(dense)
    os.mkfifo("pipe")
    Path("link-to-pipe").symlink_to("pipe")
    said = cli("grad", "model.onnx", "-o", name, "--wrt", "x")
    _refused(said, f"--out {name}: is no regular file", "nothing was written")
    assert stat.S_ISFIFO(Path("pipe").lstat().st_mode)
    assert Path("link-to-pipe").is_symlink()


def test_a_file_is_overwritten_through_a_symlink_too(cli, dense):
    saved(dense)
    Path("old.onnx").write_bytes(b"old")
    Path("folder").mkdir()
    Path("folder/link.onnx").symlink_to("../old.onnx")
    Path("dangling.onnx").symlink_to("folder/new.onnx")
    for out, target in (("folder/link.onnx", "old.onnx"), ("dangling.onnx", "folder/new.onnx")):
        assert cli("grad", "model.onnx", "-o", out, "--wrt", "x").code == 0
        assert Path(out).is_symlink()
        assert "d_x" in {value.name for value in onnx.load(target).graph.output}
    Path("loop").symlink_to("loop")
    _refused(cli("grad", "model.onnx", "-o", "loop", "--wrt", "x"), "--out loop: cannot be written")
    assert Path("loop").is_symlink()


@pytest.mark.parametrize("out", ["model.onnx", "./model.onnx", "soft.onnx", "hard.onnx", "weights.bin"])
def test_what_is_read_is_not_overwritten(cli, dense, out):
    saved(dense, save_as_external_data=True, location="weights.bin", size_threshold=0)
    Path("soft.onnx").symlink_to("model.onnx")
    Path("hard.onnx").hardlink_to("model.onnx")
    before = Path("model.onnx").read_bytes(), Path("weights.bin").read_bytes()
    _refused(cli("grad", "model.onnx", "-o", out, "--wrt", "x"), "--out", "name another file; nothing was written")
    assert (Path("model.onnx").read_bytes(), Path("weights.bin").read_bytes()) == before


@pytest.mark.parametrize("suffix", ["onnxtxt", "textproto", "json"])
def test_text_formats_are_refused_without_a_warning(cli, dense, suffix):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved(dense, f"model.{suffix}")
    saved(dense)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _refused(cli("grad", f"model.{suffix}", "-o", "grad.onnx", "--wrt", "x"), "is no ONNX model", "binary format")
        _refused(cli("grad", "model.onnx", "-o", f"grad.{suffix}", "--wrt", "x"), "binary format", ".onnx")
    assert not Path(f"grad.{suffix}").exists()


def test_shapes_that_cannot_fit_are_refused(cli, dense):
    dense.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    saved(dense)
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x")
    _refused(said, "not a valid ONNX model", "MatMul", "-> z", "nothing was written")


def test_a_model_with_gradients_has_gradients_of_its_own(cli, dense):
    saved(dense)
    assert cli("grad", "model.onnx", "-o", "first.onnx", "--wrt", "x", "--output", "y").code == 0
    again = ("grad", "first.onnx", "-o", "grad.onnx", "--wrt", "x")
    _refused(cli(*again), "is taken: choose other prefixes with --cotangent and --gradient; nothing was written")
    said = cli(*again, "--output", "d_x", "--cotangent", "ct2_", "--gradient", "d2_")
    assert (said.code, said.out.partition("outputs: ")[2].strip()) == (0, "ct2_d_x, d2_x")
    # The derivative of d_x = ct (1 - tanh^2(x w)) w^T
    x, ct, w = np.array([[0.1, -0.2]], np.float32), np.ones((1, 3), np.float32), np.arange(6.0).reshape(2, 3)
    feeds = {"x": x, "ct_y": ct, "ct2_d_x": np.array([[1, 2]], np.float32)}
    got = reference(onnx.load("grad.onnx").SerializeToString())(feeds)
    t = np.tanh(x @ w)
    np.testing.assert_allclose(got["d2_x"], (-2 * t * (1 - t**2) * (feeds["ct2_d_x"] @ w)) @ w.T, rtol=1e-4)


@pytest.fixture
def rules():
    """The registry, which is afterwards as it was."""
    before = dict(RULES)
    yield RULES
    RULES.clear()
    RULES.update(before)


@pytest.fixture
def plugin(rules, install, tmp_path):
    """Install the plugin of the document, as it is written there."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("## More operators")[2]
    (module,), (settings,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "toml"))
    points = tomllib.loads(settings)["project"]["entry-points"]["actconform"]
    (name,) = points.values()
    install(**points)
    file = tmp_path / "site" / f"{name}.py"
    file.write_text(module, encoding="utf-8")
    yield file
    sys.modules.pop(name, None)


@pytest.fixture
def rounding() -> onnx.ModelProto:
    """y = 3 round(x), by an operator of domain com.example."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18, "com.example": 1]>
        rounding (float[n] x) => (float[n] y) { z = com.example.RoundTo <step = 0.5> (x) three = Constant <value = float {3}> () y = Mul(z, three) }
    """)
    onnx.save(model, "model.onnx")
    return model


def test_the_plugin_of_the_document_gives_a_rule(cli, plugin, rounding):
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x")
    assert said.code == 0, said.err

    class RoundTo(OpRun):
        op_domain = "com.example"

        def _run(self, x, step):
            return (np.round(x / step).astype(x.dtype) * np.float32(step),)

    feeds = {"x": np.array([0.3, 2.0], np.float32), "ct_y": np.array([1, 2], np.float32)}
    y, dx = ReferenceEvaluator(onnx.load("grad.onnx"), new_ops=[RoundTo]).run(None, feeds)
    np.testing.assert_array_equal(y, [1.5, 6.0])
    np.testing.assert_array_equal(dx, [3.0, 6.0])


def test_plugins_that_cannot_be_told_apart_break_nothing(cli, install, dense):
    install(builtin="stand_in:Plugin")
    saved(dense)
    assert cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x").code == 0
    Path("grad.onnx").unlink()
    dense.graph.node[1].domain = "com.example"
    dense.opset_import.append(helper.make_opsetid("com.example", 1))
    saved(dense)
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x", "--output", "y")
    _refused(said, "operator Tanh (domain com.example", "two plugins are called 'builtin'")


def test_a_broken_plugin_gives_no_rule_and_breaks_nothing(cli, plugin, rounding, dense):
    plugin.write_text("raise RuntimeError('lost its way')\n", encoding="utf-8")
    said = cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x")
    _refused(said, "operator RoundTo (domain com.example", 'rule("RoundTo", domain="com.example")', "lost its way")
    saved(dense)
    assert cli("grad", "model.onnx", "-o", "grad.onnx", "--wrt", "x").code == 0


def _refused(said, *expected):
    assert said.code == 2, said.out
    assert all(text in said.err for text in expected), said.err
    assert "Traceback" not in said.err
    assert not Path("grad.onnx").exists()
    assert not list(Path().glob(".*.part"))
