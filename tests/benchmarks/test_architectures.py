"""`make architectures`: faults change what they say and nothing else, rows fail for what they should, and small models go all the way."""

from __future__ import annotations

import zipfile

import click
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import numpy_helper, parser

from actconform.checking.result import (
    CheckResult,
    LevelCheck,
    ModelFault,
    OutputCheck,
    RuntimeCheck,
    TensorCheck,
    TrainedCheck,
)
from actconform.checking.trained.layer_matching import LayerMatch, Unmatched
from actconform.errors import UsageError
from actconform.report.check.exports import ExportCheck
from actconform_faulty.model_faults import MODEL_FAULTS
from benchmarks import architecture_models, architectures
from benchmarks.architecture_faults import EDITS, INJECTIONS, SCOPES, Injection, changed, node_at
from benchmarks.architecture_models import ARCHITECTURES, FAULTY
from benchmarks.process_tree import Usage

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 4] x) => (float[2, 4] y)
{
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    moved = Sub (q, k)
    biased = Add (moved, b)
    low = Constant <value = float {0.0}> ()
    high = Constant <value = float {0.5}> ()
    y = Clip (biased, low, high)
}
"""
RECURRENT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[3, 2, 4] x) => (float[3, 1, 2, 2] y) { y = OPERATOR (x, w, r, b) }
"""
X = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)


def with_weights(text, **shapes):
    model = parser.parse_model(text)
    for i, (name, shape) in enumerate(shapes.items()):
        values = np.random.default_rng(i).standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


@pytest.fixture
def model():
    return with_weights(TEXT, wq=(4, 4), wk=(4, 4), b=4)


def run(model, x=X):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def weights(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def injection(name, operator, at, **changes):
    return Injection(name, "none", "torch-dynamo", operator, at, ("layer",))._replace(**changes)


def test_there_are_16_architectures_and_16_faults_of_each_culprit():
    names = {each.name for each in (*ARCHITECTURES, FAULTY)}
    assert len(ARCHITECTURES) >= 16
    assert len(set(INJECTIONS)) == len(INJECTIONS) >= 16
    assert {each.blame for each in INJECTIONS} == {"exporter", "framework", "runtime", "runtime:optimizer"}
    assert {each.architecture for each in INJECTIONS} <= names
    for each in INJECTIONS:
        fault = each.name.removesuffix("-optimized")
        assert not each.operator or fault in MODEL_FAULTS or each.name in EDITS
        assert not each.in_runtime or fault in MODEL_FAULTS


def test_a_node_is_found_by_its_own_name_its_weights_and_the_layers_in_its_metadata(model):
    first, second = model.graph.node[:2]
    first.metadata_props.add(key=SCOPES, value="['', 'encoder', 'encoder.query']")
    second.name = "/encoder/key/MatMul"
    assert node_at(model, "MatMul", "encoder.query").output[0] == "q"
    assert node_at(model, "MatMul", "/encoder/key/").output[0] == "k"
    assert node_at(model, "MatMul", "wk").output[0] == "k"
    with pytest.raises(UsageError, match="no Gemm at wk"):
        node_at(model, "Gemm", "wk")


def test_weights_of_queries_and_keys_are_exchanged(model):
    before = weights(model)
    swapped = changed(model, injection("queries-for-keys", "MatMul", "wq"))
    expected = X @ before["wk"] - X @ before["wq"] + before["b"]
    np.testing.assert_allclose(run(swapped), expected.clip(0, 0.5), atol=1e-5)
    assert run(model).tobytes() != run(swapped).tobytes()


def test_a_bias_and_a_subtraction_are_left_out(model):
    before = weights(model)
    unbiased = X @ before["wq"] - X @ before["wk"]
    np.testing.assert_allclose(
        run(changed(model, injection("bias-dropped", "Add", "b"))), unbiased.clip(0, 0.5), atol=1e-5
    )
    np.testing.assert_allclose(
        run(changed(model, injection("left-out", "Sub", "q"))), (X @ before["wq"] + before["b"]).clip(0, 0.5), atol=1e-5
    )


def test_an_upper_bound_is_lost_and_other_weights_are_of_the_same_size(model):
    assert run(model).max() == 0.5
    unbounded = run(changed(model, injection("relu6-unbounded", "Clip", "biased")))
    assert unbounded.min() == 0
    assert unbounded.max() > 0.5
    other = changed(model, injection("other-checkpoint", "MatMul", "wk"))
    assert weights(other)["wk"].tobytes() == weights(model)["wk"].tobytes()
    (fresh,) = [array for name, array in weights(other).items() if name not in weights(model)]
    assert fresh.std() == pytest.approx(weights(model)["wk"].std(), rel=0.8)
    assert other.graph.node[1].input[1] != "wk"


def test_a_fault_of_the_runtime_leaves_the_file_alone_and_one_that_cannot_be_is_refused(model):
    untouched = changed(model, injection("weight-f16", "MatMul", "wk", blame="runtime"))
    assert untouched.SerializeToString() == model.SerializeToString()
    with pytest.raises(UsageError, match="cannot have it"):
        changed(model, injection("pads-shifted", "MatMul", "wk"))


def test_gates_come_in_the_order_of_torch():
    lstm = with_weights(RECURRENT.replace("OPERATOR", "LSTM <hidden_size = 2>"), w=(1, 8, 4), r=(1, 8, 2), b=(1, 16))
    swapped = changed(lstm, injection("gates-of-torch", "LSTM", "w"))
    of_torch = weights(swapped)[swapped.graph.node[0].input[1]]
    i, o, f, c = np.split(weights(lstm)["w"], 4, axis=1)
    np.testing.assert_array_equal(of_torch, np.concatenate([i, f, c, o], axis=1))
    assert weights(swapped)[swapped.graph.node[0].input[3]].shape == (1, 16)


def test_a_gru_resets_on_the_other_side():
    gru = with_weights(
        RECURRENT.replace("OPERATOR", "GRU <hidden_size = 2, linear_before_reset = 1>"),
        w=(1, 6, 4),
        r=(1, 6, 2),
        b=(1, 12),
    )
    x = np.random.default_rng(3).standard_normal((3, 2, 4)).astype(np.float32)
    assert not np.allclose(run(gru, x), run(changed(gru, injection("reset-before", "GRU", "w")), x))


def column(name="torch", *, fault=None, failure=""):
    tensor = TensorCheck(node="n", op_type="Add", tensor="t", shape=(1,), ratio=0.5, error=0, bound=1)
    level = LevelCheck(name="", sample=0, marks="all", tensors=[tensor], failure=failure)
    status = "explained" if fault is None else "not explained"
    output = OutputCheck(name="y", sample=0, shape=(1,), spreads=2.0)
    return RuntimeCheck(name=name, status=status, outputs=[output], levels=[level], fault=fault)


def result(*columns, matched=True):
    match = LayerMatch(layer="fc", kind="Linear", tensor="t", node="n", trained=0, permutation=(), by="value")
    trained = TrainedCheck(
        source="m:f", framework="torch", matches=[match] if matched else [], unmatched=[Unmatched("act", "ReLU", "?")]
    )
    return CheckResult(model="m", sha256="", opset=17, nodes=1, runtimes=list(columns), trained=[trained])


def fault_at(layer, blame="exporter"):
    return ModelFault(blame=blame, node="n", op_type="Add", sample=0, layer=layer)


@pytest.fixture
def answer(monkeypatch):
    """Have every check give these exports."""

    def give(*exports, seconds=1.0, peak=1):
        usage = Usage(seconds, seconds, peak)
        monkeypatch.setattr(
            architectures, "checked", lambda *_, **__: architectures.Checked(exports, usage, "error: words")
        )

    return give


def rows(refused=()):
    return list(architectures.healthy_rows("net", "m:net", 90.0, refused))


def test_a_line_for_each_export_and_an_exporter_may_be_known_to_refuse(answer):
    answer(
        ExportCheck(exporter="torch-dynamo", result=result(column(), column("ort-cpu"))),
        ExportCheck(exporter="torch-torchscript", failure="no such operator"),
    )
    explained, refused = rows(["torch-torchscript"])
    assert explained.cells == ("net", "torch-dynamo", "explained", "1 of 2", "2", "0.5", "1.0 (1.0)", "0")
    assert refused.cells[:3] == ("net", "torch-torchscript", "refused: no such operator")
    assert len(refused.cells) == len(explained.cells) == len(architectures.HEALTHY)
    assert [row.failure for row in (explained, refused)] == ["", ""]
    assert [row.failure for row in rows()] == ["", "torch-torchscript failed: no such operator"]


def test_what_is_told_of_a_healthy_model_and_limits_that_are_passed_fail(answer):
    answer(
        ExportCheck(exporter="tf2onnx", result=result(column(fault=fault_at("fc"), failure="died"), matched=False)),
        seconds=91.0,
        peak=9 << 30,
    )
    (row,) = rows()
    for words in ("91 s are more than 90", "9.0 GiB", "(exporter at fc, n)", "died", "no layer was matched"):
        assert words in row.failure
    answer()
    assert [row.failure for row in rows()] == ["error: words"]


@pytest.fixture
def stored(tmp_path, model):
    """The export of an architecture, as if it were there."""
    onnx.save(model, tmp_path / "lstm.torch-dynamo.evaluation.onnx")
    return tmp_path


def told(folder, **changes):
    fault = injection("other-checkpoint", "MatMul", "wk", architecture="lstm")
    return architectures.injected_row(fault._replace(**changes), folder)


def test_a_fault_must_be_told_at_its_layer_with_its_blame_alone(answer, stored):
    answer(ExportCheck(result=result(column(fault=fault_at("layer")), column("ort-cpu"))))
    row = told(stored)
    assert row.failure == ""
    assert row.cells[:5] == ("lstm", "other-checkpoint", "layer", "exporter", "layer")
    assert told(stored, layers=("",)).failure == "told at layer (node n)"
    assert told(stored, layers=("lay",)).failure == "told at layer (node n)"
    assert told(stored, blame="framework").failure == "blamed on exporter"
    answer(ExportCheck(result=result(column(fault=fault_at("pool:mean")), column(fault=fault_at("", "runtime")))))
    assert told(stored, layers=("pool",)).failure == "blamed on exporter, runtime"
    answer(ExportCheck(result=result(column())))
    assert told(stored).failure.startswith("not found: torch explained")
    answer()
    assert told(stored).failure == "error: words"


def test_an_edit_that_fits_nowhere_fails(answer, stored):
    assert "no Gemm at wk" in told(stored, operator="Gemm").failure


def test_nothing_of_a_wheel_is_written_outside(tmp_path):
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{architecture_models.PITCH}/nmp.onnx", "model")
        archive.writestr("basic_pitch/code.py", "code")
    architecture_models._unpack(path, tmp_path / "there")
    assert [each.name for each in (tmp_path / "there").rglob("*") if each.is_file()] == ["nmp.onnx"]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{architecture_models.PITCH}/../../../../evil.onnx", "model")
    with pytest.raises(click.ClickException, match="outside"):
        architecture_models._unpack(path, tmp_path / "there")


def test_both_tables_are_written_and_a_failure_ends_with_1(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "fetched", lambda folder: folder)
    answer(ExportCheck(exporter="torch-dynamo", result=result(column())))
    into = tmp_path / "page.md"
    words = ["--folder", str(tmp_path), "--into", str(into), "--only", "lstm", "--no-faults"]
    done = CliRunner().invoke(architectures.main, words)
    assert done.exit_code == 0, done.output
    assert "1 exports; 0 of 0 faults told; 0 failures" in done.output
    assert "| lstm | torch-dynamo | explained |" in into.read_text(encoding="utf-8")
    assert "What failed" not in into.read_text(encoding="utf-8")
    answer()
    assert CliRunner().invoke(architectures.main, words).exit_code == 1
    assert "- lstm, : error: words" in into.read_text(encoding="utf-8")


def test_statistics_gains_and_biases_are_not_those_of_a_fresh_layer():
    from benchmarks.torch_architectures import resnet

    module, (example,) = resnet()
    norm = module.layer2[1].bn1
    assert not module.training
    for values, fresh in ((norm.running_mean, 0), (norm.running_var, 1), (norm.weight, 1), (norm.bias, 0)):
        assert float((values - fresh).detach().abs().min()) > 0
    assert norm.momentum == 0.1
    again, _ = resnet()
    np.testing.assert_array_equal(module(example).detach(), again(example).detach())


@pytest.mark.end_to_end
def test_a_small_architecture_is_explained_in_all_its_exports():
    pooled = next(each for each in ARCHITECTURES if each.name == "pooled")
    lines = list(architectures.healthy_rows("pooled", pooled.source, np.inf, ()))
    assert [row.cells[1] for row in lines] == ["torch-dynamo", "torch-torchscript"]
    assert [row.failure for row in lines] == ["", ""]


@pytest.mark.end_to_end
@pytest.mark.parametrize("name", ["gates-of-torch", "length-baked", "norm-in-training"])
def test_a_fault_of_an_export_is_told_at_its_layer(name, tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "SECONDS", np.inf)
    row = architectures.injected_row(next(each for each in INJECTIONS if each.name == name), tmp_path)
    assert row.failure == ""
